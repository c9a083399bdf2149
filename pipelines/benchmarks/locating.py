"""Localization in the rendered town, whose poses are known: by day and by night.

Two thirds of the views of a walk by day are the map, triangulated with their true
poses; the others, by day and from the same places by night, are the queries.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from statistics import median

import numpy as np
from tqdm import tqdm

from pipelines.benchmarks.results import Check, Result, Row
from sfm_features.colmap import write_poses
from sfm_features.extract import ExtractOptions
from sfm_features.geometry import rotation_angle_deg
from sfm_features.images import decode
from sfm_features.localizer import Localizer
from sfm_features.scenes import Truth, read_truth, render_town
from sfm_features.triangulate import triangulate
from sfm_features.types import Localization, RunOptions

VIEWS = 90
DAY = (0.0025, 0.5)
NIGHT = (0.01, 2.0)
_SURE_INLIERS = 30
_STEPS = ("extract", "retrieve", "match", "pose")


def measure_locating(output: Path, views: int = VIEWS, seed: int = 0) -> Result:
    """Localize in a map of the town; errors are shares of its diameter and degrees."""
    folders = {light: output / f"town-{views}-{light}" for light in ("day", "night")}
    for light, folder in folders.items():
        render_town(folder, views, light, seed)
    truth = read_truth(folders["day"])
    names = sorted(truth.poses)
    queries = names[1::3]
    images, made = output / "map-images", output / "map"
    for stale in (images, made):
        shutil.rmtree(stale, ignore_errors=True)
    images.mkdir(parents=True)
    known = [name for name in names if name not in queries]
    for name in known:
        shutil.copy(folders["day"] / "images" / name, images)
    poses = {name: truth.poses[name] for name in known}
    write_poses(truth.cameras, poses, output / "map-poses")
    run = RunOptions(seed=seed, device="cpu")
    triangulate(
        output / "map-poses", images, made, extraction=ExtractOptions(), run=run
    )
    localizer = Localizer(made, run=run)
    rows: list[Row] = []
    missed: dict[str, float] = {}
    wrong, times = 0, []
    for light, folder in folders.items():
        found = {}
        for name in tqdm(queries, desc=f"localize by {light}", unit="image"):
            rgb = decode(folder / "images" / name).rgb
            found[name] = localizer.localize(rgb, truth.cameras[name])
        errors = np.array([_measure(found[name], truth, name) for name in queries])
        sure = np.array([found[n].num_inliers > _SURE_INLIERS for n in queries])
        good = {limit: (errors <= limit).all(axis=1) for limit in (DAY, NIGHT)}
        wrong += int((sure & np.isfinite(errors[:, 0]) & ~good[NIGHT]).sum())
        missed[light] = 1 - float(good[DAY if light == "day" else NIGHT].mean())
        times += [found[name].milliseconds for name in queries]
        rows.append(
            {
                "queries": f"{len(queries)} by {light}",
                "localized": int(np.isfinite(errors[:, 0]).sum()),
                "within 0.25 %, 0.5 deg": float(good[DAY].mean()),
                "within 1 %, 2 deg": float(good[NIGHT].mean()),
                "median error, %": 100 * float(np.median(errors[:, 0])),
                "median error, deg": float(np.median(errors[:, 1])),
                "median inliers": median(found[n].num_inliers for n in queries),
            }
        )
    localizer.atlas.close()
    steps = {s: median(t.get(s, 0.0) for t in times) for s in _STEPS}
    over = sum(steps.values()) / (steps["extract"] + steps["match"])
    checks = [
        Check("share of days missed", missed["day"], 0.05),
        Check("share of nights missed", missed["night"], 0.30),
        Check(f"wrong poses with over {_SURE_INLIERS} inliers", wrong, 0),
        Check("time over extraction and matching", over, 2.0),
    ]
    title = f"Localization: {len(known)} views of the town by day"
    return Result(title, rows, checks, {"median milliseconds": steps})


def _measure(found: Localization, truth: Truth, name: str) -> tuple[float, float]:
    pose, true = found.cam_from_world, truth.poses[name]
    if pose is None:
        return float("inf"), float("inf")
    off = float(np.linalg.norm(pose.centre - true.centre))
    return off / truth.diameter, rotation_angle_deg(pose.rotation @ true.rotation.T)
