"""What is trained, by what optimizer, at what rate, and whether it is too much."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sfm_features.nets.autolink import AutoLink, KeypointNet
from sfm_features.nets.links import locate
from sfm_features.training.objects.options import ObjectOptions

_WARM_UP_STEPS = 50
_LAST_RATE = 0.05
_WEIGHT_DECAY = 1e-3


def make_model(options: ObjectOptions, seed: int, stage: int) -> AutoLink:
    """Build a network with the random weights of a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2 * seed + stage)
        return AutoLink(
            options.keypoints, options.width, options.size_px, options.thickness,
            options.hidden_share, levels=options.painter_levels,
        )  # fmt: skip


@torch.no_grad()
def count_coinciding(detector: KeypointNet, rgb: Tensor, near: float = 0.04) -> int:
    """Count keypoints that lie on an earlier one, in the median of images."""
    xy = locate(detector(rgb).logits)
    apart = torch.cdist(xy, xy).median(0).values
    return int((apart < near).tril(-1).any(1).sum())


def make_optimizer(model: AutoLink, options: ObjectOptions) -> torch.optim.Optimizer:
    links = [model.link_logits]
    others = [p for p in model.parameters() if p is not model.link_logits]
    groups = [
        {"params": others, "weight_decay": _WEIGHT_DECAY,
         "lr": options.learning_rate, "highest": options.learning_rate},
        {"params": links, "weight_decay": 0.0,
         "lr": options.link_rate, "highest": options.link_rate},
    ]  # fmt: skip
    return torch.optim.AdamW(groups)


def schedule_rate(progress: float, step: int) -> float:
    """Return the share of the learning rate: up, then along a cosine down."""
    along = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return min(1.0, (step + 1) / _WARM_UP_STEPS) * (
        _LAST_RATE + (1 - _LAST_RATE) * along
    )
