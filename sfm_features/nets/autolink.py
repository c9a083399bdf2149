"""Keypoints of a kind of object, learned by linking them (AutoLink, NeurIPS 2022).

A detector places K keypoints; a drawing of the lines between them, each with a weight
that is learned, has to be enough to paint in the 80 % of the image that are hidden.
Only the detector is needed to use what was learned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfm_features.errors import WeightsError
from sfm_features.nets.links import draw_links, locate
from sfm_features.nets.weights import Card, check_tensors, read_tensors, write_tensors

ARCHITECTURE = "autolink"
TAPS = ("block1", "block2", "block3", "block4", "up1", "up2", "logits")
"""Where a detector's embeddings can be read, from early to late."""
STRIDE = 16
_SLOPE = 0.2


@dataclass
class Detected:
    """Logits (B, K, h, w) at a quarter of the size, and the embeddings of every tap."""

    logits: Tensor
    taps: Mapping[str, Tensor]


class KeypointNet(nn.Module):
    """From colours (B, 3, S, S) in -1..1 to a map for each keypoint."""

    def __init__(
        self, keypoints: int = 16, width: int = 32, size_px: int = 128
    ) -> None:
        super().__init__()
        self.config = {"keypoints": keypoints, "width": width, "size_px": size_px}
        widths = [3, width, 2 * width, 4 * width, 8 * width]
        self.blocks = nn.ModuleList(
            DownBlock(a, b) for a, b in zip(widths, widths[1:], strict=False)
        )
        self.ups = nn.ModuleList(
            [UpBlock(8 * width, 4 * width), UpBlock(4 * width, 2 * width)]
        )
        self.head = nn.Conv2d(2 * width, keypoints, 3, padding=1)

    def forward(self, rgb: Tensor) -> Detected:
        taps = {}
        x = rgb
        for name, layer in zip(TAPS, [*self.blocks, *self.ups], strict=False):
            x = taps[name] = layer(x)
        logits = taps["logits"] = self.head(x)
        return Detected(logits, taps)


class DownBlock(nn.Module):
    """Halve the size: two convolutions beside one."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.last_norm = nn.BatchNorm2d(outputs)
        self.beside = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.beside_norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = _leak(self.norm(_halve(self.first(x))))
        y = self.last_norm(self.second(y))
        return _leak(y + self.beside_norm(_halve(self.beside(x))))


class UpBlock(nn.Module):
    """Double the size, then convolve."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return _leak(self.norm(self.conv(_double(x))))


class Painter(nn.Module):
    """Paint an image from a drawing and the little of it that is shown: a U-Net.

    It convolves where maps are small, before it doubles and after it halves them: most
    of the time of training goes here, and what it paints with is not kept.
    """

    def __init__(self, width: int = 32, levels: int = 4) -> None:
        super().__init__()
        widths = [width * min(2**level, 8) for level in range(levels + 1)]
        self.stem = nn.Conv2d(4, width, 3, padding=1)
        self.downs = nn.ModuleList(
            PaintBlock(a, b, 0.5) for a, b in zip(widths, widths[1:], strict=False)
        )
        inputs, self.ups = widths[-1], nn.ModuleList()
        for beside in reversed(widths[:-1]):
            self.ups.append(PaintBlock(inputs, beside, 2))
            inputs = 2 * beside
        self.last = nn.Conv2d(inputs, 3, 3, padding=1)

    def forward(self, drawing: Tensor, shown: Tensor) -> Tensor:
        x = _leak(self.stem(torch.cat([drawing, shown], 1)))
        skips = [x]
        for down in self.downs:
            skips.append(down(skips[-1]))
        x = skips.pop()
        for up in self.ups:
            x = torch.cat([up(x), skips.pop()], 1)
        return self.last(x)


class PaintBlock(nn.Module):
    """Convolve on the smaller side of a halving or doubling."""

    def __init__(self, inputs: int, outputs: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        if self.scale < 1:
            return _leak(self.norm(self.conv(_halve(x))))
        return _leak(_double(self.norm(self.conv(x))))


class AutoLink(nn.Module):
    """Detector, learned links and painter: what is trained."""

    first: Tensor
    second: Tensor

    def __init__(
        self,
        keypoints: int = 16,
        width: int = 32,
        size_px: int = 128,
        thickness: float = 1e-3,
        hidden_share: float = 0.8,
        cells: int = 16,
        levels: int = 4,
    ) -> None:
        super().__init__()
        self.thickness, self.hidden_share, self.cells = thickness, hidden_share, cells
        self.detector = KeypointNet(keypoints, width, size_px)
        self.painter = Painter(width, levels)
        first, second = torch.triu_indices(keypoints, keypoints, 1)
        self.register_buffer("first", first, persistent=False)
        self.register_buffer("second", second, persistent=False)
        # Links begin weak; the data say which of them are worth drawing.
        self.link_logits = nn.Parameter(torch.randn(len(first)) / 10 - 4)
        self.shown_gain = nn.Parameter(torch.ones(()))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=_SLOPE)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(
        self, rgb: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Detected, Tensor]:
        """Return the image as painted, what was detected, and keypoints (B, K, 2)."""
        found = self.detector(rgb)
        xy = locate(found.logits)
        drawing = self.draw(xy, rgb.shape[-1])
        keep = self.draw_mask(len(rgb), rgb.shape[-1], generator).to(rgb.device)
        painted = self.painter(drawing, self.shown_gain * rgb * keep)
        return painted, found, xy

    @property
    def link_weights(self) -> Tensor:
        """How strongly each pair of keypoints is linked (E,)."""
        return functional.softplus(self.link_logits)

    def draw(self, xy: Tensor, size: int) -> Tensor:
        """Draw the links of keypoints (B, K, 2) in -1..1: (B, 1, size, size)."""
        a, b = xy[:, self.first], xy[:, self.second]
        return draw_links(a, b, self.link_weights, size, self.thickness)

    def draw_mask(self, count: int, size: int, generator: torch.Generator) -> Tensor:
        """Draw which cells of images are shown: (count, 1, size, size) of 0 and 1."""
        cells = torch.rand((count, 1, self.cells, self.cells), generator=generator)
        return functional.interpolate((cells > self.hidden_share).float(), size=size)


def save_keypoint_net(net: KeypointNet, path: Path, card: Card) -> Card:
    """Write a detector and its card, each whole or not at all; return the card."""
    return write_tensors(net.state_dict(), path, card)


def load_keypoint_net(path: Path) -> tuple[KeypointNet, Card]:
    """Read a detector; every tensor must fit."""
    tensors, card = read_tensors(path, ARCHITECTURE)
    config = {}
    for name in ("keypoints", "width", "size_px"):
        value = card.recipe.get(name)
        if not isinstance(value, int) or not 0 < value <= 4096:
            raise WeightsError(
                f"{path}: its card says {name} {value!r}; fetch both files again"
            )
        config[name] = value
    net = KeypointNet(**config)
    check_tensors(path, ARCHITECTURE, net.state_dict(), tensors)
    net.load_state_dict(tensors, strict=True)
    return net.eval(), card


def _leak(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, _SLOPE)


def _halve(x: Tensor) -> Tensor:
    return functional.avg_pool2d(x, 2)  # what bilinear halving is


def _double(x: Tensor) -> Tensor:
    return functional.interpolate(
        x, scale_factor=2, mode="bilinear", align_corners=False
    )
