"""The commands that join files and take over those of COLMAP: `merge`, `convert`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import tyro

from sfm_features.convert import ConvertOptions, convert
from sfm_features.merge import merge
from sfm_features.shell import Positional, say


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


def run_convert(database: Positional, features: Path, options: ConvertOptions) -> None:
    """Take over the features and matches of a COLMAP database.

    $ sfm-features convert database.db --features features.h5 --matches matches.h5

    Stop it at any time and run the same command again: it continues.

    Args:
        database: Database of COLMAP, or of a tool that writes one; it stays as it is.
        features: HDF5 file to write or to complete (hloc's layout).
    """
    say(convert(database, features, options).to_text())


COMMANDS: dict[str, Callable[..., Any]] = {
    "convert": run_convert,
    "merge": run_merge,
}
