"""Gathers what the report of a localization shows from what was written down."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sfm_features.errors import MissingExtra
from sfm_features.geometry import rotation_from_quaternion
from sfm_features.journal import explain_os_errors
from sfm_features.report import (
    LocalizationData,
    QueryMatches,
    QueryResult,
    write_localization_report,
)
from sfm_features.report.pictures import choose_rows
from sfm_features.types import I64, Camera, Localization, Model, Pose
from sfm_features.workspace import Workspace

logger = logging.getLogger(__name__)

_MOST_INLIERS, _MOST_OTHERS = 500, 100
"""Matches of a query that are kept for its picture."""
_MATCHED = "matched"


def pack_matches(found: Localization, model: Model) -> dict[str, Any]:
    """Pack matches for a line of JSON: those that fit first, `fitting` of them.

    Pixels are rounded to a tenth, points are rows of the map's. As not all are kept,
    what each image sees is counted before.
    """
    fitting, others = np.flatnonzero(found.inliers), np.flatnonzero(~found.inliers)
    counted = found.point_rows[fitting if len(fitting) else others]
    fitting = fitting[choose_rows(len(fitting), _MOST_INLIERS)]
    others = others[choose_rows(len(others), _MOST_OTHERS)]
    rows = np.concatenate([fitting, others])
    return {
        "fitting": len(fitting),
        "shared": _count_shared(model, found.retrieved, counted),
        "points": found.point_rows[rows].tolist(),
        "pixels": found.xy[rows].astype(np.float64).round(1).tolist(),
    }


def _count_shared(
    model: Model, retrieved: Sequence[str], points: I64
) -> list[tuple[str, int]]:
    """Count which of some points each retrieved image sees, the most first."""
    points = np.unique(points)
    counts = [
        (name, int(np.isin(points, model.images[name].point_ids).sum()))
        for name in retrieved
    ]
    return sorted(counts, key=lambda count: -count[1])


def without_matches(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record that memory and poses.json have room for."""
    return {key: value for key, value in record.items() if key != _MATCHED}


def report_localization(
    output: Path,
    images: Path,
    map_images: Sequence[Path],
    model: Model,
    records: Sequence[Mapping[str, Any]],
    options: Sequence[Any],
) -> None:
    """Write OUTPUT/report.html of records and of the matches in OUTPUT/queries.jsonl.

    Where what draws it is not installed, that is only said.
    """
    path = Workspace(output).report
    data = LocalizationData(
        images=images,
        map_images=map_images,
        model=model,
        results=[_to_result(record) for record in records],
        read_matches=lambda names: dict(
            _read_matches(output / "queries.jsonl", names, model)
        ),
        options={type(part).__name__.removesuffix("Options"): part for part in options},
    )
    try:
        with explain_os_errors(path):
            write_localization_report(path, data)
    except MissingExtra as error:
        logger.warning("no report: %s", error)
    else:
        logger.info("look at %s", path)


def _to_result(record: Mapping[str, Any]) -> QueryResult:
    pose, camera = record.get("pose"), record.get("camera")
    if pose is not None:
        rotation = rotation_from_quaternion(pose["qw_qx_qy_qz"])
        pose = Pose(rotation, np.array(pose["translation"]))
    if camera is not None:
        camera = Camera(**{**camera, "params": tuple(camera["params"])})
    return QueryResult(
        name=record["name"],
        status=record["status"],
        reason=record["reason"],
        inliers=record.get("inliers", 0),
        matches=record.get("matches", 0),
        pose=pose,
        camera=camera,
        retrieved=tuple(record.get("retrieved", ())),
        milliseconds=record.get("milliseconds", {}),
        fallback=record.get("fallback", ""),
    )


def _read_matches(
    journal: Path, names: Sequence[str], model: Model
) -> Iterator[tuple[str, QueryMatches]]:
    """Read the matches of some queries, line by line: all would fill the memory."""
    wanted = set(names)
    with journal.open(encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            if record.get("name") in wanted and _MATCHED in record:
                packed = record[_MATCHED]
                points = np.array(packed["points"], np.int64)
                fits = np.arange(len(points)) < packed["fitting"]
                shared = packed.get("shared")
                if shared is None:  # written before it was counted of all matches
                    kept = points[fits if fits.any() else ~fits]
                    shared = _count_shared(model, record["retrieved"], kept)
                yield (
                    record["name"],
                    QueryMatches(
                        np.array(packed["pixels"], np.float32).reshape(-1, 2),
                        points,
                        fits,
                        [(name, count) for name, count in shared],
                    ),
                )
