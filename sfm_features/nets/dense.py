"""What every network of ours gives for an image, and where its cells lie.

A map at stride s divides the image into cells of s x s pixels; the middle of its
first cell is the middle of the first s pixels. So pixel x lies at
`(x + PIXEL_CENTRE) / s - PIXEL_CENTRE` in cells, at any stride, for every network.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfm_features.types import PIXEL_CENTRE

CELL_PX = 8
"""Side of the cells among whose pixels a `cell` head chooses at most one."""

Head: TypeAlias = Literal["cell", "pixel"]


@dataclass
class Dense:
    """Maps of a batch: logits (B, 1, H, W) f32 of the detector, in every pixel.

    descriptors (B, D, h, w) are not of unit length yet; fine (B, F, H, W) are features
    in every pixel, of networks that have them; grey (B, 1, H, W) is what they were made
    from, of networks that refine keypoints.
    """

    logits: Tensor
    descriptors: Tensor
    fine: Tensor | None = None
    grey: Tensor | None = None


class DenseNet(nn.Module, ABC):
    """A network from grey pictures to keypoint logits and descriptors."""

    stride: ClassVar[int]
    """Height and width must be multiples of it."""
    descriptor_dim: ClassVar[int]
    descriptor_stride: ClassVar[int]
    head: ClassVar[Head]
    """cell: softmax over cells and their dustbin; pixel: sigmoid."""
    taps: ClassVar[tuple[str, ...]] = ()
    """Parts whose embeddings can be taught by another network, from early to late."""
    config: Mapping[str, bool] = MappingProxyType({})
    """What this network was built with, for its card."""

    @abstractmethod
    def forward(self, grey: Tensor) -> Dense:
        """Run on grey (B, 1, H, W) in [0, 1]."""

    def describe(self, grey: Tensor) -> Tensor:
        """Return the descriptors (B, D, h, w) alone, not of unit length yet."""
        dense: Dense = self(grey)
        return dense.descriptors

    def refine(self, grey: Tensor, pixels: Tensor) -> Tensor:
        """Return the exact places (B, N, 2) of peaks at pixels (B, N, 2).

        Only asked of networks that give `grey` back; others leave them where they are.
        """
        return pixels

    can_map_descriptors: ClassVar[bool] = False
    """Whether the last layers are such that a map (D, D) can be folded into them."""

    def map_descriptors(self, matrix: Tensor, mean: Tensor) -> None:
        """Let descriptors be (what they were - mean) @ matrix from now on."""
        raise NotImplementedError

    def probability(self, logits: Tensor) -> Tensor:
        """Turn logits (B, 1, H, W) into the probability of a keypoint at each pixel."""
        return self.log_probability(logits).exp()

    def log_probability(self, logits: Tensor) -> Tensor:
        """Turn logits (B, 1, H, W) into log-probabilities, however extreme."""
        logits = logits.float()
        if self.head == "pixel":
            return functional.logsigmoid(logits)
        return log_softmax_cells(logits)


def log_softmax_cells(logits: Tensor) -> Tensor:
    """Take the log-softmax over each cell's pixels and a dustbin whose logit is 0."""
    batch, _, height, width = logits.shape
    cells = logits.reshape(batch, height // CELL_PX, CELL_PX, width // CELL_PX, CELL_PX)
    # The dustbin takes part in the maximum, so neither exponential can overflow.
    # One dimension after the other: both at once take a CPU ten times as long.
    top = cells.detach().amax(2, keepdim=True).amax(4, keepdim=True).clamp(min=0)
    pixels = (cells - top).exp_().sum(2, keepdim=True).sum(4, keepdim=True)
    total = pixels + (-top).exp()
    return (cells - (top + total.log())).reshape(logits.shape)


def pad_to_stride(image: Tensor, stride: int) -> Tensor:
    """Repeat the last row and column of (B, C, H, W) up to multiples of a stride."""
    height, width = image.shape[-2:]
    pad = (0, -width % stride, 0, -height % stride)
    return functional.pad(image, pad, mode="replicate") if any(pad) else image


def sample_descriptors(
    descriptors: Tensor, xy: Tensor, image_size: Sequence[int]
) -> Tensor:
    """Sample maps (B, D, h, w) at pixels xy (B, N, 2), bilinearly: unit (B, N, D).

    image_size is (width, height) of what the network saw, padding included; outside of
    the middles of the outer cells, those are repeated.
    """
    return functional.normalize(sample_bilinear(descriptors, xy, image_size), dim=2)


def sample_bilinear(maps: Tensor, xy: Tensor, image_size: Sequence[int]) -> Tensor:
    """Sample maps (B, D, h, w) at pixels xy (B, N, 2) of the image: (B, N, D)."""
    size = torch.tensor(image_size, dtype=torch.float32, device=xy.device)
    # -1 and 1 are the outer edges of the image, thus of the map, whatever its stride.
    grid = 2 * (xy.float() + PIXEL_CENTRE) / size - 1
    found = functional.grid_sample(
        maps.float(), grid[:, :, None], padding_mode="border", align_corners=False
    )
    return found[..., 0].transpose(1, 2)


def sample_rows(maps: Tensor, xy: Tensor, image_size: Sequence[int]) -> Tensor:
    """Do the same as `sample_bilinear` for few points of maps that are channels last.

    Only what is needed is read, and turned from half precision: (B, N, D) float32.
    """
    batch, dim, height, width = maps.shape
    size = torch.tensor(image_size, dtype=torch.float32, device=xy.device)
    cells = torch.tensor([width, height], dtype=torch.float32, device=xy.device)
    place = (xy.float() + PIXEL_CENTRE) * (cells / size) - PIXEL_CENTRE
    place = torch.minimum(place.clamp(min=0), cells - 1)
    low = place.floor()
    share = place - low
    left, top = low.long().unbind(2)
    right, bottom = (left + 1).clamp(max=width - 1), (top + 1).clamp(max=height - 1)
    first = torch.arange(batch, device=xy.device)[:, None] * (height * width)
    rows = maps.permute(0, 2, 3, 1).reshape(-1, dim)
    x, y = share[..., :1], share[..., 1:]

    def read(row: Tensor, column: Tensor) -> Tensor:
        index = (first + row * width + column).flatten()
        return rows.index_select(0, index).view(batch, -1, dim).float()

    above = torch.lerp(read(top, left), read(top, right), x)
    below = torch.lerp(read(bottom, left), read(bottom, right), x)
    return torch.lerp(above, below, y)
