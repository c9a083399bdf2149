"""What `agreeing` brings: false pairs, wrong points and time, with and without it.

Views of a rendered town and of a rendered room lie in one folder. How far each pixel of
the town is from what it shows is known, so points can be told right from wrong.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from pipelines.benchmarks.results import Cell, Check, Result
from sfm_features.colmap import MapperOptions, list_models, read_model, read_verified
from sfm_features.match import MatchOptions
from sfm_features.metrics import align_poses, model_errors
from sfm_features.reconstruct import ReconstructOptions, reconstruct
from sfm_features.scenes import read_truth, render_town
from sfm_features.scenes.truth import Truth
from sfm_features.scenes.turntable import render_turntable
from sfm_features.types import F32, F64, Bool, Model, RunOptions
from sfm_features.workspace import Workspace

VIEWS, OTHERS = 30, 8
_CLOSE = 0.02
"""Of its distance: how far off a point that is right may be."""
_REACH_PX = 2  # a keypoint on a rim may be of what is before it, or behind
_WAYS = (
    ("nearest", False),
    ("nearest", True),
    ("agreeing", False),
    ("agreeing", True),
)


def measure_agreeing(output: Path, seed: int = 0) -> Result:
    """Reconstruct town and room at once, by either matcher, and judge the town."""
    town, room = output / f"town-depth-{seed}", output / f"room-{seed}"
    render_town(town, VIEWS, seed=seed, depth=True)
    render_turntable(room, OTHERS, seed=seed)
    photos = output / "two-places"
    for name, place in (("a", town), ("b", room)):
        shutil.copytree(place / "images", photos / name, dirs_exist_ok=True)
    rows = [_make_row(output, photos, town, *way, seed) for way in _WAYS]
    by = {(row["matches"], row["points of two views"]): row for row in rows}
    before, after = by["nearest", "left out"], by["agreeing", "kept"]
    checks = [
        Check(f"{what}, agreeing over nearest", _over(after, before, column), 1.0)
        for what, column in (
            ("false pairs", "false pairs verified"),
            ("wrong points", "wrong"),
            ("seconds to match, verify and map", "seconds"),
        )
    ]
    checks.append(
        Check("right points, nearest over agreeing", _over(before, after, "right"), 1.0)
    )
    return Result("Matches that agree", rows, checks)


def _over(one: dict[str, Cell], other: dict[str, Cell], column: str) -> float:
    above, below = one[column], other[column]
    assert isinstance(above, int | float) and isinstance(below, int | float)
    return above / max(below, 1e-9)


def _make_row(
    output: Path, photos: Path, town: Path, matcher: str, two_views: bool, seed: int
) -> dict[str, Cell]:
    """Reconstruct from nothing and judge; polishing would blur what the mapper did."""
    folder = output / "agreeing" / f"{matcher}-{two_views}"
    shutil.rmtree(folder, ignore_errors=True)
    found = reconstruct(
        photos,
        folder,
        ReconstructOptions(polish=False, report=False, pairing="exhaustive"),
        matching=MatchOptions(matcher),
        mapping=MapperOptions(keep_two_view_tracks=two_views),
        run=RunOptions(seed=seed),
    )
    pairs = read_verified(Workspace(folder).database)
    model = read_model(list_models(folder / "sparse")[0])
    truth = read_truth(town)
    right, off_deg = _judge(model, truth, town / "depth")
    seconds = {stage: found.seconds[stage] for stage in ("match", "verify", "map")}
    return {
        "matches": matcher,
        "points of two views": "kept" if two_views else "left out",
        "pairs verified": sum(a[0] == b[0] for a, b in pairs),
        "false pairs verified": sum(a[0] != b[0] for a, b in pairs),
        "registered": f"{sum(name[0] == 'a' for name in model.images)} of {VIEWS}",
        "of the room": sum(name[0] == "b" for name in model.images),
        "rotation error, deg": off_deg,
        "points": len(right),
        "right": int(right.sum()),
        "wrong": int((~right).sum()),
        "track length": model.mean_track_length,
        **{f"seconds to {stage}": value for stage, value in seconds.items()},
        "seconds": sum(seconds.values()),
    }


def _judge(model: Model, truth: Truth, depths: Path) -> tuple[Bool, float]:
    """Tell which points are where most views of them show something; and poses' error.

    Both frames are aligned by the cameras' centres.
    """
    poses = {f"a/{name}": pose for name, pose in truth.poses.items()}
    own = {
        name: image.cam_from_world
        for name, image in model.images.items()
        if name in poses
    }
    true = [poses[name] for name in own]
    placed = align_poses(list(own.values()), true).apply(model.points)
    offs: list[list[float]] = [[] for _ in placed]
    for name in own:
        image, pose = model.images[name], poses[name]
        seen = np.flatnonzero(image.point_ids >= 0)
        rows = image.point_ids[seen]
        distance = (placed[rows] @ pose.rotation.T + pose.translation)[:, 2]
        depth = np.load(depths / f"{name.removeprefix('a/')}.npy")
        for row, off in zip(
            rows, _compare(depth, image.keypoints[seen], distance), strict=True
        ):
            offs[row].append(off)
    right = np.array([bool(off) and np.median(off) < _CLOSE for off in offs], np.bool_)
    return right, model_errors(own, poses).median_rotation_error_deg


def _compare(depth: F32, xy: F32, distance: F64) -> F64:
    """Return how far off distances are from what is shown there, or just beside it."""
    height, width = depth.shape
    column, row = np.round(xy).astype(int).T
    least = np.full(len(xy), np.inf)
    for dy in range(-_REACH_PX, _REACH_PX + 1):
        for dx in range(-_REACH_PX, _REACH_PX + 1):
            y, x = (row + dy).clip(0, height - 1), (column + dx).clip(0, width - 1)
            least = np.minimum(least, np.abs(distance / depth[y, x] - 1))
    return least
