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
    """Keypoints from half resolution, 128 numbers per 4 x 4 pixels.

    A descriptor comes from 70 px around it, and one coarse map of what lies beyond: a
    view from elsewhere changes what is far from a point more than what is near. With
    `standardise` every image gets mean 0 and standard deviation 1 first, so that
    exposure and contrast hardly matter.
    """

    stride = 16
    descriptor_dim = 128
    descriptor_stride = 4
    head = "cell"
    can_map_descriptors = True
    taps = ("down2", "down4", "down8", "down16", "up4", "up2")

    def __init__(self, standardise: bool = True) -> None:
        super().__init__()
        self.config = {"standardise": standardise}
        self.down2 = ConvNorm(4, 16)
        self.down4 = _make_stage(16, 48, repeats=1)
        self.down8 = _make_stage(48, 96, repeats=2)
        self.down16 = _make_stage(96, 96, repeats=1)
        self.up8 = nn.Conv2d(96, 96, 1)
        self.up4 = UpStep(96, 48, 64)
        self.descriptor8 = nn.Conv2d(96, 128, 1)
        self.descriptor4 = nn.Conv2d(64, 128, 1)
        self.up2 = UpStep(64, 16, 16)
        self.detector = nn.Conv2d(16, 4, 1)
        self.refiner = Refiner()

    def forward(self, grey: Tensor) -> Dense:
        x2, y4, descriptors = self._describe(grey)
        logits = _unfold_pixels(self.detector(self.up2(y4, x2)).float())
        return Dense(logits, descriptors, grey=grey)

    def describe(self, grey: Tensor) -> Tensor:
        return self._describe(grey)[2]

    def describe_levels(self, grey: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return features at 1/2, 1/4 and 1/8 of the size: what pictures look like."""
        x2 = self.down2(self._prepare(grey))
        x4 = self.down4(x2)
        return x2, x4, self.down8(x4)

    def refine(self, grey: Tensor, pixels: Tensor) -> Tensor:
        """Return the exact places (B, N, 2) of peaks at pixels (B, N, 2)."""
        return pixels + self.refiner(grey.float(), pixels)

    def map_descriptors(self, matrix: Tensor, mean: Tensor) -> None:
        """Fold a map into the two convolutions whose sum the descriptors are."""
        for layer, off in ((self.descriptor8, 0 * mean), (self.descriptor4, mean)):
            assert layer.bias is not None
            weight, bias = layer.weight.data, layer.bias.data
            there = matrix.to(weight.device, torch.float64).T
            mapped = there @ weight.double()[:, :, 0, 0]
            shifted = there @ (bias.double() - off.to(bias.device))
            layer.weight.data = mapped[:, :, None, None].to(weight)
            layer.bias.data = shifted.to(bias)

    def _describe(self, grey: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the detector sees at 1/2 and 1/4 of the size, and descriptors."""
        x2 = self.down2(self._prepare(grey))
        x4 = self.down4(x2)
        x8 = self.down8(x4)
        y8 = _double(self.up8(self.down16(x8))).add_(x8)
        y4 = self.up4(y8, x4)
        return x2, y4, _double(self.descriptor8(y8)).add_(self.descriptor4(y4))

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

    def __init__(self, coarse: int, fine: int, width: int) -> None:
        super().__init__()
        self.from_coarse = nn.Conv2d(coarse, width, 1)
        self.from_fine = nn.Identity() if fine == width else nn.Conv2d(fine, width, 1)
        self.blend = ConvNorm(width, width, skip=True)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        return self.blend(_double(self.from_coarse(coarse)).add_(self.from_fine(fine)))


def _double(coarse: Tensor) -> Tensor:
    """Repeat, not interpolate: the convolution that follows smooths anyway."""
    return functional.interpolate(coarse, scale_factor=2, mode="nearest")


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
