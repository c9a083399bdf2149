"""Distill-DKP: a detector that sees colours learns from one that sees depth.

The teacher is trained on depth maps alone, in which a background has little to offer.
The student is trained on photographs, and its embeddings are held to the teacher's of
the same view. Only the student is used afterwards: depth is needed for training only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from sfm_features.nets.autolink import AutoLink, Detected
from sfm_features.training.objects.perceptual import Perceptual


@dataclass(frozen=True)
class DkpWeights:
    """How much the parts of the loss count."""

    perceptual: float = 1.0
    pixels: float = 1.0
    """Plain difference of colours, which features of grey pictures do not see."""
    distillation: float = 1.0
    taps: tuple[str, ...] = ("up2",)
    """Embeddings that are held to the teacher's."""


def reconstruction_loss(
    model: AutoLink,
    perceptual: Perceptual,
    weights: DkpWeights,
    rgb: Tensor,
    generator: torch.Generator,
) -> tuple[dict[str, Tensor], Detected, Tensor]:
    """Return the parts of AutoLink's loss, what was detected, and keypoints."""
    painted, found, xy = model(rgb, generator)
    parts = {
        "perceptual": weights.perceptual * perceptual(painted, rgb),
        "pixels": weights.pixels * (painted - rgb).abs().mean(),
    }
    return parts, found, xy


def distillation_loss(
    student: Mapping[str, Tensor],
    teacher: Mapping[str, Tensor],
    taps: Sequence[str],
    has_depth: Tensor,
) -> Tensor:
    """Return how far embeddings point away from the teacher's, 0 to 2.

    has_depth (B,) tells which images count: those without depth only reconstruct.
    """
    count = has_depth.float().sum()
    total = count.new_zeros(())
    for tap in taps:
        mine, theirs = student[tap].flatten(1), teacher[tap].detach().flatten(1)
        apart = 1 - functional.cosine_similarity(mine.float(), theirs.float())
        total = total + (apart * has_depth).sum() / count.clamp(min=1)
    return total / max(len(taps), 1)
