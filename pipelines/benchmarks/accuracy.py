"""How well extractors relate pairs of photographs, all with the same matcher.

Mutual nearest neighbours and, unless another matcher is asked for, nothing else: no
ratio test and no filter, so that what is measured is the features. Homographies by
MAGSAC at 3 px, poses by COLMAP at 1 px.
Near misses are matches 3 to 20 px off, too many to be chance, which bend a homography:
their number over that of right matches is said, and what would come without them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean

import numpy as np
from tqdm import tqdm

from pipelines.benchmarks.pairs import PlanePair, PosePair, list_pairs
from pipelines.benchmarks.results import Cell, Result, Row
from pipelines.protocols.homography import fit_homography
from sfm_features import metrics
from sfm_features.colmap import estimate_relative_pose
from sfm_features.errors import InputError
from sfm_features.geometry import warp_points
from sfm_features.registry import build_matcher
from sfm_features.types import F32, U8, Extractor, Features, Matcher

CORRECT_PX = 3.0
NEAR_PX = 20.0
PLANE_KEYPOINTS = 1024
POSE_KEYPOINTS = 2048

Build = Callable[[int], Extractor]


def measure_accuracy(
    folder: Path,
    builds: dict[str, Build],
    seed: int = 0,
    max_trials: int = 100_000,
    draws: int = 1,
    shares: Sequence[float] = (1.0,),
    matcher: str = "nearest",
) -> Result:
    """Measure extractors, built for a number of keypoints, on a folder's pairs.

    `max_trials` is how often at most a pose is guessed: few inliers take them all;
    `draws` how often frames of fixed cameras are paired and warped anew; `shares` of
    the usual number of keypoints are measured in turn: few pairs scatter with it.
    """
    pairs = list(list_pairs(folder, draws))
    if not pairs:
        raise InputError(f"{folder}: has no pair of photos to measure on")
    planes = isinstance(pairs[0], PlanePair)
    rows: list[Row] = []
    seconds: dict[str, float] = {}
    counts = [
        round(share * (PLANE_KEYPOINTS if planes else POSE_KEYPOINTS))
        for share in shares
    ]
    for name, build in builds.items():
        found = _Found(build(max(counts)), build_matcher(matcher, device="cpu"))
        for count in counts:
            found.best = count
            bar = tqdm(pairs, desc=f"{folder.name}: {name}, {count}", unit="pair")
            cells = (
                _measure_planes(bar, found, seed)
                if planes
                else _measure_poses(bar, found, seed, max_trials)
            )
            seconds[name] = found.seconds / len(found.features)
            took = seconds[name] / next(iter(seconds.values()))
            kept: Row = {"keypoints": count} if len(counts) > 1 else {}
            rows.append({"extractor": name} | kept | cells | {"time": took})
    title = f"{folder.name}: {len(pairs)} pairs"
    return Result(title, rows, details={"seconds per image": seconds})


class _Found:
    """Features of each photo, extracted once; the `best` so many of them count."""

    def __init__(self, extractor: Extractor, matcher: Matcher) -> None:
        self.extractor, self.matcher = extractor, matcher
        self.best: int | None = None
        self.features: dict[bytes, Features] = {}
        self.seconds = 0.0

    def match(self, a: U8, b: U8) -> tuple[F32, F32]:
        """Return matched pixels (N, 2) of both."""
        first, second = self._extract(a), self._extract(b)
        rows = self.matcher.match(self._choose(first), self._choose(second)).indices
        return first.keypoints[rows[:, 0]], second.keypoints[rows[:, 1]]

    def _choose(self, features: Features) -> Features:
        """Leave the best, which extractors give first."""
        return replace(
            features,
            keypoints=features.keypoints[: self.best],
            descriptors=features.descriptors[: self.best],
            scores=features.scores[: self.best],
        )

    def _extract(self, rgb: U8) -> Features:
        key = rgb.tobytes()
        if key not in self.features:
            start = time.perf_counter()
            self.features[key] = self.extractor.extract(rgb)
            self.seconds += time.perf_counter() - start
        return self.features[key]


def _measure_planes(
    pairs: Sequence[PlanePair], found: _Found, seed: int
) -> dict[str, Cell]:
    errors, without, offs = [], [], []
    for pair in pairs:
        xy_a, xy_b = found.match(pair.a, pair.b)
        off = np.linalg.norm(warp_points(pair.b_from_a, xy_a) - xy_b, axis=1)
        clear = (off <= CORRECT_PX) | (off > NEAR_PX)
        size = (pair.a.shape[1], pair.a.shape[0])
        for kept, into in ((np.ones_like(clear), errors), (clear, without)):
            fitted = fit_homography(xy_a[kept], xy_b[kept], "magsac", CORRECT_PX, seed)
            into.append(metrics.homography_corner_error(fitted, pair.b_from_a, size))
        offs.append(off)
    right = [off <= CORRECT_PX for off in offs]
    near = sum(((off > CORRECT_PX) & (off <= NEAR_PX)).sum() for off in offs)
    within = {f"MHA@{t}": float(np.mean(np.array(errors) <= t)) for t in (1, 3, 5)}
    return {
        "matches": round(mean(len(off) for off in offs)),
        **within,
        "AUC@5": metrics.auc(errors, [5.0])[0],
        "MMA@3": mean(float(r.mean()) if len(r) else 0.0 for r in right),
        "near misses": float(near / max(sum(r.sum() for r in right), 1)),
        "MHA@3 without": float(np.mean(np.array(without) <= 3)),
    }


def _measure_poses(
    pairs: Sequence[PosePair], found: _Found, seed: int, max_trials: int
) -> dict[str, Cell]:
    errors, shares, counts = [], [], []
    for pair in pairs:
        xy_a, xy_b = found.match(pair.a, pair.b)
        estimate = estimate_relative_pose(
            xy_a, xy_b, *pair.cameras, 1.0, seed, max_trials
        )
        counts.append(len(xy_a))
        if estimate is None:
            errors.append(180.0)
            shares.append(0.0)
            continue
        errors.append(
            max(metrics.relative_pose_error_deg(estimate.pose, pair.b_from_a))
        )
        shares.append(float(estimate.inliers.mean()))
    areas = metrics.auc(errors, [5.0, 10.0, 20.0])
    return {
        "matches": round(mean(counts)),
        **{f"AUC@{t}": area for t, area in zip((5, 10, 20), areas, strict=True)},
        "inliers": mean(shares),
    }
