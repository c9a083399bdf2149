"""Where exactly a keypoint is: a small network looks at the pixels around each peak.

A network that works at half resolution sees odd and even pixels differently, so its
peaks jitter by most of a pixel when a picture moves by one. A patch around a peak moves
with the picture, and there are only some thousand of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LEAST_SPREAD = 1e-2
"""Added to a patch's standard deviation, so that plain ones are not all noise."""


class Refiner(nn.Module):
    """From patches of the grey picture to offsets, at most `reach_px` along an axis."""

    def __init__(
        self, radius: int = 4, width: int = 128, reach_px: float = 2.0
    ) -> None:
        super().__init__()
        self.radius, self.reach_px = radius, reach_px
        self.layers = nn.Sequential(
            nn.Linear((2 * radius + 1) ** 2, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, 2),
        )

    def forward(self, grey: Tensor, pixels: Tensor) -> Tensor:
        """Return offsets (B, N, 2) of places from pixels (B, N, 2) of (B, 1, H, W)."""
        patches = self._cut(grey, pixels)
        patches = patches - patches.mean(dim=2, keepdim=True)
        spread = patches.square().mean(dim=2, keepdim=True).sqrt()
        plain = patches / (spread + _LEAST_SPREAD)
        found: Tensor = self.layers(plain.to(next(self.layers.parameters()).dtype))
        return self.reach_px * torch.tanh(found.float())

    def _cut(self, grey: Tensor, pixels: Tensor) -> Tensor:
        """Cut patches (B, N, side * side); the picture's rim is repeated beyond it."""
        height, width = grey.shape[2:]
        steps = torch.arange(-self.radius, self.radius + 1, device=grey.device)
        x, y = (pixels[..., i, None].long() + steps for i in (0, 1))
        index = y.clamp(0, height - 1)[..., :, None] * width
        index = index + x.clamp(0, width - 1)[..., None, :]
        flat = grey.reshape(len(grey), -1)
        found = flat.gather(1, index.reshape(len(grey), -1))
        return found.reshape(*pixels.shape[:2], (2 * self.radius + 1) ** 2)
