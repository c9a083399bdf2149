"""What kornia's networks share as extractors: weights, padding, order and number.

Images are padded at the right and the bottom, by repeating the last pixels, and
keypoints found there are dropped.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from sfm_features.extractors.kornia_weights import Part, find_weights, load_weights
from sfm_features.types import PIXEL_CENTRE, U8, Extractor, Features

Found = tuple[Tensor, Tensor, Tensor]
"""Keypoints (N, 2) in our pixels, descriptors (N, D) and scores (N,) of one image."""


class KorniaExtractor(Extractor):
    """An extractor around one of kornia's networks."""

    method: ClassVar[str]
    parts: ClassVar[Sequence[Part]]
    multiple_px: ClassVar[int] = 1
    smallest_side_px: ClassVar[int] = 1

    def __init__(
        self,
        *,
        max_keypoints: int,
        device: str,
        seed: int = 0,
        weights: Path | None = None,
        download: bool = False,
    ) -> None:
        # No seed is used: in evaluation mode none of these networks draws numbers.
        self._max_keypoints = max_keypoints
        self._device = device
        found = find_weights(
            self.parts, method=self.method, weights=weights, download=download
        )
        self._net = self._make_net()
        load_weights(self._net, found, method=self.method)
        self._net.eval().to(device)

    @property
    @abstractmethod
    def descriptor_dim(self) -> int:
        """Length of a descriptor."""

    @abstractmethod
    def _make_net(self) -> Any:
        """Build kornia's network with random weights."""

    @abstractmethod
    def _detect(self, batch: Tensor, height: int, width: int) -> list[Found]:
        """Run the network on padded RGB (B, 3, H, W) in [0, 1] of images this size."""

    def extract(self, image: U8) -> Features:
        """Extract from one RGB image."""
        return self.extract_batch([image])[0]

    def extract_batch(self, images: Sequence[U8]) -> list[Features]:
        """Extract from RGB images of one size."""
        if not images:
            return []
        height, width = images[0].shape[:2]
        pixels = torch.from_numpy(np.stack(images)).to(self._device)
        batch = pixels.permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            padded = self._pad(batch)
            found = self._detect(padded, height, width)
            return [self._pack(one, height, width) for one in found]

    def _pad(self, batch: Tensor) -> Tensor:
        """Repeat the last row and column up to a size that the network takes."""
        sides = [
            max(self.smallest_side_px, -(-side // self.multiple_px) * self.multiple_px)
            for side in batch.shape[-2:]
        ]
        pad = (0, sides[1] - batch.shape[-1], 0, sides[0] - batch.shape[-2])
        return nn.functional.pad(batch, pad, mode="replicate")

    def _pack(self, found: Found, height: int, width: int) -> Features:
        """Keep the best keypoints inside the image, best first."""
        xy, descriptors, scores = (tensor.float() for tensor in found)
        length = torch.linalg.vector_norm(descriptors, dim=1)
        # Flat patches can have a zero descriptor, which no scaling makes a unit one.
        keep = (length > 0) & length.isfinite() & scores.isfinite()
        limit = torch.tensor([width, height], device=xy.device) - PIXEL_CENTRE
        keep &= ((xy >= -PIXEL_CENTRE) & (xy < limit)).all(dim=1)
        order = torch.argsort(scores[keep], descending=True, stable=True)
        best = keep.nonzero()[:, 0][order[: self._max_keypoints]]
        unit = descriptors[best] / length[best, None]
        return Features(
            np.ascontiguousarray(xy[best].cpu().numpy()),
            np.ascontiguousarray(unit.cpu().numpy()),
            scores[best].cpu().numpy(),
            (width, height),
        )
