"""What each part of the method brings: the same short training, without it.

Every run has the same photos, steps and held-back photos; only the seed, which draws
the first weights and all batches, and the part left out differ. Finished runs are kept
in the output folder and not repeated. So are those that stopped before their end, as
their network found no keypoints to go on with: the table says so in place of figures.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from tqdm import tqdm

from pipelines.benchmarks.results import Cell, Result, Row
from sfm_features.training.options import TrainOptions
from sfm_features.training.pg2sd import Pg2sdOptions
from sfm_features.types import RunOptions

PARTS: Mapping[str, Mapping[str, Any]] = {
    "full": {},
    "without affine adaption": {"affine_adaption": False},
    "without detector repeatability": {"detector_repeatability": False},
    "without descriptor repeatability": {"descriptor_repeatability": False},
    "without descriptor distinctness": {"descriptor_distinctness": False},
}
"""SEKD's parts, all and without each in turn, on its own network; how much the losses
weigh is as in all of our training, not as published."""

_SOFTMAX = {"descriptor_loss": "softmax", "first_labels": "corners"}
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "alternating, triplet, random points first": {},
    "alternating, triplet, corners first": {"first_labels": "corners"},
    "alternating, softmax, corners first": _SOFTMAX,
    "joint, softmax, corners first": _SOFTMAX | {"recipe": "joint"},
    "joint, softmax, corners only": _SOFTMAX | {"recipe": "joint", "rounds": 1},
}
"""From SEKD's recipe to the one that our own network is trained with."""

SHOWN = (
    "matching_score",
    "night_matching_score",
    "repeatability",
    "night_repeatability",
    "homography",
    "night_homography",
)


@dataclass(frozen=True)
class Scale:
    """How large the runs are."""

    steps: int = 300
    rounds: int = 3
    batch: int = 4
    crop_px: int = 96
    points: int = 64
    learning_rate: float = 1e-3
    max_side: int = 208
    label_photos: int = 20
    views: int = 4
    validation_photos: int = 16

    def make_options(
        self, net: str, folders: Sequence[Path], changed: Mapping[str, Any]
    ) -> TrainOptions:
        """Return the options of a run: SEKD's own recipe, with something changed."""
        rounds = changed.get("rounds", self.rounds)
        sekd: dict[str, Any] = {
            "recipe": "alternating",
            "descriptor_loss": "triplet",
            "first_labels": "random",
        }
        # A measurement at the end of each round, whatever the number of rounds.
        own = vars(self) | {"validations": self.rounds, "rounds": rounds}
        return TrainOptions(
            net=net, more_photos=tuple(folders[1:]), **(own | sekd | dict(changed))
        )


@dataclass(frozen=True)
class Job:
    """One run."""

    name: str
    folders: tuple[Path, ...]
    output: Path
    options: TrainOptions
    seed: int
    pg2sd: Pg2sdOptions | None = None


@dataclass(frozen=True)
class Run:
    """What a run measured in turn, and why it stopped before its end, if it did."""

    measured: list[dict[str, float]]
    stopped: str = ""


def measure_ablation(
    title: str,
    net: str,
    variants: Mapping[str, Mapping[str, Any]],
    folders: Sequence[Path],
    output: Path,
    scale: Scale = Scale(),
    seeds: Sequence[int] = (0, 1, 2),
    processes: int = 2,
) -> tuple[Result, Result]:
    """Train every variant with every seed; return its table, and the first by round."""
    jobs = [
        Job(
            name,
            tuple(folders),
            output / net / name.replace(", ", "-").replace(" ", "-") / str(seed),
            scale.make_options(net, folders, changed),
            seed,
        )
        for seed in seeds
        for name, changed in variants.items()
    ]
    found = train_all(jobs, processes)
    rows: list[Row] = []
    for name in variants:
        runs = {seed: found[name, seed] for seed in seeds}
        ends = [run.measured[-1] for run in runs.values() if not run.stopped]
        rows.append({"variant": name} | _summarise(ends) | _tell_stopped(runs))
    details = {f"{name}, seed {seed}": found[name, seed] for name, seed in found}
    note = f"{scale.steps} steps of {scale.batch} pairs of {scale.crop_px} px"
    table = Result(f"{title}: {note}, {len(seeds)} seeds", rows, details=details)
    first = next(iter(variants))
    return table, _by_round(title, first, [found[first, seed] for seed in seeds])


def _by_round(title: str, name: str, runs: Sequence[Run]) -> Result:
    """Show the rounds of the runs that ended."""
    measured = zip(*(run.measured for run in runs if not run.stopped), strict=True)
    rows: list[Row] = []
    for i, records in enumerate(measured):
        first: dict[str, Cell] = {"after round": i - 1 if i else "(before)"}
        rows.append(first | _summarise(list(records)))
    none = [{"after round": "(no run ended)"}]
    return Result(f"{title}: `{name}` by round", rows or none)


def _summarise(records: Sequence[Mapping[str, float]]) -> dict[str, Cell]:
    """Show mean and standard deviation over the seeds; nothing where no run ended."""
    cells: dict[str, Cell] = {}
    for key in SHOWN:
        values = [record[key] for record in records]
        spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
        shown = f"{mean(values):.3f}{spread}" if values else None
        cells[key.replace("_", " ")] = shown
    return cells


def _tell_stopped(runs: Mapping[int, Run]) -> dict[str, Cell]:
    """Say which seeds' runs stopped before their end, and why; nothing if none did."""
    reasons = [
        f"seed {seed}: {run.stopped}" for seed, run in runs.items() if run.stopped
    ]
    return {"stopped": "; ".join(reasons)} if reasons else {}


def train_all(jobs: Sequence[Job], processes: int) -> dict[tuple[str, int], Run]:
    """Run jobs side by side, each with its share of the cores."""
    # Read by the libraries of the new processes, when they load.
    os.environ["OMP_NUM_THREADS"] = str(max(1, _count_cores() // processes))
    os.environ["TQDM_DISABLE"] = "1"
    found = {}
    with (
        ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool,
        tqdm(total=len(jobs), desc="ablation", unit="run") as bar,
    ):
        running = {pool.submit(train_one, job): job for job in jobs}
        for done in as_completed(running):
            job = running[done]
            found[job.name, job.seed] = done.result()
            bar.update()
    return found


def _count_cores() -> int:
    """Count the cores that this process may use, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def train_one(job: Job) -> Run:
    """Train, or go on with a run that was interrupted; return what it measured."""
    result, note = job.output / "measured.json", job.output / "stopped.txt"
    if not result.exists():
        from sfm_features.training.lessons import NoKeypoints
        from sfm_features.training.train import train

        run, ended = RunOptions(seed=job.seed), True
        try:
            train(job.folders[0], job.output, job.options, run, job.pg2sd)
        except NoKeypoints:
            ended = False
        log = (job.output / "log.jsonl").read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in log]
        if not ended:
            stages = [record["name"] for record in records if "stage" in record]
            reason = f"no keypoints were found in `{stages[-1]}`"
            note.write_text(reason, encoding="utf-8")
        measured = [record for record in records if "validation" in record]
        kept = [{key: record[key] for key in SHOWN} for record in measured]
        result.write_text(json.dumps(kept), encoding="utf-8")
    stopped = note.read_text(encoding="utf-8") if note.exists() else ""
    return Run(json.loads(result.read_text(encoding="utf-8")), stopped)
