"""The networks that the package trains itself: evo, its own, and SEKD's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from sfm_features.errors import OptionError
from sfm_features.nets.blocks import prepare_for_use
from sfm_features.nets.decode import DecodeOptions, detect
from sfm_features.nets.dense import DenseNet
from sfm_features.nets.grey import grey_from_rgb
from sfm_features.nets.memory import keep_freed_memory
from sfm_features.nets.weights import find_bundled, load_weights
from sfm_features.types import U8, Extractor, Features


class NetExtractor(Extractor):
    """Keypoints and descriptors of any network of ours."""

    def __init__(self, net: DenseNet, device: str, options: DecodeOptions) -> None:
        if device == "cpu":
            keep_freed_memory()
        self._net = prepare_for_use(net, device)
        self._device = device
        self._options = options

    @property
    def descriptor_dim(self) -> int:
        """Length of a descriptor."""
        return self._net.descriptor_dim

    def extract(self, image: U8) -> Features:
        """Extract from one image, RGB (H, W, 3) or grey (H, W)."""
        return self.extract_batch([image])[0]

    def extract_batch(self, images: Sequence[U8]) -> list[Features]:
        """Extract from images of one size."""
        if not images:
            return []
        grey = np.stack([grey_from_rgb(image) for image in images])
        with torch.inference_mode():
            batch = torch.from_numpy(grey).to(self._device)[:, None].float() / 255
            return detect(self._net, batch, self._options)


class _Learned(NetExtractor):
    """A network with weights of its own, bundled or given."""

    architecture: ClassVar[str]
    options: ClassVar[DecodeOptions]

    def __init__(
        self,
        *,
        max_keypoints: int,
        device: str = "cpu",
        seed: int = 0,
        weights: Path | None = None,
        download: bool = False,
    ) -> None:
        # No seed is used: a trained network draws no numbers.
        if download:
            raise OptionError(
                f"{self.architecture} comes with its weights; leave out --download"
            )
        path = weights if weights is not None else find_bundled(self.architecture)
        net, _ = load_weights(path, self.architecture)
        options = replace(self.options, max_keypoints=max_keypoints)
        super().__init__(net, device, options)


class Evo(_Learned):
    """The package's own network: small, fast, descriptors of 64."""

    architecture = "evo"
    options = DecodeOptions()


class Sekd(_Learned):
    """SEKD's architecture, trained by us: descriptors of 128."""

    architecture = "sekd"
    # SEKD's own radius; its threshold is left out, for max_keypoints already chooses.
    options = DecodeOptions(nms_radius_px=4)
