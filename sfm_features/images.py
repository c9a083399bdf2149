"""Listing, finding, decoding, resizing. The only door to image decoding."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sfm_features.drafts import MARK
from sfm_features.errors import ImageError, InputError, OutputError, suggest
from sfm_features.journal import LOCK
from sfm_features.orientation import TIFF_STARTS, read_orientation, turn_stored
from sfm_features.types import U8

SUFFIXES = (
    *(".bmp", ".jp2", ".jpe", ".jpeg", ".jpg", ".pgm"),
    *(".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
_NOT_DECODED = (
    *(".arw", ".avif", ".cr2", ".cr3", ".dng", ".exr", ".gif", ".hdr", ".heic"),
    *(".heif", ".jxl", ".nef", ".orf", ".psd", ".raf", ".rw2"),
)
"""Photographs, too, but not read here."""
_VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mts", ".webm", ".wmv")

_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"\0\0\0\0IEND"

logger = logging.getLogger(__name__)


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


def require_folder(folder: Path) -> None:
    """Raise InputError for a folder of images that is not there."""
    if folder.is_file():
        raise InputError(
            f"{folder}: is a file, not a folder; give the folder that it is in"
        )
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the folder of your images")


def list_images(folder: Path, image_list: Path | None = None) -> list[str]:
    """List image names relative to a folder, sorted; only those of a list if given.

    Links to folders are followed; names that begin with a dot are passed over, and so
    are folders below that a run of ours wrote.
    """
    require_folder(folder)
    if image_list is not None:
        return _read_image_list(folder, image_list)
    names, others, videos = [], Counter[str](), list[Path]()
    for path in _walk(folder):
        suffix = path.suffix.lower()
        if suffix in SUFFIXES and path.is_file():
            names.append(path.relative_to(folder).as_posix())
        elif suffix in _NOT_DECODED:
            others[suffix] += 1
        elif suffix in _VIDEOS:
            videos.append(path)
    left = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
    if videos and not names and not others:
        raise InputError(
            f"{folder}: has no images but {len(videos)} videos; cut frames out of "
            f"them, as `mkdir frames; ffmpeg -i '{min(videos)}' -vf fps=2 "
            "frames/%05d.jpg`, and give their folder"
        )
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


def check_photos(folders: Sequence[Path], names: Sequence[str]) -> None:
    """Raise InputError if all photographs are absent; say how many are, if some.

    Those who want one later can leave it at that.
    """
    absent = [n for n in names if not any((f / n).is_file() for f in folders)]
    where = ", ".join(map(str, folders))
    if absent and len(absent) == len(names):
        files = (path for path in folders[0].rglob("*") if path.is_file())
        there = [path.relative_to(folders[0]).as_posix() for path in files]
        raise InputError(
            f"{where}: has none of the {len(names)} photographs, {absent[0]!r} first"
            f"{suggest(absent[0], there)}; give the folder below which they have these "
            "names"
        )
    if absent:
        logger.warning(
            "%s: lacks %d of %d photographs, %r first; what they show is not used",
            *(where, len(absent), len(names), absent[0]),
        )


def find_photos(folders: Sequence[Path], names: Iterable[str]) -> dict[str, Path]:
    """Find photographs by their names, each in the first of the folders that has it.

    Raises InputError that names those that are in none.
    """
    found, absent = {}, []
    for name in names:
        paths = (folder / name for folder in folders)
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            absent.append(name)
        else:
            found[name] = path
    if absent:
        named = ", ".join(map(repr, absent[:3]))
        more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
        raise InputError(
            f"{', '.join(map(str, folders))}: lacks {len(absent)} of "
            f"{len(absent) + len(found)} photographs of the model: {named}{more}; give "
            "the folder below which they have these names with --images"
        )
    return found


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
        with _hush:
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
    orientation = read_orientation(exif[0]) if exif else 1
    if content.startswith(TIFF_STARTS):
        orientation = read_orientation(content)
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
        with _hush:
            values = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error as error:
        raise ImageError(
            f"{path}: cannot be decoded ({error.err}); remove it"
        ) from error
    if values is None:
        raise ImageError(
            f"{path}: is not an image that can be decoded; remove it or convert it"
        )
    if content.startswith(TIFF_STARTS):
        values = turn_stored(values, read_orientation(content))
    return np.asarray(values)


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
    names = sorted({_make_relative(s, folder) for s in read_list(image_list)})
    for name in names:
        if name.startswith(("/", "../")):
            raise InputError(
                f"{image_list}: names {name!r}, which lies outside {folder}; give the "
                "folder that holds all of them"
            )
        if not (folder / name).is_file():
            files = (path for path in folder.rglob("*") if path.is_file())
            there = [path.relative_to(folder).as_posix() for path in files]
            raise InputError(
                f"{image_list}: names {name!r}, which is not in {folder}"
                f"{suggest(name, there)}; names are relative to that folder"
            )
    return names


def _make_relative(name: str, folder: Path) -> str:
    """Name an image as the folder's listing does, as `find` may list it otherwise."""
    path = Path(os.path.normpath(name))
    for parent in (folder.absolute(), folder.resolve()):
        if path.is_relative_to(parent):
            return path.relative_to(parent).as_posix()
    return path.as_posix()


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, each folder once, be it there or behind a link.

    Links come last, so that what is really there has its own name. Outputs of ours are
    passed over: their pictures are no photographs.
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
            if {LOCK, MARK} & {*files} and not where.samefile(folder):
                logger.warning("%s: left out, as a run of sfm-features wrote it", here)
                folders.clear()
                continue
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
        cut = _PNG_END not in content  # its length and name; others may add a tail
    if cut:
        raise ImageError(f"{path}: is cut off before its end; copy it again")
