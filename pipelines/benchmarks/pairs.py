"""Pairs of photographs whose relation is known, from the field's usual folders.

A folder tells by what is in it what it is: sequences of planes in the manner of
HPatches (H_1_2 or H1to2p), fixed cameras by day and by night (day_*, night_*), cameras
of Strecha's multi-view stereo benchmark, or the calibration of the Image Matching
Challenge's phototourism scenes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path

import cv2
import numpy as np

from pipelines.benchmarks.strecha import fit_camera, read_calibrated
from pipelines.protocols.phototourism import read_calibrations
from pipelines.protocols.two_view import relate
from sfm_features.errors import InputError
from sfm_features.images import decode, resize_to
from sfm_features.photo_files import list_images
from sfm_features.types import F64, U8, Camera, Pose

PLANE_SIDE_PX = 640
POSE_SIDE_PX = 1024
_PAIRS_PER_CAMERA = 10
_MOST_SHIFT = 0.12
"""How far a corner of a fixed camera's night is moved, as a share of its sides."""
_PAIRS_PER_SCENE = 25
_ANGLES_DEG = (10.0, 60.0)
"""Rotation between views of a pair that is neither too easy nor hopeless."""


@dataclass(frozen=True)
class PlanePair:
    """Two photos (H, W, 3) of a plane, or from one place, and b_from_a (3, 3)."""

    a: U8
    b: U8
    b_from_a: F64


@dataclass(frozen=True)
class PosePair:
    """Two photos (H, W, 3), their cameras, and how they stand to each other."""

    a: U8
    b: U8
    cameras: tuple[Camera, Camera]
    b_from_a: Pose


def list_pairs(
    folder: Path, draws: int = 1
) -> Iterator[PlanePair] | Iterator[PosePair]:
    """List the pairs of a folder, whatever kind it is of.

    Frames of fixed cameras are paired and warped anew with each of the `draws`.
    """
    if (folder / "gt_dense_cameras").is_dir():
        return _pair_views(_read_strecha(folder), angles=True)
    if list(folder.glob("calibration/*.h5")):
        return _pair_views(_read_phototourism(folder), angles=False)
    if list(folder.glob("*/day_*")):
        return _list_webcams(folder, draws)
    if list(folder.glob("*/H*1*2*")):
        return _list_planes(folder)
    raise InputError(
        f"{folder}: has neither homographies, nor day_* and night_* frames, nor "
        "gt_dense_cameras, nor calibration; give a folder with one of them"
    )


def name_headline(folder: Path) -> str:
    """Name the figure by which extractors are compared on a folder of some kind."""
    if (folder / "gt_dense_cameras").is_dir():
        return "AUC@5"
    if list(folder.glob("calibration/*.h5")):
        return "AUC@10"
    return "MHA@3" if list(folder.glob("*/day_*")) else "AUC@5"


def list_sequences(folder: Path) -> Iterator[tuple[Path, Path, F64]]:
    """List image 1, image k and k_from_1 of sequences in the manner of HPatches."""
    for sequence in sorted(p for p in folder.iterdir() if p.is_dir()):
        images = {
            Path(name).stem[-1]: sequence / name for name in list_images(sequence)
        }
        for k in "23456":
            names = (f"H_1_{k}", f"H1to{k}p")
            truth = next((sequence / n for n in names if (sequence / n).exists()), None)
            if truth is None or "1" not in images or k not in images:
                raise InputError(
                    f"{sequence}: lacks image 1, image {k} or H_1_{k}; give folders "
                    "with six images and five homographies each"
                )
            numbers = truth.read_text(encoding="utf-8").split()[:9]
            yield images["1"], images[k], np.array(numbers, np.float64).reshape(3, 3)


def _list_planes(folder: Path) -> Iterator[PlanePair]:
    for first, second, b_from_a in list_sequences(folder):
        (a, shrink_a), (b, shrink_b) = (
            _read(path, PLANE_SIDE_PX) for path in (first, second)
        )
        yield PlanePair(a, b, shrink_b @ b_from_a @ np.linalg.inv(shrink_a))


def _list_webcams(folder: Path, draws: int) -> Iterator[PlanePair]:
    """Pair frames by day and by night; the night is warped, as nothing moves."""
    cameras = sorted(p for p in folder.iterdir() if p.is_dir())
    for draw, camera in product(range(draws), cameras):
        days, nights = sorted(camera.glob("day_*")), sorted(camera.glob("night_*"))
        if not days or not nights:
            raise InputError(f"{camera}: needs frames called day_* and night_*")
        rng = np.random.default_rng(7 + 1000 * draw)
        for i in range(_PAIRS_PER_CAMERA):
            day, _ = _read(days[(i + draw) % len(days)], PLANE_SIDE_PX)
            night, _ = _read(nights[(3 * i + draw) % len(nights)], PLANE_SIDE_PX)
            height, width = day.shape[:2]
            night = np.asarray(cv2.resize(night, (width, height)), np.uint8)
            corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * [width, height]
            shift = rng.uniform(-_MOST_SHIFT, _MOST_SHIFT, (4, 2)) * [width, height]
            warp = cv2.getPerspectiveTransform(
                corners.astype(np.float32), (corners + shift).astype(np.float32)
            )
            warped = cv2.warpPerspective(night, warp, (width, height))
            yield PlanePair(day, np.asarray(warped, np.uint8), np.asarray(warp))


def _read(path: Path, side: int) -> tuple[U8, F64]:
    """Read a photo and shrink it; also return small_from_large (3, 3)."""
    rgb = decode(path).rgb
    small = resize_to(rgb, side)
    scale = np.divide(small.shape[1::-1], rgb.shape[1::-1])
    shrink = np.diag([*scale, 1.0])
    shrink[:2, 2] = 0.5 * scale - 0.5
    return small, shrink


@dataclass(frozen=True)
class _View:
    path: Path
    calibration: F64
    width: int
    cam_from_world: Pose


def _read_strecha(folder: Path) -> list[_View]:
    return [
        _View(folder / "images" / name, calibration, width, pose)
        for name, (calibration, width, pose) in sorted(
            read_calibrated(folder / "gt_dense_cameras").items()
        )
    ]


def _read_phototourism(folder: Path) -> list[_View]:
    return [
        _View(path, k, decode(path).size[0], pose)
        for name, (k, pose) in read_calibrations(folder).items()
        for path in [folder / "images" / name]
    ]


def _pair_views(views: list[_View], angles: bool) -> Iterator[PosePair]:
    pairs = list(combinations(views, 2))
    if angles:
        low, high = _ANGLES_DEG
        pairs = [pair for pair in pairs if low <= _angle_deg(*pair) <= high]
        chosen = np.linspace(0, len(pairs) - 1, _PAIRS_PER_SCENE).astype(int)
        pairs = [pairs[i] for i in np.unique(chosen)] if pairs else []
    used = {view.path: view for pair in pairs for view in pair}
    # Each once: a scene of a hundred photos has thousands of pairs.
    shrunk = {path: _shrink(view) for path, view in used.items()}
    for first, second in pairs:
        (a, camera_a), (b, camera_b) = shrunk[first.path], shrunk[second.path]
        pose = relate(first.cam_from_world, second.cam_from_world)
        yield PosePair(a, b, (camera_a, camera_b), pose)


def _angle_deg(a: _View, b: _View) -> float:
    turn = a.cam_from_world.rotation @ b.cam_from_world.rotation.T
    return float(np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))))


def _shrink(view: _View) -> tuple[U8, Camera]:
    rgb = resize_to(decode(view.path).rgb, POSE_SIDE_PX)
    height, width = rgb.shape[:2]
    return rgb, fit_camera(view.calibration, view.width, (width, height))
