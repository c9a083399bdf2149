"""Copies, hashes and running averages of weights."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from sfm_features.nets.dense import DenseNet


def to_channels_last(net: DenseNet) -> DenseNet:
    """Lay the weights of convolutions out as they are fastest."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            weight = module.weight.data
            module.weight.data = weight.contiguous(memory_format=torch.channels_last)
    return net


def copy_weights(net: nn.Module) -> dict[str, Tensor]:
    """Copy weights to the CPU's memory."""
    return {k: v.detach().cpu().clone() for k, v in net.state_dict().items()}


def hash_weights(weights: dict[str, Tensor]) -> str:
    """Return a hash that tells weights apart."""
    digest = hashlib.sha256()
    for name, value in weights.items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


@torch.no_grad()
def follow(average: nn.Module, net: nn.Module, kept: float, step: int) -> None:
    """Let averaged weights follow a network; in the first steps they follow quickly."""
    share = min(kept, (1 + step) / (10 + step)) if kept > 0 else 0.0
    mine = net.state_dict()
    for name, value in average.state_dict().items():
        if value.dtype.is_floating_point:
            value.lerp_(mine[name], 1 - share)
        else:
            value.copy_(mine[name])


@torch.no_grad()
def mix(net: nn.Module, other: dict[str, Tensor], share: float) -> None:
    """Replace weights by their mean with others, whose share is given."""
    for name, value in net.state_dict().items():
        if value.dtype.is_floating_point:
            value.lerp_(other[name].to(value), share)
