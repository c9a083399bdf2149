"""Aachen Day-Night v1.1 and v1: localize the queries, write what the server wants.

$ python -m pipelines.aachen aachen --output aachen-output
$ python -m pipelines.aachen aachen --version 1 --output aachen-v1-output
$ python -m pipelines.aachen aachen --validate Aachen_v1_1_eval_mine.txt

Download the data set from https://www.visuallocalization.net/datasets and unpack v1,
then aachen_v1_1.zip over it:

  aachen/images_upright/             or aachen/images/images_upright/
      db/*.jpg  query/day/*/*.jpg  query/night/*/*.jpg  sequences/ (v1.1, *.png)
  aachen/queries/*_time_queries_with_intrinsics*.txt
  aachen/3D-models/aachen_v_1_1/{cameras,images,points3D}.bin            (v1.1)
  aachen/3D-models/aachen_cvpr2018_db.nvm, database_intrinsics.txt       (v1)

The map is triangulated at the known poses, between the images that see the same points.
True poses of the queries are not public: send OUTPUT/Aachen_*_eval_*.txt to the server.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipelines.benchmarks.results import Result, Row
from pipelines.protocols.chain import PosedImages, Task, locate, take_model
from pipelines.protocols.command import (
    add_settings,
    make_parser,
    name_settings,
    print_verdict,
    read_settings,
    run_command,
)
from pipelines.protocols.lists import choose_folder, merge_lists
from pipelines.protocols.nvm import read_nvm
from pipelines.protocols.published import AACHEN
from pipelines.protocols.recall import count_failures, list_queries
from pipelines.protocols.submission import (
    Verdict,
    refuse_equal_names,
    use_basename,
    validate,
    write_submission,
)
from sfm_features.colmap import read_model
from sfm_features.errors import InputError
from sfm_features.queries import Query, read_queries

logger = logging.getLogger(__name__)

_MODULE = "pipelines.aachen"
_COUNTS = {"1.1": {"day": 824, "night": 191}, "1": {"day": 824, "night": 98}}
_ONLY_IN_1_1 = "nexus5x_additional_night"


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(_MODULE, __doc__)
    add = parser.add_argument
    add("dataset", type=Path, nargs="?", help="the unpacked data set")
    add("--version", choices=tuple(_COUNTS), default="1.1")
    add("--validate", type=Path, metavar="FILE",
        help="check a file for the server and do nothing else; with DATASET also its "
        "names")  # fmt: skip
    add_settings(parser, retrieval=50)
    return parser.parse_args(arguments)


def run(args: argparse.Namespace) -> dict[str, Result]:
    """Make the map, localize, write the file for the server."""
    if args.dataset is None:
        raise InputError("which data set? give its folder, or --validate FILE")
    settings = read_settings(args)
    images = choose_folder(args.dataset, ("images_upright", "images/images_upright"))
    groups = read_groups(args.dataset, args.version)
    known = read_map(args.dataset, args.version, settings.covisible)
    queries = [query for group in groups.values() for query in group]
    refuse_equal_names(query.name for query in queries)
    found = locate(Task(images, known, queries), args.output, settings)
    start = "Aachen_v1_1_eval" if args.version == "1.1" else "Aachen_eval"
    sent = args.output / f"{start}_sfm-features-{args.extractor}.txt"
    write_submission(sent, found)
    logger.info("%s: %s", sent, check(sent, groups).to_text())
    posed = {
        group: sum(found[query.name].pose is not None for query in listed)
        for group, listed in groups.items()
    }
    cells = {g: f"{posed[g]} of {len(groups[g])} have a pose" for g in groups}
    rows: list[Row] = [
        {"method": name_settings(settings), **cells, "source": f"send {sent.name}"},
        *AACHEN[args.version],
    ]
    title = (
        f"Aachen Day-Night v{args.version}: % within 0.25 m, 2 deg / 0.5 m, 5 deg / "
        "5 m, 10 deg"
    )
    details = {"failed": count_failures(found), "queries": list_queries(found, {})}
    return {"aachen": Result(title, rows, details=details)}


def read_groups(dataset: Path, version: str) -> dict[str, list[Query]]:
    """Read the queries by day and by night; only those of the lists count.

    The list of v1.1 replaces that of v1, or lies beside it.
    """
    groups = {}
    for group, count in _COUNTS[version].items():
        listed = merge_lists(
            dataset / "queries", f"{group}_time_queries_with_intrinsics*.txt"
        )
        if version == "1":
            listed = [query for query in listed if _ONLY_IN_1_1 not in query.name]
        if len(listed) != count:
            logger.warning(
                "%s: lists %d queries by %s, version %s has %d; take the lists that "
                "came with it", dataset / "queries", len(listed), group, version, count,
            )  # fmt: skip
        groups[group] = listed
    return groups


def read_map(dataset: Path, version: str, covisible: int) -> PosedImages:
    """Read the posed images; only those of the model, and not all that are there."""
    models = dataset / "3D-models"
    if version == "1.1":
        return take_model(read_model(models / "aachen_v_1_1"), covisible)
    found = read_nvm(models / "aachen_cvpr2018_db.nvm")
    # Focal lengths in the NVM are not the true ones, says the data set's README.
    listed = models / "database_intrinsics.txt"
    cameras = {q.name: q.camera for q in read_queries(listed) if q.camera is not None}
    missing = sorted(found.poses.keys() - cameras.keys())
    if missing:
        raise InputError(
            f"{listed}: has no camera of {missing[0]!r} ({len(missing)} such), which "
            "is in the NVM; unpack both again"
        )
    return take_model(found.to_model(cameras), covisible)


def check(path: Path, groups: Mapping[str, Sequence[Query]]) -> Verdict:
    """Check a file for the server by the lists of queries."""
    expected = {group: len(listed) for group, listed in groups.items()}
    names = {use_basename(q.name): g for g, listed in groups.items() for q in listed}
    return validate(path, expected, names)


def check_alone(args: argparse.Namespace) -> Verdict:
    """Check a file for the server, without lists where the data set is not given."""
    if args.dataset is None:
        return validate(args.validate, _COUNTS[args.version])
    return check(args.validate, read_groups(args.dataset, args.version))


def main(arguments: Sequence[str] | None = None) -> int:
    """Localize, print a table, write it down; or check a file."""
    args = parse_args(arguments)
    if args.validate is not None:
        return print_verdict(lambda: check_alone(args))
    return run_command(_MODULE, arguments, args, run)


if __name__ == "__main__":
    sys.exit(main())
