"""What lies in an output folder, read without the package's own readers."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import TypeAlias

import h5py
import numpy as np

from sfm_features.store import FeatureStore, MatchStore

Content: TypeAlias = dict[str, bytes]

_TABLES = ("cameras", "images", "keypoints", "matches", "two_view_geometries")


def read_hdf5(path: Path) -> Content:
    """Read every dataset and attribute of a file, as bytes with type and shape."""
    found: Content = {}

    def visit(name: str, node: h5py.Group | h5py.Dataset) -> None:
        for key in sorted(node.attrs):
            found[f"{name}@{key}"] = repr(node.attrs[key]).encode()
        if isinstance(node, h5py.Dataset):
            value = np.asarray(node[()])
            found[name] = f"{value.dtype}{value.shape}".encode() + value.tobytes()

    with h5py.File(path, "r") as file:
        visit("", file)
        file.visititems(visit)
    return found


def entry_of(content: Content, key: str) -> Content:
    """Return what belongs to one group of a file."""
    return {
        name: value
        for name, value in content.items()
        if name.startswith((f"{key}/", f"{key}@"))
    }


def read_tables(database: Path) -> dict[str, list[tuple[object, ...]]]:
    """Read the rows of a database's tables, in order."""
    handle = sqlite3.connect(database)
    try:
        return {
            table: sorted(handle.execute(f"SELECT * FROM {table}"), key=repr)
            for table in _TABLES
        }
    finally:
        handle.close()


def read_files(folder: Path) -> Content:
    """Read the files below a folder by relative name."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def copy_with_companions(path: Path, target: Path) -> Path:
    """Copy a file and its journals, so that looking at it changes nothing."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for found in path.parent.glob(f"{path.name}*"):
        shutil.copy2(found, target / found.name)
    return target / path.name


def check_store(
    path: Path, kind: type[FeatureStore | MatchStore], whole: Content, scratch: Path
) -> int:
    """Assert that what a file calls complete equals the reference; return how many.

    A file of no bytes is one whose first entry has not come yet.
    """
    copy = copy_with_companions(path, scratch)
    if copy.stat().st_size == 0 and not copy.with_name(f"{copy.name}.journal").exists():
        return 0
    try:
        store = kind.open(copy)
    except Exception:
        if copy.stat().st_size == 0:  # nothing committed: says so, and is not damaged
            return 0
        raise
    with store:
        if isinstance(store, FeatureStore):
            keys = store.names()
            for name in keys:
                store.read(name)
        else:
            file = store._file
            keys = [f"{a}/{b}" for a in file for b in file[a]]
            keys = [key for key in keys if file[key].attrs.get("complete")]
    content = read_hdf5(copy)
    for key in keys:
        entry = entry_of(content, key)
        assert entry and entry == entry_of(whole, key), f"{path.name}: {key}"
    return len(keys)
