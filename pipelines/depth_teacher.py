"""Adapt `evo` to rendered turntables with and without a depth teacher, and compare.

$ python -m pipelines.depth_teacher --output teacher-output --write docs/objects.md

Each seed has a teacher, a student without one and a student of each variant. A run that
was stopped goes on, a finished one is kept.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.benchmarks import results
from pipelines.benchmarks.depth_teacher import Scale, Variant, measure_depth_teacher
from pipelines.benchmarks.results import Result

_VARIANTS = ("up2=0.1", "up2=1", "up4=1", "down16=1")


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.depth_teacher",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--output", type=Path, default=Path("teacher-output"), help="folder to write")
    add("--steps", type=int, default=Scale.steps, help="steps of a student")
    add("--teacher-steps", type=int, default=Scale.teacher_steps)
    add("--turntables", type=int, default=Scale.turntables, help="scenes to train on")
    add("--batch", type=int, default=Scale.batch, help="pairs in a step")
    add("--crop-px", type=int, default=Scale.crop_px, help="side of a crop")
    add("--background-weight", type=float, default=Scale.background_weight)
    add("--seeds", type=int, nargs="+", default=[0, 1])
    add(
        "--variants", nargs="+", default=list(_VARIANTS), metavar="TAP=WEIGHT",
        help="embeddings to distil and how much, each a run; join several taps with +",
    )  # fmt: skip
    add("--write", type=Path, help="document whose marked section is filled")
    add("--section", default="depth-teacher", help="name of that section")
    return parser.parse_args(arguments)


def run(args: argparse.Namespace) -> dict[str, Result]:
    """Train and measure."""
    scale = Scale(
        args.steps, args.teacher_steps, args.turntables, args.batch, args.crop_px,
        args.background_weight,
    )  # fmt: skip
    variants = [Variant.parse(text) for text in args.variants]
    found = measure_depth_teacher(args.output, variants, scale, args.seeds)
    return {args.section: found}


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, print the table, write it down."""
    args = parse_args(arguments)
    module = "pipelines.depth_teacher"
    return results.run_and_publish(module, arguments, args, args.seeds[0], run)


if __name__ == "__main__":
    sys.exit(main())
