"""Whether a pose fits more matches than it would if all of them were wrong.

The pose of a photograph of another place fits some matches, too, as it is the best of
thousands that were tried; in a small picture, or from far away, where all points are
seen at one place, it fits many. A contrario (Moisan and Stival): count how many such
poses matches that are all wrong would let us expect.
"""

from __future__ import annotations

import math

import numpy as np

from sfm_features.types import F32, F64

_SHIFTS = 64


def expect_by_chance(
    seen: F64, xy: F32, reach_px: float, area_px: float, needed: int
) -> float:
    """Return log10 of how many poses as good as this one are expected by chance.

    Points, seen at pixels (N, 2) or nan, were matched with keypoints (N, 2); `needed`
    matches make a pose. What fits at one spot counts once.
    """
    near = np.linalg.norm(seen - xy, axis=1) <= reach_px
    spots = np.unique((xy[near] // (2 * reach_px)).astype(np.int64), axis=0)
    return _log_expected(
        len(xy), len(spots), _share_by_chance(seen, xy, reach_px, area_px), needed
    )


def _share_by_chance(seen: F64, xy: F32, reach_px: float, area_px: float) -> float:
    """Return the share of matches that fit if they are shuffled."""
    # No shift twice, and none that leaves matches as they are.
    count = max(1, min(_SHIFTS, len(xy) - 1))
    hits = 1
    for k in range(count):
        other = np.roll(xy, 1 + k * (len(xy) - 1) // count, axis=0)
        hits += int((np.linalg.norm(seen - other, axis=1) <= reach_px).sum())
    return max(hits / (count * len(xy)), math.pi * reach_px**2 / area_px)


def _log_expected(count: int, fitting: int, share: float, needed: int) -> float:
    """Return log10 of (N - m) C(N, k) C(k, m) p ^ (k - m)."""
    if fitting <= needed:
        return math.inf
    return (
        math.log10(count - needed)
        + _log_choose(count, fitting)
        + _log_choose(fitting, needed)
        + (fitting - needed) * math.log10(min(share, 1.0))
    )


def _log_choose(n: int, k: int) -> float:
    logs = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return logs / math.log(10)
