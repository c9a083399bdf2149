"""The networks that the package trains itself: evo, its own, and SEKD's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import torch

from sfm_features.errors import OptionError
from sfm_features.nets.blocks import prepare_for_use
from sfm_features.nets.decode import DecodeOptions, detect
from sfm_features.nets.dense import DenseNet
from sfm_features.nets.grey import grey_from_rgb
from sfm_features.nets.memory import keep_freed_memory
from sfm_features.nets.weights import find_bundled, load_weights
from sfm_features.types import U8, Extractor, Features, undo_resize

_LEAST_SIDE_PX = 32
"""A picture is not shrunk below it; there would be nothing left to see."""


class NetExtractor(Extractor):
    """Keypoints and descriptors of any network of ours, on one or more scales.

    What is near in one photo and far in the other only matches across scales.
    """

    def __init__(
        self,
        net: DenseNet,
        device: str,
        options: DecodeOptions,
        scales: Sequence[float] = (1.0,),
    ) -> None:
        if device == "cpu":
            keep_freed_memory()
        self._net = prepare_for_use(net, device)
        self._device = device
        self._options = options
        self._scales = tuple(scales)

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
        grey = [grey_from_rgb(image) for image in images]
        found = [self._extract_at(grey, scale) for scale in self._scales]
        most = self._options.max_keypoints
        return [_merge(parts, most) for parts in zip(*found, strict=True)]

    def _extract_at(self, grey: Sequence[U8], scale: float) -> list[Features]:
        height, width = grey[0].shape
        size = (_resize_side(width, scale), _resize_side(height, scale))
        if size != (width, height):
            # Upwards there is nothing to average over.
            how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
            grey = [np.asarray(cv2.resize(g, size, interpolation=how)) for g in grey]
        with torch.inference_mode():
            batch = torch.from_numpy(np.stack(grey)).to(self._device)[:, None]
            found = detect(self._net, batch.float() / 255, self._options)
        return [
            replace(
                features,
                keypoints=undo_resize(features.keypoints, (width, height), size),
                image_size=(width, height),
            )
            for features in found
        ]


def _resize_side(side: int, scale: float) -> int:
    return max(round(side * scale), min(side, _LEAST_SIDE_PX))


def _merge(parts: Sequence[Features], most: int) -> Features:
    """Keep the best of all scales, best first; of equal ones, the earlier scale's."""
    if len(parts) == 1:
        return parts[0]
    scores = np.concatenate([part.scores for part in parts])
    best = np.argsort(-scores, kind="stable")[:most]
    return replace(
        parts[0],
        keypoints=np.concatenate([part.keypoints for part in parts])[best],
        descriptors=np.concatenate([part.descriptors for part in parts])[best],
        scores=scores[best],
    )


class _Learned(NetExtractor):
    """A network with weights of its own, bundled or given."""

    architecture: ClassVar[str]
    options: ClassVar[DecodeOptions]
    scales: ClassVar[tuple[float, ...]] = (1.0,)

    def __init__(
        self,
        *,
        max_keypoints: int,
        device: str = "cpu",
        seed: int = 0,
        weights: Path | None = None,
        download: bool = False,
        scales: Sequence[float] = (),
    ) -> None:
        # No seed is used: a trained network draws no numbers.
        if download:
            raise OptionError(
                f"{self.architecture} comes with its weights; leave out --download"
            )
        path = weights if weights is not None else find_bundled(self.architecture)
        net, _ = load_weights(path, self.architecture)
        options = replace(self.options, max_keypoints=max_keypoints)
        super().__init__(net, device, options, scales or self.scales)


class Evo(_Learned):
    """The package's own network: small, fast, descriptors of 128."""

    architecture = "evo"
    options = DecodeOptions()
    # Half the size costs a quarter more, and photos from afar and from nearby match.
    scales = (1.0, 0.5)


class Sekd(_Learned):
    """SEKD's architecture, trained by us: descriptors of 128."""

    architecture = "sekd"
    # SEKD's own radius; its threshold is left out, for max_keypoints already chooses.
    options = DecodeOptions(nms_radius_px=4)
