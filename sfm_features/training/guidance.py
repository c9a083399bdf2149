"""PG2SD at work in a training step: which samples weigh how much, and who softens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sfm_features.nets.dense import Dense, DenseNet, sample_descriptors
from sfm_features.training.data import Batch
from sfm_features.training.losses import Samples
from sfm_features.training.pg2sd import (
    Difficulty,
    Pg2sdOptions,
    Schedule,
    constrain_peaks,
    distil_own,
    distil_taught,
    measure_hard_share,
    soften,
    weigh,
)
from sfm_features.training.warps import sample_maps

_SHOWN_RANKS = 11


class Guidance(nn.Module):
    """The parts of PG2SD that an objective adds to its losses.

    What it remembers of gradients are buffers, so that a run that goes on is the same.
    """

    def __init__(self, options: Pg2sdOptions = Pg2sdOptions()) -> None:
        super().__init__()
        self.options = options
        self.difficulties = nn.ModuleDict()
        if options.strategy != "none" and options.counts:
            for name in ("detector", "descriptor"):
                self.difficulties[name] = Difficulty(options.bins, options.momentum)

    def constrain(
        self, name: str, samples: Samples, progress: float, p: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the constraint's loss on samples, or on the detector's maps p.

        What hard samples carry of the gradient comes along, by name.
        """
        if self.options.strategy == "none":
            return {}
        schedule = Schedule(self.options, progress)
        if not self.options.counts:
            if p is None or not self.options.constrains:
                return {}
            peaks = constrain_peaks(p, schedule)
            return {f"{name} constraint": self.options.constraint * peaks}
        difficulty = self._get(name)
        counted = samples.weights > 0
        norms = samples.norms[counted]
        difficulty.update(norms)
        weights = weigh(norms, difficulty, schedule) * samples.weights[counted]
        share = measure_hard_share(norms, weights, difficulty)
        found = {f"{name} hard share": norms.new_tensor(share)}
        each = samples.losses[counted]
        ranks = difficulty.rank(norms)
        for kind, chosen in (("easiest", ranks < 0.2), ("hardest", ranks >= 0.8)):
            if chosen.any():
                found[f"{name} {kind}"] = each[chosen].detach().mean()
        if self.options.constrains:
            total = (weights * each).sum()
            mean = total / weights.sum().clamp(min=1e-6)
            found[f"{name} constraint"] = self.options.constraint * mean
        return found

    def describe(self, progress: float) -> dict[str, dict[str, list[float]]]:
        """Describe how hard samples are and what they weigh, for the log."""
        schedule = Schedule(self.options, progress)
        found = {}
        for name in self.difficulties:
            difficulty = self._get(name)
            norms = difficulty.find_quantiles(_SHOWN_RANKS)
            weights = weigh(norms, difficulty, schedule)
            found[name] = {
                "shares": [round(x, 5) for x in difficulty.shares.tolist()],
                "weights": [round(x, 5) for x in weights.tolist()],
            }
        return found

    def distil(
        self, maps: Tensor, taught: Tensor | None, samples: Samples, progress: float
    ) -> Tensor:
        """Return the distillation's loss on softened channels (2 B N, C).

        maps are those of the points of all first images, then of all second ones;
        taught are a teacher's, or nothing where predictions teach themselves.
        """
        if not self.options.counts:
            schedule = Schedule(self.options, progress)
            loss = distil_own(maps, schedule.temperature, schedule.mixing)
            return self.options.distillation * loss
        difficulty = self._get("descriptor")
        schedule = Schedule(self.options, progress)
        weights = weigh(samples.norms, difficulty, schedule) * samples.weights
        share = measure_hard_share(samples.norms, weights, difficulty)
        temperature, mixing = soften(share, self.options)
        if taught is None:
            loss = distil_own(maps, temperature, mixing)
        else:
            # Hard samples need the help of a teacher most.
            hard = (difficulty.rank(samples.norms) * samples.weights).repeat(2)
            loss = distil_taught(maps, taught, hard, temperature, mixing)
        return self.options.distillation * loss

    def read(
        self, net: DenseNet, dense: Dense, batch: Batch, samples: Samples
    ) -> Tensor:
        """Read the channels (2 B N, C) that are softened at a batch's points.

        Either how surely a point is matched and how much of a keypoint it is, or its
        descriptor and the latter.
        """
        both = batch.xy.flatten(0, 1)
        p = net.probability(dense.logits.float())
        score = sample_maps(p, both).flatten(0, 1)
        if self.options.softened == "scores":
            sure = (-samples.losses).exp().repeat(2)
            return torch.cat([sure[:, None], score], dim=1)
        size = (batch.images.shape[3], batch.images.shape[2])
        unit = sample_descriptors(dense.descriptors.float(), both, size)
        return torch.cat([unit.flatten(0, 1), score], dim=1)

    def _get(self, name: str) -> Difficulty:
        found = self.difficulties[name]
        assert isinstance(found, Difficulty)
        return found
