"""A jointed figure in textured clothes, with its joints, depth and mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sfm_features.geometry import project
from sfm_features.scenes.backdrops import (
    Backdrop,
    list_backdrop,
    paint_cloth,
    to_u8,
)
from sfm_features.scenes.capture import (
    Light,
    Shot,
    add_noise,
    aim_camera,
    render_solids,
)
from sfm_features.scenes.materials import Rng, make_noise, tint
from sfm_features.scenes.solids import Box, Capsule, Skin
from sfm_features.types import F32, F64, U8, Bool

JOINTS = (
    *("head", "neck", "pelvis"),
    *("left shoulder", "left elbow", "left wrist"),
    *("right shoulder", "right elbow", "right wrist"),
    *("left hip", "left knee", "left ankle"),
    *("right hip", "right knee", "right ankle"),
)
MIRRORED = ((3, 6), (4, 7), (5, 8), (9, 12), (10, 13), (11, 14))
"""Joints of the left and the right side that a mirror exchanges."""

_PEOPLE = 6
_SHIRT, _TROUSERS, _FLESH, _HAIR, _SHOES = range(5)
_LIMBS = (
    *((1, 2, 0.13, _SHIRT), (3, 6, 0.085, _SHIRT), (9, 12, 0.11, _TROUSERS)),
    *((3, 4, 0.055, _SHIRT), (4, 5, 0.045, _FLESH)),
    *((6, 7, 0.055, _SHIRT), (7, 8, 0.045, _FLESH)),
    *((9, 10, 0.08, _TROUSERS), (10, 11, 0.06, _TROUSERS)),
    *((12, 13, 0.08, _TROUSERS), (13, 14, 0.06, _TROUSERS)),
    (1, 0, 0.06, _FLESH),
)
"""From joint to joint: how thick, and what it wears."""


@dataclass(frozen=True)
class Figure:
    """A photograph of the figure: rgb (H, W, 3) u8, depth (H, W) f32 in metres.

    joints (15, 2) f32 are pixels in the order of JOINTS; mask (H, W) is the figure.
    """

    rgb: U8
    depth: F32
    mask: Bool
    joints: F32


def render_figure(
    seed: int, index: int, backdrop: Backdrop = "busy", size: int = 128
) -> Figure:
    """Photograph one pose; people, clothes, poses, views and rooms follow the seed."""
    rng = np.random.default_rng([seed, index, 31])
    clothes = _dress(seed, int(rng.integers(_PEOPLE)))
    joints = pose_figure(rng)
    centre = np.array([0, 0, 0.5 * (joints[:, 2].min() + joints[:, 2].max())])
    distance = float(rng.uniform(3.2, 3.9))
    side, rise = rng.normal(0, 0.22), rng.normal(0, 0.1)
    stand = np.array([distance * np.sin(side), -distance * np.cos(side), 1.3 + rise])
    target = centre + rng.normal(0, 0.12, 3)
    camera, pose = aim_camera((size, size), 1.45 * size, stand, target)
    things = [*list_backdrop(rng, backdrop), *_build_figure(joints, clothes)]
    picture = render_solids(things, Shot(camera, pose, _light(rng)))
    seen = joints @ pose.rotation.T + pose.translation
    return Figure(
        add_noise(picture.rgb, rng),
        picture.depth,
        picture.tags > 0,
        project(camera, seen).astype(np.float32),
    )


def pose_figure(rng: Rng) -> F64:
    """Draw a pose: joints (15, 3) in metres, the lower foot on the floor."""
    body = _rotate(2, rng.uniform(-1.2, 1.2)) @ _rotate(0, rng.normal(0, 0.12))
    body = body @ _rotate(1, rng.normal(0, 0.1))
    pelvis = np.zeros(3)
    neck = pelvis + body @ (0, 0, 0.54)
    tilt = body @ _rotate(0, rng.normal(0, 0.2)) @ _rotate(1, rng.normal(0, 0.2))
    joints = [neck + tilt @ (0, -0.02, 0.2), neck, pelvis]
    for side in (1, -1):
        shoulder = neck + body @ (0.18 * side, 0, -0.06)
        joints += [shoulder, *_swing_arm(rng, body, shoulder, side)]
    for side in (1, -1):
        hip = pelvis + body @ (0.1 * side, 0, -0.04)
        joints += [hip, *_swing_leg(rng, body, hip, side)]
    placed = np.array(joints)
    placed[:, 2] += 0.09 - placed[:, 2].min()
    return placed


def _swing_arm(rng: Rng, body: F64, shoulder: F64, side: int) -> tuple[F64, F64]:
    """Swing an arm: up to above the head, elbows bent forwards or up."""
    lift = side * np.deg2rad(rng.choice([rng.uniform(5, 40), rng.uniform(30, 150)]))
    upper = body @ _rotate(0, np.deg2rad(rng.uniform(-50, 25))) @ _rotate(1, -lift)
    elbow = shoulder + upper @ (0, 0, -0.29)
    bend = _rotate(0, -np.deg2rad(rng.uniform(0, 110)))
    twist = _rotate(2, side * np.deg2rad(rng.uniform(-70, 70)))
    return elbow, elbow + upper @ twist @ bend @ (0, 0, -0.27)


def _swing_leg(rng: Rng, body: F64, hip: F64, side: int) -> tuple[F64, F64]:
    """Swing a leg: steps and small kicks, the knee bent backwards."""
    lift = side * np.deg2rad(rng.uniform(0, 28))
    ahead = np.deg2rad(rng.normal(-8, 20))
    upper = body @ _rotate(0, ahead) @ _rotate(1, -lift)
    knee = hip + upper @ (0, 0, -0.42)
    bend = _rotate(0, np.deg2rad(abs(rng.normal(0, 28))))
    return knee, knee + upper @ bend @ (0, 0, -0.41)


def _build_figure(joints: F64, clothes: tuple[Skin, ...]) -> list[Box | Capsule]:
    things: list[Box | Capsule] = [
        Capsule(joints[a], joints[b], radius, clothes[worn], 1)
        for a, b, radius, worn in _LIMBS
    ]
    head, neck = joints[0], joints[1]
    up = (head - neck) / np.linalg.norm(head - neck)
    things.append(Capsule(head, head + 0.03 * up, 0.1, clothes[_FLESH], 1))
    things.append(Capsule(head + 0.06 * up, head + 0.06 * up, 0.095, clothes[_HAIR], 1))
    for wrist, elbow in ((5, 4), (8, 7)):
        reach = joints[wrist] + 0.3 * (joints[wrist] - joints[elbow])
        things.append(Capsule(joints[wrist], reach, 0.045, clothes[_FLESH], 1))
    ahead = np.cross(joints[3] - joints[6], up)
    ahead[2] = 0
    ahead /= np.linalg.norm(ahead)
    for ankle in (11, 14):
        toe = joints[ankle] + 0.15 * ahead - (0, 0, 0.03)
        things.append(Capsule(joints[ankle], toe, 0.055, clothes[_SHOES], 1))
    return things


def _dress(seed: int, person: int) -> tuple[Skin, ...]:
    """Choose the clothes of one of a few people."""
    rng = np.random.default_rng([seed, person, 37])
    flesh, hair, shoes = (
        to_u8(tint(tuple(colour), 1 + 0.1 * make_noise(rng, (64, 64), 12, 2)))
        for colour in (
            np.array([224.0, 176, 146]) * rng.uniform(0.5, 1.05),
            np.array([90.0, 64, 40]) * rng.uniform(0.3, 1.8),
            rng.uniform(20, 120, 3),
        )
    )
    cloth = [to_u8(paint_cloth(rng, (160, 160))) for _ in range(2)]
    return tuple(Skin(p, 90) for p in (*cloth, flesh, hair, shoes))


def _light(rng: Rng) -> Light:
    towards = np.array([rng.uniform(-0.8, 0.8), -1.0, rng.uniform(0.5, 1.4)])
    return Light(towards / np.linalg.norm(towards), float(rng.uniform(0.6, 1.1)))


def _rotate(axis: int, radians: float) -> F64:
    """Return the rotation (3, 3) about x, y or z."""
    cos, sin = np.cos(radians), np.sin(radians)
    turn = np.eye(3)
    a, b = (axis + 1) % 3, (axis + 2) % 3
    turn[a, a] = turn[b, b] = cos
    turn[a, b], turn[b, a] = -sin, sin
    return turn
