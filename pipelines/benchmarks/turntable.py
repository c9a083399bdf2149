"""A thing that turns before a room that stands still: what a reconstruction locks onto.

Poses are compared in the frame that turns with the thing. A model of the room has all
views in one place, and that is what its figures show.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median

from pipelines.benchmarks.results import Cell, Check, Result, Row
from sfm_features.colmap import list_models, read_model
from sfm_features.errors import ReconstructionError
from sfm_features.extract import ExtractOptions
from sfm_features.images import keep_inside, read_mask
from sfm_features.metrics import model_errors
from sfm_features.reconstruct import ReconstructOptions, reconstruct
from sfm_features.scenes import read_truth
from sfm_features.scenes.turntable import render_turntable
from sfm_features.store import FeatureStore
from sfm_features.types import RunOptions

VIEWS, LEAST_VIEWS = 36, 34
RIGHT_DEG = 5.0
OBJECT_EXTRACTOR = "evo-object"
_MOST_DEG = 1.0


def measure_turntable(
    output: Path,
    extractors: Sequence[str] = ("evo", OBJECT_EXTRACTOR, "sift"),
    weights: Path | None = None,
    seed: int = 0,
) -> Result:
    """Reconstruct the turn with each extractor, without masks and with true ones.

    `weights` are those of a network trained for objects, as a further `evo`.
    """
    scene = output / f"scene{seed}"
    render_turntable(scene, VIEWS, seed)
    runs: list[tuple[str, Path | None, bool]] = [
        (name, None, masked) for name in extractors for masked in (False, True)
    ]
    if weights is not None:
        runs.append(("evo", weights, False))
    rows = [_measure(scene, output, *run, seed) for run in runs]
    trained = [
        row
        for row, (name, given, masked) in zip(rows, runs, strict=True)
        if not masked and (name == OBJECT_EXTRACTOR or given is not None)
    ]
    checks = [check for row in trained for check in _check(row)]
    return Result(f"A turntable, {VIEWS} views, scene {seed}", rows, checks)


def _check(row: Row) -> list[Check]:
    """Say what features that were trained for objects must reach without masks."""
    missing = VIEWS - float(str(row["right within 5 deg"]))
    error = float(row.get("rotation error, deg") or 180)
    return [
        Check(f"{row['features']}: views missing", missing, VIEWS - LEAST_VIEWS),
        Check(f"{row['features']}: median rotation error, deg", error, _MOST_DEG),
    ]


def _measure(
    scene: Path,
    output: Path,
    extractor: str,
    weights: Path | None,
    masked: bool,
    seed: int,
) -> Row:
    """Reconstruct once; return a row of the table."""
    name = f"{extractor}{' (given weights)' if weights else ''}"
    folder = output / f"{name.replace(' ', '-')}{'-masked' if masked else ''}-{seed}"
    extraction = ExtractOptions(
        extractor=extractor, weights=weights, masks=scene / "masks" if masked else None
    )
    options, run = ReconstructOptions(report=False), RunOptions(seed=seed)
    with suppress(ReconstructionError):  # then the table says that there is no model
        reconstruct(scene / "images", folder, options, extraction, run=run)
    row: dict[str, Cell] = {
        "features": name,
        "masks": "true ones" if masked else "-",
        "keypoints on the thing": f"{_count_on_thing(scene, folder):.0%}",
    }
    return row | _measure_model(scene, folder)


def _count_on_thing(scene: Path, folder: Path) -> float:
    """Return the share of keypoints that lie on the thing, the median of the views."""
    shares = []
    with FeatureStore.open(folder / "features.h5") as store:
        for name in store.names():
            xy, mask = store.read_keypoints(name), read_mask(scene / "masks", name)
            if mask is not None and len(xy):
                shares.append(keep_inside(mask, xy, mask.shape[::-1]).mean())
    return float(median(shares)) if shares else 0.0


def _measure_model(scene: Path, folder: Path) -> dict[str, Cell]:
    models = list_models(folder / "sparse")
    if not models:
        return {"registered": 0, "right within 5 deg": 0}
    model, truth = read_model(models[0]), read_truth(scene)
    poses = {name: image.cam_from_world for name, image in model.images.items()}
    errors = model_errors(poses, truth.poses)
    right = sum(e < RIGHT_DEG for e in errors.rotation_errors_deg.values())
    return {
        "registered": len(model.images),
        "right within 5 deg": right,
        "rotation error, deg": errors.median_rotation_error_deg,
        "points": len(model.points),
        "track length": model.mean_track_length,
    }
