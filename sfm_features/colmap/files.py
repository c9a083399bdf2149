"""The files that make up a database or a model."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

from sfm_features.colmap.logs import open_database
from sfm_features.errors import InputError

MODEL_FILES = tuple(
    f"{name}.bin" for name in ("cameras", "images", "points3D", "rigs", "frames")
)
_POINT_BYTES = 51  # id 8, position 24, colour 3, error 8, track length 8
_OBSERVATION_BYTES = 8


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


def copy_database(database: Path, target: Path) -> None:
    """Copy a database that nobody is writing, with what is only in its journal."""
    open_database(database).close()  # the last to close it empties the journal
    for suffix in ("", "-wal"):
        source = database.with_name(database.name + suffix)
        if source.is_file():
            shutil.copyfile(source, target.with_name(target.name + suffix))


def is_whole(model: Path) -> bool:
    """Whether all five files of a model are there, and written to their ends.

    COLMAP writes the points last, so it is enough that these are complete. Loading
    would not tell: COLMAP may read a cut file as it is, or never finish.
    """
    if not all((model / name).is_file() for name in MODEL_FILES):
        return False
    return is_whole_points_file(model / "points3D.bin")


def is_whole_points_file(path: Path) -> bool:
    """Whether points3D.bin ends where its last point does."""
    content = path.read_bytes()
    try:
        (num_points,) = struct.unpack_from("<Q", content)
        end = 8
        for _ in range(num_points):
            (track_length,) = struct.unpack_from("<Q", content, end + _POINT_BYTES - 8)
            end += _POINT_BYTES + track_length * _OBSERVATION_BYTES
    except (struct.error, OverflowError):
        return False
    return end == len(content)
