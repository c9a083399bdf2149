"""Whole reconstructions, ours and plain pycolmap's, of the same images in one run."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipelines.benchmarks.results import ROOT, Cell, Result
from sfm_features.colmap import list_models, read_model
from sfm_features.errors import ReconstructionError
from sfm_features.metrics import model_errors
from sfm_features.photo_files import list_images
from sfm_features.types import Pose

logger = logging.getLogger(__name__)

_OURS = "import sys; from sfm_features.cli import main; sys.exit(main())"
_PLAIN = ROOT / "docs" / "benchmarks" / "plain_pycolmap.py"
_NO_MODEL = 2  # what the shell returns after an error with a remedy


@dataclass(frozen=True)
class _Finished:
    """A run: seconds of the whole process and by stage, folder of the largest model."""

    seconds: float
    stages: Mapping[str, float]
    model: Path | None


def measure_reconstruction(
    title: str,
    images: Path,
    output: Path,
    truth: Mapping[str, Pose] | None = None,
    seed: int = 0,
) -> Result:
    """Reconstruct a folder with `reconstruct`, by either extractor, and pycolmap."""
    runs = {
        "plain pycolmap": run_plain(images, output / "plain"),
        "reconstruct": run_ours(images, output / "evo", "evo", seed),
        "reconstruct with sift": run_ours(images, output / "sift", "sift", seed),
    }
    total = len(list_images(images))
    base = runs["plain pycolmap"].seconds
    rows = [_make_row(name, run, base, total, truth) for name, run in runs.items()]
    stages = {name: dict(run.stages) for name, run in runs.items()}
    ratio = runs["reconstruct"].seconds / base
    return Result(title, rows, [], {"ratio": ratio, "stages_s": stages})


def run_ours(images: Path, output: Path, extractor: str, seed: int = 0) -> _Finished:
    """Run the command `sfm-features reconstruct` from nothing."""
    arguments = ["reconstruct", str(images), "--output", str(output)]
    arguments += ["--extractor", extractor, "--seed", str(seed)]
    seconds, _ = _run([sys.executable, "-c", _OURS, *arguments], output)
    summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    models = list_models(output / "sparse")
    return _Finished(seconds, summary["seconds"], models[0] if models else None)


def run_plain(images: Path, output: Path) -> _Finished:
    """Run pycolmap's own pipeline from nothing."""
    command = [sys.executable, str(_PLAIN), str(images), str(output)]
    seconds, printed = _run(command, output)
    found = json.loads(printed)
    model = found["model"]
    return _Finished(seconds, found["seconds"], Path(model) if model else None)


def _run(command: list[str], output: Path) -> tuple[float, str]:
    """Run a process in a new folder with its log beside; return seconds and output."""
    shutil.rmtree(output, ignore_errors=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    log = output.with_name(f"{output.name}.log")
    logger.info("%s: working, see %s", output, log)
    start = time.perf_counter()
    with log.open("w", encoding="utf-8") as file:
        child = subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=file, text=True
        )
    if child.returncode not in (0, _NO_MODEL):
        raise ReconstructionError(
            f"{output}: the run ended with code {child.returncode}; see {log}"
        )
    return time.perf_counter() - start, child.stdout


def _make_row(
    name: str,
    run: _Finished,
    base: float,
    total: int,
    truth: Mapping[str, Pose] | None,
) -> dict[str, Cell]:
    row: dict[str, Cell] = {
        "what": name,
        "time ratio": run.seconds / base,
        **_measure_model(run.model, total, truth),
        "seconds": run.seconds,
        "seconds by stage": ", ".join(f"{k} {v:.1f}" for k, v in run.stages.items()),
    }
    return row


def _measure_model(
    folder: Path | None, total: int, truth: Mapping[str, Pose] | None
) -> dict[str, Cell]:
    if folder is None:
        return {"registered": f"0 of {total}"}
    model = read_model(folder)
    figures: dict[str, Cell] = {"registered": f"{len(model.images)} of {total}"}
    if truth is not None:
        poses = {name: image.cam_from_world for name, image in model.images.items()}
        errors = model_errors(poses, truth)
        figures |= {
            "centre error, % of diameter": 100 * errors.median_centre_share,
            "rotation error, deg": errors.median_rotation_error_deg,
        }
    return figures | {
        "points": len(model.points),
        "track length": model.mean_track_length,
        "reprojection error, px": model.mean_error_px,
    }
