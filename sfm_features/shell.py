"""What the commands share: how paths are given, and how the shell is spoken to."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, TypeAlias

import tyro

from sfm_features.journal import explain_os_errors, journal_path

Positional: TypeAlias = Annotated[Path, tyro.conf.Positional]


def start_anew(output: Path, overwrite: bool) -> None:
    """Delete an HDF5 file and its journal if asked to."""
    if overwrite:
        with explain_os_errors(output):
            output.unlink(missing_ok=True)
            journal_path(output).unlink(missing_ok=True)


def say(text: str) -> None:
    """Say it where progress is said, so that nothing else is on standard output."""
    sys.stderr.write(text + "\n")
