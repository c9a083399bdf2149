"""How a network evolves: which labels it learns from, what it updates, and when."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:  # the shell reads the options without loading torch
    from sfm_features.training.labels import LabelKind

_MOST_EASE = 0.5
_EASY_SHARE = 0.8
"""Share of a training from scratch after which triplets are as hard as ever."""

Recipe: TypeAlias = Literal["joint", "alternating"]
DescriptorLoss: TypeAlias = Literal["softmax", "triplet"]
Strategy: TypeAlias = Literal["none", "pgcs", "g2sds", "pg2sd"]


@dataclass(frozen=True)
class Switches:
    """The parts of the method, each of which can be left out."""

    detector_repeatability: bool = True
    """Pull the detector's maps of both images of a pair together."""
    descriptor_repeatability: bool = True
    """Pull the descriptors of corresponding points together."""
    descriptor_distinctness: bool = True
    """Push the descriptors of other points away."""
    reliability: bool = True
    """Choose keypoints where descriptors tell a point from its neighbours."""
    affine_adaption: bool = True
    """Average what is found over random affine views."""
    preservation: bool = True
    """Keep the descriptor while the detector is updated, and the other way round."""


@dataclass(frozen=True)
class Stage:
    """A stretch of training on one set of labels; `end` is the progress, up to 1."""

    name: str
    labels: LabelKind
    start: float
    end: float
    detector: bool = True
    descriptor: bool = True
    fresh_optimizer: bool = False
    keep_older_labels: bool = False
    decay_within: bool = False
    """Whether the learning rate falls within the stage, not over all of them."""
    hardness: float = 1.0
    """Share of the nights and fixed cameras asked for that this stage gets."""
    from_scratch: bool = False
    """Whether nothing was learned before this training."""

    def ease(self, progress: float) -> float:
        """Return the share of a triplet's negatives to pass over as too hard.

        A descriptor that has learned little and sees the hardest ones only gives up and
        calls everything the same; so it starts with those of middling difficulty.
        """
        if not self.from_scratch:
            return 0.0
        return _MOST_EASE * max(0.0, 1 - progress / _EASY_SHARE)


def plan_stages(
    recipe: Recipe,
    rounds: int,
    switches: Switches = Switches(),
    first: LabelKind = "corners",
) -> list[Stage]:
    """Plan the stages of a recipe."""
    if recipe == "joint":
        return _plan_joint(rounds, switches, first)
    return _plan_alternating(rounds, switches, first)


def plan_taught() -> list[Stage]:
    """Plan what other networks teach: descriptors only, so that any labels do."""
    return [Stage("teachers", "corners", 0.0, 1.0, detector=False)]


def _plan_joint(rounds: int, switches: Switches, first: LabelKind) -> list[Stage]:
    """Update everything at once; each round is taught by the network it starts with.

    From scratch the first rounds get few nights: what is too hard only slows them.
    """
    later: LabelKind = "product" if switches.reliability else "detector"
    return [
        Stage(
            name=f"round {i}",
            labels=first if i == 0 else later,
            start=i / rounds,
            end=(i + 1) / rounds,
            keep_older_labels=True,
            hardness=(i + 1) / rounds if first != later else 1.0,
            from_scratch=first != later,
        )
        for i in range(rounds)
    ]


def _plan_alternating(rounds: int, switches: Switches, first: LabelKind) -> list[Stage]:
    """Teach the descriptor where the detector looks, then the detector where the
    descriptor is reliable, each with an optimizer of its own."""
    later: LabelKind = "reliability" if switches.reliability else "detector"
    stages = []
    for i in range(rounds):
        middle, start, end = (i + 0.5) / rounds, i / rounds, (i + 1) / rounds
        common = {"fresh_optimizer": True, "decay_within": True}
        looked_at: LabelKind = first if i == 0 else "detector"
        teach = Stage(
            f"round {i} descriptor", looked_at, start, middle, False, **common
        )
        stages.append(replace(teach, from_scratch=first in ("random", "corners")))
        stages.append(
            Stage(f"round {i} detector", later, middle, end, True, False, **common)
        )
    return stages


def schedule_rate(stage: Stage, progress: float, last: float) -> float:
    """Return the share of the learning rate: a cosine over the run, or over a stage."""
    if stage.decay_within:
        progress = (progress - stage.start) / (stage.end - stage.start)
    fall = (1 + math.cos(math.pi * min(progress, 1.0))) / 2
    return last + (1 - last) * fall
