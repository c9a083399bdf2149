"""RootSIFT by OpenCV.

OpenCV's own sub-pixel fit is unbiased only with its precise upscaling (measured on
blobs: 0.25 px off without, under 0.01 px with), so that is what we use.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from sfm_features.errors import OptionError
from sfm_features.types import F32, U8, Extractor, Features

_SMALLEST_SIDE_PX = 12  # below it OpenCV has no octave to look for extrema in
_CONTRAST = 0.02  # COLMAP's default; OpenCV's own, twice that, starves dark images


class Sift(Extractor):
    """Difference-of-Gaussians keypoints with RootSIFT descriptors (128)."""

    def __init__(
        self,
        *,
        max_keypoints: int,
        device: str = "cpu",
        seed: int = 0,
        weights: Path | None = None,
        download: bool = False,
    ) -> None:
        if weights is not None or download:
            raise OptionError("sift has no weights; leave out --weights and --download")
        self._sift = cv2.SIFT.create(
            nfeatures=max_keypoints,
            contrastThreshold=_CONTRAST,
            enable_precise_upscale=True,
        )
        self._max_keypoints = max_keypoints

    def extract(self, image: U8) -> Features:
        """Extract from one RGB image."""
        height, width = image.shape[:2]
        keypoints: Sequence[cv2.KeyPoint] = ()
        if min(height, width) >= _SMALLEST_SIDE_PX:
            grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
            keypoints, sift = self._sift.detectAndCompute(grey, None)
        if not keypoints:  # `sift` is None then
            return Features(
                np.zeros((0, 2), np.float32),
                np.zeros((0, 128), np.float32),
                np.zeros(0, np.float32),
                (width, height),
            )
        scores = np.array([keypoint.response for keypoint in keypoints], np.float32)
        xy = np.array([keypoint.pt for keypoint in keypoints], np.float32)
        # OpenCV keeps ties beyond nfeatures; a stable sort makes the choice repeatable.
        best = np.argsort(-scores, kind="stable")[: self._max_keypoints]
        return Features(
            xy[best],
            _root(np.asarray(sift, np.float32)[best]),
            scores[best],
            (width, height),
        )


def _root(sift: F32) -> F32:
    """Turn SIFT (N, 128) into RootSIFT: Hellinger distance by a plain dot product."""
    total = np.abs(sift).sum(1, keepdims=True)
    rooted: F32 = np.sqrt(sift / np.maximum(total, np.finfo(np.float32).tiny))
    return rooted
