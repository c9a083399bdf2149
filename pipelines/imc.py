"""Measure poses on the Image Matching Challenge's phototourism validation scenes.

$ python -m pipelines.imc imc-2020-val --output imc-out
$ python -m pipelines.imc imc-2020-val --output imc-out --scenes reichstag

Download the validation set (imw2020-valid.tar.gz; cs.ubc.ca/research/kmyid/imw2020) and
unpack it. The layout, below the folder that you give:

  <scene>/set_100/images/*.jpg
  <scene>/set_100/calibration/calibration_*.h5       K, R, T: world to camera
  <scene>/set_100/new-vis-pairs/keys-th-0.1.npy      pairs that see enough in common
  <scene>/set_100/sub_set/5bag_000.txt ...           for --bags

Stereo: a fundamental matrix of each pair with a covisibility of at least 0.1; mAA is
the mean of the shares of pairs within 1, 2 ... 10 degrees, averaged over scenes.
Multiview (--bags): COLMAP reconstructs bags of 5, 10 and 25 images; every pair of a bag
counts, those that were not registered as failures.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import mean

from pipelines.benchmarks.results import Cell, Result, Row
from pipelines.protocols.bags import measure_bags
from pipelines.protocols.command import run_command
from pipelines.protocols.pairwise import (
    Setup,
    make_pairs_parser,
    measure_pairs,
    read_setup,
)
from pipelines.protocols.phototourism import Scene, list_scenes, read_scene
from pipelines.protocols.published_pairs import IMC_VALIDATION, IMC_VALIDATION_BAGS
from pipelines.protocols.two_view import (
    ESTIMATORS,
    PoseTask,
    list_errors,
    mean_accuracy,
    measure_task,
    relate,
)

_MODULE = "pipelines.imc"


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_pairs_parser(_MODULE, __doc__, 2048, 0)
    add = parser.add_argument
    add("--scenes", nargs="+", help="only these (default: all that are there)")
    add(
        "--estimator", choices=sorted(ESTIMATORS), default="fundamental",
        help="way to the pose (default: fundamental, as the challenge does it)",
    )  # fmt: skip
    add(
        "--max-error-px", type=float, default=0.5,
        help="bound on inliers, which the challenge tunes per method (default: 0.5)",
    )  # fmt: skip
    add("--bags", action="store_true", help="multiview, too: hours")
    return parser.parse_args(arguments)


def run(args: argparse.Namespace) -> dict[str, Result]:
    """Measure scene by scene."""
    setup = read_setup(args)
    stereo, multiview = {}, {}
    for name, folder in list_scenes(args.dataset, args.scenes).items():
        scene = read_scene(folder)
        part = replace(setup, output=args.output / name)
        stereo[name] = _measure_stereo(scene, part, args.estimator, args.max_error_px)
        if args.bags:
            multiview[name] = measure_bags(scene, part)
    title = f"IMC phototourism, {args.extractor}"
    rows = [*_make_rows(stereo), *IMC_VALIDATION]
    tables = {"imc": Result(f"{title}: stereo", rows)}
    if multiview:
        rows = [*_make_rows(multiview), *IMC_VALIDATION_BAGS]
        tables["imc-bags"] = Result(f"{title}: multiview", rows)
    return tables


def list_tasks(scene: Scene) -> list[PoseTask]:
    """List the pairs of a scene that see enough in common."""
    return [
        PoseTask(
            (a, b),
            (scene.cameras[a], scene.cameras[b]),
            relate(scene.poses[a], scene.poses[b]),
        )
        for a, b in scene.pairs
    ]


def _measure_stereo(
    scene: Scene, setup: Setup, estimator: str, max_error_px: float
) -> dict[str, Cell]:
    measure = partial(
        measure_task,
        estimator=estimator,
        max_error_px=max_error_px,
        seed=setup.run.seed,
    )
    rules = f"{estimator} at {max_error_px:g} px"
    found = measure_pairs(scene.images, list_tasks(scene), measure, rules, setup)
    errors = list_errors(found)
    return {
        "pairs": len(found),
        "features": mean(f["features"] for f in found),
        "matches": mean(f["matches"] for f in found),
        "mAA@5": mean_accuracy(errors, 5),
        "mAA@10": mean_accuracy(errors),
    }


def _make_rows(scenes: Mapping[str, Mapping[str, Cell]]) -> list[Row]:
    """Make a row for each scene, and one of their means."""
    ours: Row = {"source": "this run"}
    rows: list[Row] = [{"method": name, **ours, **c} for name, c in scenes.items()]
    numbers = [{k: float(v or 0) for k, v in c.items()} for c in scenes.values()]
    means = {key: mean(row[key] for row in numbers) for key in numbers[0]}
    return [*rows, {"method": f"mean of {len(rows)} scenes", **ours, **means}]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print tables, write them down."""
    return run_command(_MODULE, arguments, parse_args(arguments), run)


if __name__ == "__main__":
    sys.exit(main())
