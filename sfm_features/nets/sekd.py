"""SEKD's own network (Song et al., arXiv 2006.05077, figure 2): 661,762 parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sfm_features.nets.dense import Dense, DenseNet


class Residual(nn.Module):
    """Batch norm, ReLU, one convolution, and the input added."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.skip: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.skip = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(torch.relu(self.norm(x)))
        return y + self.skip(x)


class Upsample(nn.Module):
    """Batch norm, ReLU, and a transposed convolution to twice the size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.conv = nn.ConvTranspose2d(inputs, outputs, 3, 2, 1, 1, groups=8)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(torch.relu(self.norm(x)))
        return y


class SekdNet(DenseNet):
    """Keypoints in full resolution, 128 numbers per 4 x 4 pixels."""

    stride = 4
    descriptor_dim = 128
    descriptor_stride = 4
    head = "pixel"
    taps = ("stage_full", "stage_half", "stage_quarter", "up_half", "up_full")

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 32, 5, padding=2)
        self.stage_full = _stage(32, 32, 1)
        self.stage_half = _stage(32, 64, 2)
        self.stage_quarter = _stage(64, 128, 2)
        self.up_half = Upsample(128, 64)
        self.up_full = Upsample(64, 32)
        self.detector = nn.Conv2d(32, 2, 3, padding=1)
        self.descriptor = Residual(128, 128)

    def forward(self, grey: Tensor) -> Dense:
        full = self.stage_full(self.stem(grey.to(self.stem.weight.dtype)))
        half = self.stage_half(full)
        quarter = self.stage_quarter(half)
        fine = self.up_full(self.up_half(quarter) + half) + full
        nothing, keypoint = self.detector(fine).float().split(1, dim=1)
        # A softmax over two is the sigmoid of their difference.
        return Dense(keypoint - nothing, self.descriptor(quarter), fine)


def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        Residual(inputs, outputs, stride),
        Residual(outputs, outputs),
        Residual(outputs, outputs),
    )
