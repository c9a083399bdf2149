"""The fast network that we ship."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfm_features.nets.blocks import ConvNorm
from sfm_features.nets.dense import Dense, DenseNet


class EvoNet(DenseNet):
    """Keypoints from half resolution, 64 numbers per 4 x 4 pixels, context from 1/32.

    No map has the full resolution but the logits: those are what takes the time.
    """

    stride = 32
    descriptor_dim = 64
    descriptor_stride = 4
    head = "cell"

    def __init__(self) -> None:
        super().__init__()
        self.stage_half = ConvNorm(4, 16)
        self.stage_quarter = nn.Sequential(ConvNorm(16, 32, stride=2), _same(32))
        self.stage_eighth = nn.Sequential(
            ConvNorm(32, 64, stride=2), _same(64), _same(64)
        )
        self.stage_sixteenth = nn.Sequential(
            ConvNorm(64, 96, stride=2), _same(96), _same(96)
        )
        self.stage_last = nn.Sequential(
            ConvNorm(96, 128, stride=2), _same(128), _same(128)
        )
        self.from_last = ConvNorm(128, 96, 1, relu=False)
        self.from_sixteenth = ConvNorm(96, 64, 1, relu=False)
        self.from_eighth = ConvNorm(64, 32, 1, relu=False)
        self.fuse_sixteenth = _same(96)
        self.fuse_eighth = _same(64)
        self.fuse_quarter = _same(32)
        self.descriptor = nn.Conv2d(32, 64, 1)
        self.up_half = nn.Conv2d(32, 16, 1)
        self.detector = nn.Sequential(_same(16), nn.Conv2d(16, 4, 3, padding=1))

    def forward(self, grey: Tensor) -> Dense:
        half = self.stage_half(functional.pixel_unshuffle(grey - 0.5, 2))
        quarter = self.stage_quarter(half)
        eighth = self.stage_eighth(quarter)
        sixteenth = self.stage_sixteenth(eighth)
        last = self.stage_last(sixteenth)
        sixteenth = self.fuse_sixteenth(
            torch.relu_(sixteenth + _double(self.from_last(last)))
        )
        eighth = self.fuse_eighth(
            torch.relu_(eighth + _double(self.from_sixteenth(sixteenth)))
        )
        quarter = self.fuse_quarter(
            torch.relu_(quarter + _double(self.from_eighth(eighth)))
        )
        half = torch.relu_(half + _double(self.up_half(quarter)))
        logits = functional.pixel_shuffle(self.detector(half).float(), 2)
        return Dense(logits, self.descriptor(quarter))


def _same(width: int) -> ConvNorm:
    return ConvNorm(width, width, skip=True)


def _double(x: Tensor) -> Tensor:
    return functional.interpolate(
        x, scale_factor=2, mode="bilinear", align_corners=False
    )
