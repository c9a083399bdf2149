"""What the benchmarks of image pairs share: their command line and their stages.

Features and matches come from the package's own stages, into files as hloc has them.
Every stage goes on where it was stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

from tqdm import tqdm

from pipelines.protocols.ledger import Figures, Ledger
from sfm_features.extract import ExtractOptions, extract
from sfm_features.match import MatchOptions, match
from sfm_features.store import FeatureStore, MatchStore
from sfm_features.types import F32, Pair, RunOptions


class Task(Protocol):
    """Two images of a data set, and whatever is known about them."""

    @property
    def names(self) -> Pair:
        """Their names, relative to the folder of images."""
        ...


T = TypeVar("T", bound=Task)
Measure = Callable[[T, F32, F32], Figures]


@dataclass(frozen=True)
class Setup:
    """Where a benchmark writes, and with what it works."""

    output: Path
    extraction: ExtractOptions
    matching: MatchOptions
    run: RunOptions


def make_parser(
    module: str,
    description: str | None,
    max_keypoints: int,
    max_size: int,
    ratio: float | None = None,
) -> argparse.ArgumentParser:
    """Make the command line that all of them have, with a data set's own defaults."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("dataset", type=Path, help="folder of the data set")
    add("--output", type=Path, required=True, help="folder to write; resumable")
    add("--extractor", default="evo", help="method (default: evo)")
    add("--weights", type=Path, help="its weights, if not those of the package")
    add(
        "--max-keypoints", type=int, default=max_keypoints,
        help=f"of an image (default: {max_keypoints})",
    )  # fmt: skip
    add(
        "--max-size", type=int, default=max_size,
        help=f"shrink longer sides to it, px; 0 = as it is (default: {max_size})",
    )  # fmt: skip
    shown = "what suits the extractor" if ratio is None else f"{ratio:g}, off"
    add(
        "--ratio", type=float, default=ratio,
        help=f"bound on best over second best distance (default: {shown})",
    )  # fmt: skip
    add("--device", default="auto", help="cpu, cuda or auto (default)")
    add("--seed", type=int, default=0, help="of the estimators")
    add("--write", type=Path, help="document whose marked sections are filled")
    return parser


def read_setup(args: argparse.Namespace) -> Setup:
    """Turn the command line into options."""
    extraction = ExtractOptions(
        extractor=args.extractor,
        weights=args.weights,
        max_keypoints=args.max_keypoints,
        max_size=args.max_size,
    )
    # A benchmark without some of its images would be another benchmark.
    run = RunOptions(device=args.device, seed=args.seed, strict=True)
    return Setup(args.output, extraction, MatchOptions(ratio=args.ratio), run)


def measure_pairs(
    images: Path,
    tasks: Sequence[T],
    measure: Measure[T],
    protocol: str,
    setup: Setup,
) -> list[Figures]:
    """Extract, match and measure each pair; return the figures in the tasks' order.

    `protocol` says in words what decides the figures besides features and matches.
    """
    folder = setup.output
    folder.mkdir(parents=True, exist_ok=True)
    features, matches = folder / "features.h5", folder / "matches.h5"
    names = sorted({name for task in tasks for name in task.names})
    extract(images, features, setup.extraction, setup.run, names=names)
    match(features, [task.names for task in tasks], matches, setup.matching, setup.run)
    ledger = Ledger(folder / "measured.jsonl", describe_setup(protocol, setup))
    missing = [task for task in tasks if _key(task) not in ledger]
    with FeatureStore.open(features) as found, MatchStore.open(matches) as matched:
        for task in tqdm(missing, desc="measure", unit="pair", disable=not missing):
            a, b = (found.read_keypoints(name) for name in task.names)
            rows = matched.read(task.names).indices
            figures = measure(task, a[rows[:, 0]], b[rows[:, 1]])
            counts = {"features": (len(a) + len(b)) / 2, "matches": len(rows)}
            ledger.add(_key(task), {**counts, **figures})
    return [ledger[_key(task)] for task in tasks]


def describe_setup(protocol: str, setup: Setup) -> str:
    """Say what decides the figures, for a ledger."""
    # Which weights they are, the file of features knows; where they lie says nothing.
    extraction = replace(setup.extraction, weights=None)
    return f"{protocol}, {extraction}, {setup.matching}, seed {setup.run.seed}"


def _key(task: Task) -> str:
    return "\t".join(task.names)
