"""Train keypoints of a jointed figure with and without a depth teacher, and compare.

$ python -m pipelines.object_keypoints --output objects-output --write docs/objects.md

The figures are rendered: 1,800 photographs with joints, depth and masks. A run takes
about five minutes on one core, and there are nine for each seed. A run that was stopped
goes on, a finished one is kept.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.benchmarks import results
from pipelines.benchmarks.objects import Scale, measure_objects
from pipelines.benchmarks.results import Result
from sfm_features.nets.autolink import TAPS


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.object_keypoints",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--output", type=Path, default=Path("objects-output"), help="folder to write")
    add("--steps", type=int, default=Scale.steps, help="steps of a run")
    add("--images", type=int, default=Scale.images, help="figures to train on")
    add("--seeds", type=int, nargs="+", default=[0, 1])
    add(
        "--taps", nargs="+", default=list(TAPS), metavar="TAP",
        help="embeddings to distil, each a run; join several with +",
    )  # fmt: skip
    add("--backdrop", choices=("busy", "plain"), default=Scale.backdrop)
    add("--write", type=Path, help="document whose marked sections are filled")
    args = parser.parse_args(arguments)
    unknown = {t for taps in args.taps for t in taps.split("+")} - {*TAPS}
    if unknown:
        parser.error(
            f"--taps: {', '.join(sorted(unknown))}; choose of {', '.join(TAPS)}"
        )
    return args


def run(args: argparse.Namespace) -> dict[str, Result]:
    """Train and measure."""
    scale = Scale(steps=args.steps, images=args.images, backdrop=args.backdrop)
    taps = [tuple(name.split("+")) for name in args.taps]
    return measure_objects(args.output, scale, args.seeds, taps)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, print the table, write it down."""
    args = parse_args(arguments)
    module = "pipelines.object_keypoints"
    return results.run_and_publish(module, arguments, args, args.seeds[0], run)


if __name__ == "__main__":
    sys.exit(main())
