"""The commands that join files and take over those of COLMAP: `merge`, `convert`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import tyro

from sfm_features.merge import merge


def run_merge(
    files: Annotated[tuple[Path, ...], tyro.conf.Positional],
    output: Path,
    overwrite: bool = False,
) -> None:
    """Join files of several machines: features, matches or global descriptors.

    $ sfm-features merge part1.h5 part2.h5 --output features.h5

    Stop it at any time and run the same command again: it continues.

    Args:
        files: HDF5 files of one kind, made with the same settings; they stay as they
            are.
        output: HDF5 file to write or to complete (hloc's layout).
        overwrite: Start the file anew.
    """
    merge(files, output, overwrite)


COMMANDS: dict[str, Callable[..., Any]] = {
    "merge": run_merge,
}
