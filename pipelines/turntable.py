"""Reconstruct a thing that turns before a busy room that stands still.

$ python -m pipelines.turntable --output turntable-output --write docs/objects.md
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from pipelines.benchmarks import results
from pipelines.benchmarks.results import Result
from pipelines.benchmarks.turntable import draw_turntable, measure_turntable
from sfm_features.scenes.turntable import Thing


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.turntable",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--output", type=Path, default=Path("turntable-output"), help="where to write")
    add(
        "--extractors",
        nargs="+",
        default=["evo", "evo-object", "sift"],
        help="which to compare",
    )
    add("--weights", type=Path, help="further weights, as evo-object's")
    add("--seed", type=int, default=0, help="of the scene and of the first mapping")
    add("--mappings", type=int, default=5, help="with how many seeds to map each")
    add(
        "--thing",
        choices=get_args(Thing),
        default="crate",
        help="what turns: always the same crate, or piles of many shapes",
    )
    add("--picture", type=Path, help="also write a view with keypoints here")
    add("--write", type=Path, help="document whose marked sections are filled")
    return parser.parse_args(arguments)


def run(args: argparse.Namespace) -> dict[str, Result]:
    """Render, reconstruct, compare with the truth."""
    found = measure_turntable(
        *(args.output, args.extractors, args.weights),
        *(args.seed, args.thing, args.mappings),
    )
    if args.picture is not None:
        picture = draw_turntable(args.output, args.extractors, args.seed, args.thing)
        args.picture.write_bytes(picture)
    return {"turntable" if args.thing == "crate" else "turntable-pile": found}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, write it down."""
    args = parse_args(arguments)
    module = "pipelines.turntable"
    return results.run_and_publish(module, arguments, args, args.seed, run)


if __name__ == "__main__":
    sys.exit(main())
