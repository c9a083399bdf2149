"""Measure how well images of the same are found, in the town and in your folders.

$ python -m pipelines.retrieval --output retrieval-out
$ python -m pipelines.retrieval places/bridge places/statue --output retrieval-out
$ python -m pipelines.retrieval places/* --distractors other-photos --most-images 40

Without folders, photographs of the rendered town are queries by day and by night among
those by day; depth tells which show the same. Each folder given holds photographs of
one place: it is reconstructed, all with all, and images that share points should find
each other in one database of all places. Images of --distractors are in there, too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipelines.benchmarks.covisible import (
    LEAST_POINTS,
    find_model_neighbours,
    find_town_neighbours,
)
from pipelines.benchmarks.results import Result
from pipelines.benchmarks.retrieving import (
    Covisible,
    compare_descriptors,
    describe_all,
)
from pipelines.protocols.command import make_parser, run_command
from sfm_features.errors import InputError, ReconstructionError
from sfm_features.extract import ExtractOptions, extract
from sfm_features.journal import replace_text
from sfm_features.photo_files import list_images
from sfm_features.reconstruct import ReconstructOptions, reconstruct
from sfm_features.scenes import render_town
from sfm_features.types import RunOptions
from sfm_features.workspace import Workspace

_MODULE = "pipelines.retrieval"
_TOWN_SIZE = (640, 480)


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(_MODULE, __doc__)
    add = parser.add_argument
    add("places", type=Path, nargs="*", help="folders, each of one place")
    add("--distractors", type=Path, nargs="+", default=[], help="folders of others")
    add("--most-images", type=int, default=0,
        help="use so many of each folder, evenly chosen; 0 = all")  # fmt: skip
    add("--views", type=int, default=60, help="photographs of the town, by day")
    add("--max-keypoints", type=int, default=1024, help="of an image")
    return parser.parse_args(arguments)


def run(args: argparse.Namespace) -> dict[str, Result]:
    """Measure in the town, or in the folders given."""
    extraction = ExtractOptions(max_keypoints=args.max_keypoints)
    how = RunOptions(device=args.device, seed=args.seed)
    if not args.places:
        return {"retrieval-town": _measure_town(args.output, args, extraction, how)}
    return {"retrieval-places": _measure_places(args.output, args, extraction, how)}


def _measure_town(
    output: Path, args: argparse.Namespace, extraction: ExtractOptions, how: RunOptions
) -> Result:
    features = {}
    for light in ("day", "night"):
        town = output / f"town-{args.views}-{light}"
        render_town(town, args.views, light, args.seed, _TOWN_SIZE)
        features[light] = town / "features.h5"
        extract(town / "images", features[light], extraction, how)
    neighbours = find_town_neighbours(args.views, args.seed)
    descriptors, names = describe_all(features, output)
    by_day: Covisible = {
        f"day/{name}": {f"day/{other}" for other in others}
        for name, others in neighbours.items()
    }
    # By night the same view by day is another photograph, and should be found, too.
    by_night: Covisible = {
        f"night/{name}": {f"day/{other}" for other in {name, *others}}
        for name, others in neighbours.items()
    }
    database = [name for name in names if name.startswith("day/")]
    groups = {"by day": by_day, "by night": by_night}
    return compare_descriptors("Retrieval, town", descriptors, database, groups)


def _measure_places(
    output: Path, args: argparse.Namespace, extraction: ExtractOptions, how: RunOptions
) -> Result:
    folders = {path.name: path for path in [*args.places, *args.distractors]}
    if len(folders) < len(args.places) + len(args.distractors):
        raise InputError("two folders have the same name; rename one of them")
    features, groups = {}, {}
    for name, folder in folders.items():
        made = Workspace(output / "places" / name)
        made.root.mkdir(parents=True, exist_ok=True)
        listed = made.root / "images.txt"
        replace_text(listed, "\n".join(_choose(folder, args.most_images)) + "\n")
        options = replace(extraction, image_list=listed)
        features[name] = made.features
        extract(folder, made.features, options, how)
        if folder in args.places:
            groups[name] = _label(name, folder, made, how)
    descriptors, names = describe_all(features, output)
    title = f"Retrieval, {len(args.places)} places, {LEAST_POINTS} shared points"
    return compare_descriptors(title, descriptors, names, groups)


def _choose(folder: Path, most: int) -> list[str]:
    names = list_images(folder)
    if not 0 < most < len(names):
        return names
    chosen = np.linspace(0, len(names) - 1, most).round().astype(int)
    return [names[i] for i in chosen.tolist()]


def _label(
    place: str, folder: Path, made: Workspace, how: RunOptions
) -> Mapping[str, set[str]]:
    """Reconstruct a place; images that nothing became of are not asked for."""
    # All with all: what retrieval leaves out could not be counted against it.
    options = ReconstructOptions(
        features=made.features, pairing="exhaustive", report=False
    )
    try:
        reconstruct(folder, made.root, options, run=how)
    except ReconstructionError:
        return {}
    return {
        f"{place}/{name}": {f"{place}/{other}" for other in others}
        for name, others in find_model_neighbours(made.sparse).items()
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, write it down."""
    return run_command(_MODULE, arguments, parse_args(arguments), run)


if __name__ == "__main__":
    sys.exit(main())
