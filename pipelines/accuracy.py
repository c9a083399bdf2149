"""Measure extractors on pairs of photographs whose relation is known.

$ python -m pipelines.accuracy hpatches castle-P19 --extractors evo sift
$ python -m pipelines.accuracy hpatches --weights evo=run/weights.safetensors

Folders may be sequences of planes as HPatches has, fixed cameras with day_* and night_*
frames, scenes of Strecha's benchmark or of the Image Matching Challenge.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.benchmarks import results
from pipelines.benchmarks.accuracy import Build, measure_accuracy
from pipelines.benchmarks.results import Result
from sfm_features.registry import WITH_SCALES, build_extractor


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.accuracy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("folders", type=Path, nargs="+", help="folders of pairs")
    add("--extractors", nargs="+", default=["evo", "sift"], help="which to compare")
    add(
        "--weights", nargs="+", action="extend", default=[], metavar="NAME=FILE",
        help="other weights",
    )  # fmt: skip
    add("--scales", nargs="+", type=float, default=[], help="scales of evo and sekd")
    add(
        "--draws", type=int, default=1,
        help="pair and warp frames of fixed cameras anew so often",
    )  # fmt: skip
    add(
        "--shares", nargs="+", type=float, default=[1.0],
        help="shares of the usual number of keypoints to measure with in turn",
    )  # fmt: skip
    add("--matcher", default="nearest", help="nearest (default) or agreeing")
    add("--output", type=Path, default=Path("accuracy-output"), help="folder to write")
    add("--seed", type=int, default=0, help="of the estimators")
    add("--write", type=Path, help="document whose marked sections are filled")
    return parser.parse_args(arguments)


def run(args: argparse.Namespace) -> dict[str, Result]:
    """Measure every extractor on every folder."""
    builds = {name: _prepare(name, args) for name in args.extractors}
    return {
        f"accuracy-{folder.name}": measure_accuracy(
            folder,
            builds,
            args.seed,
            draws=args.draws,
            shares=args.shares,
            matcher=args.matcher,
        )
        for folder in args.folders
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print tables, write them down."""
    args = parse_args(arguments)
    module = "pipelines.accuracy"
    return results.run_and_publish(module, arguments, args, args.seed, run)


def _prepare(name: str, args: argparse.Namespace) -> Build:
    weights = dict(given.split("=", 1) for given in args.weights)
    path = Path(weights[name]) if name in weights else None
    scales = args.scales if name in WITH_SCALES else ()
    return lambda keypoints: build_extractor(
        name, max_keypoints=keypoints, weights=path, scales=scales, seed=args.seed
    )


if __name__ == "__main__":
    sys.exit(main())
