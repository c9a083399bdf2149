"""Opening a database, and why it cannot be opened or written: COLMAP does not tell."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pycolmap

from sfm_features.colmap.logs import silence
from sfm_features.errors import InputError, OutputError, SfmError

_MAGIC = b"SQLite format 3\0"
_LEAST_FREE = 100_000  # bytes; to open it makes journals, even to read


def open_database(path: Path) -> pycolmap.Database:
    """Open a database, quietly; it is made if it is not there.

    Raises InputError or OutputError with the cause.
    """
    silence()
    try:
        return pycolmap.Database.open(path)
    except RuntimeError as error:
        known = find_cause(path)
        if known is None and _read_start(path) not in (_MAGIC, b""):
            known = InputError(
                f"{path}: is not a COLMAP database; give another file, or delete it "
                "and run the command that makes it again"
            )
        raise known or InputError(
            f"{path}: cannot be opened; it is damaged, or another process is writing "
            "it; wait for that one to end, or delete it and run the command again"
        ) from error


def find_cause(path: Path) -> SfmError | None:
    """Return an error that says what keeps a database from being opened or written."""
    folder = path.parent
    if not folder.is_dir():
        return InputError(
            f"{path}: cannot be opened or made, as there is no folder {folder}; check "
            "the path"
        )
    if path.is_dir():
        return InputError(
            f"{path}: cannot be opened or written, as it is a folder; move it away, or "
            "choose another --output"
        )
    for place in (path, folder):
        if place.exists() and not os.access(place, os.W_OK):
            return OutputError(
                f"{path}: cannot be opened or written, as {place} is read-only, and "
                "COLMAP writes even to look; change its permissions, or copy it to a "
                "folder of your own"
            )
    if shutil.disk_usage(folder).free < _LEAST_FREE:
        return OutputError(
            f"{path}: cannot be opened or written, as the disk is full; make room"
        )
    return None


def _read_start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC))
    except OSError:
        return b""
