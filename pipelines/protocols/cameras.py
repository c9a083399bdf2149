"""Cameras as data sets give them: for another size of image, or as VisualSfM's."""

from __future__ import annotations

from dataclasses import replace

from sfm_features.errors import InputError
from sfm_features.types import Camera

_FOCALS = {
    "SIMPLE_PINHOLE": 1, "SIMPLE_RADIAL": 1, "RADIAL": 1, "PINHOLE": 2, "OPENCV": 2,
}  # fmt: skip
"""How many focal lengths come first; the principal point follows them."""


def rescale(camera: Camera, size: tuple[int, int]) -> Camera:
    """Return the same camera for images of another size and the same shape."""
    scale = size[0] / camera.width
    if abs(size[1] - scale * camera.height) > 1:
        raise InputError(
            f"an image of {size[0]} x {size[1]} px is of another shape than its camera "
            f"of {camera.width} x {camera.height} px; unpack the images again"
        )
    if camera.model not in _FOCALS:
        raise InputError(
            f"a camera of model {camera.model} cannot be rescaled; models are "
            f"{', '.join(_FOCALS)}"
        )
    focals = _FOCALS[camera.model]
    *focal, x, _ = [scale * value for value in camera.params[: focals + 2]]
    # A height that was rounded has a scale of its own, which moves the middle only.
    y = camera.params[focals + 1] * size[1] / camera.height
    params = (*focal, x, y, *camera.params[focals + 2 :])
    return replace(camera, width=size[0], height=size[1], params=params)


def convert_visualsfm(focal_px: float, radial: float, size: tuple[int, int]) -> Camera:
    """Make COLMAP's camera of a focal length and radial of VisualSfM's.

    VisualSfM unbends what is measured, m, as m (1 + r m^2), where COLMAP bends; the
    inverse of that is a series, of which two terms are kept.
    """
    width, height = size
    bend = (-radial, 3 * radial**2)
    return Camera("RADIAL", *size, (focal_px, width / 2, height / 2, *bend))
