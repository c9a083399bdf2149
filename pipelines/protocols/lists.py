"""Folders and lists of a data set, wherever its archives put them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sfm_features.errors import InputError
from sfm_features.queries import Query, read_queries


def choose_folder(dataset: Path, names: Sequence[str]) -> Path:
    """Return the first of some folders that is there."""
    for name in names:
        if (dataset / name).is_dir():
            return dataset / name
    raise InputError(
        f"{dataset}: has no folder {' or '.join(names)}; give the folder that the data "
        "set's archives were unpacked in (--help tells what it should hold)"
    )


def merge_lists(folder: Path, pattern: str) -> list[Query]:
    """Read all lists of a pattern; what two of them name is taken once."""
    paths = sorted(folder.glob(pattern))
    if not paths:
        raise InputError(f"{folder}: has no list {pattern}; unpack it there")
    found: dict[str, Query] = {}
    for path in paths:
        for query in read_queries(path):
            if found.setdefault(query.name, query) != query:
                raise InputError(
                    f"{path}: gives {query.name!r} another camera than a list before; "
                    "delete the list that is out of date"
                )
    return list(found.values())
