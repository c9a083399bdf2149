"""Several networks' descriptors, side by side, taught to one network.

Networks that were trained apart err apart: side by side their descriptors find more
than those of any one of them. But that takes as many passes as there are networks, and
descriptors as long as all of theirs. So one network is held to what all of them say
together, in every cell of its map. That asks for no pairs and no labels, and a network
in use carries nothing of it.

Of what stands side by side, the principal directions hold nearly all. They are turned
to lie nearest to the descriptors that the network has already: it has only to learn
what the others add, and the mean of its weights with older ones still makes sense.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from sfm_features.errors import OptionError
from sfm_features.nets.blocks import fold_batch_norms
from sfm_features.nets.dense import DenseNet, pad_to_stride
from sfm_features.training.averaging import to_channels_last
from sfm_features.training.device import autocast
from sfm_features.training.photos import Photo

_PHOTOS = 64
"""Photos from which the principal directions are found."""
_CELLS = 400
"""Cells of each of them."""


class Ensemble(nn.Module):
    """Trained networks, and the directions that their descriptors are summed up in.

    `votes` is how much each of them counts, all alike if not said.
    """

    axes: Tensor

    def __init__(
        self,
        teachers: Sequence[DenseNet],
        student: DenseNet,
        votes: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.votes = tuple(votes) or (1,) * len(teachers)
        strides = {net.descriptor_stride for net in (*teachers, student)}
        if len(strides) > 1:
            raise OptionError(
                f"--teachers: descriptors of these networks lie {sorted(strides)} px "
                "apart; choose teachers whose descriptors lie as the network's own"
            )
        self.teachers = nn.ModuleList(
            to_channels_last(fold_batch_norms(net)) for net in teachers
        )
        self.stride = max(net.stride for net in (*teachers, student))
        dim = sum(net.descriptor_dim for net in teachers)
        self.register_buffer("axes", torch.zeros(dim, student.descriptor_dim))

    @torch.no_grad()
    def ask(self, grey: Tensor) -> Tensor:
        """Return what descriptors (B, D, h, w) of grey (B, 1, H, W) should be, unit."""
        both = torch.einsum("bchw,cd->bdhw", self._look(grey), self.axes)
        return functional.normalize(both, dim=1)

    def distance(self, grey: Tensor, descriptors: Tensor) -> Tensor:
        """Return how far descriptors of grey point away from what is taught, 0 to 2."""
        taught = self.ask(grey)
        return (1 - functional.cosine_similarity(descriptors.float(), taught)).mean()

    @torch.no_grad()
    def choose_axes(
        self, student: DenseNet, photos: Sequence[Photo], seed: int
    ) -> float:
        """Find the axes from photos; return the share of descriptors that they hold."""
        rng = np.random.default_rng([seed, 11])
        own = fold_batch_norms(student)
        theirs, mine = [], []
        for i in tqdm(rng.permutation(len(photos))[:_PHOTOS], "teachers", unit="photo"):
            grey = torch.tensor(photos[i].grey)[None, None].float() / 255
            grey = pad_to_stride(grey.to(self.axes.device), self.stride)
            cells = torch.from_numpy(rng.integers(0, 2**31, _CELLS)).to(grey.device)
            theirs.append(_pick(self._look(grey), cells))
            mine.append(_pick(_describe(own, grey), cells))
        both, now = torch.cat(theirs), torch.cat(mine)
        # Of principal directions, those of the mean are the first: it is not taken off,
        # as descriptors are compared as they are.
        directions, sizes, _ = torch.linalg.svd(both.T @ both)
        kept = directions[:, : now.shape[1]]
        first, _, second = torch.linalg.svd((both @ kept).T @ now, full_matrices=False)
        self.axes.copy_(kept @ (first @ second))
        return float(sizes[: now.shape[1]].sum() / sizes.sum())

    def _look(self, grey: Tensor) -> Tensor:
        """Return the descriptors of all teachers side by side, of unit length."""
        found = [
            (votes / sum(self.votes)) ** 0.5 * _describe(net, grey)
            for net, votes in zip(self.teachers, self.votes, strict=True)
        ]
        return torch.cat(found, dim=1)


def _describe(net: nn.Module, grey: Tensor) -> Tensor:
    with autocast(grey.device):
        maps: Tensor = net(grey).descriptors
    return functional.normalize(maps.float(), dim=1)


def _pick(maps: Tensor, cells: Tensor) -> Tensor:
    """Return the vectors (N, D) of cells of a map (1, D, h, w), counted round."""
    flat = maps[0].flatten(1).T
    return flat[cells % len(flat)].double()
