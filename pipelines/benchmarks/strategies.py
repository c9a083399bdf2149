"""What easy samples first and softened predictions bring, and to which pairs.

Every run has the same photos and steps; the seed and the strategy differ. Pairs of
photos that were held back are sorted by how hard they are for the bundled `sekd`, and
cut into fifths.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch

from pipelines.benchmarks.ablation import Job, train_all
from pipelines.benchmarks.accuracy import measure_accuracy
from pipelines.benchmarks.pairs import name_headline
from pipelines.benchmarks.results import Cell, Result, Row
from sfm_features.errors import InputError
from sfm_features.nets.dense import DenseNet
from sfm_features.nets.weights import load_weights
from sfm_features.registry import build_extractor
from sfm_features.training.networks import read_net
from sfm_features.training.options import TrainOptions
from sfm_features.training.pg2sd import Pg2sdOptions
from sfm_features.training.photos import PhotoSet, hold_back, load_photos
from sfm_features.training.validate import make_probes, measure_probe
from sfm_features.types import F64, Extractor

STRATEGIES: Mapping[str, Pg2sdOptions] = {
    "none": Pg2sdOptions(),
    "PGCS": Pg2sdOptions("pgcs"),
    "G2SDS": Pg2sdOptions("g2sds"),
    "both": Pg2sdOptions("pg2sd"),
}
FACTORS: Mapping[str, Pg2sdOptions] = {
    f"published, {factor:g}": Pg2sdOptions("pg2sd", form="published", constraint=factor)
    for factor in (0.01, 0.1, 1.0)
}
"""The published form with its factor of the constraint, and with larger ones."""

_FIFTHS = 5
_HELD_BACK = 60
_REFERENCE = "sekd"
_TRIALS = 1_000
"""Guesses of a pose at most: of runs this short many pairs have few inliers."""
_COMMON = {"rounds": 3, "validations": 3, "validation_photos": _HELD_BACK}
SCALES: Mapping[str, Mapping[str, Any]] = {
    "evo": _COMMON
    | {"batch": 6, "crop_px": 160, "points": 160, "max_side": 320, "views": 4}
    | {"label_photos": 60},
    "sekd": _COMMON
    | {"batch": 4, "crop_px": 96, "points": 64, "max_side": 208, "views": 4}
    | {"label_photos": 20, "learning_rate": 2e-3},
}
"""Small enough for many runs on a CPU."""


def measure_strategies(
    net: str,
    variants: Mapping[str, Pg2sdOptions],
    folders: Sequence[Path],
    output: Path,
    steps: int,
    seeds: Sequence[int],
    processes: int,
    measured: Sequence[Path],
) -> tuple[Result, Result]:
    """Train every variant with every seed; return tables by fifth, and on `measured`"""
    options = TrainOptions(
        net=net, steps=steps, more_photos=tuple(folders[1:]), **SCALES[net]
    )
    jobs = [
        Job(
            name,
            tuple(folders),
            output / net / name.replace(", ", "-") / str(seed),
            options,
            seed,
            pg2sd,
        )
        for seed in seeds
        for name, pg2sd in variants.items()
    ]
    for (name, seed), run in train_all(jobs, processes).items():
        if run.stopped:
            raise InputError(
                f"{output}: {name}, seed {seed}: {run.stopped}; train for more --steps "
                "into another --output"
            )
    photos = load_photos(list(folders), options.max_side)
    by_fifth = {(job.name, job.seed): _measure_fifths(job, photos) for job in jobs}
    note = f"{steps} steps of {options.batch} pairs of {options.crop_px} px"
    title = f"`{net}`, {note}, {len(seeds)} seeds"
    rows = []
    for name in variants:
        runs = np.stack([by_fifth[name, seed] for seed in seeds])
        cells: dict[str, Cell] = {"strategy": name}
        for k, figure in enumerate(("matching", "repeatability")):
            for i in range(_FIFTHS):
                cells[f"{figure} {i + 1}"] = _show(runs[:, k, i])
        rows.append(cells)
    fifths = Result(
        f"{title}: held-back pairs, from the easiest fifth to the hardest", rows
    )
    return fifths, _measure_folders(title, net, jobs, variants, measured)


def _measure_fifths(job: Job, photos: PhotoSet) -> F64:
    """Return mean matching score and repeatability (2, 5) of the fifths of pairs."""
    held_back = hold_back(photos, 0.1, _HELD_BACK, job.seed)
    probes = [
        probe
        for night in (False, True)
        for probe in make_probes(photos, held_back, job.seed, night)
    ]
    device = torch.device("cpu")

    def measure(net: DenseNet) -> F64:
        with torch.no_grad():
            found = [measure_probe(net.eval(), probe, device)[:2] for probe in probes]
        return np.array(found, np.float64)

    hard = measure(read_net(_REFERENCE))[:, 1]
    figures = measure(load_weights(job.output / "weights.safetensors")[0])
    order = np.argsort(-hard, kind="stable")
    fifths = np.array_split(figures[order], _FIFTHS)
    return np.array([[part[:, k].mean() for part in fifths] for k in (1, 0)])


def _measure_folders(
    title: str,
    net: str,
    jobs: Sequence[Job],
    variants: Mapping[str, Pg2sdOptions],
    measured: Sequence[Path],
) -> Result:
    columns: dict[tuple[str, int], dict[str, float]] = {}
    for job in jobs:
        builds = {net: _prepare(net, job.output / "weights.safetensors")}
        cells = columns[job.name, job.seed] = {}
        for folder in measured:
            headline = name_headline(folder)
            found = measure_accuracy(folder, builds, job.seed, _TRIALS)
            row = found.rows[0]
            cells[f"{folder.name} {headline}"] = float(row[headline] or 0.0)
    rows: list[Row] = []
    for name in variants:
        runs = [cells for (n, _), cells in columns.items() if n == name]
        means: dict[str, Cell] = {
            column: _show(np.array([cells[column] for cells in runs]))
            for column in runs[0]
        }
        rows.append({"strategy": name} | means)
    return Result(f"{title}: on photographs with ground truth", rows)


def _prepare(net: str, weights: Path) -> Callable[[int], Extractor]:
    return lambda keypoints: build_extractor(
        net, max_keypoints=keypoints, weights=weights
    )


def _show(values: F64) -> str:
    numbers = values.tolist()
    spread = f" ± {stdev(numbers):.3f}" if len(numbers) > 1 else ""
    return f"{mean(numbers):.3f}{spread}"
