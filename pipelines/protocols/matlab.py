"""Reads arrays of numbers from MATLAB's files (version 5 to 7), and nothing else."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sfm_features.errors import InputError
from sfm_features.types import F64

_HEADER_BYTES = 128
_MATRIX, _COMPRESSED = 14, 15
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8"}
_TYPES |= {12: "i8", 13: "u8"}
_FIRST_NUMERIC_CLASS = 6
"""Classes of matrices below it are cells, structures, objects, text and sparse ones."""


def read_matrix(path: Path, name: str) -> F64:
    """Read the array of a name, of any number of dimensions."""
    try:
        content = path.read_bytes()
        if content[126:128] not in (b"IM", b"MI"):
            raise ValueError("is no MATLAB file of version 5 to 7")
        order = "<" if content[126:128] == b"IM" else ">"
        at = _HEADER_BYTES
        while at + 8 <= len(content):
            kind, body, at = _read_element(content, at, order)
            if kind == _COMPRESSED:
                kind, body, _ = _read_element(zlib.decompress(body), 0, order)
            if kind == _MATRIX:
                found = _read_if_named(body, name, order)
                if found is not None:
                    return found
        raise ValueError(f"has no array {name!r}")
    except (OSError, ValueError, KeyError, struct.error, zlib.error) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); unpack the data set again"
        ) from error


def _read_element(content: bytes, at: int, order: str) -> tuple[int, bytes, int]:
    """Return an element's type, its bytes, and where the next one is."""
    kind, size = struct.unpack_from(order + "II", content, at)
    if kind >> 16:  # a small one: its size and up to four bytes are in the same place
        size, kind = kind >> 16, kind & 0xFFFF
        return kind, content[at + 4 : at + 4 + size], at + 8
    start = at + 8
    body = content[start : start + size]
    if len(body) < size:
        raise ValueError("is cut off")
    padding = 0 if kind == _COMPRESSED else -size % 8
    return kind, body, start + size + padding


def _read_if_named(body: bytes, name: str, order: str) -> F64 | None:
    _, flags, at = _read_element(body, 0, order)
    _, sizes, at = _read_element(body, at, order)
    _, named, at = _read_element(body, at, order)
    if named.decode("latin1") != name:
        return None
    (flag,) = struct.unpack_from(order + "I", flags)
    if flag & 0xFF < _FIRST_NUMERIC_CLASS or flag & 0x0800:
        raise ValueError(f"{name!r} is no array of real numbers")
    shape = np.frombuffer(sizes, order + "i4").tolist()
    kind, numbers, _ = _read_element(body, at, order)
    array: NDArray[np.generic] = np.frombuffer(numbers, order + _TYPES[kind])
    return np.asarray(array.reshape(shape, order="F"), np.float64)
