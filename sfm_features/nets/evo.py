"""The fast network that we ship.

What takes the time on a CPU is moving large maps, not multiplying: so no map but the
logits has the full resolution, half resolution has one thin map, widths are multiples
of 16, top-down maps are doubled by repetition, and skips are folded into kernels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfm_features.nets.blocks import ConvNorm
from sfm_features.nets.dense import Dense, DenseNet
from sfm_features.nets.refine import Refiner

_LEAST_VARIANCE = 1e-4
"""Added to an image's variance, so that the noise of an empty wall stays small."""


class EvoNet(DenseNet):
    """Keypoints from half resolution, 64 numbers per 4 x 4 pixels, context from 1/32.

    With `standardise` every image gets mean 0 and standard deviation 1 first, so that
    exposure and contrast hardly matter.
    """

    stride = 32
    descriptor_dim = 64
    descriptor_stride = 4
    head = "cell"

    def __init__(self, standardise: bool = True) -> None:
        super().__init__()
        self.config = {"standardise": standardise}
        self.down2 = ConvNorm(4, 16)
        self.down4 = _make_stage(16, 32, repeats=1)
        self.down8 = _make_stage(32, 64, repeats=2)
        self.down16 = _make_stage(64, 128, repeats=2)
        self.down32 = _make_stage(128, 128, repeats=2)
        # Descriptors get better with width at 1/8, where it is cheap, than at 1/4.
        self.up16 = UpStep(128, 128, 128)
        self.up8 = UpStep(128, 64, 128)
        self.up4 = UpStep(128, 32, 64, groups=64)
        self.descriptor = nn.Conv2d(64, 64, 1)
        self.up2 = UpStep(64, 16, 16)
        self.detector = nn.Conv2d(16, 4, 1)
        self.refiner = Refiner()

    def forward(self, grey: Tensor) -> Dense:
        x2 = self.down2(self._prepare(grey))
        x4 = self.down4(x2)
        x8 = self.down8(x4)
        x16 = self.down16(x8)
        y16 = self.up16(self.down32(x16), x16)
        y4 = self.up4(self.up8(y16, x8), x4)
        logits = _unfold_pixels(self.detector(self.up2(y4, x2)).float())
        return Dense(logits, self.descriptor(y4), grey=grey)

    def refine(self, grey: Tensor, pixels: Tensor) -> Tensor:
        """Return the exact places (B, N, 2) of peaks at pixels (B, N, 2)."""
        return pixels + self.refiner(grey.float(), pixels)

    def _prepare(self, grey: Tensor) -> Tensor:
        """Standardise and fold 2 x 2 pixels into channels: (B, 4, H / 2, W / 2)."""
        grey = grey.float()
        if self.config["standardise"]:
            # One dimension after the other, as instance_norm uses one core only.
            grey = grey - grey.mean(3, keepdim=True).mean(2, keepdim=True)
            variance = grey.square().mean(3, keepdim=True).mean(2, keepdim=True)
            grey = grey * (variance + _LEAST_VARIANCE).rsqrt()
        return _fold_pixels(grey.to(self.down2.conv.weight.dtype))


class UpStep(nn.Module):
    """Double a coarse map, add the fine map beside it, and blend the two."""

    def __init__(self, coarse: int, fine: int, width: int, groups: int = 1) -> None:
        super().__init__()
        self.from_coarse = nn.Conv2d(coarse, width, 1)
        self.from_fine = nn.Identity() if fine == width else nn.Conv2d(fine, width, 1)
        self.blend = ConvNorm(width, width, skip=True, groups=groups)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        # Repetition, not interpolation: the convolution that follows smooths anyway.
        doubled = functional.interpolate(
            self.from_coarse(coarse), scale_factor=2, mode="nearest"
        )
        return self.blend(doubled.add_(self.from_fine(fine)))


def _make_stage(inputs: int, outputs: int, repeats: int) -> nn.Sequential:
    same = [ConvNorm(outputs, outputs, skip=True) for _ in range(repeats)]
    return nn.Sequential(ConvNorm(inputs, outputs, stride=2), *same)


def _fold_pixels(x: Tensor) -> Tensor:
    """Do torch's pixel_unshuffle(x, 2) on (B, 1, H, W), channels last at once."""
    batch, _, height, width = x.shape
    rows = x.reshape(batch, height // 2, 2, width // 2, 2)
    cells = torch.stack((rows[:, :, 0], rows[:, :, 1]), dim=3)
    return cells.reshape(batch, height // 2, width // 2, 4).permute(0, 3, 1, 2)


def _unfold_pixels(x: Tensor) -> Tensor:
    """Do torch's pixel_shuffle(x, 2) on (B, 4, H, W), from channels last at once."""
    batch, _, height, width = x.shape
    cells = x.permute(0, 2, 3, 1).reshape(batch, height, width, 2, 2).transpose(2, 3)
    return cells.reshape(batch, 1, 2 * height, 2 * width)
