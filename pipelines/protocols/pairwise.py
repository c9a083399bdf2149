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

from pipelines.protocols.command import make_parser
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


def make_pairs_parser(
    module: str,
    description: str | None,
    max_keypoints: int,
    max_size: int,
    ratio: float | None = None,
) -> argparse.ArgumentParser:
    """Make the command line that all of them have, with a data set's own defaults."""
    parser = make_parser(module, description)
    parser.add_argument("dataset", type=Path, help="folder of the data set")
    add = parser.add_argument_group("how it is done").add_argument
    add("--extractor", default="evo", help="evo (default), sekd, sift, aliked ...")
    add("--weights", type=Path, help="its weights, if not those of the package")
    add("--max-keypoints", type=int, default=max_keypoints,
        help=f"of an image (default: {max_keypoints})")  # fmt: skip
    add("--max-size", type=int, default=max_size,
        help="shrink images to this longer side (px); 0 = as they are (default: "
        f"{max_size})")  # fmt: skip
    usual = "what suits the extractor" if ratio is None else f"{ratio:g}"
    add("--ratio", type=float, default=ratio,
        help="bound on best over second best distance; 1 = off (default: "
        f"{usual})")  # fmt: skip
    add("--matcher", default="nearest",
        help="nearest (default), as the published rows of features have it, or "
        "agreeing, as `sfm-features match` does")  # fmt: skip
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
    matching = MatchOptions(args.matcher, args.ratio)
    return Setup(args.output, extraction, matching, run)


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
    missing = {_key(task): task for task in tasks if _key(task) not in ledger}
    with FeatureStore.open(features) as found, MatchStore.open(matches) as matched:
        bar = tqdm(missing.items(), desc="measure", unit="pair", disable=not missing)
        for key, task in bar:
            a, b = (found.read_keypoints(name) for name in task.names)
            rows = matched.read(task.names).indices
            figures = measure(task, a[rows[:, 0]], b[rows[:, 1]])
            counts = {"features": (len(a) + len(b)) / 2, "matches": len(rows)}
            ledger.add(key, {**counts, **figures})
    return [ledger[_key(task)] for task in tasks]


def describe_setup(protocol: str, setup: Setup) -> str:
    """Say what decides the figures, for a ledger."""
    # Which weights they are, the file of features knows; where they lie says nothing.
    extraction = replace(setup.extraction, weights=None)
    return f"{protocol}, {extraction}, {setup.matching}, seed {setup.run.seed}"


def _key(task: Task) -> str:
    return "\t".join(task.names)
