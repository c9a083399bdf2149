"""The one way a picture becomes grey, in training as in use."""

from __future__ import annotations

import cv2
import numpy as np

from sfm_features.types import U8


def grey_from_rgb(image: U8) -> U8:
    """Turn RGB (H, W, 3) into luma (H, W) by ITU-R BT.601; grey stays as it is."""
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    if image.ndim == 2:
        return image
    assert image.shape[2] == 3, image.shape
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
