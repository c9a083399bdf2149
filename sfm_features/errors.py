"""What can go wrong by a user's hand. Every message names the thing, cause and remedy.

SfmError
├── InputError           a path, name or list that cannot be used
│   ├── ImageError       one image cannot be decoded
│   ├── PairsError       a pairs file cannot be understood
│   └── NameCollision    two image names share one key in hloc's layout
├── OptionError          an option's value is not one of the choices, or does not fit
├── StoreError           an HDF5 file cannot be used
│   ├── StaleStore       it was made with other settings
│   ├── DamagedStore     it is cut off or not HDF5
│   └── BusyStore        another process is writing it
├── OutputError          the disk is full or read-only
├── MissingExtra         an optional dependency is not installed
├── WeightsError         weights are absent, damaged or of another network
├── ReconstructionError  no model came out
└── Cancelled            the work was stopped on request; run it again to continue
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any


class SfmError(Exception):
    """Base of all errors with a remedy: the shell prints it and exits with code 2."""


class InputError(SfmError):
    """A path, name or list that cannot be used."""


class ImageError(InputError):
    """One image cannot be decoded."""


class PairsError(InputError):
    """A pairs file cannot be understood."""


class NameCollision(InputError):
    """Two image names share one key in hloc's HDF5 layout."""


class OptionError(SfmError):
    """An option's value is not one of the choices, or does not fit."""


class StoreError(SfmError):
    """An HDF5 file cannot be used."""


class StaleStore(StoreError):
    """A file was made with other settings."""


class DamagedStore(StoreError):
    """A file is cut off or is not HDF5."""


class BusyStore(StoreError):
    """Another process is writing the file."""


class OutputError(SfmError):
    """The disk is full or read-only."""


class MissingExtra(SfmError):
    """An optional dependency is not installed."""


class WeightsError(SfmError):
    """Weights are absent, damaged or belong to another network."""


class ReconstructionError(SfmError):
    """No model came out."""


class Cancelled(SfmError):
    """The work was stopped on request; run it again to go on where it stopped."""


MOST_INT = 2**31 - 1
"""The largest number that COLMAP and OpenCV take for most options."""


def require_at_least(least: int, **options: int) -> None:
    """Raise OptionError for an option below what makes sense, or too large for C."""
    for name, value in options.items():
        flag = name.replace("_", "-")
        if value < least:
            raise OptionError(f"--{flag} {value}: must be at least {least}")
        if value > MOST_INT:
            raise OptionError(f"--{flag} {value}: must be at most {MOST_INT}")


def refuse_unused(options: Any, names: Iterable[str], why: str) -> None:
    """Raise OptionError for one of these options that is given: it has no effect.

    One that is given as what it is by default cannot be told.
    """
    for name in names:
        if getattr(options, name) != getattr(type(options), name):
            raise OptionError(f"--{name.replace('_', '-')}: {why}")


def require_other_file(output: Path, *inputs: Path | None) -> None:
    """Raise OptionError if a file to write is one of those that are read."""
    there = [path for path in inputs if path is not None and path.exists()]
    if output.exists() and any(output.samefile(path) for path in there):
        raise OptionError(
            f"{output}: is read and would be overwritten; choose another --output"
        )


def require_files(**options: Path | None) -> None:
    """Raise InputError for a file that an option names and that is not there."""
    for name, path in options.items():
        if path is not None and not path.is_file():
            raise InputError(f"{path}: no such file; check --{name}")


def suggest(name: str, names: Iterable[str]) -> str:
    """Say which name is most like one that is absent; nothing if none is.

    An image may be listed with another folder before it.
    """
    there, bare = list(names), PurePosixPath(name).name
    close = [other for other in there if PurePosixPath(other).name == bare]
    close = close or difflib.get_close_matches(name, there, n=1)
    return f" (there is {close[0]!r})" if close else ""
