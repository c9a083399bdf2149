"""Random warps of images and maps, with exact correspondences.

A warp is a matrix (3, 3) `target_from_source` over pixels whose top-left centre is
(0, 0). Points are mapped by that very matrix, and images and maps are looked up through
its inverse, so that labels cannot drift from the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from sfm_features.geometry import warp_points
from sfm_features.types import F64, U8, Bool


@dataclass(frozen=True)
class WarpRanges:
    """How far random homographies go; sigmas are of normal distributions."""

    scale: tuple[float, float] = (0.6, 1.6)
    """Smallest and largest enlargement."""
    rotation_sigma_deg: float = 25.0
    """Spread of the rotation."""
    any_rotation_share: float = 0.15
    """Share of warps whose rotation is anything at all."""
    stretch_sigma: float = 0.15
    """Spread of shear, and of the logarithm of the aspect."""
    perspective_sigma: float = 0.12
    """Spread of the change of scale over one crop."""


def sample_homography(
    rng: np.random.Generator,
    centre: Sequence[float] | F64,
    size_px: int,
    ranges: WarpRanges = WarpRanges(),
) -> F64:
    """Return crop_from_photo (3, 3) that takes `centre` to the middle of a crop."""
    turn_deg = rng.normal(0, ranges.rotation_sigma_deg)
    if rng.random() < ranges.any_rotation_share:
        turn_deg = rng.uniform(-180, 180)
    scale = np.exp(rng.uniform(*np.log(ranges.scale)))
    aspect = np.exp(0.5 * rng.normal(0, ranges.stretch_sigma))
    shear = rng.normal(0, ranges.stretch_sigma)
    warp = np.eye(3)
    warp[:2, :2] = scale * _rotate(turn_deg) @ _stretch(aspect, 1 / aspect, shear)
    # Beyond this the far side of a crop would shrink to a third of the near one.
    tilt = rng.normal(0, ranges.perspective_sigma, 2).clip(-0.5, 0.5)
    lean = np.eye(3)
    lean[2, :2] = tilt / size_px
    middle = (size_px - 1) / 2
    return shift((middle, middle)) @ lean @ warp @ shift(-np.asarray(centre))


def sample_affine(
    rng: np.random.Generator, size: tuple[int, int], most_deg: float = 40.0
) -> F64:
    """Return copy_from_photo (3, 3) around the middle of a (width, height) image.

    In pixels, not in units of the sides: a rotation stays one on any shape.
    """
    angle_deg, shear_deg = rng.uniform(-most_deg, most_deg, 2)
    scale_x, scale_y = np.exp(rng.uniform(np.log(0.7), np.log(1.4), 2))
    shear = np.tan(np.radians(shear_deg / 2))
    warp = np.eye(3)
    warp[:2, :2] = _rotate(angle_deg) @ _stretch(scale_x, scale_y, shear)
    middle = (np.array(size) - 1) / 2
    offset = rng.uniform(-0.02, 0.02, 2) * size
    return shift(middle + offset) @ warp @ shift(-middle)


def warp_image(
    image: U8, target_from_source: F64, size: tuple[int, int], fill: bool = False
) -> U8:
    """Warp an image (H, W) or (H, W, C) to (width, height).

    Outside of it the picture is mirrored, as a black rim would be full of corners; with
    `fill` it is zero.
    """
    border = cv2.BORDER_CONSTANT if fill else cv2.BORDER_REFLECT_101
    warped = cv2.warpPerspective(
        image, target_from_source, size, flags=cv2.INTER_LINEAR, borderMode=border
    )
    return np.asarray(warped, np.uint8)


def cover(
    target_from_source: F64, source: tuple[int, int], target: tuple[int, int]
) -> Bool:
    """Tell which pixels (H, W) of the target show the source; sizes (width, height)."""
    ones = np.ones(source[::-1], np.uint8)
    shown = cv2.warpPerspective(
        ones, target_from_source, target, flags=cv2.INTER_NEAREST
    )
    return np.asarray(shown > 0)


def map_inside(
    target_from_source: F64, xy: NDArray[np.floating], size: tuple[int, int]
) -> tuple[F64, Bool]:
    """Map points (N, 2), and tell which land between the outer pixel centres."""
    landed = warp_points(target_from_source, xy)
    with np.errstate(invalid="ignore"):
        inside = (landed >= 0) & (landed <= np.array(size) - 1)
    return landed, np.asarray(inside.all(axis=1))


def warp_maps(
    maps: Tensor, source_from_target: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Look maps (B, C, H, W) up through homographies (B, 3, 3).

    size (height, width) of the result. Returns it and where it is known (B, 1, h, w).
    """
    xy = transform(source_from_target, pixel_grid(size, maps.device))
    looked_up = sample_maps(maps, xy)
    known = is_inside(xy, (maps.shape[3], maps.shape[2]))
    shape = (maps.shape[0], -1, *size)
    return looked_up.mT.reshape(shape), known.reshape(shape)


def pixel_grid(size: tuple[int, int], device: torch.device | str = "cpu") -> Tensor:
    """Return the pixels (1, H * W, 2) of a (height, width) map, row by row."""
    y, x = torch.meshgrid(
        torch.arange(size[0], device=device, dtype=torch.float32),
        torch.arange(size[1], device=device, dtype=torch.float32),
        indexing="ij",
    )
    return torch.stack([x, y], dim=-1).reshape(1, -1, 2)


def transform(target_from_source: Tensor, xy: Tensor) -> Tensor:
    """Map points (1 or B, N, 2) by homographies (B, 3, 3)."""
    matrix = target_from_source.to(xy.dtype)
    mapped = xy @ matrix[:, :, :2].mT + matrix[:, None, :, 2]
    return mapped[..., :2] / mapped[..., 2:]


def sample_maps(maps: Tensor, xy: Tensor) -> Tensor:
    """Sample maps (B, C, H, W) between their pixels (B, N, 2) -> (B, N, C)."""
    size = torch.tensor([maps.shape[3], maps.shape[2]], device=xy.device)
    grid = ((2 * xy + 1) / size - 1)[:, :, None]
    found = functional.grid_sample(maps, grid.to(maps.dtype), align_corners=False)
    return found[..., 0].mT


def is_inside(xy: Tensor, size: tuple[int, int]) -> Tensor:
    """Tell which points (B, N, 2) lie between the outer centres of (width, height)."""
    last = torch.tensor(size, device=xy.device, dtype=xy.dtype) - 1
    return ((xy >= 0) & (xy <= last)).all(dim=-1)


def shift(by: Sequence[float] | F64) -> F64:
    """Return the translation (3, 3)."""
    matrix = np.eye(3)
    matrix[:2, 2] = by
    return matrix


def _rotate(angle_deg: float) -> F64:
    cosine, sine = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    return np.array([[cosine, -sine], [sine, cosine]])


def _stretch(x: float, y: float, shear: float) -> F64:
    return np.array([[x, shear], [0.0, y]])
