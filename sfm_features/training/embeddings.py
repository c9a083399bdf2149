"""Embeddings of a local-feature network, held to those of one that sees depth.

Distill-DKP for networks that find keypoints everywhere: the same loss as between
detectors of an object (`dkp.py`), position by position, where depth is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfm_features.errors import OptionError
from sfm_features.nets.dense import DenseNet


@dataclass(frozen=True)
class Distillation:
    """What a network is taught by one of the same shape that sees depth."""

    weight: float = 0.0
    """How much it counts that embeddings are like the teacher's; 0 = no teacher."""
    taps: tuple[str, ...] = ()
    """Which embeddings; none = the latest one."""
    teacher_steps: int = 0
    """Steps of the teacher, before; 0 = half as many (or half as long)."""

    def choose_taps(self, net: DenseNet) -> tuple[str, ...]:
        """Return the embeddings of a network; raise OptionError if it has no such."""
        unknown = [tap for tap in self.taps if tap not in net.taps]
        if unknown:
            raise OptionError(
                f"--taps {' '.join(unknown)}: this network has {', '.join(net.taps)}, "
                "from early to late"
            )
        return self.taps or net.taps[-1:]


@contextmanager
def watch(net: nn.Module, taps: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Collect the embeddings (B, C, h, w) of a forward pass.

    By hooks: in use the network carries nothing of it.
    """
    seen: dict[str, Tensor] = {}

    def keep(tap: str) -> None:
        hook = net.get_submodule(tap).register_forward_hook(
            lambda module, given, made: seen.update({tap: made})
        )
        hooks.append(hook)

    hooks: list[torch.utils.hooks.RemovableHandle] = []
    try:
        for tap in taps:
            keep(tap)
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def distil_positions(
    student: Mapping[str, Tensor], teacher: Mapping[str, Tensor], known: Tensor
) -> Tensor:
    """Return how far embeddings point away from the teacher's, 0 to 2.

    known (B, H, W) tells which pixels count: those without depth have no teacher.
    """
    total = torch.zeros((), device=known.device)
    for tap, theirs in teacher.items():
        height, width = theirs.shape[-2:]
        seen = functional.adaptive_avg_pool2d(known.float(), (height, width))
        mine = _centre(student[tap].float(), seen)
        taught = _centre(theirs.detach().float(), seen)
        apart = 1 - functional.cosine_similarity(mine, taught)
        total = total + (apart * seen).sum() / seen.sum().clamp(min=1)
    return total / max(len(teacher), 1)


def _centre(embeddings: Tensor, seen: Tensor) -> Tensor:
    """Take off what all positions have in common, as it tells none from another.

    After a ReLU that is most of an embedding, and any two would look alike.
    """
    weights = seen[:, None]
    mean = (embeddings * weights).sum((0, 2, 3), keepdim=True) / seen.sum().clamp(min=1)
    return embeddings - mean
