"""A tiny network and a folder of small photos, for the tests of training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from samples import make_texture, write_image
from torch import Tensor, nn

from sfm_features.nets.dense import Dense, DenseNet
from sfm_features.training.data import Batch, DataOptions, PairSource
from sfm_features.training.photos import Photo, PhotoSet


class TinyNet(DenseNet):
    """The smallest network with a detector and a descriptor."""

    stride = 8
    descriptor_dim = 8
    descriptor_stride = 4

    def __init__(self, head: str = "cell", fine: bool = False, seed: int = 0) -> None:
        super().__init__()
        self.head = head
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.stem = nn.Sequential(
                nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()
            )
            self.detector = nn.Conv2d(8, 1, 3, padding=1)
            self.descriptor = nn.Conv2d(8, 8, 4, stride=4)
        self.fine = fine

    def forward(self, grey: Tensor) -> Dense:
        seen = self.stem(grey)
        fine = seen if self.fine else None
        return Dense(self.detector(seen), self.descriptor(seen), fine)


def make_photo(size: tuple[int, int] = (200, 150), seed: int = 0) -> Photo:
    """Make a photo of random blobs."""
    grey = np.ascontiguousarray(make_texture(size, seed)[..., 0])
    chroma = np.full((size[1] // 2, size[0] // 2, 2), 128, np.uint8)
    return Photo(f"{seed}.png", grey, chroma)


def make_batch(background: bool) -> Batch:
    """Make a small batch of one photo, the left half of which may be background."""
    photo = make_photo()
    marked = np.zeros(photo.grey.shape, np.bool_)
    marked[:, :100] = True
    photos = PhotoSet([replace(photo, background=marked if background else None)])
    labels = {0: np.random.default_rng(0).uniform(8, 140, (150, 2)).astype(np.float32)}
    options = DataOptions(batch=2, crop_px=64, points=32)
    return PairSource(photos, labels, options, 0).make_batch(0)


def write_photos(folder: Path, count: int = 6, frames: int = 0) -> Path:
    """Write photos, and frames of a fixed camera by day and by night."""
    for i in range(count):
        write_image(folder / f"{i}.png", make_texture((180, 140), i))
    scene = make_texture((180, 140), 99)
    for i in range(frames):
        kind, gain = ("day", 1.0) if i % 2 == 0 else ("night", 0.4)
        write_image(folder / f"camera/{kind}_{i}.png", (scene * gain).astype(np.uint8))
    return folder
