"""Descriptors are whitened when training ends: what two views agree on counts most.

Along some directions descriptors of one point differ more between its views than along
others, by night or from elsewhere. Divided by that spread, all directions count as much
as they can be relied on (the whitening of Mikolajczyk and Matas, 2007). It is a linear
map, which the network's last layer takes in: it costs nothing afterwards.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from sfm_features.nets.dense import DenseNet, sample_bilinear
from sfm_features.training.data import Batch
from sfm_features.training.device import autocast

logger = logging.getLogger(__name__)

BATCHES = 32
"""Enough for 50,000 points of batches as they are by default."""
_SHRINKAGE = 0.1
"""Added to each direction's variance, as a share of their mean: the quietest ones are
hardly seen at all."""
_LEAST_POINTS = 10
"""Points for each number of a descriptor, or nothing can be said."""


@dataclass
class Spread:
    """Sums over corresponding descriptors (N, D), not of unit length, of two views."""

    count: int
    total: Tensor
    squares: Tensor
    differences: Tensor

    @classmethod
    def empty(cls, dim: int) -> Spread:
        """Begin with nothing."""
        square = torch.zeros(dim, dim, dtype=torch.float64)
        return cls(0, square[0].clone(), square.clone(), square.clone())

    def add(self, a: Tensor, b: Tensor) -> None:
        """Add descriptors of the same points in two views."""
        a, b = a.double().cpu(), b.double().cpu()
        self.count += len(a)
        self.total += a.sum(0) + b.sum(0)
        self.squares += a.T @ a + b.T @ b
        self.differences += (a - b).T @ (a - b)

    def solve(self) -> tuple[Tensor, Tensor]:
        """Return the map (D, D) and the mean (D,) to take off before.

        Descriptors stay as long as they were, on the whole.
        """
        values, axes = torch.linalg.eigh(self.differences / self.count)
        share = values.clamp(min=0) / values.mean() + _SHRINKAGE
        whitening = (axes * share.rsqrt()) @ axes.T
        before = self.squares.trace()
        after = (whitening @ self.squares @ whitening).trace()
        return whitening * (before / after).sqrt(), self.total / (2 * self.count)


@torch.no_grad()
def whiten(net: DenseNet, batches: Iterable[Batch], device: torch.device) -> bool:
    """Whiten a network's descriptors by pairs like those it learned from.

    False if nothing was done, as there were too few points.
    """
    spread = Spread.empty(net.descriptor_dim)
    was_training = net.training
    net.eval()
    for batch in tqdm(batches, "whitening", BATCHES, unit="batch"):
        _add_batch(spread, net, batch.to(device))
    net.train(was_training)
    if spread.count < _LEAST_POINTS * net.descriptor_dim:
        logger.warning(
            "descriptors are not whitened: %d points are too few", spread.count
        )
        return False
    net.map_descriptors(*spread.solve())
    return True


def _add_batch(spread: Spread, net: DenseNet, batch: Batch) -> None:
    images = batch.images.float() / 255
    with autocast(images.device):
        maps = net(images).descriptors
    size = (images.shape[3], images.shape[2])
    found = sample_bilinear(maps, batch.xy.flatten(0, 1), size)
    a, b = found.chunk(2)
    spread.add(a[batch.used], b[batch.used])
