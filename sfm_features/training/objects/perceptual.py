"""How alike two pictures look: distances between the features of a trained network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from sfm_features.errors import WeightsError
from sfm_features.nets.blocks import fold_batch_norms
from sfm_features.nets.evo import EvoNet
from sfm_features.nets.weights import find_bundled, load_weights

_VGG_WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512))
_VGG_SIDE_PX = 224
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_GREY = (0.299, 0.587, 0.114)


class Perceptual(nn.Module, ABC):
    """The mean difference of features, averaged over a network's levels."""

    def forward(self, painted: Tensor, true: Tensor) -> Tensor:
        """Compare colours (B, 3, S, S) in -1..1; only the first has a gradient."""
        with torch.no_grad():
            wanted = self.describe(true)
        found = self.describe(painted)
        apart = [(f - w).abs().mean() for f, w in zip(found, wanted, strict=True)]
        return torch.stack(apart).mean()

    @abstractmethod
    def describe(self, rgb: Tensor) -> Sequence[Tensor]:
        """Return the features of every level."""


class EvoPerceptual(Perceptual):
    """Features of our own network at 1/2, 1/4 and 1/8 of the size; it sees grey."""

    grey: Tensor

    def __init__(self, path: Path | None = None) -> None:
        super().__init__()
        net, _ = load_weights(path or find_bundled("evo"), "evo")
        assert isinstance(net, EvoNet)
        self.net = fold_batch_norms(net)
        self.register_buffer("grey", torch.tensor(_GREY).view(1, 3, 1, 1))

    def describe(self, rgb: Tensor) -> Sequence[Tensor]:
        grey = ((rgb.float() + 1) / 2 * self.grey).sum(1, keepdim=True)
        return self.net.describe_levels(grey)


class VggPerceptual(Perceptual):
    """Features of VGG16 as AutoLink takes them, by torchvision's weights in a file."""

    mean: Tensor
    std: Tensor

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        inputs, number, tensors = 3, 0, _read_tensors(path)
        for widths in _VGG_WIDTHS:
            layers: list[nn.Module] = [nn.MaxPool2d(2)] if number else []
            number += len(layers)
            for width in widths:
                conv = nn.Conv2d(inputs, width, 3, padding=1)
                _fill(conv, tensors, f"features.{number}", path)
                layers += [conv, nn.ReLU()]
                inputs, number = width, number + 2
            self.levels.append(nn.Sequential(*layers))
        self.requires_grad_(False)
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(_IMAGENET_STD).view(1, 3, 1, 1))

    def describe(self, rgb: Tensor) -> Sequence[Tensor]:
        x = ((rgb.float() + 1) / 2 - self.mean) / self.std
        x = functional.interpolate(x, (_VGG_SIDE_PX, _VGG_SIDE_PX), mode="bilinear")
        found = []
        for level in self.levels:
            x = level(x)
            found.append(x)
        return found


def make_perceptual(vgg: Path | None) -> Perceptual:
    """Build what pictures are compared by: our network, or VGG16 from a file."""
    return VggPerceptual(vgg) if vgg is not None else EvoPerceptual()


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        # Only tensors: a file of weights cannot run code.
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, ValueError, EOFError, UnpicklingError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise WeightsError(
            f"{path}: cannot be read as weights ({reason}); give VGG16's weights as "
            "torchvision has them, .pth or .safetensors"
        ) from error
    except safetensors.SafetensorError as error:
        raise WeightsError(f"{path}: is damaged ({error}); fetch it again") from error


def _fill(conv: nn.Conv2d, tensors: dict[str, Tensor], name: str, path: Path) -> None:
    for part in ("weight", "bias"):
        found, wanted = tensors.get(f"{name}.{part}"), getattr(conv, part)
        if found is None or found.shape != wanted.shape:
            shape = "missing" if found is None else tuple(found.shape)
            raise WeightsError(
                f"{path}: {name}.{part} is {shape} instead of {tuple(wanted.shape)}; "
                "give VGG16's weights as torchvision has them"
            )
        wanted.data.copy_(found)
