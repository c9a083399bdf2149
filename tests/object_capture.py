"""A thing in a room, photographed from around it, and a model as COLMAP would make."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from samples import write_image

from sfm_features.geometry import project, unproject
from sfm_features.scenes.backdrops import list_backdrop
from sfm_features.scenes.capture import Light, Picture, Shot, aim_camera, render_solids
from sfm_features.scenes.solids import Box, Skin
from sfm_features.scenes.turntable import build_turntable
from sfm_features.types import F64, Bool, Model, RegisteredImage

SIZE = (320, 240)
TABLE = 2
_SAMPLES = 300
_NOISE_PX, _NOISE, _WILD_SHARE = 0.5, 0.01, 0.03


@dataclass(frozen=True)
class Capture:
    """Pictures by name, and the model of what they show."""

    pictures: dict[str, Picture]
    model: Model

    def find_room(self, name: str) -> Bool:
        """Tell where the room is seen, which is neither the thing nor its table."""
        return np.asarray(self.pictures[name].tags == 0)

    def write_photos(self, folder: Path) -> Path:
        for name, picture in self.pictures.items():
            write_image(folder / name, picture.rgb)
        return folder


def make_capture(count: int = 10, room: bool = True) -> Capture:
    """Photograph a thing from an arc of 120 degrees; without a room it is all there is.

    Points come from true depth, seen by three views or more. They are a hundredth off
    in depth, and three in a hundred are anywhere.
    """
    high = np.array([0.2, 0.2, 0.36])
    plain = Skin(np.full((8, 8, 3), 120, np.uint8))
    things = [*build_turntable(3).thing]
    if room:
        things.append(Box(high * (0, 0, 1), np.eye(3), high, plain, TABLE))
        things += list_backdrop(np.random.default_rng(5), "busy", 1.6, 3.5, 0.5)
    middle = np.array([0, 0, 0.85])
    light = Light(np.array([-0.3, -0.56, 0.77]))
    shots = []
    for angle in np.radians(np.linspace(-60, 60, count)):
        centre = middle + (np.sin(angle), -np.cos(angle), 0.4 + 0.1 * np.cos(9 * angle))
        shots.append(Shot(*aim_camera(SIZE, 1.1 * SIZE[0], centre, middle), light, 1))
    pictures = {f"{i}.png": render_solids(things, s) for i, s in enumerate(shots)}
    return Capture(pictures, _make_model(shots, pictures))


def _make_model(shots: list[Shot], pictures: dict[str, Picture]) -> Model:
    rng = np.random.default_rng(7)
    seen = list(pictures.values())
    sampled = [
        _lift(shot, picture.depth, rng)
        for shot, picture in zip(shots, seen, strict=True)
    ]
    points = np.concatenate([points for points, _ in sampled])
    views = [
        _look(shot, picture.depth, points)
        for shot, picture in zip(shots, seen, strict=True)
    ]
    lengths = np.sum([visible for _, visible in views], axis=0)
    keep = lengths >= 3
    row = np.cumsum(keep) - 1
    colours = np.zeros((len(points), 3), np.uint8)
    images = {}
    for name, shot, (xy, visible) in zip(pictures, shots, views, strict=True):
        chosen = np.flatnonzero(visible & keep)
        column, line = np.rint(xy[chosen]).astype(int).T
        colours[chosen] = pictures[name].rgb[line, column]
        noisy = xy[chosen] + rng.normal(0, _NOISE_PX, (len(chosen), 2))
        lonely = rng.uniform((0, 0), SIZE, (50, 2))
        images[name] = RegisteredImage(
            name,
            shot.camera,
            shot.cam_from_world,
            np.vstack([noisy, lonely]).astype(np.float32),
            np.append(row[chosen], np.full(50, -1)),
        )
    moved = points[keep] * (1 + rng.normal(0, _NOISE, (keep.sum(), 1)))
    wild = rng.random(keep.sum()) < _WILD_SHARE
    moved[wild] = rng.uniform(-2, 2, (wild.sum(), 3))
    errors = np.full(keep.sum(), 0.5)
    return Model(images, moved, colours[keep], errors, lengths[keep])


def _lift(shot: Shot, depth: np.ndarray, rng: np.random.Generator) -> tuple[F64, F64]:
    """Return points (N, 3) at random pixels (N, 2)."""
    xy = rng.integers((0, 0), SIZE, (_SAMPLES, 2)).astype(np.float64)
    z = depth[xy[:, 1].astype(int), xy[:, 0].astype(int)]
    xy, z = xy[np.isfinite(z)], z[np.isfinite(z)]
    pose = shot.cam_from_world
    local = unproject(shot.camera, xy) * z[:, None]
    return (local - pose.translation) @ pose.rotation, xy


def _look(shot: Shot, depth: np.ndarray, points: F64) -> tuple[F64, Bool]:
    """Return the pixels (N, 2) of points, and whether nothing hides them."""
    pose = shot.cam_from_world
    local = points @ pose.rotation.T + pose.translation
    xy = np.nan_to_num(project(shot.camera, local), nan=-9)
    column, row = np.rint(xy).astype(int).T
    inside = (column >= 0) & (row >= 0) & (column < SIZE[0]) & (row < SIZE[1])
    there = depth[row.clip(0, SIZE[1] - 1), column.clip(0, SIZE[0] - 1)]
    return xy, np.asarray(inside & (np.abs(there / local[:, 2] - 1) < 0.01))
