"""Reconstruct photographs of real things with `evo`, `evo-object` and `sift`.

$ python -m pipelines.object_photos mary_rose toy --output OUT --write docs/objects.md
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.benchmarks import results
from pipelines.benchmarks.object_photos import EXTRACTORS, measure_object_photos
from pipelines.benchmarks.results import Result


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.object_photos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("folders", nargs="+", type=Path, help="photographs of one thing each")
    add("--output", type=Path, default=Path("object-photos"), help="where to write")
    add("--extractors", nargs="+", default=[*EXTRACTORS], help="which to compare")
    add("--limit", type=int, default=0,
        help="photographs of each folder, evenly spaced; 0 = all")  # fmt: skip
    add("--picture", type=Path, help="also write the picture of the first folder here")
    add("--seed", type=int, default=0, help="of the mapping")
    add("--write", type=Path, help="document whose marked sections are filled")
    return parser.parse_args(arguments)


def run(args: argparse.Namespace) -> dict[str, Result]:
    """Reconstruct, and sort keypoints into those on things and those behind."""
    found = measure_object_photos(
        args.folders, args.output, args.extractors, args.limit, args.seed, args.picture
    )
    return {"object-photos": found}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, write it down."""
    args = parse_args(arguments)
    module = "pipelines.object_photos"
    return results.run_and_publish(module, arguments, args, args.seed, run)


if __name__ == "__main__":
    sys.exit(main())
