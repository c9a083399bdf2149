"""Pictures of one query: its matches beside the map, and the map seen by its pose."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sfm_features.errors import ImageError, OptionError
from sfm_features.geometry import project
from sfm_features.report.pictures import (
    Picture,
    Upright,
    choose_rows,
    draw_depths,
    draw_keypoints,
    draw_pair,
    load_upright,
)
from sfm_features.report.queries import LocalizationData, QueryMatches, QueryResult
from sfm_features.types import F32, I64, Bool, Model, RegisteredImage

logger = logging.getLogger(__name__)

_PICTURE_PX = 480
_MOST_PROJECTED = 700
_PROJECTED_FROM = 5
"""Images of the map whose points are projected: what others see may be hidden."""


@dataclass(frozen=True)
class Evidence:
    """A query with its pictures, which are None where files or a pose are missing.

    `shared` is that of its matches; `beside` is the image that the query is shown
    with, "" if that cannot be shown.
    """

    result: QueryResult
    matched: Picture | None
    projected: Picture | None
    beside: str
    shared: Sequence[tuple[str, int]]

    @property
    def size(self) -> int:
        """Bytes of the pictures on the page."""
        both = (self.matched, self.projected)
        return sum(len(picture.uri) for picture in both if picture)


def draw_evidence(
    data: LocalizationData, result: QueryResult, matches: QueryMatches
) -> Evidence:
    """Draw what speaks for the pose of a query, or what there was to find one by."""
    shared = matches.shared
    try:
        query = load_upright(data.images / result.name, _PICTURE_PX)
    except ImageError as error:
        logger.warning("report: %s", error)
        return Evidence(result, None, None, "", shared)
    other = _load_first(data.map_images, shared[0][0]) if shared else None
    if other is None:
        matched = draw_keypoints(query, matches.xy, matches.inliers)
    else:
        image = data.model.images[shared[0][0]]
        matched = _draw_beside(query, other, image, matches)
    beside = "" if other is None else shared[0][0]
    nearest = [name for name, _ in shared[:_PROJECTED_FROM]]
    return Evidence(
        result, matched, _project(query, data.model, nearest, result), beside, shared
    )


def _load_first(folders: Sequence[Path], name: str) -> Upright | None:
    """Load an image from the first folder that has it; None if none has."""
    for folder in folders:
        if (folder / name).is_file():
            try:
                return load_upright(folder / name, _PICTURE_PX)
            except ImageError as error:
                logger.warning("report: %s", error)
    return None


def _draw_beside(
    query: Upright, other: Upright, image: RegisteredImage, matches: QueryMatches
) -> Picture:
    """Draw a query beside an image of the map, lines between what both see."""
    seen, keypoints = _find_keypoints(image.point_ids, matches.points)
    xy, across = matches.xy[seen], image.keypoints[keypoints[seen]]
    fits = matches.inliers[seen]
    return draw_pair(query, other, (xy[fits], across[fits]), (xy[~fits], across[~fits]))


def _find_keypoints(ids: I64, points: I64) -> tuple[Bool, I64]:
    """Find the keypoint of each point (M,) by the keypoints' ids (N,): found, index."""
    order = np.argsort(ids, kind="stable")
    if not len(order):
        return np.zeros(len(points), np.bool_), np.zeros(len(points), np.int64)
    places = np.searchsorted(ids[order], points).clip(max=len(order) - 1)
    index = order[places]
    return ids[index] == points, index


def _project(
    query: Upright, model: Model, names: Sequence[str], result: QueryResult
) -> Picture | None:
    """Draw the points that images see where the pose puts them."""
    if not result.is_localized or result.pose is None or result.camera is None:
        return None
    seen_by = [model.images[name].point_ids for name in names]
    ids = np.unique(np.concatenate([np.zeros(0, np.int64), *seen_by]))
    pose, camera = result.pose, result.camera
    inside = model.points[ids[ids >= 0]] @ pose.rotation.T + pose.translation
    try:
        with np.errstate(invalid="ignore"):
            seen = project(camera, inside)
            visible = ((seen >= 0) & (seen < [camera.width, camera.height])).all(1)
    except OptionError:  # a lens that only COLMAP knows
        return None
    rows = np.flatnonzero(visible)
    rows = rows[choose_rows(len(rows), _MOST_PROJECTED)]
    xy: F32 = seen[rows].astype(np.float32)
    return draw_depths(query, xy, inside[rows, 2])
