"""Points triangulated from true poses, and how near they are to ETH3D's laser scan."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipelines.benchmarks.results import Cell
from pipelines.protocols.chain import Settings
from pipelines.protocols.eth3d_scenes import Scene
from sfm_features.colmap import read_model
from sfm_features.errors import InputError
from sfm_features.journal import explain_os_errors
from sfm_features.triangulate import TriangulateOptions, triangulate
from sfm_features.types import F64

_TOLERANCES = {"1cm": "0.01", "2cm": "0.02", "5cm": "0.05"}
_LINES = {"accuracy": "Accuracies", "completeness": "Completenesses"}
_SCAN = "dslr_scan_eval/scan_alignment.mlp"


def measure_surface(
    scene: Scene, output: Path, settings: Settings, evaluator: Path | None
) -> dict[str, Cell]:
    """Triangulate a scene that was prepared; write points.ply, and have it measured."""
    options = TriangulateOptions(
        features=output / "features.h5", matches=output / "matches.h5"
    )
    triangulate(
        scene.reference, scene.images, output / "points", options, run=settings.run
    )  # fmt: skip
    made = read_model(output / "points/sparse/0")
    path = output / "points.ply"
    write_ply(path, made.points)
    figures: dict[str, Cell] = {
        "points": len(made.points),
        "track length": made.mean_track_length,
        "reprojection error, px": made.mean_error_px,
    }
    if evaluator is None:
        return figures
    return figures | evaluate(evaluator, path, scene.folder / _SCAN)


def write_ply(path: Path, points: F64) -> None:
    """Write points (N, 3) as single-precision PLY."""
    header = (
        "ply\nformat binary_little_endian 1.0\n"
        f"element vertex {len(points)}\n"
        "property float x\nproperty float y\nproperty float z\nend_header\n"
    )
    with explain_os_errors(path):
        path.write_bytes(header.encode() + points.astype("<f4").tobytes())


def evaluate(evaluator: Path, points: Path, scan: Path) -> dict[str, Cell]:
    """Have ETH3D's program compare points with a scan: accuracy and completeness."""
    for needed in (evaluator, scan):
        if not needed.is_file():
            raise InputError(
                f"{needed}: no such file; --evaluator needs ETH3D's program and the "
                "archive with dslr_scan_eval, see --help"
            )
    command = [
        str(evaluator.resolve()),
        *("--reconstruction_ply_path", str(points)),
        *("--ground_truth_mlp_path", str(scan)),
        *("--tolerances", ",".join(_TOLERANCES.values())),
    ]
    child = subprocess.run(command, capture_output=True, text=True)
    found = _parse(child.stdout)
    if child.returncode or not set(_LINES.values()) <= found.keys():
        said = (child.stderr or child.stdout).strip().splitlines() or ["silent"]
        raise InputError(
            f"{evaluator}: did not measure {points} ({said[-1]}); build it again, or "
            "leave --evaluator out"
        )
    return {
        f"{what}@{tolerance}": value
        for what, line in _LINES.items()
        for tolerance, value in zip(_TOLERANCES, found[line], strict=True)
    }


def _parse(text: str) -> Mapping[str, list[float]]:
    """Read lines like `Accuracies: 0.1 0.2 0.3`."""
    found = {}
    for line in text.splitlines():
        name, colon, rest = line.partition(":")
        try:
            numbers = np.array(rest.replace(",", " ").split(), np.float64).tolist()
        except ValueError:
            continue
        if colon and numbers:
            found[name.strip()] = numbers
    return found
