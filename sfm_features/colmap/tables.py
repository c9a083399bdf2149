"""What a database of COLMAP or of another tool holds, read without changing it.

By SQL, as COLMAP itself brings an older database up to date, which its own version may
then not read, and stops the program at arrays that are not as they should be.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from sfm_features.errors import InputError
from sfm_features.types import F32, I32, PIXEL_CENTRE, Pair

SIFT = "sift"
_SIFT_TYPE, _SIFT_LENGTH = 0, 128
_UNKNOWN = "unknown"
_MOST_IMAGES = 2**31 - 1  # by which COLMAP makes one number of two images
_TABLES = {"cameras", "images", "keypoints", "descriptors", "matches"}


@dataclass(frozen=True)
class StoredImage:
    """An image of a database: its name, its size, and how much is stored of it."""

    image_id: int
    name: str
    size: tuple[int, int]
    num_keypoints: int
    num_descriptors: int


class DatabaseTables:
    """An open database; see `open_tables`."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._tables = {name for (name,) in self._all("SELECT name FROM sqlite_master")}
        if missing := sorted(_TABLES - self._tables):
            raise InputError(
                f"{path}: is not a COLMAP database, as it has no {missing[0]}; give "
                "another file"
            )
        columns = self._all("SELECT name FROM pragma_table_info('descriptors')")
        self._has_type = ("type",) in columns
        self.images = self._list_images()
        self._name_of = {image.image_id: image.name for image in self.images}
        self._type = self._find_type()

    @property
    def extractor(self) -> str:
        """What the features were made by: sift, aliked_n16rot, ..., or unknown."""
        if self._type is not None:
            return self._type.name.lower()
        lengths = {cols for (cols,) in self._all("SELECT cols FROM descriptors")}
        # Before COLMAP 4 there was only SIFT, and other tools write what looks like it.
        return SIFT if lengths == {_SIFT_LENGTH} else _UNKNOWN

    def read_keypoints(self, image: StoredImage) -> F32:
        """Read the keypoints (N, 2) of an image, in our pixels."""
        with _explain(self.path):
            ((rows, cols, data),) = self._of("keypoints", "rows, cols, data", image)
            stored = _to_array(data, rows, cols, np.dtype("<f4"))
            if cols < 2 or not np.isfinite(stored[:, :2]).all():
                raise ValueError(f"the keypoints of {image.name!r} are no positions")
        xy: F32 = stored[:, :2] - np.float32(PIXEL_CENTRE)
        return xy

    def read_descriptors(self, image: StoredImage) -> F32:
        """Read the descriptors (N, D) of an image, of unit length."""
        with _explain(self.path):
            ((rows, cols, data),) = self._of("descriptors", "rows, cols, data", image)
            stored = _to_array(data, rows, cols, np.dtype("u1"))
            if self._type is not None and self._type.value != _SIFT_TYPE:
                if cols % 4:
                    raise ValueError(f"the descriptors of {image.name!r} are cut off")
                stored = stored.view("<f4")
            rows_f32: F32 = stored.astype(np.float32)
            if not np.isfinite(rows_f32).all():
                raise ValueError(f"descriptors of {image.name!r} are not numbers")
        length = np.linalg.norm(rows_f32, axis=1, keepdims=True)
        unit: F32 = rows_f32 / np.maximum(length, np.finfo(np.float32).tiny)
        return unit

    def count_pairs(self, verified: bool) -> int:
        """Count the pairs that have matches."""
        table = _match_table(verified)
        if table not in self._tables:
            return 0
        ((count,),) = self._all(f"SELECT COUNT(*) FROM {table} WHERE rows > 0")
        return int(count)

    def read_matches(self, verified: bool) -> Iterator[tuple[Pair | None, I32]]:
        """Read matches (K, 2) by pair; None for a pair of images that are not there."""
        table = _match_table(verified)
        with _explain(self.path):
            for pair_id, rows, cols, data in self._connection.execute(
                f"SELECT pair_id, rows, cols, data FROM {table} WHERE rows > 0 "
                "ORDER BY pair_id"
            ):
                names = [self._name_of.get(i) for i in divmod(pair_id, _MOST_IMAGES)]
                first, second = names
                if first is None or second is None or first == second:
                    yield None, np.zeros((0, 2), np.int32)
                    continue
                indices = _to_array(data, rows, cols, np.dtype("<u4")).astype(np.int64)
                if cols != 2 or indices.max() >= _MOST_IMAGES:
                    raise ValueError(f"{first} - {second}: matches are no indices")
                yield (first, second), indices.astype(np.int32)

    def _list_images(self) -> list[StoredImage]:
        found = []
        with _explain(self.path):
            for image_id, name, *size, keypoints, descriptors in self._all(
                "SELECT i.image_id, CAST(i.name AS BLOB), c.width, c.height, k.rows, "
                "d.rows FROM images i LEFT JOIN cameras c USING (camera_id) "
                "LEFT JOIN keypoints k USING (image_id) "
                "LEFT JOIN descriptors d USING (image_id)"
            ):
                if name is None:
                    raise ValueError(f"image {image_id} has no name")
                text = name.decode("utf-8", "backslashreplace")
                _check_name(self.path, name, text)
                if None in size or min(size) < 1:
                    raise ValueError(f"{text!r} has no camera with a size")
                width, height = map(int, size)
                counts = int(keypoints or 0), int(descriptors or 0)
                found.append(StoredImage(int(image_id), text, (width, height), *counts))
        return sorted(found, key=lambda image: image.name)

    def _find_type(self) -> pycolmap.FeatureExtractorType | None:
        """Return what COLMAP says that it made the descriptors by, if it says."""
        if not self._has_type:
            return None
        types = [t for (t,) in self._all("SELECT DISTINCT type FROM descriptors")]
        if len(types) > 1:
            raise InputError(
                f"{self.path}: has features of {len(types)} kinds, which do not match "
                "each other; give a database with one"
            )
        known = {
            kind.value: kind
            for kind in pycolmap.FeatureExtractorType.__members__.values()
        }
        if types and types[0] not in known:
            raise InputError(
                f"{self.path}: has features of a kind ({types[0]}) that is not known; "
                "it is damaged, or of a newer COLMAP: upgrade sfm-features"
            )
        kind = known[types[0]] if types else None
        return None if kind is None or kind.value < 0 else kind

    def _of(self, table: str, columns: str, image: StoredImage) -> list[Any]:
        query = f"SELECT {columns} FROM {table} WHERE image_id = {image.image_id}"
        return self._all(query)

    def _all(self, query: str) -> list[Any]:
        with _explain(self.path):
            return self._connection.execute(query).fetchall()


@contextmanager
def open_tables(path: Path) -> Iterator[DatabaseTables]:
    """Open a database to read; raise InputError for what is none."""
    if path.is_dir() or not path.is_file():
        what = "is a folder" if path.is_dir() else "no such database"
        raise InputError(f"{path}: {what}; give the database.db of COLMAP")
    # If nobody has it open: else SQLite puts files beside it, even to read.
    is_idle = not any(
        path.with_name(path.name + suffix).exists() for suffix in ("-wal", "-journal")
    )
    place = f"{path.resolve().as_uri()}?{'immutable=1' if is_idle else 'mode=ro'}"
    with _explain(path):
        connection = sqlite3.connect(place, uri=True)
    try:
        with _explain(path):
            connection.execute("BEGIN")  # what another process writes is not seen
        yield DatabaseTables(path, connection)
    finally:
        connection.close()


def _match_table(verified: bool) -> str:
    return "two_view_geometries" if verified else "matches"


def _check_name(path: Path, name: bytes, text: str) -> None:
    """Raise InputError for a name that no feature file could hold, or no folder."""
    parts = text.split("/")
    if text.encode() != name or "\0" in text or not {"", ".", ".."}.isdisjoint(parts):
        raise InputError(
            f"{path}: the image name {text!r} cannot be used; names are paths below "
            "the folder of the images, in UTF-8: rename it in the database"
        )


def _to_array(data: Any, rows: int, cols: int, kind: np.dtype[Any]) -> Any:
    """Make an array of what is stored; ValueError unless it is as large as it says."""
    content = data or b""
    if len(content) != rows * cols * kind.itemsize:
        raise ValueError(
            f"{len(content)} bytes are stored of an array of {rows} x {cols}"
        )
    return np.frombuffer(content, kind).reshape(rows, cols)


@contextmanager
def _explain(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read as a COLMAP database ({error}); it is damaged, or "
            "another process is writing it; wait for that one to end, or copy it again"
        ) from error
