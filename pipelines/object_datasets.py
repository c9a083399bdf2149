"""Measure a trained keypoint detector on Human3.6M, Taichi or DeepFashion.

$ python -m pipelines.object_datasets human36m DIR --list h36m.txt
$ sfm-features train-object DIR --image-list h36m.txt --output run
$ python -m pipelines.object_datasets human36m DIR --weights run/weights.safetensors

The data sets have to be fetched from their owners. --list writes the names of the
images that the protocol trains on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.benchmarks import results
from pipelines.benchmarks.keypoint_sets import SETS, measure_set
from pipelines.benchmarks.results import Result
from sfm_features.errors import OptionError
from sfm_features.journal import replace_text


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.object_datasets",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("name", choices=sorted(SETS), help="the data set")
    add("folder", type=Path, help="where it is")
    add("--list", type=Path, help="file to write the names of training images to")
    add("--weights", type=Path, help="weights.safetensors of train-object")
    add("--device", default="auto", help="cpu, cuda or auto")
    add("--output", type=Path, default=Path("objects-output"), help="folder to write")
    add("--write", type=Path, help="document whose marked sections are filled")
    return parser.parse_args(arguments)


def run(args: argparse.Namespace) -> dict[str, Result]:
    """Write the list, measure the weights, or both."""
    if args.list is None and args.weights is None:
        raise OptionError("give --list FILE before training, --weights FILE after it")
    if args.list is not None:
        part = SETS[args.name].read(args.folder, "train")
        above = part.folder.relative_to(args.folder).as_posix()
        names = [f"{above}/{name}".removeprefix("./") for name in part.names]
        replace_text(args.list, "\n".join(names) + "\n")
    if args.weights is None:
        return {}
    measured = measure_set(args.name, args.folder, args.weights, args.device)
    return {f"objects-{args.name}": measured}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, write it down."""
    args = parse_args(arguments)
    return results.run_and_publish("pipelines.object_datasets", arguments, args, 0, run)


if __name__ == "__main__":
    sys.exit(main())
