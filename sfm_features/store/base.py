"""Opening, continuing and committing an HDF5 file of ours, and naming its damage."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

import h5py
import numpy as np

from sfm_features.errors import (
    BusyStore,
    DamagedStore,
    InputError,
    NameCollision,
    StaleStore,
    StoreError,
)
from sfm_features.journal import (
    JournaledFile,
    hold_interrupts,
    journal_path,
    recover,
)
from sfm_features.store.groups import copy_item, is_same_item

if TYPE_CHECKING:
    from typing_extensions import Self

Config = Mapping[str, Any]

_FORMAT = "sfm-features"
_FORMAT_VERSION = 1
_LIBVER = ("v108", "v108")  # compact groups without the flag that "latest" leaves set
_SQLITE_START = b"SQLite format 3\0"
_HDF5_ERRORS = (OSError, RuntimeError, KeyError, ValueError)  # as h5py raises them


class Store:
    """One HDF5 file: open it to read, or append to it inside a `with`."""

    kind: ClassVar[str]
    _required: ClassVar[tuple[str, ...]]
    # By number and not by time, so that the same work makes the same bytes.
    _groups_per_commit: ClassVar[int]

    def __init__(self, path: Path, file: Any, journaled: JournaledFile | None) -> None:
        self.path = path
        self._file = file
        self._journaled = journaled
        self._uncommitted = 0
        self._ours = file.attrs.get("format") == _FORMAT

    @classmethod
    @hold_interrupts()
    def open(cls, path: Path) -> Self:
        """Open a file to read; raise DamagedStore when it is not readable HDF5."""
        if path.is_dir():
            raise InputError(f"{path}: is a folder; give a file of {cls.kind}")
        if not path.is_file():
            raise InputError(f"{path}: no such file; make it with `sfm-features`")
        if _is_database(path):
            raise InputError(
                f"{path}: is a COLMAP database, which is not read here; give an HDF5 "
                f"file of {cls.kind}, as `sfm-features` or hloc writes it; "
                "`sfm-features convert` makes one of a database"
            )
        recover(path)
        if path.stat().st_size == 0:
            raise InputError(
                f"{path}: is empty, as nothing was finished before its making was "
                "stopped; make it again"
            )
        with _explain_open_errors(path):
            store = cls(path, h5py.File(path, "r"), None)
            store._check_kind()
        return store

    @classmethod
    @hold_interrupts()
    def append(cls, path: Path, config: Config, anew: bool = False) -> Self:
        """Create a file, or continue one that was made with the same config.

        Or, if asked to, start it anew: what it held is lost.
        """
        if _is_database(path):
            raise StoreError(
                f"{path}: is a COLMAP database, so no {cls.kind} are written into it; "
                "choose another --output"
            )
        if anew:
            cls._require_own(path)
        journaled = JournaledFile(path, anew)
        try:
            is_new = journaled.is_new
            with _explain_open_errors(path):
                mode = "w" if is_new else "r+"
                file = h5py.File(journaled, mode, libver=_LIBVER)
                store = cls(path, file, journaled)
                if is_new:
                    store._write_header(config)
                    store.commit()
                elif not store._ours:  # it says nothing of how it was made
                    raise StoreError(
                        f"{path}: was made by another tool, so nothing is added to "
                        "it; choose another --output"
                    )
                store._check_kind()
                store._check_config(config)
        except BaseException:
            journaled.close()
            raise
        return store

    @classmethod
    def _require_own(cls, path: Path) -> None:
        """Raise StoreError for a file of another kind: nobody meant to lose that."""
        if (
            not path.is_file()
            or path.stat().st_size == 0
            or journal_path(path).exists()  # its first commit may be in there
        ):
            return
        holds = cls.kind  # unless it says otherwise: it may be damaged
        if not h5py.is_hdf5(path):
            holds = "something else than HDF5"
        else:
            with contextlib.suppress(*_HDF5_ERRORS), h5py.File(path, "r") as file:
                holds = file.attrs.get("kind", cls.kind)
        if holds != cls.kind:
            raise StoreError(
                f"{path}: holds {holds}, so no {cls.kind} are written over it; choose "
                "another --output, or delete it"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @hold_interrupts()
    def close(self) -> None:
        """Commit and close."""
        try:
            if self._file and self._journaled:
                self._file.flush()
            self._file.close()
            if self._journaled:
                self._journaled.commit()
        finally:
            if self._journaled:
                self._journaled.close()

    @hold_interrupts()
    def commit(self) -> None:
        """Make everything written so far permanent."""
        assert self._journaled is not None, "opened to read"
        self._file.flush()
        self._journaled.commit()
        self._uncommitted = 0

    @property
    def config(self) -> Config:
        """The settings the file was made with; empty in a file that is not ours."""
        if not self._ours:
            return {}
        with explain_damage(self.path, self._ours):
            settings = json.loads(str(self._file.attrs.get("config", "{}")))
            if not isinstance(settings, dict):
                raise ValueError(f"its settings are {settings!r}")
        return settings

    @hold_interrupts()
    def find_key(self, key: str) -> str | None:
        """Return a key if something complete is there."""
        item = self._file.get(key)
        is_there = item is not None and self._is_complete(item, self._required)
        return key if is_there else None

    @hold_interrupts()
    def holds_same(self, other: Self, key: str) -> bool:
        """Tell whether both files have the same at a key."""
        with explain_damage(other.path, other._ours):
            theirs = other._file[key]
            with explain_damage(self.path, self._ours):
                return is_same_item(self._file[key], theirs)

    @hold_interrupts()
    def copy(self, other: Self, key: str) -> None:
        """Take over a group with all it holds; permanent after the next commit."""
        with explain_damage(other.path, other._ours):
            if key in self._file:
                del self._file[key]  # half-written
            item = copy_item(other._file, self._file, key)
        self._finish_group(item)

    def _write_header(self, config: Config) -> None:
        self._ours = True
        self._file.attrs["format"] = _FORMAT
        self._file.attrs["format_version"] = _FORMAT_VERSION
        self._file.attrs["kind"] = self.kind
        self._file.attrs["config"] = json.dumps(config, sort_keys=True)

    def _check_kind(self) -> None:
        kind = self._file.attrs.get("kind", self.kind)
        if kind != self.kind:
            raise StoreError(
                f"{self.path}: holds {kind}, not {self.kind}; give the other file"
            )
        version = self._file.attrs.get("format_version", _FORMAT_VERSION)
        if not isinstance(version, int | np.integer):
            raise ValueError(f"format_version is {version!r}")
        if version > _FORMAT_VERSION:
            raise StoreError(
                f"{self.path}: written by a newer version (format {version}); "
                "upgrade sfm-features"
            )

    def _check_config(self, wanted: Config) -> None:
        stored = self.config
        for field in sorted({*stored, *wanted}):
            if stored.get(field) != json.loads(json.dumps(wanted.get(field))):
                raise StaleStore(
                    f"{self.path}: made with {field} = {stored.get(field)!r}, now "
                    f"asked for {wanted.get(field)!r}; choose another --output, or "
                    "delete this file (or --overwrite, where the command has it)"
                )

    def _write_group(self, key: str, datasets: Mapping[str, Any]) -> Any:
        with explain_damage(self.path, self._ours):
            if key in self._file:
                del self._file[key]  # left by another tool or half-written
            group = self._file.create_group(key)
            for name, value in datasets.items():
                group.create_dataset(name, data=value)
        return group

    def _finish_group(self, group: Any) -> None:
        group.attrs["complete"] = True
        self._uncommitted += 1
        if self._uncommitted == self._groups_per_commit:
            self.commit()

    def _is_complete(self, group: Any, required: Iterable[str]) -> bool:
        if self._ours:
            # It is never written but as True; to read it takes ten times as long.
            return bool(h5py.h5a.exists(group.id, b"complete"))
        return all(name in group for name in required)


class NamedStore(Store):
    """A file with a group for each image, at its name."""

    @hold_interrupts()
    def __contains__(self, name: str) -> bool:
        group = self._file.get(name)
        return isinstance(group, h5py.Group) and self._is_complete(
            group, self._required
        )

    @hold_interrupts()
    def names(self) -> list[str]:
        """List the images that are complete, sorted."""
        with explain_damage(self.path, self._ours):
            return sorted(self._walk(self._file, ""))

    def keys(self) -> list[str]:
        """List where the complete groups are: at the images' names."""
        return self.names()

    @hold_interrupts()
    def drop(self, name: str) -> None:
        """Forget an image; it is gone after the next commit."""
        with explain_damage(self.path, self._ours):
            del self._file[name]

    def _walk(self, group: Any, prefix: str) -> Iterator[str]:
        # A folder of photographs may be called like it.
        if isinstance(group.get(self._required[0]), h5py.Dataset):
            if self._is_complete(group, self._required):
                yield prefix
            return
        for key in group:
            if isinstance(group.get(key, getclass=True), type) and isinstance(
                child := group[key], h5py.Group
            ):
                yield from self._walk(child, f"{prefix}/{key}" if prefix else key)


def refuse_nested(names: Iterable[str]) -> None:
    """Raise NameCollision when an image has the name of another one's folder."""
    known = set(names)
    for name in sorted(known):
        for end in (i for i, letter in enumerate(name) if letter == "/"):
            if name[:end] in known:
                raise NameCollision(
                    f"{name[:end]!r} and {name!r} cannot be in one file, as the first "
                    "is the folder of the second; rename one of them"
                )


def read_array(group: Any, name: str, dimensions: int) -> Any:
    """Read an array; ValueError if another tool stored something else there."""
    item = group[name]
    if not isinstance(item, h5py.Dataset) or item.ndim != dimensions:
        what = f"of shape {item.shape}" if isinstance(item, h5py.Dataset) else "a group"
        raise ValueError(
            f"{group.name.strip('/')}: {name} is {what}, not an array of {dimensions} "
            f"dimension{'s' if dimensions > 1 else ''}"
        )
    return item[()]


def read_number(group: Any, attribute: str) -> int | None:
    """Read a number that is not negative, faster than h5py does for any attribute."""
    name = attribute.encode()
    if not h5py.h5a.exists(group.id, name):
        return None
    value = np.zeros((), np.uint64)
    h5py.h5a.open(group.id, name).read(value)
    return int(value)


def _is_database(path: Path) -> bool:
    """Tell an SQLite file, as COLMAP's are: it may be precious, and is not damaged."""
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE_START)) == _SQLITE_START
    except OSError:
        return False  # opening it will tell what is wrong


@contextlib.contextmanager
def _explain_open_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except BlockingIOError as error:
        raise BusyStore(
            f"{path}: another process is writing it; wait for it to end"
        ) from error
    except _HDF5_ERRORS as error:
        raise DamagedStore(
            f"{path}: not a readable HDF5 file ({_first_line(error)}); give another, "
            "or, if it is of this package, delete it and run the same command again"
        ) from error


@contextlib.contextmanager
def explain_damage(path: Path, ours: bool) -> Iterator[None]:
    """Turn HDF5's errors into one that names the file, and never costs another's."""
    try:
        yield
    except _HDF5_ERRORS as error:
        remedy = (
            "delete it and run the same command again"
            if ours
            else "another tool made it; give one in hloc's layout (docs/formats.md)"
        )
        raise DamagedStore(
            f"{path}: part of it cannot be read ({_first_line(error)}); {remedy}"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip("'\"").splitlines()[0] if str(error) else repr(error)
