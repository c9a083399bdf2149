"""Images with known poses become a map, and other images are localized in it.

Every stage keeps what is done, so that a stopped run goes on.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from sfm_features.colmap import write_poses
from sfm_features.errors import InputError
from sfm_features.extract import ExtractOptions
from sfm_features.geometry import rotation_from_quaternion
from sfm_features.journal import explain_os_errors, replace_text
from sfm_features.localize import localize
from sfm_features.pair_files import write_pairs
from sfm_features.pairs import pair_by_covisibility, pair_by_poses
from sfm_features.queries import LocalizeOptions, Query, QueryOptions
from sfm_features.retrieve import describe, has_codebook
from sfm_features.triangulate import TriangulateOptions, triangulate
from sfm_features.types import Camera, Model, Pair, Pose, RunOptions
from sfm_features.workspace import Workspace, digest, has_stamp, write_stamp

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PosedImages:
    """What a map is made from: cameras and poses by name, and pairs to match."""

    cameras: Mapping[str, Camera]
    poses: Mapping[str, Pose]
    pairs: Sequence[Pair]


@dataclass(frozen=True)
class Task:
    """Images of a map and others to be localized in it; names are below `images`."""

    images: Path
    known: PosedImages
    queries: Sequence[Query]


@dataclass(frozen=True)
class Settings:
    """How a map is made and how queries are localized in it."""

    extraction: ExtractOptions = ExtractOptions()
    localization: LocalizeOptions = LocalizeOptions()
    covisible: int = 20
    """Images that each image of the map is matched with."""
    fallback: Literal["none", "retrieval"] = "none"
    """What a failed query gets: nothing, or the pose of the image most like it."""
    run: RunOptions = RunOptions()


@dataclass(frozen=True)
class Located:
    """What became of a query; the pose is cam_from_world, None if there is none."""

    status: str
    reason: str
    pose: Pose | None
    inliers: int = 0


def take_model(
    model: Model, neighbours: int, names: Iterable[str] | None = None
) -> PosedImages:
    """Take images of a model, all or some, and pair those that see the same points.

    A model without points is paired by its poses.
    """
    wanted = model.images if names is None else names
    images = {name: model.images[name] for name in sorted(wanted)}
    poses = {name: image.cam_from_world for name, image in images.items()}
    if len(model.points):
        known = Model(
            images, model.points, model.colours, model.errors_px, model.track_lengths
        )
        pairs = pair_by_covisibility(known, neighbours)
    else:
        pairs = pair_by_poses(poses, neighbours)
    return PosedImages({n: image.camera for n, image in images.items()}, poses, pairs)


def locate(task: Task, output: Path, settings: Settings) -> dict[str, Located]:
    """Make the map in OUTPUT/map and localize the queries into OUTPUT/poses."""
    _check(task)
    with explain_os_errors(output):
        output.mkdir(parents=True, exist_ok=True)
    made = output / "map"
    _make_map(task, output, made, settings)
    workspace = Workspace(made)
    codebook = settings.localization.codebook
    if codebook is not None or has_codebook(workspace.features):
        describe(workspace.features, workspace.descriptors, codebook)
    listed = output / "queries.txt"
    replace_text(listed, "".join(map(_write_query, task.queries)))
    how = QueryOptions(task.images, names="path", fallback=settings.fallback)
    localize(
        *(made, listed, output / "poses", how, settings.localization, settings.run)
    )
    return read_located(output / "poses" / "poses.json")


def read_located(path: Path) -> dict[str, Located]:
    """Read the poses.json that `localize` wrote."""
    return {
        record["name"]: Located(
            record["status"],
            record["reason"],
            _read_pose(record.get("pose")),
            record.get("inliers", 0),
        )
        for record in json.loads(path.read_text(encoding="utf-8"))
    }


def _check(task: Task) -> None:
    both = {query.name for query in task.queries} & task.known.poses.keys()
    if both:
        raise InputError(
            f"{min(both)}: is a query and in the map, too ({len(both)} such): it would "
            "find itself; take it out of either"
        )
    for what, count in (("map", len(task.known.poses)), ("query", len(task.queries))):
        if not count:
            raise InputError(f"{task.images}: no {what} images are left; check lists")
    absent = [n for n in sorted(task.known.poses) if not (task.images / n).is_file()]
    if absent:
        raise InputError(
            f"{task.images}: lacks {absent[0]!r} of the map ({len(absent)} such); "
            "unpack all archives of the data set there"
        )


def _make_map(task: Task, output: Path, made: Path, settings: Settings) -> None:
    """Triangulate the known images, unless that was done."""
    known = task.known
    stamp = digest(
        sorted(known.cameras.items()),
        [(n, p.rotation.tolist(), p.translation.tolist())
         for n, p in sorted(known.poses.items())],
        *(list(known.pairs), settings.extraction, settings.run.seed),
    )  # fmt: skip
    reference, pairs = output / "reference", output / "map-pairs.txt"
    # Half a map of other images could not be told from half of this one.
    note = output / ".map-of"
    if note.is_file() and note.read_text(encoding="utf-8") != stamp:
        raise InputError(
            f"{output}: holds a map of other images, or made with other settings; "
            "choose another --output, or delete it"
        )
    if has_stamp(made, stamp):
        return
    replace_text(note, stamp)
    with explain_os_errors(output):
        write_poses(known.cameras, known.poses, reference)
        write_pairs(pairs, known.pairs)
    options = TriangulateOptions(pairs=pairs)
    summary = triangulate(
        *(reference, task.images, made, options, settings.extraction),
        run=settings.run,
    )
    logger.info("%s: %s", made, summary.to_text().replace("\n", ", "))
    write_stamp(made, stamp)


def _write_query(query: Query) -> str:
    if query.camera is None:
        return f"{query.name}\n"
    camera = query.camera
    numbers = " ".join(map(repr, map(float, camera.params)))
    gap = "\t" if " " in query.name else " "
    size = f"{camera.width} {camera.height}"
    return f"{query.name}{gap}{camera.model} {size} {numbers}\n"


def _read_pose(found: Mapping[str, Sequence[float]] | None) -> Pose | None:
    if found is None:
        return None
    rotation = rotation_from_quaternion(found["qw_qx_qy_qz"])
    return Pose(rotation, np.array(found["translation"], np.float64))
