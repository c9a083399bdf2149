"""The commands that use a map: `localize`, `map-add`, `georegister`, `export`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import tyro

from sfm_features import colmap
from sfm_features.export import ExportOptions, export
from sfm_features.georegister import GeoregisterOptions, georegister
from sfm_features.match import MatchOptions
from sfm_features.queries import AddOptions, LocalizeOptions, QueryOptions
from sfm_features.shell import Positional, say
from sfm_features.types import RunOptions


def run_localize(
    map: Positional,
    queries: Positional,
    output: Path,
    source: QueryOptions,
    options: LocalizeOptions,
    run: RunOptions,
) -> None:
    """Find where photographs were taken, by a map.

    $ sfm-features localize out photos-of-today --output poses

    Stop it at any time and run the same command again: it continues.

    Args:
        map: Folder that `reconstruct` or `triangulate` wrote; it stays as it is.
        queries: Folder of images, one image, or a list of them in hloc's format.
        output: Folder to write: poses.txt, poses.json, report.html.
    """
    from sfm_features.localize import localize

    say(localize(map, queries, output, source, options, run).to_text())


def run_map_add(
    map: Positional,
    images: Positional,
    output: Path,
    options: AddOptions,
    matching: MatchOptions,
    cameras: colmap.CameraOptions,
    verification: colmap.VerifyOptions,
    run: RunOptions,
) -> None:
    """Add photographs to a map, which stays as it is; the larger one is a new folder.

    $ sfm-features map-add out photos-of-today --output larger

    Stop it at any time and run the same command again: it continues.

    Args:
        map: Folder that `reconstruct`, `triangulate` or `map-add` wrote.
        images: Folder of the new images; those that the map has are passed over.
        output: Folder to write: the larger map.
    """
    from sfm_features.map_add import add_to_map

    summary = add_to_map(
        map, images, output, options, matching, cameras, verification, run
    )
    say(summary.to_text())


def run_georegister(
    map: Positional,
    output: Path,
    options: GeoregisterOptions,
    images: Annotated[Path | None, tyro.conf.Positional] = None,
    seed: int = 0,
) -> None:
    """Put a model into metres: by GPS, known positions or a known distance.

    $ sfm-features georegister out photos --output out-in-metres

    Args:
        map: Folder that `reconstruct`, `triangulate` or `map-add` wrote, or a COLMAP
            model; it stays as it is.
        images: Folder of its photographs, whose GPS is read; default: where they were
            when the model was made.
        output: Folder to write: sparse/0 and georegistration.json.
        seed: Same seed: same result.
    """
    say(georegister(map, images, output, options, seed).to_text())


def run_export(map: Positional, output: Path, options: ExportOptions) -> None:
    """Write a model for other programs: points, text, NeRF, Gaussian splatting.

    $ sfm-features export out --format undistorted --output splat

    Args:
        map: Folder that `reconstruct`, `triangulate` or `map-add` wrote, or a COLMAP
            model; it stays as it is.
        output: Folder to write, or file for ply; an earlier export is replaced.
    """
    say(export(map, output, options).to_text())


COMMANDS: dict[str, Callable[..., Any]] = {
    "localize": run_localize,
    "map-add": run_map_add,
    "georegister": run_georegister,
    "export": run_export,
}
