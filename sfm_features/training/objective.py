"""What a stage minimises: the losses of its switches, weighted and named."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sfm_features.nets.dense import CELL_PX, Dense, DenseNet, sample_descriptors
from sfm_features.training import losses
from sfm_features.training.data import Batch
from sfm_features.training.device import autocast
from sfm_features.training.embeddings import Distillation, distil_positions, watch
from sfm_features.training.ensemble import Ensemble
from sfm_features.training.evolve import DescriptorLoss, Stage, Switches
from sfm_features.training.guidance import Guidance
from sfm_features.training.losses import Samples
from sfm_features.training.pg2sd import Pg2sdOptions
from sfm_features.training.targets import KEYPOINT

_STRONGEST = 2048
_PEAKS = 2
"""Peaks drawn around each keypoint, as patches cost next to nothing."""
_PEAK_SIGMA_PX = 0.8
"""How far peaks are from their keypoints, about, along an axis."""
_FOUND_SIGMA_PX = 0.6
"""How far found keypoints are from where they should be, about, along an axis."""
_BESIDE = 4
"""Places beside each point that its descriptor must be told from: a match that is a few
pixels off bends a model more than one that is nowhere near."""
_BESIDE_PX = (3.5, 10.0)
"""How far they are from the point."""


@dataclass(frozen=True)
class LossWeights:
    """How much each loss counts."""

    detector: float = 1.0
    """Keypoints of the labels."""
    descriptor: float = 0.5
    """Descriptors of corresponding points."""
    repeatability: float = 0.5
    """Equal detector maps of both images."""
    refinement: float = 1.0
    """Exact places of keypoints, of networks that refine them."""
    preserve_detector: float = 1.0
    """Detector as before, while the descriptor is updated alone."""
    preserve_descriptor: float = 0.1
    """Descriptor as before, while the detector is updated alone."""
    background: float = 1.0
    """No keypoints where photos are known to show the background."""
    ensemble: float = 20.0
    """Descriptors like those of teachers side by side, in place of `descriptor`."""


class Objective(nn.Module):
    """The losses of a network; holds the learned temperature of the soft matching."""

    def __init__(
        self,
        kind: DescriptorLoss = "softmax",
        switches: Switches = Switches(),
        weights: LossWeights = LossWeights(),
        pg2sd: Pg2sdOptions = Pg2sdOptions(),
        distillation: Distillation = Distillation(),
    ) -> None:
        super().__init__()
        self.kind, self.switches, self.weights = kind, switches, weights
        self.distillation = distillation
        self.guidance = Guidance(pg2sd)
        self.log_temperature = nn.Parameter(torch.tensor(20.0).log())

    def forward(
        self,
        net: DenseNet,
        batch: Batch,
        stage: Stage,
        frozen: DenseNet | None = None,
        progress: float = 1.0,
        teacher: DenseNet | None = None,
        depth_teacher: DenseNet | None = None,
        ensemble: Ensemble | None = None,
    ) -> dict[str, Tensor]:
        """Return the total loss and its parts, by name; some are no losses.

        `frozen` is the network at the start of the stage, `teacher` the one whose
        predictions are distilled, `depth_teacher` the one whose embeddings are, and
        `ensemble` are those whose descriptors are; progress is that of the whole
        training, from 0 to 1.
        """
        images = _to_input(batch.images)
        taps = self.distillation.choose_taps(net) if depth_teacher else ()
        with watch(net, taps) as seen, autocast(images.device):
            dense = net(images)
        parts: dict[str, Tensor] = {}
        terms: list[Tensor] = []
        if depth_teacher is not None:
            known = self._ask_depth(depth_teacher, batch, taps)
            parts["depth"] = distil_positions(seen, known, batch.depth_known)
            terms.append(self.distillation.weight * parts["depth"])
        ease = stage.ease(progress)
        if stage.descriptor and ensemble is not None:
            parts["ensemble"] = ensemble.distance(images, dense.descriptors)
            terms.append(self.weights.ensemble * parts["ensemble"])
        elif stage.descriptor:
            found = self._add_descriptor(dense, batch, ease, progress, parts, terms)
            if self.guidance.options.distils:
                maps = self.guidance.read(net, dense, batch, found)
                taught = None
                if teacher is not None:
                    taught = self._ask(teacher, images, batch, ease)
                parts["distilled"] = self.guidance.distil(maps, taught, found, progress)
                terms.append(self.weights.descriptor * parts["distilled"])
        if stage.detector:
            self._add_detector(net, dense, batch, progress, parts, terms)
            if dense.grey is not None:
                self._add_refinement(net, images, batch, parts, terms)
        if frozen is not None and stage.detector != stage.descriptor:
            with torch.no_grad(), autocast(images.device):
                before = frozen(images)
            self._add_preservation(dense, before, stage, parts, terms)
        parts["loss"] = torch.stack(terms).sum()
        return parts

    def _add_detector(
        self, net: DenseNet, dense: Dense, batch: Batch, progress: float,
        parts: dict[str, Tensor], terms: list[Tensor],
    ) -> None:  # fmt: skip
        if net.head == "cell":
            found = losses.focal_cells(dense.logits, batch.targets, batch.heat)
        else:
            found = losses.focal_pixels(dense.logits, batch.targets)
        parts["detector"] = found.mean
        terms.append(self.weights.detector * parts["detector"])
        if batch.background.any():
            p = net.probability(dense.logits.float())
            cell_px = CELL_PX if net.head == "cell" else 1
            parts["background"] = losses.suppress_background(
                p, batch.background, cell_px
            )
            terms.append(self.weights.background * parts["background"])
        if self.guidance.options.strategy != "none":
            p = net.probability(dense.logits.float())
            added = self.guidance.constrain("detector", found, progress, p)
            self._add_constraint(added, self.weights.detector, parts, terms)
        if self.switches.detector_repeatability and self.weights.repeatability > 0:
            p = net.probability(dense.logits.float())
            # A sigmoid that has learned nothing says 1/2 everywhere: none stands out.
            most = _STRONGEST if net.head == "cell" else 0
            parts["repeat"] = losses.detector_repeatability(
                p, batch.b_from_a, batch.targets, most
            )
            terms.append(self.weights.repeatability * parts["repeat"])

    def _add_refinement(
        self, net: DenseNet, images: Tensor, batch: Batch,
        parts: dict[str, Tensor], terms: list[Tensor],
    ) -> None:  # fmt: skip
        both, size = batch.xy.flatten(0, 1), batch.images.shape[3]
        nearest = both.round().long()
        index = nearest[..., 1] * size + nearest[..., 0]
        labelled = batch.targets.flatten(1).gather(1, index) == KEYPOINT
        known = batch.used & labelled[: len(batch.used)] & labelled[len(batch.used) :]
        # Always the same draws: a run that goes on must not depend on where it stopped.
        draws = torch.Generator().manual_seed(0)
        both = both.repeat(1, _PEAKS, 1)
        off = _PEAK_SIGMA_PX * torch.randn(both.shape, generator=draws)
        peaks = (both + off.to(both.device)).round().clamp(0, size - 1)
        xy = batch.xy.repeat(1, 1, _PEAKS, 1)
        parts["places"] = losses.refinement(
            net.refine(images, peaks).reshape(xy.shape),
            xy,
            batch.b_from_a,
            known.repeat(1, _PEAKS),
        )
        terms.append(self.weights.refinement * parts["places"])

    def _add_descriptor(
        self, dense: Dense, batch: Batch, ease: float, progress: float,
        parts: dict[str, Tensor], terms: list[Tensor],
    ) -> Samples:  # fmt: skip
        found, parts["accuracy"] = self._match(dense, batch, ease)
        parts["descriptor"] = found.mean
        terms.append(self.weights.descriptor * parts["descriptor"])
        added = self.guidance.constrain("descriptor", found, progress)
        self._add_constraint(added, self.weights.descriptor, parts, terms)
        return found

    @staticmethod
    def _ask_depth(
        teacher: DenseNet, batch: Batch, taps: Sequence[str]
    ) -> dict[str, Tensor]:
        """Return the embeddings of a teacher that sees a batch's depth."""
        depth = _to_input(batch.nearness)
        with torch.no_grad(), watch(teacher, taps) as seen, autocast(depth.device):
            teacher(depth)
        return seen

    def _ask(
        self, teacher: DenseNet, images: Tensor, batch: Batch, ease: float
    ) -> Tensor:
        """Read what a teacher says of a batch's points."""
        with torch.no_grad():
            with autocast(images.device):
                dense = teacher(images)
            matched, _ = self._match(dense, batch, ease)
            return self.guidance.read(teacher, dense, batch, matched)

    def _match(self, dense: Dense, batch: Batch, ease: float) -> tuple[Samples, Tensor]:
        """Return the descriptors' loss at each point, and the share matched rightly."""
        size = (batch.images.shape[3], batch.images.shape[2])
        both, xy = dense.descriptors.float(), batch.xy.flatten(0, 1)
        beside: tuple[Tensor, Tensor] | None = None
        if self.kind == "softmax":
            # Always the same draws, as for refinement.
            draws = torch.Generator().manual_seed(0)
            around = xy[:, :, None] + _draw_ring(xy.shape[1], draws).to(xy.device)
            found = sample_descriptors(both, around.flatten(1, 2), size)
            first, second = found.unflatten(1, around.shape[1:3]).chunk(2)
            beside = (first, second)
            off = torch.randn(xy.shape, generator=draws)
            xy = xy + _FOUND_SIGMA_PX * off.to(xy.device)
        a, b = sample_descriptors(both, xy, size).chunk(2)
        matched, right = losses.dual_softmax(
            a, b, batch.xy, batch.used, self.log_temperature, batch.places, beside
        )
        if self.kind == "triplet":
            matched = losses.hardest_triplet(
                a, b, batch.xy, batch.used, ease=ease,
                repeatability=self.switches.descriptor_repeatability,
                distinctness=self.switches.descriptor_distinctness,
            )  # fmt: skip
        return matched, right.detach()

    @staticmethod
    def _add_constraint(
        added: dict[str, Tensor], weight: float,
        parts: dict[str, Tensor], terms: list[Tensor],
    ) -> None:  # fmt: skip
        parts |= added
        terms += [
            weight * v for name, v in added.items() if name.endswith("constraint")
        ]

    def _add_preservation(
        self, dense: Dense, before: Dense, stage: Stage,
        parts: dict[str, Tensor], terms: list[Tensor],
    ) -> None:  # fmt: skip
        if stage.descriptor:
            parts["kept"] = losses.preserve_detector(dense.logits, before.logits)
            terms.append(self.weights.preserve_detector * parts["kept"])
        else:
            parts["kept"] = losses.preserve_descriptor(
                dense.descriptors, before.descriptors
            )
            terms.append(self.weights.preserve_descriptor * parts["kept"])


def _draw_ring(count: int, draws: torch.Generator) -> Tensor:
    """Draw steps (N, K, 2) to places beside points."""
    least, most = _BESIDE_PX
    radius = least + (most - least) * torch.rand(count, _BESIDE, generator=draws)
    angle = 2 * math.pi * torch.rand(count, _BESIDE, generator=draws)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=2)


def _to_input(pixels: Tensor) -> Tensor:
    """Turn pictures (B, 1, H, W) of bytes into what networks see."""
    scaled = pixels.float() / 255
    return scaled.contiguous(memory_format=torch.channels_last)
