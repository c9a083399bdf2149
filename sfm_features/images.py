"""Decoding, encoding, resizing. The only door to image decoding."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sfm_features.errors import ImageError, OutputError
from sfm_features.orientation import TIFF_STARTS, read_orientation, turn_stored
from sfm_features.types import U8

_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"\0\0\0\0IEND"


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


class _Hush:
    """Keeps OpenCV from writing to the terminal why it cannot decode: our errors do.

    Its level of logging is one for all threads, so the last to leave sets it back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = self._level = 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._level = cv2.utils.logging.getLogLevel()
                cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                cv2.utils.logging.setLogLevel(self._level)


_hush = _Hush()


def decode(path: Path) -> Decoded:
    """Decode a file to 8-bit RGB; EXIF orientation is reported, not applied."""
    content = _read_whole(path)
    # Without the flag OpenCV would rotate, and keypoints would be in another frame.
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    with _explain_undecodable(path):
        bgr, kinds, blobs = cv2.imdecodeWithMetadata(
            np.frombuffer(content, np.uint8), flags=flags
        )
    bgr = _require_decoded(path, bgr)
    exif = [
        blob.tobytes()
        for kind, blob in zip(kinds, blobs, strict=True)
        if kind == cv2.IMAGE_METADATA_EXIF
    ]
    orientation = read_orientation(exif[0]) if exif else 1
    if content.startswith(TIFF_STARTS):
        orientation = read_orientation(content)
        bgr = turn_stored(bgr, orientation)
    eight_bits = _reduce_to_8_bits(path, bgr)
    rgb = _as_u8(cv2.cvtColor(eight_bits, cv2.COLOR_BGR2RGB))
    return Decoded(rgb, orientation, len(content))


def decode_values(path: Path) -> NDArray[Any]:
    """Decode the numbers of a file as they are: any depth of bits, (H, W) or (H, W, C).

    Colours come in OpenCV's order; EXIF orientation is ignored.
    """
    content = _read_whole(path)
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    with _explain_undecodable(path):
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    values = _require_decoded(path, decoded)
    if content.startswith(TIFF_STARTS):
        values = turn_stored(values, read_orientation(content))
    return values


def encode(rgb: U8, path: Path) -> None:
    """Write a picture (H, W, 3) in the format that the file's name tells."""
    suffix = path.suffix.lower()
    # Others have no such setting, or lose nothing anyway.
    how = [cv2.IMWRITE_JPEG_QUALITY, 95] if suffix in (".jpg", ".jpeg", ".jpe") else []
    is_grey = suffix == ".pgm"  # which holds nothing else
    how_coloured = cv2.COLOR_RGB2GRAY if is_grey else cv2.COLOR_RGB2BGR
    done, data = cv2.imencode(suffix, cv2.cvtColor(rgb, how_coloured), how)
    if not done:  # OpenCV logs why
        raise OutputError(
            f"{path}: cannot be written in this format; convert the photographs to PNG "
            "or JPEG, and make the model of those"
        )
    path.write_bytes(data.tobytes())


def resize_to(image: U8, max_size: int) -> U8:
    """Shrink an image so that its longer side is at most `max_size`; 0 = as it is."""
    height, width = image.shape[:2]
    scale = max_size / max(height, width)
    if max_size == 0 or scale >= 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return _as_u8(cv2.resize(image, size, interpolation=cv2.INTER_AREA))


def _as_u8(image: object) -> U8:
    return np.asarray(image, np.uint8)


def _read_whole(path: Path) -> bytes:
    """Read a file; raise ImageError if that fails or it is cut short."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ImageError(
            f"{path}: cannot be read ({error.strerror}); check the file"
        ) from error
    _refuse_truncated(path, content)
    return content


@contextmanager
def _explain_undecodable(path: Path) -> Iterator[None]:
    try:
        with _hush:
            yield
    except cv2.error as error:
        raise ImageError(
            f"{path}: cannot be decoded ({error.err}); remove it"
        ) from error


def _require_decoded(path: Path, values: object) -> NDArray[Any]:
    if values is None:
        raise ImageError(
            f"{path}: is not an image that can be decoded; remove it or convert it"
        )
    return np.asarray(values)


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
        cut = _PNG_END not in content  # its length and name; others may add a tail
    if cut:
        raise ImageError(f"{path}: is cut off before its end; copy it again")
