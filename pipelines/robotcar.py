"""RobotCar Seasons: localize the rear camera's images of nine conditions.

$ python -m pipelines.robotcar robotcar --output robotcar-output
$ python -m pipelines.robotcar robotcar --conditions dusk night-rain

Download the data set from https://www.visuallocalization.net/datasets and unpack it:

  robotcar/images/<condition>/rear/<timestamp>.jpg    (overcast-reference, dawn ...)
  robotcar/3D-models/all-merged/all.nvm
  robotcar/intrinsics/rear_intrinsics.txt
  robotcar/robotcar_v2_train.txt                      (v2; then the table has figures)

The map is of the rear images of overcast-reference: only rear images are scored, and
images of one camera are found best by those of the same. True poses are public for the
images of robotcar_v2_train.txt only; for all others send OUTPUT/RobotCar_eval_*.txt.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from pipelines.benchmarks.results import Result, Row
from pipelines.protocols import recall
from pipelines.protocols.chain import Located, Task, locate, take_model
from pipelines.protocols.command import (
    add_settings,
    make_parser,
    name_settings,
    read_settings,
    run_command,
)
from pipelines.protocols.nvm import read_nvm
from pipelines.protocols.poses import pose_from_camera_to_world, read_numbered
from pipelines.protocols.published import ROBOTCAR
from pipelines.protocols.submission import (
    refuse_equal_names,
    use_camera_folder,
    write_submission,
)
from sfm_features.errors import InputError, OptionError
from sfm_features.images import decode
from sfm_features.photo_files import read_lines
from sfm_features.queries import Query
from sfm_features.types import Camera, Pose

logger = logging.getLogger(__name__)

_MODULE = "pipelines.robotcar"
_REFERENCE, _CAMERA = "overcast-reference", "rear"
_BY_NIGHT = ("night", "night-rain")
_CONDITIONS = (
    "dawn", "dusk", *_BY_NIGHT, "overcast-summer", "overcast-winter", "rain", "snow",
    "sun",
)  # fmt: skip


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(_MODULE, __doc__)
    add = parser.add_argument
    add("dataset", type=Path, help="the unpacked data set")
    add("--conditions", nargs="+", default=_CONDITIONS, metavar="NAME",
        help=f"of {' '.join(_CONDITIONS)}; default: all that are there")  # fmt: skip
    add_settings(parser, retrieval=20)
    return parser.parse_args(arguments)


def run(args: argparse.Namespace) -> dict[str, Result]:
    """Make the map, localize, write the file for the server and a table."""
    settings = read_settings(args)
    images = args.dataset / "images"
    queries = list_conditions(images, args.conditions)
    refuse_equal_names(queries, use_camera_folder)
    camera = read_camera(args.dataset, images / queries[0])
    nvm = read_nvm(args.dataset / "3D-models/all-merged/all.nvm").rename(name_file)
    rear = {n: camera for n in nvm.poses if PurePosixPath(n).parent.name == _CAMERA}
    known = take_model(nvm.to_model(rear), settings.covisible)
    task = Task(images, known, [Query(name, camera) for name in queries])
    found = locate(task, args.output, settings)
    sent = args.output / f"RobotCar_eval_sfm-features-{args.extractor}.txt"
    write_submission(sent, found, use_camera_folder)
    logger.info("%s: send it to the server", sent)
    truth = read_truth(args.dataset / "robotcar_v2_train.txt", queries)
    title = f"RobotCar Seasons, rear camera: {name_settings(settings)}"
    errors = recall.measure_errors(found, truth)
    details = {
        "failed": recall.count_failures(found),
        "queries": recall.list_queries(found, errors),
    }
    rows = [*_make_rows(found, truth), *ROBOTCAR]
    return {"robotcar": Result(title, rows, details=details)}


def name_file(name: str) -> str:
    """Turn a name of a model or list, `./dusk/rear/1.png`, into that of the file."""
    return str(PurePosixPath(name).with_suffix(".jpg"))


def list_conditions(images: Path, conditions: Sequence[str]) -> list[str]:
    """List the rear images of conditions."""
    unknown = sorted(set(conditions) - set(_CONDITIONS))
    if unknown:
        raise OptionError(
            f"--conditions {unknown[0]}: is not one of {', '.join(_CONDITIONS)}"
        )
    found = [
        path.relative_to(images).as_posix()
        for condition in conditions
        for path in sorted((images / condition / _CAMERA).glob("*.jpg"))
    ]
    if not found:
        raise InputError(
            f"{images}: has no {conditions[0]}/{_CAMERA}/*.jpg; unpack the conditions "
            "there"
        )
    return found


def read_camera(dataset: Path, image: Path) -> Camera:
    """Read the rear camera: four lines, `fx 400` and so on."""
    path = dataset / "intrinsics" / f"{_CAMERA}_intrinsics.txt"
    values = dict(line.split()[:2] for line in read_lines(path) if " " in line)
    try:
        params = tuple(float(values[key]) for key in ("fx", "fy", "cx", "cy"))
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{path}: lacks fx, fy, cx or cy ({error}); unpack it again"
        ) from error
    return Camera("PINHOLE", *decode(image).size, params)


def read_truth(path: Path, names: Sequence[str]) -> dict[str, Pose]:
    """Read the poses of v2's train images, `name` and 4 x 4 numbers camera to world."""
    if not path.is_file():
        return {}
    wanted = set(names)
    try:
        return {
            name_file(name): pose_from_camera_to_world(numbers)
            for name, numbers in read_numbered(path, 16).items()
            if name_file(name) in wanted
        }
    except ValueError as error:
        raise InputError(f"{path}: has no pose ({error}); unpack it again") from error


def _make_rows(found: Mapping[str, Located], truth: Mapping[str, Pose]) -> list[Row]:
    """Make a row for each condition, and for all by day and by night."""
    groups: dict[str, list[str]] = {"all by day": [], "all by night": []}
    for name in found:
        condition = PurePosixPath(name).parts[0]
        by_night = condition in _BY_NIGHT
        groups["all by night" if by_night else "all by day"].append(name)
        groups.setdefault(condition, []).append(name)
    rows: list[Row] = []
    for group, names in groups.items():
        part = {name: found[name] for name in names}
        posed = sum(located.pose is not None for located in part.values())
        row = {"images": group, "with a pose": f"{posed} of {len(part)}"}
        known = {name: truth[name] for name in names if name in truth}
        if known:
            errors = recall.measure_errors(part, known)
            rows.append(recall.make_row(row, errors, recall.OUTDOORS, part))
        elif names:
            rows.append(row)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Localize, print a table, write it down."""
    return run_command(_MODULE, arguments, parse_args(arguments), run)


if __name__ == "__main__":
    sys.exit(main())
