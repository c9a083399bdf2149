"""Homographies from matches, and how good matches and homographies of planes are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from pipelines.protocols.ledger import Figures
from pipelines.protocols.resizing import resize_shorter_side
from sfm_features import metrics
from sfm_features.geometry import warp_points
from sfm_features.types import F32, F64, Pair

FitMethod = Literal["ransac", "magsac"]
_METHODS = {"ransac": cv2.RANSAC, "magsac": cv2.USAC_MAGSAC}
_ROUNDS, _CONFIDENCE = 10_000, 0.9999
_MATCH_PX = range(1, 11)


@dataclass(frozen=True)
class PlaneTask:
    """Two images of a plane, b_from_a (3, 3), and the size (w, h) of the first."""

    names: Pair
    b_from_a: F64
    size: tuple[int, int]


def fit_homography(
    xy_a: F32, xy_b: F32, method: FitMethod, max_error_px: float, seed: int
) -> F64 | None:
    """Fit b_from_a (3, 3) to matches (N, 2); None if there is none."""
    if len(xy_a) < 4:
        return None
    cv2.setRNGSeed(seed)
    found, _ = cv2.findHomography(
        xy_a,
        xy_b,
        _METHODS[method],
        max_error_px,
        maxIters=_ROUNDS,
        confidence=_CONFIDENCE,
    )
    return None if found is None else np.asarray(found, np.float64)


def share_within(xy_a: F32, xy_b: F32, b_from_a: F64, max_error_px: float) -> float:
    """Return the share of matches (N, 2) that are right; 0 where there are none."""
    off = np.linalg.norm(warp_points(b_from_a, xy_a) - xy_b, axis=1)
    return float((off <= max_error_px).mean()) if len(off) else 0.0


def measure_task(
    task: PlaneTask, xy_a: F32, xy_b: F32, max_error_px: float, seed: int
) -> Figures:
    """Measure matches (N, 2): shares within 1 to 10 px, and the corners' mean error."""
    fitted = fit_homography(xy_a, xy_b, "ransac", max_error_px, seed)
    error = metrics.homography_corner_error(fitted, task.b_from_a, task.size)
    shares = {
        f"within {t}": share_within(xy_a, xy_b, task.b_from_a, t) for t in _MATCH_PX
    }
    return {"corners": error, **shares}


def shrink_tasks(
    images: Path, tasks: Sequence[PlaneTask], output: Path, side: int
) -> list[PlaneTask]:
    """Write copies whose shorter side is `side` px; return the tasks with them."""
    names = sorted({name for task in tasks for name in task.names})
    copies = resize_shorter_side(images, names, output, side)
    shrunk = []
    for task in tasks:
        a, b = (copies[name] for name in task.names)
        b_from_a = b.from_original @ task.b_from_a @ np.linalg.inv(a.from_original)
        shrunk.append(PlaneTask((a.name, b.name), b_from_a, a.size))
    return shrunk
