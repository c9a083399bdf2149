"""Extended CMU Seasons: localize the queries, slice by slice.

$ python -m pipelines.cmu cmu --output cmu-output
$ python -m pipelines.cmu cmu --slices 2 3 --output cmu-output

Download slices from https://www.visuallocalization.net/datasets and unpack them:

  cmu/intrinsics.txt
  cmu/slice2/database/*.jpg  query/*.jpg  sparse/{cameras,images,points3D}.bin
  cmu/slice2/test-images-slice2.txt
  cmu/slice2/camera-poses/*.txt        (some slices; then the table has figures)

Where poses of the queries are not public, send OUTPUT/CMU_eval_*.txt: it has all slices
that were localized so far with the same --output.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from pipelines.benchmarks.results import Result, Row
from pipelines.protocols import recall
from pipelines.protocols.chain import Located, Task, locate, read_located, take_model
from pipelines.protocols.command import (
    add_settings,
    make_parser,
    name_settings,
    read_settings,
    run_command,
)
from pipelines.protocols.poses import pose_from_centre, read_numbered
from pipelines.protocols.submission import write_submission
from sfm_features.colmap import read_model
from sfm_features.errors import InputError
from sfm_features.photo_files import read_lines
from sfm_features.queries import Query, read_queries
from sfm_features.types import Pose

logger = logging.getLogger(__name__)

_MODULE = "pipelines.cmu"
_AREAS = {"urban": range(2, 9), "suburban": range(9, 18), "park": range(18, 26)}
_TESTED = (*range(2, 7), *range(13, 22))
"""The slices whose queries the server scores."""


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(_MODULE, __doc__)
    add = parser.add_argument
    add("dataset", type=Path, help="folder of the slices")
    add("--slices", type=int, nargs="+", metavar="N",
        help="default: those of 2 to 6 and 13 to 21 that are there")  # fmt: skip
    add_settings(parser, retrieval=20)
    return parser.parse_args(arguments)


def run(args: argparse.Namespace) -> dict[str, Result]:
    """Localize in every slice, write one file for the server and a table."""
    settings = read_settings(args)
    rows: list[Row] = []
    details = {}
    for number in choose_slices(args.dataset, args.slices):
        folder = args.dataset / f"slice{number}"
        task = read_slice(folder, args.dataset / "intrinsics.txt", settings.covisible)
        found = locate(task, args.output / folder.name, settings)
        truth = read_truth(folder / "camera-poses", found)
        posed = sum(located.pose is not None for located in found.values())
        area = next(name for name, slices in _AREAS.items() if number in slices)
        row: Row = {
            "slice": number,
            "area": area,
            "with a pose": f"{posed} of {len(found)}",
        }
        errors = recall.measure_errors(found, truth)
        if truth:
            row = recall.make_row(row, errors, recall.OUTDOORS, found)
        rows.append(row)
        details[folder.name] = {
            "failed": recall.count_failures(found),
            "queries": recall.list_queries(found, errors),
        }
    sent = args.output / f"CMU_eval_sfm-features-{args.extractor}.txt"
    write_submission(sent, _collect(args.output))
    logger.info("%s: send it to the server", sent)
    title = f"Extended CMU Seasons: {name_settings(settings)}"
    return {"cmu": Result(title, rows, details=details)}


def choose_slices(dataset: Path, wanted: Sequence[int] | None) -> list[int]:
    """Return the slices asked for, or those that count and are there."""
    known = [number for slices in _AREAS.values() for number in slices]
    found = [n for n in wanted or _TESTED if (dataset / f"slice{n}").is_dir()]
    missing = sorted(set(wanted or ()) - (set(found) & set(known)))
    if missing or not found:
        raise InputError(
            f"{dataset}: has no slice{missing[0] if missing else 2}; unpack it there, "
            "or name others with --slices"
        )
    return found


def read_slice(folder: Path, intrinsics: Path, covisible: int) -> Task:
    """Read a slice; names get the folder that their images are in."""
    model = read_model(folder / "sparse")
    images = {
        f"database/{name}": replace(image, name=f"database/{name}")
        for name, image in model.images.items()
    }
    known = take_model(replace(model, images=images), covisible)
    cameras = {query.name: query.camera for query in read_queries(intrinsics)}
    listed = folder / f"test-images-{folder.name}.txt"
    queries = []
    for name in dict.fromkeys(read_lines(listed)):
        parts = name.split("_")
        if len(parts) < 3 or parts[2] not in cameras:
            raise InputError(
                f"{listed}: {name!r} does not tell its camera, one of "
                f"{', '.join(cameras)} in {intrinsics.name}; unpack both again"
            )
        queries.append(Query(f"query/{name}", cameras[parts[2]]))
    return Task(folder, known, queries)


def read_truth(folder: Path, queries: Collection[str]) -> dict[str, Pose]:
    """Read the poses of queries, where they are public: centres, as in NVM."""
    found = {}
    for path in sorted(folder.glob("*.txt")):
        for name, numbers in read_numbered(path, 7).items():
            found[f"query/{Path(name).name}"] = pose_from_centre(
                numbers[:4], numbers[4:]
            )
    return {name: pose for name, pose in found.items() if name in queries}


def _collect(output: Path) -> dict[str, Located]:
    """Gather what was found in all slices, in this run or before."""
    found: dict[str, Located] = {}
    for path in sorted(output.glob("slice*/poses/poses.json")):
        found |= read_located(path)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Localize, print a table, write it down."""
    return run_command(_MODULE, arguments, parse_args(arguments), run)


if __name__ == "__main__":
    sys.exit(main())
