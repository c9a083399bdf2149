"""PG2SD: easy samples first, and hard ones helped by softened predictions.

Two ideas of Li et al. (IEEE TMM 2025), for any network. PGCS, the progressive gradient
constraint, lets samples weigh as much as is right for the moment: at first the easy
ones, at the end all alike. G2SDS, gradient-guided self-distillation, holds predictions
to their own softened form, and later makes them surer of themselves.

Each comes as the authors published it (what is easy is a peaky detector map, and the
epoch decides), and by statistics of gradients: how steep a sample's loss is among all
says how hard it is, and the share of the gradient that hard samples carry decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfm_features.training.evolve import Strategy

Form: TypeAlias = Literal["published", "statistics"]
Softened: TypeAlias = Literal["scores", "descriptors"]
Teacher: TypeAlias = Literal["own", "snapshot", "average"]


@dataclass(frozen=True)
class Pg2sdOptions:
    """Every knob of the method; the published values, but where it says otherwise.

    Here both losses are of the points that descriptors learn from, not of all pixels,
    and weighed as the other losses of a descriptor are.
    """

    strategy: Strategy = "none"
    form: Form = "statistics"
    """As published, or by statistics of gradients, which is ours."""
    turn: float = 0.2
    """Share of the training after which hard samples are let in by half."""
    steepness: float = 10.0
    """How sudden that turn is."""
    constraint: float = 1.0
    """Weight of the constraint; published: 0.01, which is next to nothing."""
    distillation: float = 0.1
    """Weight of the distillation."""
    softened: Softened = "scores"
    """What is softened at a point: two scores, or the descriptor and one score (the
    form of 129 channels, whose weights were published)."""
    teacher: Teacher = "own"
    """Whose predictions: its own, those of the round's start, or averaged weights'."""
    most_temperature: float = 1.5
    most_mixing: float = 0.5
    horizon: float = 0.4
    """Share of the training after the turn at which softening has ended."""
    window_px: int = 17
    """Neighbourhood in which a published peak is high or flat."""
    bins: int = 20
    """Bins of the histogram of gradients; 0 = as published, without statistics."""
    momentum: float = 0.75
    """Share of the older histogram that an update keeps."""
    hard_share: float = 0.5
    """Share of the gradient that hard samples carry when softening is to end."""
    flatten: bool = False
    """Divide late weights by how many samples are as hard, as GHM does."""

    @property
    def constrains(self) -> bool:
        """Whether samples are weighed."""
        return self.strategy in ("pgcs", "pg2sd")

    @property
    def distils(self) -> bool:
        """Whether predictions are held to softened ones."""
        return self.strategy in ("g2sds", "pg2sd")

    @property
    def counts(self) -> bool:
        """Whether the statistics of gradients decide."""
        return self.form == "statistics" and self.bins > 0


@dataclass(frozen=True)
class Schedule:
    """Where a training is; progress from 0 to 1."""

    options: Pg2sdOptions
    progress: float

    @property
    def gate(self) -> float:
        """How far hard samples are let in, from 0 to 1."""
        o = self.options
        return 1 / (1 + math.exp(-o.steepness * (self.progress - o.turn)))

    @property
    def slope(self) -> float:
        """The late slope of the constraint, a little over 1."""
        o = self.options
        return 1 / (1 - math.exp(-o.steepness * (1 - o.turn)))

    @property
    def temperature(self) -> float:
        """How soft predictions are, falling to 1."""
        o = self.options
        return 1 + (o.most_temperature - 1) * max(0.0, 1 - self._softening)

    @property
    def mixing(self) -> float:
        """Share of the regression to the softened prediction, falling to 0."""
        return self.options.most_mixing * max(0.0, 1 - self._softening)

    @property
    def _softening(self) -> float:
        return self.progress / (self.options.turn + self.options.horizon)


def constrain_peaks(p: Tensor, schedule: Schedule) -> Tensor:
    """Return the published constraint on detector maps (B, 1, H, W), unweighted.

    A peak's confidence c is half of how far it stands out. Early the slope is 2 c, so
    that only sure peaks are sharpened; late it is 1 for all.
    """
    window = schedule.options.window_px
    smooth = functional.avg_pool2d(p, 3, 1, 1)
    pad = window // 2
    top = functional.max_pool2d(smooth, window, 1, pad)
    mean = functional.avg_pool2d(smooth, window, 1, pad, count_include_pad=False)
    c = (top - mean).abs() / 2
    gate = schedule.gate
    phi = (1 - gate) * c.square() + gate * schedule.slope * c - 0.001 * c
    return 1 - phi.mean()


def distil_own(maps: Tensor, temperature: float, mixing: float) -> Tensor:
    """Return the published distillation of channels (..., C), without its weight."""
    q = (maps / temperature).softmax(dim=-1)
    entropy = -(q * q.clamp(min=1e-12).log()).sum(dim=-1).mean()
    return mixing * functional.smooth_l1_loss(maps, q) + (1 - mixing) * entropy


def distil_taught(
    maps: Tensor, taught: Tensor, weight: Tensor, temperature: float, mixing: float
) -> Tensor:
    """Return the distillation from a teacher's channels (..., C); weight (...)."""
    target = (taught.detach() / temperature).softmax(dim=-1)
    log_q = (maps / temperature).log_softmax(dim=-1)
    distance = functional.smooth_l1_loss(maps, target, reduction="none").mean(dim=-1)
    entropy = -(target * log_q).sum(dim=-1) * temperature**2
    each = mixing * distance + (1 - mixing) * entropy
    return (weight * each).sum() / weight.sum().clamp(min=1e-6)


class Difficulty(nn.Module):
    """How hard samples are among all of late: the rank of their gradient's norm.

    The histogram of norms in [0, 1] is part of what a checkpoint keeps.
    """

    shares: Tensor
    updates: Tensor

    def __init__(self, bins: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("shares", torch.full((max(bins, 1),), 1 / max(bins, 1)))
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def update(self, norms: Tensor) -> None:
        """Take in the norms (N,) of a batch."""
        if not norms.numel():
            return
        bins = len(self.shares)
        counts = torch.histc(norms.float().cpu(), bins, 0, 1).to(self.shares)
        keep = self.momentum if self.updates > 0 else 0.0
        self.shares.mul_(keep).add_(counts / counts.sum(), alpha=1 - keep)
        self.updates.add_(1)

    @torch.no_grad()
    def rank(self, norms: Tensor) -> Tensor:
        """Return how hard samples are, from 0 (easiest) to 1, straight within bins."""
        bins = len(self.shares)
        below = torch.cat([self.shares.new_zeros(1), self.shares.cumsum(0)])
        place = norms.float().clamp(0, 1) * bins
        index = place.long().clamp(max=bins - 1)
        return (below[index] + (place - index) * self.shares[index]).clamp(0, 1)

    @torch.no_grad()
    def find_quantiles(self, count: int) -> Tensor:
        """Return the norms (count,) that have ranks evenly from 0 to 1."""
        grid = torch.linspace(0, 1, 1001, device=self.shares.device)
        wanted = torch.linspace(0, 1, count, device=self.shares.device)
        index = torch.searchsorted(self.rank(grid).contiguous(), wanted)
        return grid[index.clamp(max=1000)]

    @torch.no_grad()
    def rarity(self, norms: Tensor) -> Tensor:
        """Return how rare samples as hard as these are; 1 if all are alike."""
        bins = len(self.shares)
        index = (norms.float().clamp(0, 1) * bins).long().clamp(max=bins - 1)
        return 1 / (self.shares[index] * bins).clamp(min=1 / bins)


def weigh(norms: Tensor, difficulty: Difficulty, schedule: Schedule) -> Tensor:
    """Return what samples weigh by their norms (N,): easy ones first, all at last."""
    confidence = (1 - difficulty.rank(norms)) / 2
    late = difficulty.rarity(norms) if schedule.options.flatten else 1.0
    return (1 - schedule.gate) * 2 * confidence + schedule.gate * late


def measure_hard_share(norms: Tensor, weights: Tensor, difficulty: Difficulty) -> float:
    """Return the share of the weighed gradient that the harder half carries."""
    carried = weights * norms
    hard = difficulty.rank(norms) > 0.5
    return float(carried[hard].sum() / carried.sum().clamp(min=1e-12))


def soften(hard_share: float, options: Pg2sdOptions) -> tuple[float, float]:
    """Return temperature and mixing by what hard samples carry of the gradient."""
    left = 1 - min(hard_share / options.hard_share, 1.0)
    return 1 + (options.most_temperature - 1) * left, options.most_mixing * left
