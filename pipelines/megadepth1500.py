"""Measure poses of the 1,500 pairs of MegaDepth that LoFTR chose.

$ python -m pipelines.megadepth1500 megadepth1500 --output out
$ python -m pipelines.megadepth1500 ... --output out-cv --estimator opencv

Download one of two copies of the same pairs and unpack it. LoFTR's: the test images
(megadepth_test_1500.tar, linked from github.com/zju3dv/LoFTR) and its folder
assets/megadepth_test_1500_scene_info beside them:

  megadepth1500/megadepth_test_1500_scene_info/*.npz       the pairs, five files
  megadepth1500/Undistorted_SfM/{0015,0022}/images/*.jpg

Or glue-factory's (megadepth1500.zip, cvg-data.inf.ethz.ch/megadepth):

  megadepth1500/{views.txt,pairs.txt}
  megadepth1500/images/...

Compare only with figures of the same estimator: OpenCV's are 10 to 15 points below
PoseLib's, and many published ones are the best of several thresholds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from statistics import mean

from pipelines.benchmarks.results import Cell, Result
from pipelines.protocols.command import run_command
from pipelines.protocols.megadepth import read_tasks
from pipelines.protocols.pairwise import (
    make_pairs_parser,
    measure_pairs,
    read_setup,
)
from pipelines.protocols.published_pairs import MEGADEPTH
from pipelines.protocols.two_view import ESTIMATORS, find_areas, measure_task

_MODULE = "pipelines.megadepth1500"
_USUAL_PX = {"colmap": 1.0, "opencv": 0.5, "fundamental": 0.5}


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_pairs_parser(_MODULE, __doc__, 2048, 1600)
    add = parser.add_argument
    add("--estimator", choices=sorted(ESTIMATORS), default="colmap",
        help="way to the pose (default: colmap)")  # fmt: skip
    add("--max-error-px", type=float,
        help="bound on inliers (default: 1 for colmap, 0.5 otherwise)")  # fmt: skip
    return parser.parse_args(arguments)


def run(args: argparse.Namespace) -> dict[str, Result]:
    """Measure all pairs."""
    setup = read_setup(args)
    images, tasks = read_tasks(args.dataset)
    max_error_px = args.max_error_px or _USUAL_PX[args.estimator]
    measure = partial(
        measure_task,
        estimator=args.estimator,
        max_error_px=max_error_px,
        seed=setup.run.seed,
    )
    rules = f"{args.estimator} at {max_error_px:g} px"
    found = measure_pairs(images, tasks, measure, rules, setup)
    ours: dict[str, Cell] = {
        "method": f"{args.extractor} + nearest",
        "source": f"this run, {rules}",
        **{k: round(mean(f[k] for f in found)) for k in ("features", "matches")},
        **find_areas(found),
    }
    title = f"MegaDepth-1500: {len(tasks)} pairs"
    return {"megadepth1500": Result(title, [ours, *MEGADEPTH[args.estimator]])}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, write it down."""
    return run_command(_MODULE, arguments, parse_args(arguments), run)


if __name__ == "__main__":
    sys.exit(main())
