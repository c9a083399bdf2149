"""What ten minutes of adapting to one's own photos bring, and what they cost.

A network is adapted to half of the views of the town by night, and measured on pairs of
the other views, which depth relates exactly, and on planar scenes of other people.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean

import cv2
import numpy as np
from tqdm import tqdm

from pipelines.benchmarks.pairs import list_sequences
from pipelines.benchmarks.results import Check, Result
from sfm_features import metrics
from sfm_features.images import decode
from sfm_features.registry import build_extractor
from sfm_features.scenes import View, correspond, render_town
from sfm_features.training.options import AdaptOptions
from sfm_features.training.train import adapt
from sfm_features.training.validate import match_mutually
from sfm_features.types import F32, F64, Extractor, Features, RunOptions

VIEWS = 48
SIZE = (640, 480)
KEYPOINTS = 1024
CORRECT_PX = 3.0
LEAST_GAIN = 1.10
LEAST_KEPT = 0.98


def measure_adapting(
    output: Path,
    sequences: Path | None,
    minutes: float = 10.0,
    seed: int = 0,
    start: Path | None = None,
) -> Result:
    """Adapt a network, the bundled one, to the town by night; measure either."""
    town = output / "town-night"
    views = render_town(town, VIEWS, "night", seed, SIZE, depth=True)
    photos = _choose_photos(town / "images", views[::2], output / "adapt-photos")
    options = AdaptOptions(minutes=minutes)
    run = RunOptions(seed=seed)
    summary = adapt(photos, output / "adapted", str(start or "evo"), options, run)
    found = {
        "before": _measure(start, town, views[1::2], sequences),
        "after": _measure(summary.weights, town, views[1::2], sequences),
    }
    rows = [{"weights": name} | figures for name, figures in found.items()]
    ratios = {k: found["after"][k] / found["before"][k] for k in found["after"]}
    rows.append({"weights": "ratio"} | ratios)
    # A check is an upper limit, so these are the inverse ratios.
    checks = [
        Check("matching score on the town, before over after",
              1 / ratios["town matching score"], 1 / LEAST_GAIN)
    ]  # fmt: skip
    if sequences is not None:
        checks.append(
            Check("homography AUC@5, before over after",
                  1 / ratios["homography AUC@5"], 1 / LEAST_KEPT)
        )  # fmt: skip
    title = f"Adapting for {minutes:g} minutes to {len(views) // 2} views by night"
    return Result(title, rows, checks, {"steps": summary.steps})


def _choose_photos(images: Path, views: list[View], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for view in views:
        copy = folder / view.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((images / view.name).read_bytes())
    return folder


def _measure(
    weights: Path | None, town: Path, views: list[View], sequences: Path | None
) -> dict[str, float]:
    extractor = build_extractor("evo", max_keypoints=KEYPOINTS, weights=weights)
    found: dict[Path, Features] = {}
    extract = partial(_extract, extractor, found)
    scores, repeated = [], []
    for a, b in tqdm(list(zip(views, views[1:], strict=False)), desc="town pairs"):
        xy_a, xy_b, matches = _match(
            extract, *(town / "images" / v.name for v in (a, b))
        )
        mapping = _relate(town, a, b)
        scores.append(metrics.matching_score(xy_a, xy_b, matches, mapping, CORRECT_PX))
        repeated.append(metrics.repeatability(xy_a, xy_b, mapping, CORRECT_PX))
    figures = {
        "town matching score": float(np.nanmean(scores)),
        "town repeatability": float(np.nanmean(repeated)),
    }
    if sequences is not None:
        figures |= _measure_sequences(extract, sequences)
    return figures


def _extract(extractor: Extractor, found: dict[Path, Features], path: Path) -> Features:
    if path not in found:
        found[path] = extractor.extract(decode(path).rgb)
    return found[path]


def _match(
    extract: Callable[[Path], Features], a: Path, b: Path
) -> tuple[F32, F32, np.ndarray]:
    first, second = extract(a), extract(b)
    matches = match_mutually(
        first.descriptors.astype(np.float32), second.descriptors.astype(np.float32)
    )
    return first.keypoints, second.keypoints, matches


def _relate(town: Path, a: View, b: View) -> metrics.KnownMapping:
    depth_a, depth_b = (np.load(town / f"depth/{v.name}.npy") for v in (a, b))

    def there(xy: F64) -> F64:
        landed, known = correspond(depth_a, a, depth_b, b, xy)
        return np.asarray(np.where(known[:, None], landed, np.nan), np.float64)

    def back(xy: F64) -> F64:
        landed, known = correspond(depth_b, b, depth_a, a, xy)
        return np.asarray(np.where(known[:, None], landed, np.nan), np.float64)

    return metrics.KnownMapping(there, back, SIZE, SIZE)


def _measure_sequences(
    extract: Callable[[Path], Features], folder: Path
) -> dict[str, float]:
    errors = []
    for first, second, b_from_a in tqdm(list(list_sequences(folder)), desc="planes"):
        xy_a, xy_b, matches = _match(extract, first, second)
        found: F64 | None = None
        if len(matches) >= 4:
            cv2.setRNGSeed(0)
            matrix, _ = cv2.findHomography(
                xy_a[matches[:, 0]], xy_b[matches[:, 1]], cv2.USAC_MAGSAC, CORRECT_PX
            )
            found = None if matrix is None else np.asarray(matrix, np.float64)
        size = extract(first).image_size
        errors.append(metrics.homography_corner_error(found, b_from_a, size))
    return {
        "homography AUC@5": metrics.auc(errors, [5.0])[0],
        "homographies found": mean(float(error <= CORRECT_PX) for error in errors),
    }
