"""One descriptor for a whole image, summed up from those of its keypoints (VLAD).

Each descriptor is compared with its nearest of a few typical ones, the codebook; what
it differs by is added up for each of them. What all images have in common is then taken
out and the rest is shortened (whitening), so that similar places lie close.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfm_features.nets.weights import Card, check_tensors, read_tensors, write_tensors

ARCHITECTURE = "vlad"


class Vlad(nn.Module):
    """A codebook (K, L) of local descriptors, and a whitening to D numbers."""

    codebook: Tensor
    mean: Tensor
    whitening: Tensor

    def __init__(self, words: int = 32, local_dim: int = 128, dim: int = 512) -> None:
        super().__init__()
        self.register_buffer("codebook", torch.zeros(words, local_dim))
        self.register_buffer("mean", torch.zeros(words * local_dim))
        half = torch.zeros(dim, words * local_dim, dtype=torch.float16)
        self.register_buffer("whitening", half)

    @property
    def dim(self) -> int:
        """Length of an image's descriptor."""
        return self.whitening.shape[0]

    @property
    def local_dim(self) -> int:
        """Length of a keypoint's descriptor."""
        return self.codebook.shape[1]

    def aggregate(self, descriptors: Tensor) -> Tensor:
        """Sum unit descriptors (N, L) up to (K * L,); zero of none."""
        words = self.codebook
        nearest = torch.cdist(descriptors, words).argmin(dim=1)
        chosen = functional.one_hot(nearest, len(words)).to(descriptors)
        sums = chosen.T @ descriptors - chosen.sum(dim=0)[:, None] * words
        # A wall of a thousand equal bricks counts as one word, not as the whole image.
        flat = functional.normalize(sums, dim=1).flatten()
        return functional.normalize(flat, dim=0)

    def forward(self, descriptors: Tensor) -> Tensor:
        """Describe an image (D,) by its unit descriptors (N, L), or so much of each."""
        if descriptors.shape[1] > self.local_dim:
            descriptors = functional.normalize(descriptors[:, : self.local_dim], dim=1)
        flat = self.aggregate(descriptors)
        if not flat.any():
            return flat.new_zeros(self.dim)
        return functional.normalize(self.whitening.float() @ (flat - self.mean), dim=0)


def save_vlad(vlad: Vlad, path: Path, card: Card) -> Card:
    """Write a codebook and its card, each whole or not at all; return the card."""
    return write_tensors(vlad.state_dict(), path, card)


def load_vlad(path: Path) -> tuple[Vlad, Card]:
    """Read a codebook; every tensor must fit."""
    tensors, card = read_tensors(path, ARCHITECTURE)
    codebook, whitening = (tensors.get(n) for n in ("codebook", "whitening"))
    sizes = {
        "words": codebook.shape[0] if codebook is not None else 0,
        "local_dim": codebook.shape[1] if codebook is not None else 0,
        "dim": whitening.shape[0] if whitening is not None else 0,
    }
    vlad = Vlad(**sizes)
    check_tensors(path, ARCHITECTURE, vlad.state_dict(), tensors)
    vlad.load_state_dict(tensors, strict=True)
    return vlad.eval(), card
