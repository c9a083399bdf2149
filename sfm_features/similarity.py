"""The similarity that most of some positions agree on."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np

from sfm_features.geometry import Similarity, align_similarity
from sfm_features.types import F64, I64, Bool

_MOST_TRIALS = 500
_STEPS = 20
_FAR = 3.0
"""How many times as far off as the middle one a position may be that counts."""
_ROUNDING = 1e-9  # of the positions' extent: what is nearer is exact


def align_robustly(source: F64, target: F64, seed: int = 0) -> tuple[Similarity, Bool]:
    """Return the similarity that maps most of source (N, 3) onto target, and which.

    Nothing has to be known of the error: the similarity is looked for whose middle
    residual is smallest (least trimmed squares), and what is much farther off is left
    out. Up to half of the positions may be wrong; of three or four, none.
    """
    count = len(source)
    # So many must agree; one more than half and what three positions always fit.
    quorum = min(count, count // 2 + 2)
    best, score = align_similarity(source, target), np.inf
    for rows in _choose_triples(count, seed):
        found = _concentrate(source, target, rows, quorum)
        middle = np.sort(measure(found, source, target))[quorum - 1]
        if middle < score:
            best, score = found, middle
    extent = np.abs(target - np.median(target, axis=0)).max()
    few = 1 + 5 / max(count - 3, 1)  # few positions seem nearer than they are
    near = max(_FAR * few * score, _ROUNDING * extent)
    inliers = measure(best, source, target) <= near
    for _ in range(_STEPS):
        best = align_similarity(source[inliers], target[inliers])
        before, inliers = inliers, measure(best, source, target) <= near
        if inliers.sum() < quorum:  # adjusted to what is too far off: stay
            return align_similarity(source[before], target[before]), before
        if np.array_equal(before, inliers):
            break
    return align_similarity(source[inliers], target[inliers]), inliers


def measure(similarity: Similarity, source: F64, target: F64) -> F64:
    """Return how far off each position is (N,)."""
    off: F64 = np.linalg.norm(similarity.apply(source) - target, axis=1)
    return off


def spread(points: F64) -> F64:
    """Return how far points (N, 3) spread along their three axes, largest first."""
    singular = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    wide: F64 = np.zeros(3)
    wide[: len(singular)] = singular / np.sqrt(len(points))
    return wide


def _choose_triples(count: int, seed: int) -> list[I64]:
    if comb(count, 3) <= _MOST_TRIALS:
        return [np.array(rows) for rows in combinations(range(count), 3)]
    rng = np.random.default_rng(seed)
    return [rng.choice(count, 3, replace=False) for _ in range(_MOST_TRIALS)]


def _concentrate(source: F64, target: F64, rows: I64, quorum: int) -> Similarity:
    """Align what fits an alignment of three best; the middle residual only falls."""
    found = align_similarity(source[rows], target[rows])
    for _ in range(2):
        off = measure(found, source, target)
        rows = np.argpartition(off, quorum - 1)[:quorum]
        found = align_similarity(source[rows], target[rows])
    return found
