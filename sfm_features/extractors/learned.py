"""The networks that the package trains itself: evo, its own, and SEKD's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import torch
from torch import Tensor

from sfm_features.errors import OptionError
from sfm_features.nets.blocks import prepare_for_use
from sfm_features.nets.decode import Seen, describe, describe_places, look
from sfm_features.nets.dense import DenseNet, pad_to_stride
from sfm_features.nets.grey import grey_from_rgb
from sfm_features.nets.memory import keep_freed_memory
from sfm_features.nets.peaks import DecodeOptions
from sfm_features.nets.weights import find_bundled, load_weights
from sfm_features.types import U8, Extractor, Features, undo_resize

_LEAST_SIDE_PX = 32
"""A picture is not shrunk below it; there would be nothing left to see."""


class NetExtractor(Extractor):
    """Keypoints and descriptors of any network of ours, on one or more scales.

    What is near in one photo and far in the other only matches across scales. With
    `enlarged`, each keypoint is described in the picture enlarged so many times, too:
    that says more finely what is closer around it. Descriptors are twice as long then.
    """

    def __init__(
        self,
        net: DenseNet,
        device: str,
        options: DecodeOptions,
        scales: Sequence[float] = (1.0,),
        enlarged: float = 0.0,
    ) -> None:
        if device == "cpu":
            keep_freed_memory()
        self._net = prepare_for_use(net, device)
        self._device = device
        self._options = options
        self._scales = tuple(scales)
        self._enlarged = enlarged

    @property
    def descriptor_dim(self) -> int:
        """Length of a descriptor."""
        return self._net.descriptor_dim * (2 if self._enlarged else 1)

    def extract(self, image: U8) -> Features:
        """Extract from one image, RGB (H, W, 3) or grey (H, W)."""
        return self.extract_batch([image])[0]

    def extract_batch(self, images: Sequence[U8]) -> list[Features]:
        """Extract from images of one size."""
        if not images:
            return []
        grey = [grey_from_rgb(image) for image in images]
        with torch.inference_mode():
            seen = [self._look(grey, scale) for scale in self._scales]
            return [self._describe(seen, i, grey[i]) for i in range(len(grey))]

    def count_side_by_side(self) -> int:
        """Count the cores that the CPU may use; a GPU does one batch after another.

        An enlarged picture keeps all of them busy, and one on each takes much memory.
        """
        alone = self._enlarged or self._device != "cpu"
        return 1 if alone else torch.get_num_threads()

    @contextmanager
    def work_side_by_side(self) -> Iterator[Callable[[], None]]:
        """Let each thread keep to one core: none of them ever waits for the others."""
        before = torch.get_num_threads()
        try:
            yield partial(torch.set_num_threads, 1)
        finally:
            # Threads that start later take over what was set last, by any thread.
            torch.set_num_threads(before)

    def _look(self, grey: Sequence[U8], scale: float) -> Seen:
        """Run the network at a scale, and find peaks."""
        return look(self._net, self._resize(grey, scale), self._options)

    def _resize(self, grey: Sequence[U8], scale: float) -> Tensor:
        """Make a batch (B, 1, H, W) of pictures at a scale, from 0 to 1."""
        height, width = grey[0].shape
        size = (_resize_side(width, scale), _resize_side(height, scale))
        if size != (width, height):
            # Upwards there is nothing to average over.
            how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
            grey = [np.asarray(cv2.resize(g, size, interpolation=how)) for g in grey]
        return torch.from_numpy(np.stack(grey)).to(self._device)[:, None].float() / 255

    def _describe(self, seen: Sequence[Seen], image: int, grey: U8) -> Features:
        """Describe the best of all scales, best first; of equal ones, the first's."""
        size = (grey.shape[1], grey.shape[0])
        most = self._options.max_keypoints
        counts = _share_among([part.scores[image] for part in seen], most)
        found = [
            describe(self._net, part, image, count)
            for part, count in zip(seen, counts, strict=True)
        ]
        if self._enlarged:
            found = self._add_closer(found, seen, image, grey)
        placed = [undo_resize(f.keypoints, size, f.image_size) for f in found]
        if len(found) == 1:
            return replace(found[0], keypoints=placed[0], image_size=size)
        scores = np.concatenate([features.scores for features in found])
        order = np.argsort(-scores, kind="stable")
        return Features(
            np.concatenate(placed)[order],
            np.concatenate([features.descriptors for features in found])[order],
            scores[order],
            size,
        )

    def _add_closer(
        self, found: list[Features], seen: Sequence[Seen], image: int, grey: U8
    ) -> list[Features]:
        """Put beside descriptors what the picture enlarged says of their places.

        One picture at a time, as it takes so much memory.
        """
        known = {
            part.image_size: part.dense.descriptors[image : image + 1] for part in seen
        }
        closer = []
        for features, scale in zip(found, self._scales, strict=True):
            picture = self._resize([grey], scale * self._enlarged)
            size = (picture.shape[3], picture.shape[2])
            maps = known.get(size)
            if maps is None:
                maps = self._net.describe(pad_to_stride(picture, self._net.stride))
            there = undo_resize(features.keypoints, size, features.image_size)
            xy = torch.from_numpy(there).to(maps.device)
            added = describe_places(self._net, maps, xy).cpu().numpy()
            both = np.concatenate([features.descriptors, added], axis=1)
            closer.append(replace(features, descriptors=both * np.float32(0.5**0.5)))
        return closer


def _share_among(scores: Sequence[Tensor], most: int) -> list[int]:
    """Return how many of each part's scores, best first, are among the best of all."""
    scale = torch.cat([torch.full_like(s, i) for i, s in enumerate(scores)])
    order = torch.cat(list(scores)).argsort(descending=True, stable=True)[:most]
    return [int((scale[order] == i).sum()) for i in range(len(scores))]


def _resize_side(side: int, scale: float) -> int:
    return max(round(side * scale), min(side, _LEAST_SIDE_PX))


class _Learned(NetExtractor):
    """A network with weights of its own, bundled or given."""

    name: ClassVar[str]
    """What the bundled weights are called."""
    architecture: ClassVar[str]
    options: ClassVar[DecodeOptions]
    scales: ClassVar[tuple[float, ...]] = (1.0,)
    enlarged: ClassVar[float] = 0.0

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
                f"{self.name} comes with its weights; leave out --download"
            )
        path = weights if weights is not None else find_bundled(self.name)
        net, _ = load_weights(path, self.architecture)
        options = replace(self.options, max_keypoints=max_keypoints)
        super().__init__(net, device, options, scales or self.scales, self.enlarged)


class Evo(_Learned):
    """The package's own network: small, fast, descriptors of 128."""

    name = architecture = "evo"
    options = DecodeOptions()
    # Half the size costs a quarter more, and photos from afar and from nearby match.
    scales = (1.0, 0.5)


class EvoFine(Evo):
    """Evo with time to spare: keypoints are described in the enlarged picture, too."""

    enlarged = 2.0


class EvoObject(Evo):
    """The same network, trained to stay on an object and off what is behind it."""

    name = "evo-object"
    # Evo's lowest peaks are where this one is not sure that there is an object.
    options = DecodeOptions(least_probability=0.02)


class Sekd(_Learned):
    """SEKD's architecture, trained by us: descriptors of 128."""

    name = architecture = "sekd"
    # SEKD's own radius; its threshold is left out, for max_keypoints already chooses.
    options = DecodeOptions(nms_radius_px=4)
