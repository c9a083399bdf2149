"""Groups of HDF5 files as they are: copied and compared with all that they hold."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np

_COMPLETE = "complete"


def copy_item(source: Any, target: Any, key: str) -> Any:
    """Copy a group's arrays and attributes, or an array, to a key of another file.

    Not by HDF5's own copying: it keeps what a newer version of HDF5 arranged.
    """
    if isinstance(source, h5py.Dataset):
        made = target.create_dataset(key, data=source[()])
    else:
        made = target.create_group(key)
        for name in _list_arrays(source):
            copy_item(source[name], made, name)
    for name, value in source.attrs.items():
        made.attrs.create(name, value, dtype=source.attrs.get_id(name).dtype)
    return made


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
    names = _list_arrays(a)
    return names == _list_arrays(b) and all(is_same_item(a[n], b[n]) for n in names)


def _list_arrays(group: Any) -> list[str]:
    return sorted(n for n in group if group.get(n, getclass=True) is h5py.Dataset)


def _are_same_attributes(a: Any, b: Any) -> bool:
    mine, its = ({*attributes} - {_COMPLETE} for attributes in (a, b))
    return mine == its and all(_is_same_value(a[name], b[name]) for name in mine)


def _is_same_value(a: Any, b: Any) -> bool:
    """Compare by bytes: what is not a number is not equal to itself."""
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return bool((a == b).all()) if a.dtype.hasobject else a.tobytes() == b.tobytes()
