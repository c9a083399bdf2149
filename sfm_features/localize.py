"""Queries to poses: a folder or a list of images, localized in a map one by one.

What is done is written down at once, so that a stopped run goes on with the rest.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from tqdm import tqdm

from sfm_features import colmap
from sfm_features.errors import ImageError, InputError, OptionError
from sfm_features.geometry import quaternion_wxyz
from sfm_features.images import decode
from sfm_features.journal import claim, explain_os_errors, replace_text
from sfm_features.localizer import Localizer
from sfm_features.queries import (
    LocalizeOptions,
    Query,
    QueryOptions,
    add_priors,
    list_queries,
    refuse_equal_basenames,
)
from sfm_features.query_report import (
    pack_matches,
    report_localization,
    without_matches,
)
from sfm_features.summary import read_image_folders
from sfm_features.types import Localization, Model, Pose, RunOptions
from sfm_features.workspace import (
    Workspace,
    digest,
    file_state,
    refuse_map_itself,
)

logger = logging.getLogger(__name__)

Record = Mapping[str, Any]

_MOST_REASONS = 10
"""Failed queries that the terminal tells of."""


@dataclass(frozen=True)
class LocalizeSummary:
    """How many queries there were, and why some failed: by status, and each."""

    total: int
    localized: int
    failed: Mapping[str, int] = field(default_factory=dict)
    reused: int = 0
    reasons: Mapping[str, str] = field(default_factory=dict)

    def headline(self) -> str:
        """Say it in a line."""
        failed = ", ".join(f"{count} {status}" for status, count in self.failed.items())
        text = f"{self.localized} of {self.total} images localized"
        return f"{text}, failed: {failed}" if failed else text

    def to_text(self) -> str:
        """Say it in lines, with the reasons of the first failures."""
        shown = list(self.reasons.items())[:_MOST_REASONS]
        lines = [self.headline(), *(f"  {name}: {reason}" for name, reason in shown)]
        if len(self.reasons) > len(shown):
            left = len(self.reasons) - len(shown)
            lines.append(f"  and {left} more; poses.json has all of them")
        return "\n".join(lines)


def localize(
    map_folder: Path | str,
    source: Path | str,
    output: Path | str,
    queries: QueryOptions = QueryOptions(),
    options: LocalizeOptions = LocalizeOptions(),
    run: RunOptions = RunOptions(),
) -> LocalizeSummary:
    """Localize queries into OUTPUT/poses.txt and poses.json, or complete them.

    OUTPUT/report.html shows them.
    """
    map_folder, source, output = Path(map_folder), Path(source), Path(output)
    folder, wanted = list_queries(source, queries.images)
    if queries.names == "basename":
        refuse_equal_basenames(wanted)
    if queries.priors is not None:
        wanted = add_priors(wanted, queries.priors)
    elif np.isfinite(options.max_distance):
        raise OptionError(
            "--max-distance: needs --priors, which tell where queries were taken; add "
            "them, or leave it out"
        )
    refuse_map_itself(output, map_folder)
    with Localizer(map_folder, options, run) as localizer:
        _check_fallback(localizer, queries)
        with claim(output):
            records, reused = _complete(localizer, folder, wanted, output, queries)
            if queries.report:
                given = queries.map_images
                report_localization(
                    output,
                    folder,
                    read_image_folders(map_folder) if given is None else [given],
                    localizer.atlas.model,
                    records,
                    (queries, options, run),
                )
    summary = _summarize(records, reused)
    logger.info("%s: %s", output / "poses.txt", summary.headline())
    return summary


def _summarize(records: Sequence[Record], reused: int) -> LocalizeSummary:
    failed = [record for record in records if record["status"] != "localized"]
    return LocalizeSummary(
        len(records),
        len(records) - len(failed),
        dict(Counter(record["status"] for record in failed).most_common()),
        reused,
        {r["name"]: f"{r['status']} ({r['reason']})" for r in failed},
    )


def _complete(
    localizer: Localizer,
    folder: Path,
    wanted: Sequence[Query],
    output: Path,
    queries: QueryOptions,
) -> tuple[list[Record], int]:
    """Localize what is not done, and write all; return all, and how many were done."""
    run = localizer.run
    made_by = localizer.atlas.folder, localizer.options, run
    with explain_os_errors(output):
        journal = _Journal(
            output / "queries.jsonl", _stamp(*made_by), _list_settings(*made_by)
        )
        asked = {query.name: _ask(folder, query) for query in wanted}
        missing = [q for q in wanted if not journal.has(q.name, asked[q.name])]
        # `disable` is not passed: it would override TQDM_DISABLE.
        bar = tqdm(missing, desc="localize", unit="image") if missing else []
        for query in bar:
            record = _localize_one(localizer, folder, query, run.strict)
            journal.add(record, asked[query.name])
        records = [journal.records[query.name] for query in wanted]
        if queries.fallback == "retrieval":
            records = [_fall_back(record, localizer) for record in records]
        _write(output, records, queries.names == "path")
    return records, len(wanted) - len(missing)


def _check_fallback(localizer: Localizer, queries: QueryOptions) -> None:
    """Refuse a fallback where all images are matched: none is known to look alike."""
    if queries.fallback == "retrieval" and localizer.atlas.vlad is None:
        raise OptionError(
            "--fallback retrieval: no codebook fits the features of "
            f"{localizer.atlas.folder}, so nothing tells which image looks most like a "
            "query; give one with --codebook, or leave --fallback out"
        )


def _stamp(map_folder: Path, options: LocalizeOptions, run: RunOptions) -> str:
    """Digest what the poses depend on, apart from the queries."""
    workspace = Workspace(map_folder)
    states = [file_state(p) for p in sorted(workspace.sparse.glob("*/*.bin"))]
    return digest(file_state(workspace.features), states, options, run.seed)


def _list_settings(
    map_folder: Path, options: LocalizeOptions, run: RunOptions
) -> dict[str, str]:
    """List what the poses depend on, so that what differs can be named."""
    given = {name: str(value) for name, value in asdict(options).items()}
    map_alone = _stamp(map_folder, LocalizeOptions(), RunOptions())
    return {"map": map_alone, **given, "seed": str(run.seed)}


def _ask(folder: Path, query: Query) -> str:
    """Digest what a query's own pose depends on: its file, its camera, its prior."""
    path = folder / query.name
    state = file_state(path) if path.is_file() else None
    return digest(state, query.camera, query.prior)


class _Journal:
    """One line of JSON for each finished query; the first says what made them."""

    def __init__(self, path: Path, stamp: str, settings: Mapping[str, str]) -> None:
        self.path = path
        self.records: dict[str, Record] = {}
        self._asked: dict[str, str] = {}
        lines = path.read_bytes().split(b"\n") if path.is_file() else []
        whole = lines[:-1]  # what comes after the last newline was cut off
        if not whole:
            head = json.dumps({"stamp": stamp, "settings": settings})
            path.write_text(head + "\n", encoding="utf-8")
            return
        try:
            first, *rest = (without_matches(dict(json.loads(line))) for line in whole)
            names = [str(record["name"]) for record in rest]
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{path}: cannot be read ({error}); delete it, or choose another "
                "--output"
            ) from error
        if first.get("stamp") != stamp:
            raise InputError(
                f"{path.parent}: holds poses {_tell_apart(first, settings)}; choose "
                "another --output, or delete it"
            )
        for name, record in zip(names, rest, strict=True):  # the last of a name counts
            self._asked[name] = record.pop("asked", "")
            self.records[name] = record
        if lines[-1]:
            replace_text(path, b"\n".join([*whole, b""]).decode())

    def has(self, name: str, asked: str) -> bool:
        """Tell whether a query is finished, and was the same then."""
        return self._asked.get(name) == asked

    def add(self, record: Record, asked: str) -> None:
        """Write a query down; it stays, whatever happens next."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**record, "asked": asked}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.records[record["name"]] = without_matches(record)


def _tell_apart(head: Record, wanted: Mapping[str, str]) -> str:
    """Say by what other map or options a journal's poses were made."""
    stored = head.get("settings")
    if isinstance(stored, dict):
        if stored.get("map") != wanted["map"]:
            return "by another map, or by this one before it was made again"
        for name, value in wanted.items():
            if stored.get(name) != value:
                return f"made with {name} = {stored.get(name)}, now asked for {value}"
    return "by another map or other options"


def _localize_one(
    localizer: Localizer, folder: Path, query: Query, strict: bool
) -> Record:
    try:
        image = decode(folder / query.name)
    except ImageError as error:
        return _give_up(query, "unreadable", error, strict)
    camera, exif = query.camera, None
    if camera is None:
        exif = colmap.read_exif_camera(folder, query.name, image.size)
    elif (camera.width, camera.height) != image.size:
        wrong = InputError(
            f"{query.name}: its camera is of {camera.width} x {camera.height} px, the "
            f"image of {image.size[0]} x {image.size[1]}; correct the list"
        )
        return _give_up(query, "wrong camera", wrong, strict)
    found = localizer.localize(
        *(image.rgb, camera or exif, query.prior, image.orientation),
        rough=exif is not None,
    )
    return _record(query.name, found, localizer.atlas.model)


def _give_up(query: Query, status: str, error: InputError, strict: bool) -> Record:
    """Note why a query cannot be tried, and go on with the others unless `strict`."""
    if strict:
        raise error
    logger.warning("%s", error)
    return {"name": query.name, "status": status, "reason": str(error)}


def _record(name: str, found: Localization, model: Model) -> Record:
    pose = None
    if found.cam_from_world is not None and found.covariance is not None:
        pose = _list_pose(found.cam_from_world)
        pose["covariance"] = found.covariance.tolist()
    return {
        "name": name,
        "status": found.status,
        "reason": found.reason,
        "pose": pose,
        "camera": asdict(found.camera),
        "inliers": found.num_inliers,
        "matches": len(found.xy),
        "retrieved": list(found.retrieved),
        "milliseconds": found.milliseconds,
        "matched": pack_matches(found, model),
    }


def _list_pose(pose: Pose) -> dict[str, Any]:
    return {
        "qw_qx_qy_qz": quaternion_wxyz(pose.rotation).tolist(),
        "translation": np.asarray(pose.translation).tolist(),
        "centre": pose.centre.tolist(),
    }


def _fall_back(record: Record, localizer: Localizer) -> Record:
    """Give a failed query the pose of the image that looks most like it."""
    retrieved = record.get("retrieved")
    if record.get("pose") is not None or not retrieved:
        return record
    nearest = localizer.atlas.model.images[retrieved[0]].cam_from_world
    return {**record, "pose": _list_pose(nearest), "fallback": retrieved[0]}


def _write(output: Path, records: Sequence[Record], with_folders: bool) -> None:
    lines = []
    for record in records:
        if record.get("pose") is not None:
            pose, name = record["pose"], record["name"]
            shown = name if with_folders else PurePosixPath(name).name
            numbers = [*pose["qw_qx_qy_qz"], *pose["translation"]]
            lines.append(" ".join([shown, *map(str, numbers)]) + "\n")
    replace_text(output / "poses.txt", "".join(lines))
    replace_text(output / "poses.json", json.dumps(list(records), indent=1) + "\n")
