"""Measure triangulation and localization on ETH3D's high-resolution training scenes.

$ python -m pipelines.eth3d eth3d --output eth3d-out
$ python -m pipelines.eth3d eth3d --output eth3d-out --scenes pipes --evaluator \\
      multi-view-evaluation/build/ETH3DMultiViewEvaluation

Download multi_view_training_dslr_undistorted.7z, and for --evaluator also
multi_view_training_dslr_scan_eval.7z (eth3d.net/datasets), and unpack both into one
folder. The layout:

  eth3d/<scene>/images/dslr_images_undistorted/*.JPG
  eth3d/<scene>/dslr_calibration_undistorted/{cameras,images,points3D}.txt
  eth3d/<scene>/dslr_scan_eval/scan_alignment.mlp            for --evaluator

Both as in Pixel-Perfect SfM. Triangulation from the true poses; points.ply is what
ETH3D's own program (github.com/ETH3D/multi-view-evaluation) compares with the laser
scan. Localization of ten images of each scene: a map is made of the others, without the
two that see the most of the same; errors up to 1 mm count as none.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipelines.benchmarks.results import Cell, Result, Row
from pipelines.protocols.command import (
    add_settings,
    make_parser,
    read_settings,
    run_command,
)
from pipelines.protocols.eth3d_scenes import (
    list_scenes,
    localize_held_out,
    prepare,
)
from pipelines.protocols.eth3d_surface import measure_surface
from pipelines.protocols.ledger import Figures
from pipelines.protocols.published_pairs import ETH3D_POINTS, ETH3D_QUERIES
from sfm_features import metrics

_MODULE = "pipelines.eth3d"
_LIMITS_M = {"1mm": 0.001, "1cm": 0.01, "10cm": 0.1}
_LEAST_M = 0.001
"""How exact the true poses are."""


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(_MODULE, __doc__)
    add = parser.add_argument
    add("dataset", type=Path, help="folder of the data set")
    add("--scenes", nargs="+", help="only these (default: all that are there)")
    add("--evaluator", type=Path, help="ETH3D's program ETH3DMultiViewEvaluation")
    add_settings(parser, retrieval=1000)
    return parser.parse_args(arguments)


def run(args: argparse.Namespace) -> dict[str, Result]:
    """Measure scene by scene."""
    settings = read_settings(args)
    surfaces: dict[str, Mapping[str, Cell]] = {}
    located: dict[str, list[Figures]] = {}
    for name, scene in list_scenes(args.dataset, args.scenes).items():
        output = args.output / name
        prepare(scene, output, settings)
        surfaces[name] = measure_surface(scene, output, settings, args.evaluator)
        located[name] = localize_held_out(scene, output, settings)
    title = f"ETH3D, {args.extractor}"
    return {
        "eth3d": Result(f"{title}: localization", _make_rows(located)),
        "eth3d-points": Result(
            f"{title}: triangulation",
            [*({"method": n, "source": "this run", **c} for n, c in surfaces.items()),
             *ETH3D_POINTS],
        ),
    }  # fmt: skip


def _make_rows(located: Mapping[str, Sequence[Figures]]) -> list[Row]:
    everything = [figures for found in located.values() for figures in found]
    groups = {**located, f"all {len(located)} scenes": everything}
    rows: list[Row] = [
        {
            "method": name,
            "source": "this run",
            "queries": len(found),
            "localized": sum(f["metres"] < float("inf") for f in found),
            **find_areas([f["metres"] for f in found]),
        }
        for name, found in groups.items()
    ]
    return [*rows, *ETH3D_QUERIES]


def find_areas(errors_m: Sequence[float]) -> dict[str, Cell]:
    """Sum up by the area under the curve; errors below what is known count as none.

    Up to there the curve is flat, as nothing tells these errors apart.
    """
    known = sum(error <= _LEAST_M for error in errors_m) / len(errors_m)
    rest = [max(error - _LEAST_M, 0.0) for error in errors_m]
    areas: dict[str, Cell] = {}
    for name, limit in _LIMITS_M.items():
        width = limit - _LEAST_M
        above = metrics.auc(rest, [width])[0] * width if width > 0 else 0.0
        areas[f"AUC@{name}"] = (known * _LEAST_M + above) / limit
    return areas


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print tables, write them down."""
    return run_command(_MODULE, arguments, parse_args(arguments), run)


if __name__ == "__main__":
    sys.exit(main())
