"""A thing on a turntable: it turns, the camera and the busy room behind stand still.

What photogrammetry users suffer from: most of each picture says that nothing moved.
The poses are those of the camera as the thing sees it, which is what can be measured.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import cv2
import numpy as np
from tqdm import tqdm

from sfm_features.errors import OptionError, OutputError
from sfm_features.geometry import compose
from sfm_features.scenes.backdrops import list_backdrop
from sfm_features.scenes.capture import (
    Light,
    Picture,
    Shot,
    Still,
    add_noise,
    aim_camera,
    draw_still,
    render_solids,
)
from sfm_features.scenes.figures import encode_png
from sfm_features.scenes.materials import Rng
from sfm_features.scenes.piles import PILE_RADIUS_M, build_pile, measure_pile
from sfm_features.scenes.solids import Box, Capsule, Skin
from sfm_features.scenes.truth import check_settings, describe_views, write_whole
from sfm_features.scenes.views import View
from sfm_features.scenes.wraps import label_box, paint_plain, pick_common, wrap_round
from sfm_features.types import F64, Pose

logger = logging.getLogger(__name__)

Thing: TypeAlias = Literal["crate", "pile"]
"""A crate with four things on and beside it, always the same shapes; or any pile."""

_TABLE_M = 0.72
"""Height of the table that the thing turns on."""


@dataclass(frozen=True)
class Turntable:
    """A thing, what stands still around it, and the camera."""

    thing: Sequence[Box | Capsule]
    shot: Shot
    still: Still

    def photograph(self, turn: float, noise: int = 0) -> Picture:
        """Photograph the thing turned by so many radians."""
        turned = [_turn_thing(part, turn) for part in self.thing]
        picture = render_solids(turned, self.shot, self.still)
        rng = np.random.default_rng([noise, 43])
        return replace(picture, rgb=add_noise(picture.rgb, rng, sigma=1.5))

    def cam_from_thing(self, turn: float) -> Pose:
        """Return the camera's pose in the frame that turns with the thing."""
        world_from_thing = Pose(_rotate(turn), np.zeros(3))
        return compose(self.shot.cam_from_world, world_from_thing)


def build_turntable(
    seed: int = 0, size: tuple[int, int] = (640, 480), thing: Thing = "crate"
) -> Turntable:
    """Build the thing and the room of a seed, and aim the camera.

    The crate's camera and table are the same in all rooms but for the camera's height;
    with piles nearly everything varies.
    """
    build = {"crate": _build_with_crate, "pile": _build_with_pile}[thing]
    return build(seed, size)


def _build_with_crate(seed: int, size: tuple[int, int]) -> Turntable:
    rng = np.random.default_rng([seed, 41])
    stand = np.array([0.0, -0.9, _TABLE_M + float(rng.uniform(0.35, 0.5))])
    target = np.array([0.0, 0.0, _TABLE_M + 0.13])
    camera, pose = aim_camera(size, 1.15 * size[0], stand, target)
    shot = Shot(camera, pose, _light(np.array([-0.5, -0.9, 1.2]), 0.7, 0.5))
    plain = np.full((8, 8, 3), 120, np.uint8)
    half = np.array([0.24, 0.24, _TABLE_M / 2])
    table = Box(np.array([0, 0, _TABLE_M / 2]), np.eye(3), half, Skin(plain))
    room = list_backdrop(rng, "busy", 1.6, detail=3.5, spread=0.5)
    return Turntable(_build_crate(rng), shot, draw_still([*room, table], shot))


def _build_with_pile(seed: int, size: tuple[int, int]) -> Turntable:
    """Vary the pile, what it stands on, the room, the light and the camera."""
    rng = np.random.default_rng([seed, 47])
    thing, floor = [], _TABLE_M
    if rng.random() < 0.4:  # a plate that turns with what stands on it
        half = np.array([PILE_RADIUS_M, PILE_RADIUS_M, float(rng.uniform(0.005, 0.02))])
        skin = paint_plain(rng) if rng.random() < 0.25 else label_box(rng, half)
        thing.append(Box(np.array([0, 0, floor + half[2]]), np.eye(3), half, skin, 1))
        floor += 2 * float(half[2])
    pile = build_pile(rng, floor, 1)
    shot = _aim_at_pile(rng, size, *measure_pile(pile, _TABLE_M))
    half = np.array([*rng.uniform(0.24, 0.42, 2), _TABLE_M / 2])
    skin = paint_plain(rng) if rng.random() < 0.4 else pick_common(rng, (200, 500))
    table = Box(np.array([0, 0, _TABLE_M / 2]), np.eye(3), half, skin)
    distance, detail = float(rng.uniform(1.3, 2.4)), float(rng.uniform(2, 4.5))
    room = list_backdrop(rng, "busy", distance, detail, float(rng.uniform(0.4, 0.8)))
    return Turntable([*thing, *pile], shot, draw_still([*room, table], shot))


def _aim_at_pile(rng: Rng, size: tuple[int, int], radius: float, height: float) -> Shot:
    """Aim a camera so that a whole pile fills a good part of the picture."""
    focal = float(rng.uniform(0.9, 1.8)) * size[0]
    fill = rng.uniform(0.65, 1.1) * np.array(size)
    away = radius + focal * max(2 * radius / fill[0], height / fill[1])
    rise = rng.uniform(0.2, 0.75)
    target = np.array([rng.uniform(-0.02, 0.02), 0.0, _TABLE_M + 0.45 * height])
    stand = target + away * np.array([0, -np.cos(rise), np.sin(rise)])
    camera, pose = aim_camera(size, focal, stand, target)
    towards = np.array([*rng.uniform((-1, -1.2), (1, -0.3)), rng.uniform(0.6, 1.5)])
    sun, sky = rng.uniform((0.4, 0.35), (0.8, 0.6)).tolist()
    return Shot(camera, pose, _light(towards, sun, sky))


def _light(towards: F64, sun: float, sky: float) -> Light:
    return Light(towards / np.linalg.norm(towards), sun, sky)


def render_turntable(
    output: Path,
    count: int = 36,
    seed: int = 0,
    size: tuple[int, int] = (640, 480),
    thing: Thing = "crate",
) -> list[View]:
    """Render a full turn into output/images, depth, masks and truth.json.

    What is there is kept, so a stopped run goes on; other settings are refused.
    """
    if count < 2:
        raise OptionError(f"count is {count}; a turn needs at least 2 views")
    table = build_turntable(seed, size, thing)
    turns = [2 * np.pi * i / count for i in range(count)]
    camera = table.shot.camera
    views = [
        View(f"view{i:04d}.jpg", camera, table.cam_from_thing(turn))
        for i, turn in enumerate(turns)
    ]
    scene = {"crate": "turntable", "pile": "turntable with a pile"}[thing]
    settings: dict[str, Any] = {"scene": scene, "count": count, "seed": seed}
    path = output / "truth.json"
    truth = describe_views(views, settings | {"size": list(size)})
    check_settings(path, truth)
    try:
        write_whole(path, truth.encode())
        for i, view in enumerate(tqdm(views, "rendering", unit="view")):
            if not (output / "images" / view.name).exists():
                _save(output, view.name, table.photograph(turns[i], 1000 * seed + i))
    except OSError as error:
        raise OutputError(
            f"{output}: cannot write the turntable ({error}); free space or choose "
            "another folder"
        ) from error
    logger.info("%d views of the turntable in %s", count, output)
    return views


def _save(output: Path, name: str, picture: Picture) -> None:
    """Write a photograph last, so that it tells that depth and mask are done."""
    millimetres = np.where(np.isfinite(picture.depth), 1000 * picture.depth, 0)
    depth = encode_png(millimetres.clip(0, 65535).astype(np.uint16))
    mask = encode_png((picture.tags > 0).astype(np.uint8) * np.uint8(255))
    quality = [cv2.IMWRITE_JPEG_QUALITY, 95]
    done, data = cv2.imencode(".jpg", picture.rgb[..., ::-1], quality)
    assert done
    write_whole(output / "depth" / f"{name}.png", depth)
    write_whole(output / "masks" / f"{name}.png", mask)
    write_whole(output / "images" / name, data.tobytes())


def _build_crate(rng: Rng) -> list[Box | Capsule]:
    """Pile up a labelled crate, a parcel, a bottle and a ball, all full of detail."""
    floor = _TABLE_M
    crate_half = np.array([0.13, 0.09, 0.075])
    crate = Box(
        np.array([0, 0, floor + crate_half[2]]), _axes(0.3), crate_half,
        label_box(rng, crate_half), 1,
    )  # fmt: skip
    top = floor + 2 * crate_half[2]
    parcel_half = np.array([0.055, 0.04, 0.045])
    parcel = Box(
        np.array([-0.05, 0.02, top + parcel_half[2]]), _axes(-0.5), parcel_half,
        label_box(rng, parcel_half), 1,
    )  # fmt: skip
    foot = np.array([0.075, -0.02, top + 0.035])
    bottle = Capsule(foot, foot + (0, 0, 0.1), 0.035, wrap_round(rng, 0.035, 0.1), 1)
    middle = np.array([0.17, 0.1, floor + 0.05])
    ball = Capsule(middle, middle, 0.05, wrap_round(rng, 0.05, 0.0), 1)
    low = np.array([-0.19, -0.09, floor + 0.03])
    roll = Capsule(low, low + (0.06, 0.12, 0), 0.03, wrap_round(rng, 0.03, 0.14), 1)
    return [crate, parcel, bottle, ball, roll]


def _turn_thing(part: Box | Capsule, turn: float) -> Box | Capsule:
    rotation = _rotate(turn)
    if isinstance(part, Box):
        axes = part.axes @ rotation.T
        return replace(part, centre=rotation @ part.centre, axes=axes)
    x, y, z = (rotation @ part.front).tolist()
    start, end = rotation @ part.start, rotation @ part.end
    return replace(part, start=start, end=end, front=(x, y, z))


def _axes(radians: float) -> F64:
    return np.asarray(_rotate(radians).T, np.float64)


def _rotate(radians: float) -> F64:
    """Return the rotation (3, 3) about the vertical through the origin."""
    cos, sin = np.cos(radians), np.sin(radians)
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
