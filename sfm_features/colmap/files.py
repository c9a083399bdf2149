"""The files that make up a database or a model."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sfm_features.colmap.opening import open_database
from sfm_features.errors import InputError, OutputError

MODEL_FILES = tuple(
    f"{name}.bin" for name in ("cameras", "images", "points3D", "rigs", "frames")
)
_POSE_BYTES = 64  # of an image: id 4, rotation 32, translation 24, camera 4
KEYPOINT = np.dtype([("xy", "<f8", 2), ("point", "<u8")])
POINT = np.dtype(
    [("id", "<u8"), ("xyz", "<f8", 3), ("colour", "u1", 3), ("error", "<f8")]
)
_OBSERVATION_BYTES = 8  # image 4, keypoint 4


def require_database(database: Path) -> None:
    """Raise if there is no database, which COLMAP would create empty."""
    if not database.is_file():
        raise InputError(f"{database}: no such database; import features first")


def settings_note(database: Path) -> Path:
    """Return the file that says how a database was verified."""
    return database.with_name(f".{database.name}.verified")


def remove_database(database: Path) -> None:
    """Delete a database and what belongs to it, the database itself first."""
    database.unlink(missing_ok=True)
    for suffix in ("-wal", "-shm", "-journal"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    settings_note(database).unlink(missing_ok=True)


def require_space(path: Path, size: int) -> None:
    """Raise if there is no room for `size` bytes; COLMAP aborts on a full disk.

    A file is made that large and dropped: that heeds quotas and limits, too.
    """
    needs = f"{path}: no space left, it needs {size / 1e6:.1f} MB; make room"
    if shutil.disk_usage(path.parent).free < size:
        raise OutputError(needs)
    if not size or not hasattr(os, "posix_fallocate"):  # macOS has none
        return
    try:
        with tempfile.TemporaryFile(dir=path.parent) as probe:
            os.posix_fallocate(probe.fileno(), 0, size)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            raise OutputError(f"{needs} ({error.strerror})") from error
        # Not every disk can reserve space; what else is wrong will show at once.


def copy_database(database: Path, target: Path) -> None:
    """Copy a database that nobody is writing, with what is only in its journal."""
    open_database(database).close()  # the last to close it empties the journal
    for suffix in ("", "-wal"):
        source = database.with_name(database.name + suffix)
        if source.is_file():
            shutil.copyfile(source, target.with_name(target.name + suffix))


def is_whole(model: Path) -> bool:
    """Whether all five files of a model are there, and written to their ends.

    The small ones are written first, so it is enough that the others are complete.
    Loading would not tell: COLMAP may read a cut file as it is, or never finish.
    """
    return all((model / name).is_file() for name in MODEL_FILES) and not is_cut(model)


def is_cut(model: Path) -> bool:
    """Whether images.bin or points3D.bin end before, or after, their last entry."""
    try:
        return not (
            _ends_with_last_image((model / "images.bin").read_bytes())
            and _ends_with_last_point((model / "points3D.bin").read_bytes())
        )
    except (struct.error, OverflowError, ValueError):
        return True


def require_whole(model: Path, output: Path) -> None:
    """Raise if a model just written is cut off: COLMAP does not check its writes."""
    if not is_whole(model):
        raise OutputError(f"{output}: the disk is full; make room and run it again")


def scan_images(content: bytes) -> Iterator[tuple[str, int, int]]:
    """Yield each image's name, the offset of its keypoints and their number."""
    (num_images,) = struct.unpack_from("<Q", content)
    end = 8
    for _ in range(num_images):
        start = end + _POSE_BYTES
        name_end = content.index(b"\0", start)
        (num_keypoints,) = struct.unpack_from("<Q", content, name_end + 1)
        yield content[start:name_end].decode(), name_end + 9, num_keypoints
        end = name_end + 9 + num_keypoints * KEYPOINT.itemsize


def _ends_with_last_image(content: bytes) -> bool:
    end = 8
    for _, offset, num_keypoints in scan_images(content):
        end = offset + num_keypoints * KEYPOINT.itemsize
    return end == len(content)


def scan_points(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield each point's offset and track length."""
    (num_points,) = struct.unpack_from("<Q", content)
    end = 8
    for _ in range(num_points):
        (track_length,) = struct.unpack_from("<Q", content, end + POINT.itemsize)
        yield end, track_length
        end += POINT.itemsize + 8 + track_length * _OBSERVATION_BYTES


def _ends_with_last_point(content: bytes) -> bool:
    end = 8
    for offset, track_length in scan_points(content):
        end = offset + POINT.itemsize + 8 + track_length * _OBSERVATION_BYTES
    return end == len(content)
