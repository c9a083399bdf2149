"""Train without each part of the method in turn, and show what that costs.

$ python -m pipelines.ablation photos/bsds --output ablation-output
$ python -m pipelines.ablation photos/bsds --write docs/training.md

Half an hour on two cores. A run that was interrupted goes on, a finished one is kept.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.benchmarks import results
from pipelines.benchmarks.ablation import PARTS, RECIPES, Scale, measure_ablation
from pipelines.benchmarks.results import Result

NAMES = ("parts", "recipes")


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.ablation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("photos", type=Path, nargs="+", help="folders of photographs")
    add("--output", type=Path, default=Path("ablation-output"), help="folder to write")
    add("--only", nargs="+", choices=NAMES, default=NAMES, help="which to run")
    add("--steps", type=int, default=Scale.steps, help="steps of a run")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--processes", type=int, default=2, help="runs side by side")
    add("--write", type=Path, help="document whose marked sections are filled")
    return parser.parse_args(arguments)


def run(args: argparse.Namespace) -> dict[str, Result]:
    """Run what is asked for."""
    scale = Scale(steps=args.steps)
    common = (args.photos, args.output, scale, args.seeds, args.processes)
    found: dict[str, Result] = {}
    if "parts" in args.only:
        found["ablation"], found["ablation-rounds"] = measure_ablation(
            "SEKD without its parts", "sekd", PARTS, *common
        )
    if "recipes" in args.only:
        found["recipes"], _ = measure_ablation(
            "Recipes for `evo`", "evo", RECIPES, *common
        )
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, print tables, write them down."""
    args = parse_args(arguments)
    module = "pipelines.ablation"
    return results.run_and_publish(module, arguments, args, args.seeds[0], run)


if __name__ == "__main__":
    sys.exit(main())
