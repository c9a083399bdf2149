"""How good poses, models, keypoints and matches are, in numpy alone.

No function raises on a poor result: what cannot be measured is nan, a failure that
counts is inf.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from math import comb, inf, nan
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sfm_features.geometry import (
    Similarity,
    align_similarity,
    rotation_angle_deg,
    warp_points,
)
from sfm_features.types import F64, I32, I64, PIXEL_CENTRE, Bool, Pose

Pixels: TypeAlias = NDArray[np.floating[Any]]

_SAMPLES = 500
_REFINEMENTS = 10
# With normal errors three times the median distance holds all but one in 10,000.
_INLIER_MEDIANS = 3.0
_COLLINEAR = 1e-2
_CHUNK = 1024


def auc(errors: Sequence[float] | F64, thresholds: Sequence[float]) -> list[float]:
    """Return the area under the recall curve up to each threshold, from 0 to 1.

    Recall is the straight-line curve from (0, 0) through the sorted errors, as usual
    for pose errors; nan and inf are failures that no threshold reaches.
    """
    found = np.asarray(errors, dtype=np.float64)
    if len(found) == 0:
        return [nan] * len(thresholds)
    x = np.concatenate([[0.0], np.sort(found)])
    recall = np.arange(len(x)) / len(found)
    areas = []
    for threshold in thresholds:
        last = int(np.searchsorted(x, threshold, side="left"))
        x_below = np.append(x[:last], threshold)
        recall_below = np.append(recall[:last], recall[max(last - 1, 0)])
        mean_height = (recall_below[1:] + recall_below[:-1]) / 2
        areas.append(float(np.diff(x_below) @ mean_height / threshold))
    return areas


def relative_pose_error_deg(estimated: Pose, true: Pose) -> tuple[float, float]:
    """Return the rotation and translation errors of a relative pose, in degrees.

    Only the line of the translation counts, since an essential matrix leaves its sign
    open: 0 to 90. Without a true baseline there is no line to miss: 0.
    """
    rotation_deg = rotation_angle_deg(estimated.rotation @ true.rotation.T)
    if not (true.translation.any() and estimated.translation.any()):
        return rotation_deg, 90.0 if true.translation.any() else 0.0
    sine = np.linalg.norm(np.cross(estimated.translation, true.translation))
    cosine = abs(estimated.translation @ true.translation)
    return rotation_deg, float(np.degrees(np.arctan2(sine, cosine)))


@dataclass(frozen=True)
class ModelErrors:
    """How far a model's cameras are from the truth after a robust alignment.

    Centres are in the truth's unit and `diameter` is the largest distance between true
    ones; medians are over registered cameras, nan where these are too few to align.
    """

    registered: int
    expected: int
    diameter: float
    centre_errors: Mapping[str, float]
    rotation_errors_deg: Mapping[str, float]
    median_centre_error: float
    median_rotation_error_deg: float
    median_centre_share: float


def model_errors(poses: Mapping[str, Pose], truth: Mapping[str, Pose]) -> ModelErrors:
    """Compare cam_from_world poses of a model with the truth, whatever its frame.

    A similarity over the camera centres brings them together, and up to nearly half of
    the cameras may be grossly wrong without bending it.
    """
    names = sorted(poses.keys() & truth.keys())
    diameter = _measure_diameter(_centres(list(truth.values())))
    if len(names) < 3:
        return ModelErrors(len(names), len(truth), diameter, {}, {}, nan, nan, nan)
    found, true = [poses[name] for name in names], [truth[name] for name in names]
    alignment = align_poses(found, true)
    distances = _measure_residuals(alignment, _centres(found), _centres(true))
    angles_deg = [
        rotation_angle_deg(f.rotation @ alignment.rotation.T @ t.rotation.T)
        for f, t in zip(found, true, strict=True)
    ]
    median = float(np.median(distances))
    return ModelErrors(
        registered=len(names),
        expected=len(truth),
        diameter=diameter,
        centre_errors=dict(zip(names, distances.tolist(), strict=True)),
        rotation_errors_deg=dict(zip(names, angles_deg, strict=True)),
        median_centre_error=median,
        median_rotation_error_deg=float(np.median(angles_deg)),
        median_centre_share=median / diameter if diameter > 0 else nan,
    )


def align_poses(source: Sequence[Pose], target: Sequence[Pose]) -> Similarity:
    """Return target_from_source over 3 or more camera centres, outliers left out.

    Cameras on a line leave the spin around it open; their rotations then decide.
    """
    source_centres, target_centres = _centres(source), _centres(target)
    inliers = _find_inliers(source_centres, target_centres)
    alignment = align_similarity(source_centres[inliers], target_centres[inliers])
    rest = target_centres[inliers] - target_centres[inliers].mean(axis=0)
    singular = np.linalg.svd(rest, compute_uv=False)
    if singular[1] > _COLLINEAR * singular[0]:
        return alignment
    turns = [t.rotation.T @ s.rotation for s, t in zip(source, target, strict=True)]
    u, _, vt = np.linalg.svd(np.sum(turns, axis=0, where=inliers[:, None, None]))
    rotation = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
    middle = source_centres[inliers].mean(axis=0)
    shift = target_centres[inliers].mean(axis=0) - alignment.scale * rotation @ middle
    return Similarity(alignment.scale, rotation, shift)


def homography_corner_error(
    estimated: F64 | None, true: F64, size: tuple[int, int]
) -> float:
    """Return the mean distance in px between an image's corners mapped by both.

    size (width, height) of the image that is mapped; no estimate is inf.
    """
    if estimated is None:
        return inf
    right, bottom = size[0] - 1, size[1] - 1
    corners = np.array([[0, 0], [right, 0], [right, bottom], [0, bottom]], np.float64)
    apart = warp_points(estimated, corners) - warp_points(true, corners)
    error = float(np.linalg.norm(apart, axis=1).mean())
    return error if np.isfinite(error) else inf


@dataclass(frozen=True)
class KnownMapping:
    """Where each pixel of image a is in image b, and back; sizes are (width, height).

    Each function takes and returns pixels (N, 2), with nan where the truth is unknown.
    """

    b_from_a: Callable[[F64], F64]
    a_from_b: Callable[[F64], F64]
    size_a: tuple[int, int]
    size_b: tuple[int, int]

    @classmethod
    def from_homography(
        cls, b_from_a: F64, size_a: tuple[int, int], size_b: tuple[int, int]
    ) -> KnownMapping:
        """Make the mapping of a homography (3, 3)."""
        back = np.asarray(np.linalg.inv(b_from_a), dtype=np.float64)
        there = partial(warp_points, b_from_a)
        return cls(there, partial(warp_points, back), size_a, size_b)


def repeatability(
    a: Pixels, b: Pixels, mapping: KnownMapping, max_error_px: float = 3.0
) -> float:
    """Return the share of co-visible keypoints that both images have, one to one.

    Two keypoints are the same where they are within the threshold in both images. The
    smaller co-visible set counts as the whole; nan where it is empty.
    """
    a_in_b, seen_a = _map_keypoints(a, mapping.b_from_a, mapping.size_b)
    b_in_a, seen_b = _map_keypoints(b, mapping.a_from_b, mapping.size_a)
    whole = min(seen_a.sum(), seen_b.sum())
    if whole == 0:
        return nan
    distances, rows, columns = _find_close_pairs(
        (a[seen_a], a_in_b[seen_a]), (b[seen_b], b_in_a[seen_b]), max_error_px
    )
    return _count_one_to_one(distances, rows, columns) / int(whole)


def matching_score(
    a: Pixels, b: Pixels, matches: I32, mapping: KnownMapping, max_error_px: float = 3.0
) -> float:
    """Return correct matches over co-visible keypoints, the smaller set of the two.

    matches (K, 2) indices. A keypoint counts once; nan without co-visible keypoints.
    """
    _, seen_a = _map_keypoints(a, mapping.b_from_a, mapping.size_b)
    _, seen_b = _map_keypoints(b, mapping.a_from_b, mapping.size_a)
    whole = min(seen_a.sum(), seen_b.sum())
    if whole == 0:
        return nan
    correct = measure_matches_px(a, b, matches, mapping) <= max_error_px
    correct &= seen_a[matches[:, 0]] & seen_b[matches[:, 1]]
    good = matches[correct]
    return min(len(np.unique(good[:, 0])), len(np.unique(good[:, 1]))) / int(whole)


def matching_accuracy(
    a: Pixels, b: Pixels, matches: I32, mapping: KnownMapping, max_error_px: float = 3.0
) -> float:
    """Return the share of matches (K, 2) that are correct, nan if none has a truth."""
    distances = measure_matches_px(a, b, matches, mapping)
    distances = distances[~np.isnan(distances)]
    return float((distances <= max_error_px).mean()) if len(distances) else nan


def measure_matches_px(
    a: Pixels, b: Pixels, matches: I32, mapping: KnownMapping
) -> F64:
    """Return each match's distance (K,): the larger of both images', nan if unknown."""
    matched_a = np.asarray(a, dtype=np.float64)[matches[:, 0]]
    matched_b = np.asarray(b, dtype=np.float64)[matches[:, 1]]
    in_b: F64 = np.linalg.norm(mapping.b_from_a(matched_a) - matched_b, axis=1)
    in_a: F64 = np.linalg.norm(mapping.a_from_b(matched_b) - matched_a, axis=1)
    return np.maximum(in_a, in_b)


def _centres(poses: Sequence[Pose]) -> F64:
    return np.reshape([pose.centre for pose in poses], (-1, 3))


def _measure_diameter(points: F64) -> float:
    # Row by row: a city's cameras would fill the memory with pairs.
    farthest = (float(np.linalg.norm(points - p, axis=1).max()) for p in points)
    return max(farthest, default=nan)


def _measure_residuals(alignment: Similarity, source: F64, target: F64) -> F64:
    distances: F64 = np.linalg.norm(alignment.apply(source) - target, axis=1)
    return distances


def _find_inliers(source: F64, target: F64) -> Bool:
    """Mark (N,) the points that one similarity explains: least median of squares."""
    everyone: Bool = np.ones(len(source), dtype=np.bool_)
    if len(source) == 3:
        return everyone
    best, lowest = everyone, inf
    for sample in _list_samples(len(source)):
        alignment = align_similarity(source[sample], target[sample])
        residuals = _measure_residuals(alignment, source, target)
        median = float(np.median(residuals))
        if median < lowest:
            best, lowest = residuals <= _INLIER_MEDIANS * median, median
    # Exact data has a median of rounding errors only: below the floor all is well.
    floor = 1e-9 * float(np.abs(target - target.mean(axis=0)).max())
    for _ in range(_REFINEMENTS):
        alignment = align_similarity(source[best], target[best])
        residuals = _measure_residuals(alignment, source, target)
        limit = max(_INLIER_MEDIANS * float(np.median(residuals)), floor)
        if np.array_equal(best, residuals <= limit):
            break
        best = residuals <= limit
    return best


def _list_samples(count: int) -> list[list[int]]:
    """List triples of indices: all of them, or a fixed random choice where too many."""
    if comb(count, 3) <= _SAMPLES:
        return [list(triple) for triple in combinations(range(count), 3)]
    rng = np.random.default_rng(0)
    return [rng.choice(count, 3, replace=False).tolist() for _ in range(_SAMPLES)]


def _map_keypoints(
    xy: Pixels, mapping: Callable[[F64], F64], size: tuple[int, int]
) -> tuple[F64, Bool]:
    """Return where keypoints (N, 2) land, (N, 2), and whether inside (N,)."""
    landed = mapping(np.asarray(xy, dtype=np.float64))
    inside = (landed >= -PIXEL_CENTRE) & (landed <= np.array(size) - PIXEL_CENTRE)
    return landed, np.asarray(inside.all(axis=1))


def _find_close_pairs(
    a: tuple[Pixels, F64], b: tuple[Pixels, F64], max_error_px: float
) -> tuple[F64, I64, I64]:
    """List pairs within the threshold: distances (K,), rows of a and of b (K,).

    Each side is its keypoints and where they land in the other image, all (N, 2).
    """
    found = []
    for start in range(0, len(a[0]), _CHUNK):
        stop = start + _CHUNK
        in_b = np.linalg.norm(a[1][start:stop, None] - b[0], axis=2)
        in_a = np.linalg.norm(a[0][start:stop, None] - b[1], axis=2)
        distance = np.maximum(in_a, in_b)
        rows, columns = np.nonzero(distance <= max_error_px)
        found.append((distance[rows, columns], rows + start, columns))
    parts = list(zip(*found, strict=True))
    return np.concatenate(parts[0]), np.concatenate(parts[1]), np.concatenate(parts[2])


def _count_one_to_one(distances: F64, rows: I64, columns: I64) -> int:
    """Count pairs, closest first, so that no row and no column serves twice."""
    used_rows: set[int] = set()
    used_columns: set[int] = set()
    for k in np.argsort(distances, kind="stable"):
        row, column = int(rows[k]), int(columns[k])
        if row not in used_rows and column not in used_columns:
            used_rows.add(row)
            used_columns.add(column)
    return len(used_rows)
