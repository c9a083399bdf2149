"""Measure matches and homographies on HPatches' sequences of planes.

$ python -m pipelines.hpatches hpatches-sequences-release --output out
$ python -m pipelines.hpatches ... --output sift --extractor sift

Download hpatches-sequences-release.tar.gz (1.3 GB, linked from
github.com/hpatches/hpatches-dataset) and unpack it. The layout:

  hpatches-sequences-release/{i_*,v_*}/{1..6}.ppm, H_1_2 ... H_1_6

Eight of the 116 sequences are left out, as is usual since D2-Net (--all takes them in).
At full size: mean matching accuracy (MMA) of mutual nearest neighbours, and how often
the homography is right (MHA). With the shorter side at 480 px and 1,024 keypoints: the
area under the curve of the corners' mean error (AUC).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean

from pipelines.benchmarks.pairs import list_sequences
from pipelines.benchmarks.results import Cell, Result
from pipelines.protocols.command import run_command
from pipelines.protocols.homography import PlaneTask, measure_task, shrink_tasks
from pipelines.protocols.ledger import Figures
from pipelines.protocols.pairwise import make_pairs_parser, measure_pairs, read_setup
from pipelines.protocols.published_pairs import HPATCHES, HPATCHES_480
from sfm_features import metrics
from sfm_features.errors import InputError
from sfm_features.images import decode

_MODULE = "pipelines.hpatches"
LEFT_OUT = frozenset(
    (
        *("i_contruction", "i_crownnight", "i_dc", "i_pencils", "i_whitebuilding"),
        *("v_artisans", "v_astronautis", "v_talent"),
    )
)
SMALL_SIDE, SMALL_KEYPOINTS = 480, 1024
MMA_PX, MHA_PX, AUC_PX = (1, 3, 5, 10), (3, 5, 7), (1, 3, 5, 10)
RANSAC_PX = 3.0


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_pairs_parser(_MODULE, __doc__, 5000, 0, ratio=1.0)
    parser.add_argument("--all", action="store_true", help="all 116 sequences")
    return parser.parse_args(arguments)


def run(args: argparse.Namespace) -> dict[str, Result]:
    """Measure at full size, then small."""
    setup, dataset, copies = read_setup(args), args.dataset, args.output / "images-480"
    measure = partial(measure_task, max_error_px=RANSAC_PX, seed=setup.run.seed)
    rules = f"homographies by RANSAC at {RANSAC_PX:g} px"
    tasks = list_tasks(dataset, args.all)
    part = replace(setup, output=args.output / "full")
    full = measure_pairs(dataset, tasks, measure, rules, part)
    less = replace(setup.extraction, max_keypoints=SMALL_KEYPOINTS, max_size=0)
    part = replace(setup, output=args.output / "480", extraction=less)
    small_tasks = shrink_tasks(dataset, tasks, copies, SMALL_SIDE)
    small = measure_pairs(copies, small_tasks, measure, rules, part)
    light = [task.names[0].startswith("i_") for task in tasks]
    ours: dict[str, Cell] = {"method": args.extractor, "source": "this run"}
    counted = f"{len(tasks)} pairs of {len({t.names[0] for t in tasks})} sequences"
    return {
        "hpatches": Result(
            f"HPatches at full size: {counted}",
            [ours | _sum_up_full(full, light), *HPATCHES],
        ),
        "hpatches-480": Result(
            f"HPatches at 480 px, {SMALL_KEYPOINTS} keypoints: {counted}",
            [ours | _sum_up_small(small), *HPATCHES_480],
        ),
    }


def list_tasks(dataset: Path, everything: bool = False) -> list[PlaneTask]:
    """List image 1 with each of the other five, sequence by sequence."""
    tasks, sizes = [], {}
    for first, second, b_from_a in list_sequences(dataset):
        if not everything and first.parent.name in LEFT_OUT:
            continue
        if first not in sizes:
            sizes[first] = decode(first).size
        a, b = (path.relative_to(dataset).as_posix() for path in (first, second))
        tasks.append(PlaneTask((a, b), b_from_a, sizes[first]))
    if not tasks:
        raise InputError(f"{dataset}: has no sequences; see --help for the layout")
    return tasks


def _sum_up_full(found: Sequence[Figures], light: Sequence[bool]) -> dict[str, Cell]:
    cells: dict[str, Cell] = {
        key: round(mean(f[key] for f in found)) for key in ("features", "matches")
    }
    cells |= {f"MMA@{t}": mean(f[f"within {t}"] for f in found) for t in MMA_PX}
    for what, wanted in (("", {True, False}), (" light", {True}), (" view", {False})):
        chosen = [f for f, i in zip(found, light, strict=True) if i in wanted]
        cells |= {f"MHA@{t}{what}": _share_right(chosen, t) for t in MHA_PX}
    return cells


def _sum_up_small(found: Sequence[Figures]) -> dict[str, Cell]:
    areas = metrics.auc([f["corners"] for f in found], AUC_PX)
    return {
        "matches": round(mean(f["matches"] for f in found)),
        **{f"AUC@{t}": area for t, area in zip(AUC_PX, areas, strict=True)},
    }


def _share_right(found: Sequence[Figures], limit: float) -> Cell:
    return mean(f["corners"] <= limit for f in found) if found else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print tables, write them down."""
    return run_command(_MODULE, arguments, parse_args(arguments), run)


if __name__ == "__main__":
    sys.exit(main())
