"""Matches of a query with points of a map, before a pose says which are right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sfm_features.types import F32, F64, I64, Bool, Features

_CHUNK_POINTS = 256


@dataclass(frozen=True)
class Candidates:
    """A query's features, and its matches: rows (M,) of points and of keypoints (M,).

    One keypoint may have several points, from the images (`names`) that it was matched
    with. similarities (M,) f32 tell which is the likeliest.
    """

    features: Features
    names: tuple[str, ...]
    points: I64
    keypoints: I64
    similarities: F32

    @property
    def xy(self) -> F32:
        """Pixels (M, 2) of the query."""
        return self.features.keypoints[self.keypoints]

    def __len__(self) -> int:
        return len(self.points)

    def choose_best(self, among: Bool | None = None) -> I64:
        """Choose the likeliest match of each keypoint: rows, the likeliest first."""
        order = np.argsort(-self.similarities, kind="stable")
        if among is not None:
            order = order[among[order]]
        _, first = np.unique(self.keypoints[order], return_index=True)
        return order[np.sort(first)]


def merge(parts: Sequence[Candidates]) -> Candidates:
    """Merge matches of one query; each pair stays once, with its best similarity."""
    points = np.concatenate([part.points for part in parts])
    keypoints = np.concatenate([part.keypoints for part in parts])
    similarities = np.concatenate([part.similarities for part in parts])
    order = np.lexsort((-similarities, keypoints, points))
    pairs = np.stack([points[order], keypoints[order]], axis=1)
    new = np.ones(len(pairs), np.bool_)
    new[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
    kept = order[new]
    names = tuple(dict.fromkeys(name for part in parts for name in part.names))
    return Candidates(
        parts[0].features, names, points[kept], keypoints[kept], similarities[kept]
    )


def match_near(
    features: Features, seen: F64, descriptors: F32, reach_px: float
) -> tuple[I64, I64, F32]:
    """Match points, seen at pixels (P, 2), with keypoints near there, one to one.

    Return rows of points, of keypoints, and similarities. Sorted from left to right,
    few keypoints come into question for a chunk of points.
    """
    xy, local = features.keypoints, features.descriptors.astype(np.float32)
    by_x = np.argsort(xy[:, 0], kind="stable")
    order = np.argsort(seen[:, 0], kind="stable")
    nearest = np.zeros(len(seen), np.int64)
    best = np.full(len(seen), -np.inf, np.float32)
    best_of_keypoint = np.full(len(xy), -np.inf, np.float32)
    for start in range(0, len(seen), _CHUNK_POINTS):
        rows = order[start : start + _CHUNK_POINTS]
        span = seen[rows[[0, -1]], 0] + [-reach_px, reach_px]
        left, right = np.searchsorted(xy[by_x, 0], span)
        columns = by_x[left:right]
        if not len(columns):
            continue
        near = (np.abs(seen[rows, None] - xy[columns]) <= reach_px).all(axis=2)
        similarity = np.where(near, descriptors[rows] @ local[columns].T, -np.inf)
        nearest[rows] = columns[similarity.argmax(axis=1)]
        best[rows] = similarity.max(axis=1)
        best_of_keypoint[columns] = np.maximum(
            best_of_keypoint[columns], similarity.max(axis=0)
        )
    mutual = np.isfinite(best) & (best >= best_of_keypoint[nearest])
    found = np.flatnonzero(mutual)
    return found, nearest[found], best[found]
