"""Numbers out of MATLAB's files (level 5), without a library for it.

Only what such files of landmarks hold is read: full arrays of real numbers, compressed
or not. Nothing in such a file can run code.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sfm_features.errors import InputError
from sfm_features.types import F64

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_KINDS = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8",
    12: "i8", 13: "u8",
}  # fmt: skip


def read_matrix(path: Path, name: str) -> F64:
    """Read the matrix of a name."""
    try:
        content = path.read_bytes()
        order = {b"IM": "<", b"MI": ">"}[content[126:128]]
        for kind, body in _split(content[_HEADER:], order):
            if kind == _COMPRESSED:
                ((kind, body),) = _split(zlib.decompress(body), order)
            found, matrix = _read_array(body, order) if kind == _MATRIX else ("", None)
            if found == name and matrix is not None:
                return matrix
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); check the data set"
        ) from error
    except (KeyError, ValueError, IndexError, struct.error, zlib.error) as error:
        raise InputError(
            f"{path}: is no MATLAB file of level 5 ({error!r}); fetch it again"
        ) from error
    raise InputError(f"{path}: has no matrix {name!r}; check the data set's version")


def _split(content: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Go through the elements: their kind, and what they hold."""
    at = 0
    while at + 8 <= len(content):
        kind, size = struct.unpack_from(order + "II", content, at)
        if kind >> 16:  # up to four bytes, in the place of the size
            yield kind & 0xFFFF, content[at + 4 : at + 4 + (kind >> 16)]
            at += 8
            continue
        if at + 8 + size > len(content):
            raise ValueError("is cut off")
        yield kind, content[at + 8 : at + 8 + size]
        # All but compressed elements end at multiples of eight.
        at += 8 + size + (0 if kind == _COMPRESSED else -size % 8)


def _read_array(body: bytes, order: str) -> tuple[str, F64 | None]:
    """Read a matrix's name and, if they are plain, its numbers."""
    (_, _), (_, shape), (_, name), *parts = _split(body, order)
    sizes = np.frombuffer(shape, order + "i4")
    text = name.decode("ascii", "replace")
    if not parts or parts[0][0] not in _KINDS:
        return text, None
    kind, values = parts[0]
    numbers = np.frombuffer(values, order + _KINDS[kind])
    if len(numbers) != np.prod(sizes):
        return text, None
    return text, numbers.reshape(sizes, order="F").astype(np.float64)
