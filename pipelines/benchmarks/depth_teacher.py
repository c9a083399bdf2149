"""What a teacher that sees depth adds to `adapt`: runs on rendered turntables.

All runs have the same photos, labels and steps; the seed draws the turntables and all
batches. The students of a seed share one teacher. Finished runs are kept and not
repeated. Measured on things and rooms that none of them has seen.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch

from pipelines.benchmarks.results import Cell, Result, Row
from sfm_features.errors import OptionError
from sfm_features.nets.dense import DenseNet
from sfm_features.nets.evo import EvoNet
from sfm_features.scenes.turntable import render_turntable
from sfm_features.training.networks import read_net
from sfm_features.training.options import AdaptOptions, DepthOptions
from sfm_features.training.photos import PhotoSet
from sfm_features.training.train import adapt
from sfm_features.training.turntables import TurntablePairs
from sfm_features.training.validate import ViewPair, validate
from sfm_features.types import RunOptions

START, WITHOUT = "before adapting", "no teacher"
_OWN_SEED, _UNSEEN_SEED = 500, 98
_OWN_VIEWS = 12
_SIZE = (480, 360)
_POINTS = 256
_SHARED = ("turntables", "labels", "teacher")
"""What a run leaves behind that others with its seed would make alike."""


@dataclass(frozen=True)
class Scale:
    """How large the runs are; else they are as those that made `evo-object`."""

    steps: int = 900
    teacher_steps: int = 450
    turntables: int = 48
    batch: int = 6
    crop_px: int = 256
    background_weight: float = 12.0
    unseen: int = 2

    def make_options(self) -> AdaptOptions:
        """Return the options of every run."""
        return AdaptOptions(
            steps=self.steps, batch=self.batch, crop_px=self.crop_px, rounds=1,
            views=2, label_photos=0, learning_rate=2e-3, layer_share=0.2,
            validations=1, validation_photos=2,
        )  # fmt: skip

    def make_depth(self, own: Path, variant: Variant | None) -> DepthOptions:
        """Return what depth teaches in a run."""
        return DepthOptions(
            depth=own / "depth", depth_kind="distance", turntables=self.turntables,
            background_weight=self.background_weight,
            distillation=variant.weight if variant else 0.0,
            taps=variant.taps if variant else (), teacher_steps=self.teacher_steps,
        )  # fmt: skip


@dataclass(frozen=True)
class Variant:
    """Embeddings, and how much it counts that they are like the teacher's."""

    taps: tuple[str, ...]
    weight: float

    @classmethod
    def parse(cls, text: str) -> Variant:
        """Read TAP=WEIGHT or TAP+TAP=WEIGHT; raise OptionError."""
        names, _, weight = text.partition("=")
        taps = tuple(names.split("+"))
        try:
            found = cls(taps, float(weight))
        except ValueError as error:
            raise OptionError(f"{text}: write TAP=WEIGHT, such as up2=1") from error
        if not {*taps} <= {*EvoNet.taps} or not found.weight > 0:
            raise OptionError(
                f"{text}: choose of {', '.join(EvoNet.taps)}, and a weight above 0"
            )
        return found

    @property
    def name(self) -> str:
        """What the table calls it."""
        return f"{'+'.join(self.taps)}, weight {self.weight:g}"


@dataclass(frozen=True)
class Unseen:
    """Photos of things that no run was trained on, and pairs of neighbouring views."""

    photos: PhotoSet
    pairs: list[ViewPair]


def measure_depth_teacher(
    output: Path,
    variants: Sequence[Variant],
    scale: Scale = Scale(),
    seeds: Sequence[int] = (0, 1),
) -> Result:
    """Adapt `evo` without a teacher and with one in each variant; compare."""
    own = output / "own"
    render_turntable(own, _OWN_VIEWS, _OWN_SEED, _SIZE)
    unseen = _render_unseen(output / "unseen", scale.unseen)
    found = {START: [_measure(read_net("evo"), unseen)]}
    for seed in seeds:
        for variant in (None, *variants):
            name = variant.name if variant else WITHOUT
            figures = _train(output, own, variant, scale, seed, unseen)
            found.setdefault(name, []).append(figures)
    rows = [_summarise(name, runs) for name, runs in found.items()]
    title = (
        f"A depth teacher: {scale.steps} steps of {scale.batch} pairs of "
        f"{scale.crop_px} px, {scale.teacher_steps} of the teacher, background weight "
        f"{scale.background_weight:g}"
    )
    details = {"runs": found, "scale": vars(scale)}
    return Result(f"{title}, {len(seeds)} seeds", rows, details=details)


def _render_unseen(folder: Path, scenes: int) -> Unseen:
    turns = TurntablePairs(folder, scenes, _UNSEEN_SEED, first=0)
    photos = turns.extend(PhotoSet([])).photos
    rng = np.random.default_rng(0)
    pairs = []
    for first in range(0, len(photos), 2):
        background = photos[first].background
        assert background is not None
        y, x = np.nonzero(~background)
        k = rng.choice(len(x), _POINTS)
        other = first + 1
        places = np.stack([x[k], y[k]], axis=1).astype(np.float64)
        xy_a, xy_b = (
            xy.astype(np.float32) for xy in turns.relate(first, other, places)
        )
        if len(xy_a):
            pairs.append(ViewPair(photos[first].grey, photos[other].grey, xy_a, xy_b))
    return Unseen(PhotoSet(photos), pairs)


def _train(
    output: Path,
    own: Path,
    variant: Variant | None,
    scale: Scale,
    seed: int,
    unseen: Unseen,
) -> dict[str, float]:
    """Adapt unless that is done; return what was measured."""
    name = variant.name if variant else WITHOUT
    folder = output / f"seed{seed}" / name.replace(", ", "-").replace(" ", "-")
    result = folder / "measured.json"
    if result.exists():
        kept: dict[str, float] = json.loads(result.read_text(encoding="utf-8"))
        return kept
    for other in sorted(folder.parent.glob("*/measured.json")):
        _share(other.parent, folder)
    options, depth = scale.make_options(), scale.make_depth(own, variant)
    run = RunOptions(seed=seed)
    summary = adapt(own / "images", folder, "evo", options, run, depth)
    figures = _measure(read_net(str(summary.weights)), unseen)
    result.write_text(json.dumps(figures), encoding="utf-8")
    return figures


def _share(done: Path, folder: Path) -> None:
    """Take over what a finished run of the same seed has made."""
    for name in _SHARED:
        if (done / name).exists() and not (folder / name).exists():
            shutil.copytree(done / name, folder / name)


def _measure(net: DenseNet, unseen: Unseen) -> dict[str, float]:
    """Measure a network on what it has not seen."""
    photos, device = unseen.photos, torch.device("cpu")
    every = range(0, len(photos), 2)
    scores = validate(net.eval(), photos, list(every), device, 0, unseen.pairs)
    assert scores.on_background is not None and scores.views is not None
    return {
        "on background": scores.on_background,
        "matching score": scores.matching_score,
        "against night": scores.night_matching_score,
        "repeatability": scores.repeatability,
        "points of the thing matched, 30 deg": scores.views,
    }


def _summarise(name: str, runs: Sequence[Mapping[str, float]]) -> Row:
    """Show mean and standard deviation over the seeds."""
    row: dict[str, Cell] = {"embeddings held to the teacher's": name}
    for key in runs[0]:
        values = [run[key] for run in runs]
        spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
        row[key] = f"{mean(values):.3f}{spread}"
    return row
