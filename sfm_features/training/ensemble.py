"""Several networks' descriptors, side by side, taught to one network.

Networks that were trained apart err apart, and so does one network that is shown a
picture in several sizes: enlarged, it describes a smaller place more finely. Side by
side such descriptors find more than those of any one of them. But that takes as many
passes as there are teachers, and descriptors as long as all of theirs. So one network
is held to what all of them say together, in every cell of its map. That asks for no
pairs and no labels, and a network in use carries nothing of it.

Of what stands side by side, the principal directions hold nearly all. They are turned
to lie nearest to the descriptors that the network has already: it has only to learn
what the others add, and the mean of its weights with older ones still makes sense.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
from sfm_features.training.networks import read_net
from sfm_features.training.photos import Photo

_PHOTOS = 64
"""Photos from which the principal directions are found."""
_CELLS = 400
"""Cells of each of them."""
_MOST_SIZE = 4
"""More enlarged, a picture takes longer than what it teaches is worth."""


@dataclass(frozen=True)
class Teacher:
    """A trained network, the size in which it sees pictures, and how much it counts."""

    net: DenseNet
    size: float = 1.0
    votes: int = 1
    name: str = ""


def read_teachers(asked: Sequence[str]) -> list[Teacher]:
    """Read the networks that are asked for, each with @ and a size behind it or not."""
    return [_read_teacher(name, asked.count(name)) for name in dict.fromkeys(asked)]


def _read_teacher(name: str, votes: int) -> Teacher:
    network, _, behind = name.rpartition("@")
    if not network or Path(name).exists():
        network, behind = name, "1"
    try:
        size = float(behind)
    except ValueError:
        network, size = name, 1.0
    least, most = 1 / _MOST_SIZE, _MOST_SIZE
    if not least <= size <= most:
        raise OptionError(f"--teachers {name}: choose a size from {least} to {most}")
    return Teacher(read_net(network), size, votes, f"{Path(network).stem} @ {size:g}")


class Ensemble(nn.Module):
    """Teachers, and the directions that their descriptors are summed up in."""

    axes: Tensor

    def __init__(self, teachers: Sequence[Teacher], student: DenseNet) -> None:
        super().__init__()
        self.sizes = [teacher.size for teacher in teachers]
        votes = np.array([teacher.votes for teacher in teachers])
        self.shares = (votes / votes.sum()).tolist()
        self.nets = nn.ModuleList(
            to_channels_last(fold_batch_norms(teacher.net)) for teacher in teachers
        )
        self.stride = max(net.stride for net in (student, *(t.net for t in teachers)))
        self.cell_px = student.descriptor_stride
        dim = sum(teacher.net.descriptor_dim for teacher in teachers)
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
            mine.append(_pick(self._describe(own, grey), cells))
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
            share**0.5 * self._describe(net, grey, size)
            for net, size, share in zip(self.nets, self.sizes, self.shares, strict=True)
        ]
        return torch.cat(found, dim=1)

    def _describe(self, net: nn.Module, grey: Tensor, size: float = 1.0) -> Tensor:
        """Return a network's unit descriptors, one for each cell of the student."""
        assert isinstance(net, DenseNet)
        cells = (grey.shape[2] // self.cell_px, grey.shape[3] // self.cell_px)
        if size != 1:
            sides = [round(side * size / self.stride) for side in grey.shape[2:]]
            grey = functional.interpolate(
                grey, [max(n, 1) * self.stride for n in sides], mode="bicubic"
            ).contiguous(memory_format=torch.channels_last)
        with autocast(grey.device):
            maps = functional.normalize(net.describe(grey).float(), dim=1)
        if maps.shape[2:] == cells:
            return maps
        # Read in the middles of the cells.
        maps = functional.interpolate(maps, cells, mode="bilinear")
        return functional.normalize(maps, dim=1)


def _pick(maps: Tensor, cells: Tensor) -> Tensor:
    """Return the vectors (N, D) of cells of a map (1, D, h, w), counted round."""
    flat = maps[0].flatten(1).T
    return flat[cells % len(flat)].double()
