"""Reads the pickled arrays of data sets without running what a pickle may ask for.

A pickle is a program, and a stranger's may do anything. Here nothing is ever looked up
but the few names by which numpy stores arrays, and behind these names stand harmless
things of our own that only remember what they are given. Real arrays are made of it
afterwards, from plain numbers and lists.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sfm_features.errors import InputError

_NUMBERS = "biufUS"
"""Kinds of numpy's types that are numbers or text: whatever bytes they are made of."""


class _Type:
    """A numpy type, by its name."""

    def __init__(self, name: str, *_: object) -> None:
        self.name = str(name)

    def __setstate__(self, state: Sequence[Any]) -> None:
        order = state[1]
        if order in ("<", ">") and self.name != "O8":
            self.name = order + self.name

    def make(self) -> np.dtype[Any]:
        made = np.dtype(self.name)
        if made.kind not in _NUMBERS:
            raise ValueError(f"type {self.name} is not of numbers or text")
        return made


class _Array:
    """An array whose shape and content come later."""

    def __init__(self, *_: object) -> None:
        self.shape: tuple[int, ...] = (0,)
        self.type = _Type("f8")
        self.content: Any = b""
        self.is_fortran = False

    def __setstate__(self, state: Sequence[Any]) -> None:
        _, self.shape, self.type, self.is_fortran, self.content = state

    def make(self) -> Any:
        order: Any = "F" if self.is_fortran else "C"
        if not isinstance(self.content, list):
            numbers = np.frombuffer(_to_bytes(self.content), self.type.make())
            return numbers.reshape(self.shape, order=order)
        made = np.empty(len(self.content), object)
        for i, item in enumerate(self.content):
            made[i] = _revive(item)
        return made.reshape(self.shape, order=order)


class _Buffer(_Array):
    """An array of which everything comes at once, as newer pickles have it."""

    def __init__(
        self, content: Any, type_: _Type, shape: tuple[int, ...], order: str
    ) -> None:
        super().__init__()
        self.content, self.type, self.shape = content, type_, shape
        self.is_fortran = order == "F"


class _Scalar:
    """A single number."""

    def __init__(self, type_: _Type, content: Any = b"") -> None:
        self.type, self.content = type_, content

    def make(self) -> Any:
        return np.frombuffer(_to_bytes(self.content), self.type.make())[0]


class _Text:
    """Bytes, which old pickles hold as text."""

    def __init__(self, text: str, encoding: str = "latin1") -> None:
        if encoding not in ("latin1", "latin-1"):
            raise ValueError(f"encoding {encoding!r}")
        self.text = text

    def make(self) -> bytes:
        return self.text.encode("latin1")


_KNOWN: Mapping[tuple[str, str], type] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _Text,
    **{
        (f"numpy.{core}.{module}", name): stand_in
        for core in ("core", "_core")
        for module, name, stand_in in (
            ("multiarray", "_reconstruct", _Array),
            ("multiarray", "scalar", _Scalar),
            ("numeric", "_frombuffer", _Buffer),
        )
    },
}


class _Refusing(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _KNOWN[module, name]


def load_arrays(path: Path) -> dict[str, Any]:
    """Read a pickled dictionary of arrays, or an .npz whose arrays hold objects."""
    try:
        content = path.read_bytes()
        if zipfile.is_zipfile(io.BytesIO(content)):
            return _load_zip(content)
        found = _load_pickle(io.BytesIO(content))
    except InputError:
        raise
    except Exception as error:  # whatever a damaged or hostile file makes happen
        raise InputError(
            f"{path}: holds more than arrays, or is damaged ({error}); it was not "
            "opened further: download it again from where the data set comes from"
        ) from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: holds no dictionary of arrays; download it again")
    return found


def _load_zip(content: bytes) -> dict[str, Any]:
    found = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for member in archive.namelist():
            found[member.removesuffix(".npy")] = _load_npy(archive.read(member))
    return found


def _load_npy(content: bytes) -> Any:
    """Read an array; one of objects is a pickle behind a header."""
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0
    if version != (1, 0):
        read = np.lib.format.read_array_header_2_0
    _, _, type_ = read(stream)
    if not type_.hasobject:
        return np.load(io.BytesIO(content), allow_pickle=False)
    found = _load_pickle(stream)
    is_single = isinstance(found, np.ndarray) and found.shape == ()
    return found.item() if is_single else found


def _load_pickle(stream: io.BytesIO) -> Any:
    return _revive(_Refusing(stream).load())


def _revive(value: Any) -> Any:
    """Make arrays of what was remembered, wherever it is."""
    if isinstance(value, _Array | _Scalar | _Text):
        return value.make()
    if isinstance(value, dict):
        return {_revive(key): _revive(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_revive(part) for part in value)
    if value is None or isinstance(value, str | bytes | int | float):
        return value
    raise ValueError(f"a {type(value).__name__} is in it")


def _to_bytes(content: Any) -> bytes:
    return content.make() if isinstance(content, _Text) else bytes(content)
