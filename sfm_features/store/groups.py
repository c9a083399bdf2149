"""Groups of HDF5 files as they are: copied and compared with all that they hold."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np

_COMPLETE = "complete"


def copy_item(source: Any, target: Any, key: str) -> Any:
    """Copy what is at a key of a file to another file, with its attributes."""
    try:
        source.copy(key, target, key)  # four times as fast as by hand
    except (OSError, RuntimeError, ValueError):
        # Other tools' files may be arranged as only newer versions of HDF5 do.
        if key in target:
            del target[key]
        _copy_by_hand(source[key], target, key)
    return target[key]


def _copy_by_hand(source: Any, target: Any, key: str) -> None:
    if isinstance(source, h5py.Dataset):
        made = target.create_dataset(key, data=source[()])
    else:
        made = target.create_group(key)
        for name, item in _find_arrays(source).items():
            _copy_by_hand(item, made, name)
    for name, value in source.attrs.items():
        made.attrs.create(name, value, dtype=source.attrs.get_id(name).dtype)


def is_same_item(a: Any, b: Any) -> bool:
    """Tell whether two groups, or two arrays, hold the same to the last bit.

    But for the mark of being complete, which other tools' groups do not have.
    """
    if isinstance(a, h5py.Dataset) != isinstance(b, h5py.Dataset):
        return False
    if not _are_same_attributes(a.attrs, b.attrs):
        return False
    if isinstance(a, h5py.Dataset):
        return (a.shape, a.dtype) == (b.shape, b.dtype) and _is_same_value(a[()], b[()])
    mine, its = _find_arrays(a), _find_arrays(b)
    return mine.keys() == its.keys() and all(
        is_same_item(mine[name], its[name]) for name in mine
    )


def _find_arrays(group: Any) -> dict[str, Any]:
    return {n: item for n, item in group.items() if isinstance(item, h5py.Dataset)}


def _are_same_attributes(a: Any, b: Any) -> bool:
    mine, its = ({*attributes} - {_COMPLETE} for attributes in (a, b))
    return mine == its and all(_is_same_value(a[name], b[name]) for name in mine)


def _is_same_value(a: Any, b: Any) -> bool:
    """Compare by bytes: what is not a number is not equal to itself."""
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return bool((a == b).all()) if a.dtype.hasobject else a.tobytes() == b.tobytes()
