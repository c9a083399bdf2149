"""A network made by hand that answers blobs, and scenes of blobs drawn exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sfm_features.nets.dense import Dense, DenseNet
from sfm_features.types import F64, U8


class BlobNet(DenseNet):
    """Answers bright blobs by a difference of Gaussians; describes by the place."""

    stride = 8
    descriptor_dim = 3
    descriptor_stride = 4
    head = "pixel"

    def forward(self, grey: Tensor) -> Dense:
        response = _blur(grey, 2.0) - _blur(grey, 4.0)
        height, width = grey.shape[-2:]
        rows, columns = torch.meshgrid(
            torch.linspace(0, 1, height // 4),
            torch.linspace(0, 1, width // 4),
            indexing="ij",
        )
        place = torch.stack((columns, rows, torch.ones_like(rows)))
        return Dense(40 * response - 4, place.expand(len(grey), -1, -1, -1))


def _blur(x: Tensor, sigma: float) -> Tensor:
    radius = math.ceil(4 * sigma)
    steps = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-(steps**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    x = functional.pad(x, (radius,) * 4, mode="replicate")
    x = functional.conv2d(x, kernel[None, None, None])
    return functional.conv2d(x, kernel[None, None, :, None])


@dataclass(frozen=True)
class Blobs:
    """Bright blobs: centres (N, 2) in pixels and their sizes (N,)."""

    centres: F64
    sigmas: F64

    def move(self, scale: float, angle_deg: float, shift: F64, about: F64) -> Blobs:
        """Scale and turn the scene about a point, then shift it."""
        turn = np.deg2rad(angle_deg)
        matrix = scale * np.array(
            [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
        )
        centres = (self.centres - about) @ matrix.T + about + shift
        return Blobs(centres, self.sigmas * scale)

    def draw(self, size: tuple[int, int]) -> U8:
        """Draw the scene at the middles of the pixels of a picture (width, height)."""
        rows, columns = np.mgrid[: size[1], : size[0]].astype(float)
        picture = np.full(rows.shape, 40.0)
        for (x, y), sigma in zip(self.centres, self.sigmas, strict=True):
            square = (columns - x) ** 2 + (rows - y) ** 2
            picture += 150 * np.exp(-square / (2 * sigma**2))
        return np.clip(np.round(picture), 0, 255).astype(np.uint8)


def scatter_blobs(size: tuple[int, int], count: int = 25, seed: int = 0) -> Blobs:
    """Scatter blobs of different sizes over a picture, far from each other."""
    rng = np.random.default_rng(seed)
    centres: list[F64] = []
    while len(centres) < count:
        centre = rng.uniform(25, np.array(size) - 25)
        if all(np.linalg.norm(centre - other) > 26 for other in centres):
            centres.append(centre)
    return Blobs(np.array(centres), rng.uniform(2, 3.5, count))
