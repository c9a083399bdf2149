"""What the commands share: how paths are given, and how the shell is spoken to."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, TypeAlias

import tyro

Positional: TypeAlias = Annotated[Path, tyro.conf.Positional]


def say(text: str) -> None:
    """Say it where progress is said, so that nothing else is on standard output."""
    sys.stderr.write(text + "\n")
