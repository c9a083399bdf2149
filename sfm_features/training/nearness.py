"""How near what photos show is, as pictures that a depth teacher sees."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from sfm_features.depths import DepthMap, scale_nearness
from sfm_features.types import F32, U8, Bool

_SIDE_PX = 256


@dataclass(frozen=True)
class Nearness:
    """A picture (H, W) of a photo's size, 0 is far and 255 near; where it is known.

    What is not known looks like the nearest place that is.
    """

    grey: U8
    known: Bool


def draw_distance(depth: DepthMap, size: tuple[int, int]) -> Nearness:
    """Draw distances for a photo of a size (width, height)."""
    return draw_nearness(scale_nearness(depth, "distance", _SIDE_PX), depth.known, size)


def draw_nearness(nearness: F32, known: Bool, size: tuple[int, int]) -> Nearness:
    """Stretch nearness from -1 to 1, and where it is known, over a (width, height)."""
    large = cv2.resize(nearness, size, interpolation=cv2.INTER_LINEAR)
    grey = np.rint((large.clip(-1, 1) + 1) * 127.5).astype(np.uint8)
    return Nearness(grey, stretch_mask(known, size))


def stretch_mask(shown: Bool, size: tuple[int, int]) -> Bool:
    """Stretch what is true of a map's pixels over a (width, height)."""
    as_u8 = np.ascontiguousarray(shown, np.uint8)
    return np.asarray(cv2.resize(as_u8, size, interpolation=cv2.INTER_NEAREST) > 0)
