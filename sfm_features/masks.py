"""Masks of images: which parts of them are to be left alone.

They are the files of a folder, or one file that serves all images, as of what a camera
always sees of its car.
"""

from __future__ import annotations

import functools
import zlib
from pathlib import Path

import numpy as np

from sfm_features.errors import InputError
from sfm_features.images import Decoded, decode_values
from sfm_features.orientation import turn_stored
from sfm_features.types import F32, Bool


def find_mask(folder: Path, name: str, images: Path | None = None) -> Path | None:
    """Find the mask of `a.jpg`: `a.jpg.png`, as COLMAP names it, or `a.png`.

    If masks lie among the images, `a.png` is no mask but one of those. If `folder` is a
    file, it is the mask of every image.
    """
    if folder.is_file():
        return folder
    paths = [folder / f"{name}.png"]
    if images is None or images.resolve() != folder.resolve():
        paths.append((folder / name).with_suffix(".png"))
    return next((path for path in paths if path.is_file()), None)


def read_mask(folder: Path, name: str, images: Path | None = None) -> Bool | None:
    """Read the mask of an image as its file has it; True = keep, None = no mask."""
    path = find_mask(folder, name, images)
    return None if path is None else _read(path, *_state(path))


def sum_mask(folder: Path, name: str, images: Path | None = None) -> int:
    """Sum up the file of an image's mask, to tell it from others; 0 = no mask."""
    path = find_mask(folder, name, images)
    try:
        return 0 if path is None else _sum(path, *_state(path))
    except OSError:  # `read_mask` says what is wrong
        return 0


def check_mask_of_all(path: Path) -> None:
    """Raise InputError for a file that cannot be the mask of all images."""
    if path.suffix.lower() != ".png":
        raise InputError(
            f"{path}: a mask is a PNG file, as others blur what is zero; convert it"
        )
    if not _read(path, *_state(path)).any():
        raise InputError(
            f"{path}: is zero all over, and zero is what is ignored; make the parts "
            "that are to be used white"
        )


def is_mask_of_all(masks: Path | None, path: Path) -> bool:
    """Whether a file among the images is no photograph but the mask of all of them."""
    return (
        masks is not None
        and path.name == masks.name  # saves most of them a look at the disk
        and path.is_file()
        and masks.is_file()
        and path.samefile(masks)
    )


def _state(path: Path) -> tuple[int, int]:
    """Tell a file from what was in its place before; (0, 0) if it cannot be told."""
    try:
        status = path.stat()
    except OSError:  # who reads it says what is wrong
        return 0, 0
    return status.st_size, status.st_mtime_ns


# One, as it may serve all images; of a folder's masks each is read once anyway.
@functools.lru_cache(maxsize=1)
def _read(path: Path, size: int, changed_ns: int) -> Bool:
    values = decode_values(path)
    colours = values if values.ndim == 2 else values[..., :3]  # what is behind is alpha
    mask = np.asarray((colours > 0).reshape(*values.shape[:2], -1).any(axis=2))
    mask.setflags(write=False)
    return mask


@functools.lru_cache(maxsize=1)
def _sum(path: Path, size: int, changed_ns: int) -> int:
    return zlib.crc32(path.read_bytes())


def fit_mask(mask: Bool, image: Decoded) -> Bool:
    """Turn the mask of an upright image as the image is stored.

    It is told by one of them lying where the other one stands; of square ones, and of
    images upside down, nothing tells.
    """
    width, height = image.size
    rows, columns = mask.shape
    turned = image.orientation > 4 and (columns - rows) * (width - height) < 0
    return turn_stored(mask, image.orientation) if turned else mask


def keep_inside(mask: Bool, xy: F32, size: tuple[int, int]) -> Bool:
    """Tell which pixels (N, 2) of an image of this size the mask keeps.

    A mask of another size is stretched over the image.
    """
    scale = np.divide(mask.shape[::-1], size)
    column, row = np.floor((np.round(xy) * scale).T).astype(int)
    rows, columns = mask.shape
    kept: Bool = mask[row.clip(0, rows - 1), column.clip(0, columns - 1)]
    return kept
