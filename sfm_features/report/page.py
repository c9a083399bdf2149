"""Put the report together and write it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sfm_features.errors import ImageError
from sfm_features.journal import replace_text
from sfm_features.report import facts, pictures, scene
from sfm_features.report.data import ReportData
from sfm_features.report.facts import ViewGraph
from sfm_features.report.pictures import Picture
from sfm_features.report.rendering import (
    choose_evenly,
    draw_in_threads,
    load_template,
    name_folder,
)
from sfm_features.types import I32, Bool, Pair

logger = logging.getLogger(__name__)

MAX_THUMBNAILS = 60
_THUMBNAIL_PX = 480
_PAIR_PX = 560
_PAIRS_SHOWN = 4


@dataclass(frozen=True)
class _Thumbnail:
    """An image of the overview; picture is None where the file cannot be decoded."""

    name: str
    picture: Picture | None
    orientation: int
    keypoints: int
    triangulated: int


@dataclass(frozen=True)
class _DrawnPair:
    """A verified pair with its lines; picture is None if an image is gone."""

    names: Pair
    picture: Picture | None
    verified: int
    matches: int | None


def write_report(output: Path, data: ReportData) -> Path:
    """Write the report of a reconstruction as one HTML file and return its path."""
    render = load_template("report.html.j2")
    graph = facts.build_view_graph(data)
    best, worst = _choose_pairs(data, graph)
    names = _choose_names(data)
    with tqdm(total=len(names) + len(best + worst), desc="report", unit="image") as bar:
        thumbnails, drawn = [], []
        for thumbnail in draw_in_threads(lambda n: _draw_thumbnail(data, n), names):
            thumbnails.append(thumbnail)
            bar.update()
        for pair in draw_in_threads(lambda p: _draw_pair(data, p), best + worst):
            drawn.append(pair)
            bar.update()
    page = render(
        **_describe(data, graph),
        thumbnails=thumbnails,
        shape=_measure_shape(thumbnails),
        best=drawn[: len(best)],
        worst=drawn[len(best) :],
        plots=_plot(data, graph, {t.name: t.orientation for t in thumbnails}),
    )
    replace_text(output, page)
    logger.info("report: %s (%.1f MB)", output, len(page) / 1e6)
    return output


def _describe(data: ReportData, graph: ViewGraph) -> dict[str, Any]:
    """Gather what the page says in words and numbers."""
    return {
        "kind": "Reconstruction report",
        "title": data.title or name_folder(data.images.resolve()),
        "made": datetime.now().astimezone(),
        "data": data,
        "graph": graph,
        "total": len(data.names),
        "absences": facts.explain_absences(data, graph),
        "failure": facts.explain_failure(data, graph),
        "most_edges": scene.MAX_EDGES,
        "most_lines": (pictures.MAX_LINES, pictures.MAX_REJECTED),
        "options": facts.group_options(data.options),
        "versions": facts.list_versions(),
    }


def _plot(
    data: ReportData, graph: ViewGraph, orientations: dict[str, int]
) -> dict[str, Any]:
    """Gather what the page's script draws."""
    plots: dict[str, Any] = {"scene": None, "graph": scene.arrange_graph(data, graph)}
    if data.model and data.model.images:
        plots["scene"] = scene.arrange_scene(data.model, orientations)
        plots["tracks"] = facts.count_track_lengths(data.model.track_lengths)
        plots["errors"] = facts.count_errors(data.model.errors_px)
    return plots


def _choose_names(data: ReportData) -> list[str]:
    """Choose the images to show: up to a third outside the model, all evenly."""
    names = [name for name in data.names if name not in data.skipped]
    if len(names) <= MAX_THUMBNAILS:
        return names
    outside = [name for name in names if name not in data.registered]
    shown = choose_evenly(outside, MAX_THUMBNAILS // 3)
    rest = [name for name in names if name not in set(outside)] or names
    rest = [name for name in rest if name not in set(shown)]
    return sorted(shown + choose_evenly(rest, MAX_THUMBNAILS - len(shown)))


def _choose_pairs(data: ReportData, graph: ViewGraph) -> tuple[list[Pair], list[Pair]]:
    """Choose the pairs with most verified matches and those with fewest.

    Where none was verified, the pairs with most matches stand in for the best.
    """
    ranked = graph.strongest_first
    if not ranked:
        counts = {pair: len(data.matches[pair]) for pair in data.matches}
        ranked = sorted(counts, key=lambda pair: (-counts[pair], pair))
        return [pair for pair in ranked[:_PAIRS_SHOWN] if counts[pair]], []
    best = ranked[:_PAIRS_SHOWN]
    return best, ranked[_PAIRS_SHOWN:][-_PAIRS_SHOWN:][::-1]


def _draw_thumbnail(data: ReportData, name: str) -> _Thumbnail:
    xy = data.keypoints.get(name, np.zeros((0, 2), np.float32))
    seen: Bool = np.zeros(len(xy), np.bool_)
    if data.model and name in data.model.images:
        image = data.model.images[name]
        xy, seen = image.keypoints, image.point_ids >= 0
    picture, orientation = None, 1
    try:
        upright = pictures.load_upright(data.find(name), _THUMBNAIL_PX)
        orientation = upright.orientation
        picture = pictures.draw_keypoints(upright, xy, seen if data.model else None)
    except ImageError as error:
        _tell(error, data.find(name))
    return _Thumbnail(name, picture, orientation, len(xy), int(seen.sum()))


def _draw_pair(data: ReportData, pair: Pair) -> _DrawnPair:
    inliers = data.verified.get(pair, np.zeros((0, 2), np.int32))
    matches = _look_up(data.matches, pair)
    picture = None
    try:
        a, b = (pictures.load_upright(data.find(name), _PAIR_PX) for name in pair)
        keypoints = data.keypoints[pair[0]], data.keypoints[pair[1]]
        lines = pictures.split_matches(
            keypoints, inliers, inliers if matches is None else matches
        )
        picture = pictures.draw_pair(a, b, *lines)
    except ImageError as error:
        _tell(error, *map(data.find, pair))
    known = None if matches is None else len(matches)
    return _DrawnPair(pair, picture, len(inliers), known)


def _tell(error: ImageError, *paths: Path) -> None:
    """Say what cannot be drawn; of absent files the page does."""
    if all(path.is_file() for path in paths):
        logger.warning("report: %s", error)


def _look_up(pairs: Mapping[Pair, I32], pair: Pair) -> I32 | None:
    """Find a pair's indices (K, 2), whichever way round it is stored."""
    if pair in pairs:
        return pairs[pair]
    turned = pair[1], pair[0]
    return pairs[turned][:, ::-1] if turned in pairs else None


def _measure_shape(thumbnails: Sequence[_Thumbnail]) -> float:
    """Return the width of most pictures over their height, within reason."""
    shapes = [t.picture.width / t.picture.height for t in thumbnails if t.picture]
    return float(np.clip(np.median(shapes), 0.75, 2)) if shapes else 4 / 3
