"""Train with easy samples first, with softened predictions, with both, and without.

$ python -m pipelines.strategies photos/bsds --measured hpatches castle-P19
$ python -m pipelines.strategies photos/bsds --nets sekd --seeds 0 --steps 300
$ python -m pipelines.strategies photos/bsds --only factors

A run that was stopped goes on, a finished one is kept.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.benchmarks import results
from pipelines.benchmarks.results import Result
from pipelines.benchmarks.strategies import (
    FACTORS,
    SCALES,
    STRATEGIES,
    measure_strategies,
)

VARIANTS = {"strategies": STRATEGIES, "factors": FACTORS}


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.strategies",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("photos", type=Path, nargs="+", help="folders of photographs")
    add("--measured", type=Path, nargs="*", default=[], help="folders of pairs")
    add("--output", type=Path, default=Path("strategies-output"), help="to write to")
    add("--only", nargs="+", choices=list(VARIANTS), default=["strategies"])
    add("--nets", nargs="+", choices=list(SCALES), default=["evo"])
    add("--steps", type=int, default=800, help="steps of a run")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--processes", type=int, default=2, help="runs side by side")
    add("--write", type=Path, help="document whose marked sections are filled")
    return parser.parse_args(arguments)


def run(args: argparse.Namespace) -> dict[str, Result]:
    """Run what is asked for."""
    found: dict[str, Result] = {}
    for net in args.nets:
        for only in args.only:
            found[f"{only}-{net}"], found[f"{only}-{net}-pairs"] = measure_strategies(
                net,
                VARIANTS[only],
                args.photos,
                args.output,
                args.steps,
                args.seeds,
                args.processes,
                args.measured,
            )
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, print tables, write them down."""
    args = parse_args(arguments)
    module = "pipelines.strategies"
    return results.run_and_publish(module, arguments, args, args.seeds[0], run)


if __name__ == "__main__":
    sys.exit(main())
