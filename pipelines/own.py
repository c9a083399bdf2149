"""Measure localization on your own photographs, whose poses a COLMAP model tells.

Every few images are held out, a map is made of the others with the poses they have, and
the held-out ones are localized in it. So two settings can be compared on the place that
matters to you, without a benchmark's server.

$ python -m pipelines.own photos out/sparse/0 --output own
$ python -m pipelines.own photos out/sparse/0 --thresholds 0.05:1 0.25:2 1%:5
$ python -m pipelines.own photos out/sparse/0 \\
      --compare "evo=" "sift=--extractor sift" "many=--max-keypoints 4096"

PHOTOS is the folder that the model's names are relative to, MODEL the folder with
cameras, images and points3D (.bin or .txt), or with NAME.camera of each image as in
Strecha's benchmark. Thresholds are METRES:DEGREES (the model's unit counts as metres),
or SHARE%:DEGREES of the largest distance between two cameras.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.benchmarks.results import Result, Row
from pipelines.benchmarks.strecha import has_cameras, read_calibrated
from pipelines.protocols import recall
from pipelines.protocols.chain import Settings, Task, locate, take_model
from pipelines.protocols.command import (
    add_settings,
    make_parser,
    name_settings,
    read_settings,
    run_command,
)
from sfm_features.colmap import make_posed_model, read_model
from sfm_features.errors import InputError, OptionError
from sfm_features.images import decode
from sfm_features.photo_files import read_list
from sfm_features.queries import Query
from sfm_features.types import Camera, Model

_MODULE = "pipelines.own"
_THRESHOLDS = ("0.25%:0.5", "0.5%:1", "1%:2")
_LEAST_IN_MAP = 3


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(_MODULE, __doc__)
    add = parser.add_argument
    add("photos", type=Path, help="folder of the photographs")
    add("model", type=Path, help="COLMAP model with their poses")
    add("--every", type=int, default=5, help="hold out every so manieth image")
    add("--queries", type=Path, help="text file of the names to hold out instead")
    add("--thresholds", nargs="+", default=_THRESHOLDS, metavar="T")
    add("--compare", nargs="+", default=[], metavar="NAME=OPTIONS",
        help="settings to compare, each with options of its own")  # fmt: skip
    add_settings(parser)
    return parser.parse_args(arguments)


def run(args: argparse.Namespace) -> dict[str, Result]:
    """Hold out, make a map, localize and measure, once for each setting."""
    thresholds = [recall.parse_threshold(text) for text in args.thresholds]
    compared = read_compared(args)
    model = read_posed(args.model, args.photos)
    held_out = choose_held_out(model, args.every, args.queries)
    poses = {name: image.cam_from_world for name, image in model.images.items()}
    truth = {name: poses[name] for name in held_out}
    diameter = recall.measure_diameter(poses.values())
    rows: list[Row] = []
    details: dict[str, object] = {"diameter": diameter}
    for name, settings in compared.items():
        task = _make_task(args.photos, model, held_out, settings)
        found = locate(task, args.output / name, settings)
        errors = recall.measure_errors(found, truth)
        row = recall.make_row({"setting": name}, errors, thresholds, found, diameter)
        failures = recall.count_failures(found)
        why = ", ".join(f"{count} {status}" for status, count in failures.items())
        share = recall.median_or_inf(e.metres for e in errors.values()) / diameter
        rows.append({**row, "median %": 100 * share, "failed": why or "none"})
        details[name] = {
            "settings": name_settings(settings),
            "queries": recall.list_queries(found, errors),
        }
    title = (
        f"{args.photos.name}: {len(held_out)} images held out of {len(poses)}, "
        f"{diameter:.4g} m across"
    )
    return {"own": Result(title, rows, details=details)}


def read_posed(folder: Path, photos: Path) -> Model:
    """Read a COLMAP model, or one without points from `.camera` files."""
    if not has_cameras(folder):
        return read_model(folder)
    cameras, poses = {}, {}
    for name, (matrix, width, pose) in read_calibrated(folder).items():
        size = decode(photos / name).size
        # K may be meant for a larger image than the file.
        fx, fy, cx, cy = size[0] / width * matrix[[0, 1, 0, 1], [0, 1, 2, 2]]
        cameras[name] = Camera("PINHOLE", *size, (fx, fy, cx, cy))
        poses[name] = pose
    return make_posed_model(cameras, poses)


def read_compared(args: argparse.Namespace) -> dict[str, Settings]:
    """Read the settings to compare, by name; those of the command line if none."""
    if not args.compare:
        return {"run": read_settings(args)}
    compared = {}
    for text in args.compare:
        name, equals, options = text.partition("=")
        if not equals or not name.replace("-", "").isalnum() or name in compared:
            raise OptionError(
                f"--compare {text!r}: write NAME=OPTIONS, for example "
                "'sift=--extractor sift'; a name is letters and digits, no two alike"
            )
        given = argparse.ArgumentParser(prog=f'--compare "{name}=..."')
        add_settings(given)
        own = given.parse_args(shlex.split(options), argparse.Namespace(**vars(args)))
        compared[name] = read_settings(own)
    return compared


def choose_held_out(model: Model, every: int, listed: Path | None) -> list[str]:
    """Choose the images to hold out: those of a list, or every so manieth."""
    if every < 2:
        raise OptionError(f"--every {every}: must be at least 2, for a map is needed")
    names = sorted(model.images)
    held_out = names[every // 2 :: every] if listed is None else read_list(listed)
    unknown = [name for name in held_out if name not in model.images]
    if unknown:
        raise InputError(
            f"{listed}: names {unknown[0]!r}, which the model has no pose of; give "
            "names as in the model"
        )
    left = len(names) - len(held_out)
    if not held_out or left < _LEAST_IN_MAP:
        raise InputError(
            f"{len(held_out)} images held out of {len(names)} leave {left} for the "
            f"map; {_LEAST_IN_MAP} are needed, and one to hold out"
        )
    return held_out


def _make_task(
    photos: Path, model: Model, held_out: Sequence[str], settings: Settings
) -> Task:
    known = model.images.keys() - set(held_out)
    queries = [Query(name, model.images[name].camera) for name in held_out]
    return Task(photos, take_model(model, settings.covisible, known), queries)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, write it down."""
    return run_command(_MODULE, arguments, parse_args(arguments), run)


if __name__ == "__main__":
    sys.exit(main())
