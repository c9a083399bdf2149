"""Localization where poses are known: in the rendered town, by day and by night, and in
a scene of Strecha's benchmark.

Some of the images are the map, triangulated with their true poses; the others are the
queries. In the town, every third view is a query, and so is the same view by night; of
photographs, every second one is.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

import numpy as np
from tqdm import tqdm

from pipelines.benchmarks.results import Cell, Check, Result, Row
from pipelines.benchmarks.strecha import read_scene
from sfm_features.colmap import write_poses
from sfm_features.geometry import rotation_angle_deg
from sfm_features.images import decode
from sfm_features.localizer import Localizer
from sfm_features.scenes import read_truth, render_town
from sfm_features.triangulate import triangulate
from sfm_features.types import F64, Camera, Localization, Pose, RunOptions

VIEWS = 90
DAY = (0.0025, 0.5)
NIGHT = (0.01, 2.0)
PHOTOS = (0.05, 0.2)
_SURE_INLIERS = 30
_STEPS = ("extract", "retrieve", "match", "second match", "pose", "second look")


@dataclass(frozen=True)
class _Scene:
    """A folder of images whose cameras and poses are known."""

    images: Path
    cameras: Mapping[str, Camera]
    poses: Mapping[str, Pose]


def measure_locating(output: Path, views: int = VIEWS, seed: int = 0) -> Result:
    """Localize in a map of the town; errors are shares of its diameter and degrees."""
    scenes: dict[str, _Scene] = {}
    for light in ("day", "night"):
        folder = output / f"town-{views}-{light}"
        render_town(folder, views, light, seed)
        truth = read_truth(folder)
        scenes[light] = _Scene(folder / "images", truth.cameras, truth.poses)
    names = sorted(truth.poses)
    queries = names[1::3]
    known = [name for name in names if name not in queries]
    localizer = _make_map(scenes["day"], known, output / "town-map", seed)
    rows: list[Row] = []
    checks: list[Check] = []
    wrong = 0
    for light, scene in scenes.items():
        found = _localize(localizer, scene, queries)
        errors = _measure(found, scene) / [truth.diameter, 1]
        good = {limit: (errors <= limit).all(axis=1) for limit in (DAY, NIGHT)}
        sure = [f.num_inliers > _SURE_INLIERS for f in found.values()]
        wrong += int((sure & np.isfinite(errors[:, 0]) & ~good[NIGHT]).sum())
        missed = 1 - float(good[DAY if light == "day" else NIGHT].mean())
        limit = {"day": 0.05, "night": 0.30}[light]
        over = _compare_times(found)
        checks += [
            Check(f"share of {light}s missed", missed, limit),
            Check(f"time over extraction and matching by {light}", over, 2.0),
        ]
        rows.append(
            {
                "queries": f"{len(queries)} by {light}",
                "localized": int(np.isfinite(errors[:, 0]).sum()),
                "within 0.25 %, 0.5 deg": float(good[DAY].mean()),
                "within 1 %, 2 deg": float(good[NIGHT].mean()),
                "median error, %": 100 * float(np.median(errors[:, 0])),
                "median error, deg": float(np.median(errors[:, 1])),
                **_sum_up(found),
            }
        )
    localizer.atlas.close()
    checks.append(Check(f"wrong poses with over {_SURE_INLIERS} inliers", wrong, 0))
    title = f"Localization: {len(known)} views of the town by day"
    return Result(title, rows, checks)


def measure_locating_photos(folder: Path, output: Path, seed: int = 0) -> Result:
    """Localize every second photo of a scene of Strecha's; errors are metres, degrees.

    With its true camera, and without any: then the focal length is found, too.
    """
    cameras, poses = read_scene(folder)
    scene = _Scene(folder / "images", cameras, poses)
    names = sorted(poses)
    localizer = _make_map(scene, names[::2], output / f"{folder.name}-map", seed)
    rows: list[Row] = []
    checks: list[Check] = []
    for what, is_known in (("true", True), ("unknown", False)):
        found = _localize(localizer, scene, names[1::2], is_known)
        errors = _measure(found, scene)
        off, turned = np.median(errors, axis=0)
        rows.append(
            {
                "camera": what,
                "queries": len(found),
                "localized": int(np.isfinite(errors[:, 0]).sum()),
                "median error, cm": 100 * float(off),
                "median error, deg": float(turned),
                "largest error, cm": 100 * float(errors[:, 0].max()),
                **_sum_up(found),
            }
        )
        if is_known:
            checks = [
                Check("median error, m", float(off), PHOTOS[0]),
                Check("median error, deg", float(turned), PHOTOS[1]),
            ]
    localizer.atlas.close()
    title = f"Localization: {len(names[::2])} photographs of {folder.name}"
    return Result(title, rows, checks)


def _make_map(
    scene: _Scene, names: Sequence[str], output: Path, seed: int
) -> Localizer:
    """Triangulate some images with their true poses, anew."""
    shutil.rmtree(output, ignore_errors=True)
    (output / "images").mkdir(parents=True)
    for name in names:
        shutil.copy(scene.images / name, output / "images")
    poses = {name: scene.poses[name] for name in names}
    write_poses(scene.cameras, poses, output / "poses")
    run = RunOptions(seed=seed, device="cpu")
    triangulate(output / "poses", output / "images", output / "map", run=run)
    return Localizer(output / "map", run=run)


def _localize(
    localizer: Localizer, scene: _Scene, names: Sequence[str], is_known: bool = True
) -> dict[str, Localization]:
    found = {}
    for name in tqdm(names, desc="localize", unit="image"):
        camera = scene.cameras[name] if is_known else None
        found[name] = localizer.localize(decode(scene.images / name).rgb, camera)
    return found


def _measure(found: Mapping[str, Localization], scene: _Scene) -> F64:
    """Return distances and angles (N, 2) to where queries were; inf without a pose."""
    errors = np.full((len(found), 2), np.inf)
    for i, (name, one) in enumerate(found.items()):
        pose, true = one.cam_from_world, scene.poses[name]
        if pose is not None:
            turn = pose.rotation @ true.rotation.T
            off = np.linalg.norm(pose.centre - true.centre)
            errors[i] = off, rotation_angle_deg(turn)
    return errors


def _compare_times(found: Mapping[str, Localization]) -> float:
    """Return by how much a query takes longer than its network and first matching."""
    times = [one.milliseconds for one in found.values()]
    return median(
        sum(t.values()) / (t["extract"] + t["match"]) for t in times if "match" in t
    )


def _sum_up(found: Mapping[str, Localization]) -> dict[str, Cell]:
    times = [one.milliseconds for one in found.values()]
    steps = {step: mean(t.get(step, 0.0) for t in times) for step in _STEPS}
    return {
        "median inliers": median(one.num_inliers for one in found.values()),
        "mean milliseconds": ", ".join(f"{s} {t:.0f}" for s, t in steps.items()),
    }
