"""Put the report of a localization together and write it."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sfm_features.journal import replace_text
from sfm_features.report import facts, pictures, scene
from sfm_features.report.evidence import Evidence, draw_evidence
from sfm_features.report.queries import (
    WEAK_BELOW,
    LocalizationData,
    QueryMatches,
    QueryResult,
)
from sfm_features.report.rendering import (
    choose_evenly,
    draw_in_threads,
    load_template,
    name_folder,
)
from sfm_features.report.scene import Viewer, Viewers

logger = logging.getLogger(__name__)

MAX_DETAILED = 60
MAX_ROWS = 5_000
"""Queries in the table, and in the scene."""
MAX_PICTURE_BYTES = 20_000_000
"""Pictures of the page, so that a browser opens it at once."""
_FAILURES_SHOWN = 2 / 3
_COLOURS = {"map": "#8b96a8", "good": "#4ade80", "weak": "#ffd440", "other": "#ff7868"}


def write_localization_report(output: Path, data: LocalizationData) -> Path:
    """Write the report of a localization as one HTML file and return its path."""
    render = load_template("localization.html.j2")
    ranked = sorted(data.results, key=_rank)
    shown = _choose(ranked)
    matches = data.read_matches([result.name for result in shown])
    drawn = _draw(data, shown, matches)
    page = render(
        **_describe(data, ranked),
        drawn=drawn,
        anchors={each.result.name: f"q{i}" for i, each in enumerate(drawn)},
        plots={"scene": _arrange(data)},
    )
    replace_text(output, page)
    logger.info("report: %s (%.1f MB)", output, len(page) / 1e6)
    return output


def _rank(result: QueryResult) -> tuple[bool, int, str]:
    """Order failures first, then those by the fewest inliers."""
    return result.is_localized, result.inliers, result.name


def _choose(ranked: Sequence[QueryResult]) -> list[QueryResult]:
    """Choose what is shown in detail: failures first, the others evenly spread."""
    failed = [result for result in ranked if not result.is_localized]
    found = ranked[len(failed) :]
    room = max(MAX_DETAILED - len(found), round(_FAILURES_SHOWN * MAX_DETAILED))
    shown = choose_evenly(failed, room)
    return shown + choose_evenly(found, MAX_DETAILED - len(shown))


def _draw(
    data: LocalizationData,
    shown: Sequence[QueryResult],
    matches: Mapping[str, QueryMatches],
) -> list[Evidence]:
    """Draw as many as the page has room for."""

    def draw(result: QueryResult) -> Evidence:
        return draw_evidence(data, result, matches.get(result.name, QueryMatches()))

    drawn: list[Evidence] = []
    room = MAX_PICTURE_BYTES
    for each in tqdm(
        draw_in_threads(draw, shown), desc="report", unit="image", total=len(shown)
    ):
        room -= each.size
        if room >= 0:
            drawn.append(each)
    return drawn


def _describe(data: LocalizationData, ranked: Sequence[QueryResult]) -> dict[str, Any]:
    """Gather what the page says in words and numbers."""
    found = [result for result in ranked if result.is_localized]
    failed = ranked[: len(ranked) - len(found)]
    inliers = [result.inliers for result in found]
    return {
        "kind": "Localization report",
        "title": name_folder(data.images.resolve()),
        "made": datetime.now().astimezone(),
        "ranked": ranked,
        "rows": ranked[:MAX_ROWS],
        "placed": len(_list_placed(ranked)),
        "most_placed": MAX_ROWS,
        "found": len(found),
        "weak": sum(result.is_weak for result in found),
        "weak_below": WEAK_BELOW,
        "failures": Counter(result.status for result in failed).most_common(),
        "median_inliers": round(float(np.median(inliers))) if inliers else 0,
        "seconds": _average_seconds(ranked),
        "median_seconds": _median_seconds(ranked),
        "model": data.model,
        "most_lines": (pictures.MAX_LINES, pictures.MAX_REJECTED),
        "options": facts.group_options(data.options),
        "versions": facts.list_versions(),
    }


def _average_seconds(results: Sequence[QueryResult]) -> dict[str, float]:
    """Return the mean of each stage in seconds; who went without it took none."""
    took: dict[str, float] = defaultdict(float)
    for result in results:
        for stage, milliseconds in result.milliseconds.items():
            took[stage] += milliseconds
    timed = sum(bool(result.milliseconds) for result in results)
    return {stage: total / timed / 1000 for stage, total in took.items()}


def _median_seconds(results: Sequence[QueryResult]) -> float:
    """Return what an image took in the middle, all stages together."""
    took = [sum(r.milliseconds.values()) for r in results if r.milliseconds]
    return float(np.median(took)) / 1000 if took else 0.0


def _list_placed(results: Sequence[QueryResult]) -> list[QueryResult]:
    """List those that stand somewhere, by a pose of their own or another's."""
    return [r for r in results if r.pose is not None and r.camera is not None]


def _arrange(data: LocalizationData) -> dict[str, Any]:
    """Place the queries among the map's cameras, by how sure their poses are."""
    members: dict[str, list[Viewer]] = {"good": [], "weak": [], "other": []}
    for result in choose_evenly(_list_placed(data.results), MAX_ROWS):
        assert result.pose is not None and result.camera is not None, result.name
        kind = "good" if result.is_localized else "other"
        note = f"{result.inliers:,} of {result.matches:,} matches fit"
        if not result.is_localized:
            note = f"{result.status}; pose of {result.fallback}"
        viewer = Viewer(result.name, result.camera, result.pose, note)
        members["weak" if result.is_weak else kind].append(viewer)
    labels = {
        "good": "Localized",
        "weak": f"By fewer than {WEAK_BELOW} inliers",
        "other": "Pose of the most similar image",
    }
    queries = [Viewers(labels[k], _COLOURS[k], members[k]) for k in members]
    return scene.arrange_scene(data.model, {}, queries, _COLOURS["map"], "Map")
