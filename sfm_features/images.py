"""Listing, decoding, resizing, turning upright. The only door to image decoding."""

from __future__ import annotations

import difflib
import logging
import os
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from sfm_features.errors import ImageError, InputError
from sfm_features.types import F32, U8, Bool

SUFFIXES = (
    *(".bmp", ".jp2", ".jpe", ".jpeg", ".jpg", ".pgm"),
    *(".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
_NOT_DECODED = (
    *(".arw", ".avif", ".cr2", ".cr3", ".dng", ".exr", ".gif", ".hdr", ".heic"),
    *(".heif", ".jxl", ".nef", ".orf", ".psd", ".raf", ".rw2"),
)
"""Photographs, too, but not read here."""

_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND"
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the latter: BigTIFF
_EXIF_ORIENTATION = 0x0112

# How the stored array becomes upright: (transpose first, then flip rows, flip columns)
_UPRIGHT = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


logger = logging.getLogger(__name__)

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class Decoded:
    """A decoded image: rgb (H, W, 3) as stored, and its EXIF orientation (1 to 8).

    And how large its file is, by which another of the same name is told.
    """

    rgb: U8
    orientation: int
    file_bytes: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as stored."""
        return self.rgb.shape[1], self.rgb.shape[0]


def list_images(folder: Path, image_list: Path | None = None) -> list[str]:
    """List image names relative to a folder, sorted; only those of a list if given.

    Links to folders are followed; names that begin with a dot are passed over.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the folder of your images")
    if image_list is not None:
        return _read_image_list(folder, image_list)
    names, others = [], Counter[str]()
    for path in _walk(folder):
        suffix = path.suffix.lower()
        if suffix in SUFFIXES and path.is_file():
            names.append(path.relative_to(folder).as_posix())
        elif suffix in _NOT_DECODED:
            others[suffix] += 1
    left = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
    if not names:
        also = f" (there are {left}: convert them)" if left else ""
        raise InputError(
            f"{folder}: has no images{also}; give a folder with files ending in "
            f"{', '.join(SUFFIXES)}"
        )
    if left:
        logger.warning(
            "%s: left out %s; convert them to JPEG or PNG to use them", folder, left
        )
    return sorted(names)


def decode(path: Path) -> Decoded:
    """Decode a file to 8-bit RGB; EXIF orientation is reported, not applied."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ImageError(
            f"{path}: cannot be read ({error.strerror}); check the file"
        ) from error
    _refuse_truncated(path, content)
    try:
        # Without the flag OpenCV would rotate, and keypoints would be in another frame.
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
        bgr, kinds, blobs = cv2.imdecodeWithMetadata(
            np.frombuffer(content, np.uint8), flags=flags
        )
    except cv2.error as error:
        raise ImageError(
            f"{path}: cannot be decoded ({error.err}); remove it"
        ) from error
    if bgr is None:
        raise ImageError(
            f"{path}: is not an image that can be decoded; remove it or convert it"
        )
    exif = [
        blob.tobytes()
        for kind, blob in zip(kinds, blobs, strict=True)
        if kind == cv2.IMAGE_METADATA_EXIF
    ]
    orientation = _exif_orientation(exif[0]) if exif else 1
    if content.startswith(_TIFF_STARTS):
        orientation = _exif_orientation(content)
        bgr = turn_stored(bgr, orientation)
    eight_bits = _reduce_to_8_bits(path, np.asarray(bgr))
    rgb = _as_u8(cv2.cvtColor(eight_bits, cv2.COLOR_BGR2RGB))
    return Decoded(rgb, orientation, len(content))


def decode_values(path: Path) -> NDArray[Any]:
    """Decode the numbers of a file as they are: any depth of bits, (H, W) or (H, W, C).

    Colours come in OpenCV's order; EXIF orientation is ignored.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ImageError(
            f"{path}: cannot be read ({error.strerror}); check the file"
        ) from error
    _refuse_truncated(path, content)
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        values = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error as error:
        raise ImageError(
            f"{path}: cannot be decoded ({error.err}); remove it"
        ) from error
    if values is None:
        raise ImageError(
            f"{path}: is not an image that can be decoded; remove it or convert it"
        )
    if content.startswith(_TIFF_STARTS):
        values = turn_stored(values, _exif_orientation(content))
    return np.asarray(values)


def resize_to(image: U8, max_size: int) -> U8:
    """Shrink an image so that its longer side is at most `max_size`; 0 = as it is."""
    height, width = image.shape[:2]
    scale = max_size / max(height, width)
    if max_size == 0 or scale >= 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return _as_u8(cv2.resize(image, size, interpolation=cv2.INTER_AREA))


def turn_stored(image: NDArray[T], orientation: int) -> NDArray[T]:
    """Turn an upright image as it is stored: undo `turn_upright`."""
    transpose, flip_rows, flip_columns = _UPRIGHT[orientation]
    if flip_columns:
        image = image[:, ::-1]
    if flip_rows:
        image = image[::-1]
    if transpose:
        image = image.swapaxes(0, 1)
    return np.ascontiguousarray(image)


def turn_upright(image: U8, orientation: int) -> U8:
    """Turn a stored image upright, as a viewer that knows EXIF shows it."""
    transpose, flip_rows, flip_columns = _UPRIGHT[orientation]
    if transpose:
        image = image.swapaxes(0, 1)
    if flip_rows:
        image = image[::-1]
    if flip_columns:
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def turn_back(xy: F32, orientation: int, upright_size: tuple[int, int]) -> F32:
    """Map pixels (N, 2) of the upright image to the stored one."""
    transpose, flip_rows, flip_columns = _UPRIGHT[orientation]
    last_x, last_y = upright_size[0] - 1, upright_size[1] - 1
    x = last_x - xy[:, 0] if flip_columns else xy[:, 0]
    y = last_y - xy[:, 1] if flip_rows else xy[:, 1]
    return np.stack([y, x] if transpose else [x, y], 1).astype(np.float32)


def turn_points(xy: F32, orientation: int, upright_size: tuple[int, int]) -> F32:
    """Map pixels (N, 2) of the stored image to the upright one: undo `turn_back`."""
    transpose, flip_rows, flip_columns = _UPRIGHT[orientation]
    last_x, last_y = upright_size[0] - 1, upright_size[1] - 1
    x, y = (xy[:, 1], xy[:, 0]) if transpose else (xy[:, 0], xy[:, 1])
    x, y = last_x - x if flip_columns else x, last_y - y if flip_rows else y
    return np.stack([x, y], 1).astype(np.float32)


def find_mask(folder: Path, name: str, images: Path | None = None) -> Path | None:
    """Find the mask of `a.jpg`: `a.jpg.png`, as COLMAP names it, or `a.png`.

    If masks lie among the images, `a.png` is no mask but one of those.
    """
    paths = [folder / f"{name}.png"]
    if images is None or images.resolve() != folder.resolve():
        paths.append((folder / name).with_suffix(".png"))
    return next((path for path in paths if path.is_file()), None)


def read_mask(folder: Path, name: str, images: Path | None = None) -> Bool | None:
    """Read the mask of an image as its file has it; True = keep, None = no mask."""
    path = find_mask(folder, name, images)
    if path is None:
        return None
    values = decode_values(path)
    colours = values if values.ndim == 2 else values[..., :3]  # what is behind is alpha
    return np.asarray((colours > 0).reshape(*values.shape[:2], -1).any(axis=2))


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


def _as_u8(image: object) -> U8:
    return np.asarray(image, np.uint8)


def read_list(path: Path) -> list[str]:
    """Read names from a text file, one a line, sorted; # begins a comment."""
    return sorted(set(read_lines(path)))


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text file that say something, stripped; # is a comment."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a text file of image names")
    try:
        # Some editors on Windows begin a file with a mark, which is no part of a name.
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: is not text in UTF-8; give a text file of image names"
        ) from error
    found = [s for line in lines if (s := line.strip()) and not s.startswith("#")]
    if not found:
        raise InputError(f"{path}: names no image; put one name on each line")
    return found


def _read_image_list(folder: Path, image_list: Path) -> list[str]:
    names = read_list(image_list)
    for name in names:
        if not (folder / name).is_file():
            raise InputError(
                f"{image_list}: names {name!r}, which is not in {folder}"
                f"{_suggest(name, folder)}; names are relative to that folder"
            )
    return names


def _suggest(name: str, folder: Path) -> str:
    names: Iterable[str] = (p.name for p in folder.rglob("*") if p.is_file())
    close = difflib.get_close_matches(Path(name).name, list(names), n=1)
    return f" (there is {close[0]!r})" if close else ""


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, each folder once, be it there or behind a link.

    Links come last, so that what is really there has its own name.
    """
    seen, waiting = set(), [folder]
    while waiting:
        for here, folders, files in os.walk(waiting.pop(0), onerror=_tell_unread):
            where = Path(here).resolve()
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            if where in seen:
                folders.clear()
                continue
            seen.add(where)
            paths = [Path(here) / name for name in folders]
            waiting += [path for path in paths if path.is_symlink()]
            yield from (Path(here) / name for name in files if name[0] != ".")


def _tell_unread(error: OSError) -> None:
    logger.warning("%s: left out, cannot be read (%s)", error.filename, error.strerror)


def _reduce_to_8_bits(path: Path, values: NDArray[Any]) -> U8:
    """Keep the upper 8 bits of those that are used: cameras of 12 bits say 16."""
    if values.dtype == np.uint8:
        return values
    if values.dtype != np.uint16:
        raise ImageError(
            f"{path}: holds numbers of type {values.dtype}; convert it to 8 or 16 bits"
        )
    used = max(8, int(values.max(initial=0)).bit_length())
    return _as_u8(values >> (used - 8))


def _refuse_truncated(path: Path, content: bytes) -> None:
    """Raise ImageError for a file cut short: decoders fill the rest with grey."""
    if not content:
        raise ImageError(f"{path}: is empty (0 bytes); copy it again")
    cut = False
    if content.startswith(_JPEG_START):
        # In coded data 0xFF is always followed by 0, so this finds only a real end.
        scan = content.find(_JPEG_SCAN)
        cut = scan < 0 or content.find(_JPEG_END, scan) < 0
    elif content.startswith(_PNG_START):
        cut = _PNG_END not in content[-64:]
    if cut:
        raise ImageError(f"{path}: is cut off before its end; copy it again")


def _exif_orientation(exif: bytes) -> int:
    """Read the orientation out of a TIFF block; 1 when absent or senseless."""
    if exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    if not exif.startswith(_TIFF_STARTS) or len(exif) < 16:
        return 1
    order = "<" if exif.startswith(b"II") else ">"
    is_big = b"+" in exif[2:4]
    number, entry_bytes, value_at = ("Q", 20, 12) if is_big else ("I", 12, 8)
    (at,) = struct.unpack_from(order + number, exif, 8 if is_big else 4)
    for entry in _directory(exif, order + ("Q" if is_big else "H"), at, entry_bytes):
        tag, kind = struct.unpack_from(order + "HH", exif, entry)
        if tag == _EXIF_ORIENTATION and kind == 3:
            (value,) = struct.unpack_from(order + "H", exif, entry + value_at)
            return value if value in _UPRIGHT else 1
    return 1


def _directory(exif: bytes, count: str, at: int, entry_bytes: int) -> Sequence[int]:
    """Find where the entries of a TIFF directory start, as far as they are there."""
    first = at + struct.calcsize(count)
    if first > len(exif):
        return []
    (entries,) = struct.unpack_from(count, exif, at)
    there = min(entries, (len(exif) - first) // entry_bytes)
    return range(first, first + there * entry_bytes, entry_bytes)
