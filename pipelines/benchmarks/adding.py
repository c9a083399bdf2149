"""Adding views of the town to a map of it, whose true poses must not move."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from pipelines.benchmarks.results import Check, Result, Row
from sfm_features.colmap import read_model, write_poses
from sfm_features.extract import ExtractOptions
from sfm_features.geometry import rotation_angle_deg
from sfm_features.map_add import add_to_map
from sfm_features.queries import AddOptions
from sfm_features.scenes import Truth, read_truth
from sfm_features.triangulate import triangulate
from sfm_features.types import Model, Pose, RunOptions

RIGHT = (0.005, 0.5)
VARIANTS = {
    "cameras of their own": AddOptions(),
    "--same-camera": AddOptions(same_camera=True),
    "--refine": AddOptions(refine=True),
}


def measure_adding(town: Path, output: Path, seed: int = 0) -> Result:
    """Add every third view to a map of the others; errors in shares of the diameter."""
    truth = read_truth(town)
    names = sorted(truth.poses)
    new = names[1::3]
    photos = output / "photos"
    shutil.rmtree(output, ignore_errors=True)
    photos.mkdir(parents=True)
    for name in new:
        shutil.copy(town / "images" / name, photos)
    poses = {name: truth.poses[name] for name in names if name not in new}
    write_poses(truth.cameras, poses, output / "poses")
    run = RunOptions(seed=seed, device="cpu")
    images = town / "images"
    triangulate(
        output / "poses", images, output / "map", extraction=ExtractOptions(), run=run
    )
    before = read_model(output / "map/sparse/0")
    rows: list[Row] = []
    wrong, moved, seconds = [], 0.0, {}
    for variant, options in VARIANTS.items():
        made = output / variant.strip("-").replace(" ", "-")
        summary = add_to_map(output / "map", photos, made, options, run=run)
        after = read_model(made / "sparse/0")
        errors = np.array([_measure(after, truth, name) for name in new])
        right = (errors <= RIGHT).all(axis=1)
        wrong.append(len(new) - int(right.sum()))
        shift = max(_shift(before, after, name) for name in poses)
        moved = moved if options.refine else max(moved, shift)
        rows.append(
            {
                "new images": f"{len(summary.added)} of {len(new)}, {variant}",
                "within 0.5 %, 0.5 deg": float(right.mean()),
                "median error, %": 100 * float(np.median(errors[:, 0])),
                "median error, deg": float(np.median(errors[:, 1])),
                "largest move of the old, %": 100 * shift / truth.diameter,
                "points": f"{len(before.points)} to {len(after.points)}",
            }
        )
        seconds[variant] = dict(summary.seconds)
    checks = [
        Check("new images not where they were taken", max(wrong), 0),
        Check("move of the old images without --refine", moved, 0),
    ]
    title = f"Adding {len(new)} views to a map of {len(poses)}"
    return Result(title, rows, checks, {"seconds": seconds})


def _measure(model: Model, truth: Truth, name: str) -> tuple[float, float]:
    if name not in model.images:
        return float("inf"), float("inf")
    pose, true = model.images[name].cam_from_world, truth.poses[name]
    off = float(np.linalg.norm(pose.centre - true.centre))
    return off / truth.diameter, rotation_angle_deg(pose.rotation @ true.rotation.T)


def _shift(before: Model, after: Model, name: str) -> float:
    """Return how far an image moved: 0 only if its pose is the same, bit by bit."""
    one, two = (model.images[name].cam_from_world for model in (before, after))
    if _is_same(one, two):
        return 0.0
    return max(float(np.linalg.norm(one.centre - two.centre)), 1e-12)


def _is_same(one: Pose, two: Pose) -> bool:
    return bool(
        (one.rotation == two.rotation).all()
        and (one.translation == two.translation).all()
    )
