"""Unfinished models beside an output folder, and putting finished ones in place."""

from __future__ import annotations

import logging
import os
import re
import shutil
import struct
import time
from collections.abc import Sequence
from pathlib import Path

from sfm_features.colmap.files import MODEL_FILES, is_whole
from sfm_features.errors import OutputError

log = logging.getLogger(__name__)

_WORK_NAME = re.compile(r"\.\d+\.work")  # left by a killed triangulation
_LITTER = ".DS_Store"  # left by whoever looks into a folder on a Mac
_KEEP = 2  # the newest may be half written when the process is killed


def work_dir(output: Path) -> Path:
    """Return the folder, beside `output`, that holds what is unfinished."""
    return output.with_name(f".{output.name}.work")


def snapshots_dir(output: Path) -> Path:
    """Return the folder of the snapshots made on the way to `output`."""
    return work_dir(output) / "snapshots"


def find_snapshot(output: Path) -> Path | None:
    """Find the furthest whole model left by a stopped mapping; None if there is none.

    Furthest: most registered images, then newest.
    """
    for snapshot in _rank_snapshots(output):
        if is_whole(snapshot):
            return snapshot
    return None


def prune_snapshots(output: Path) -> None:
    """Delete all snapshots but the furthest two and the newest."""
    ranked = _rank_snapshots(output)
    newest = max(ranked, key=lambda path: path.name, default=None)
    for snapshot in ranked[_KEEP:]:
        if snapshot != newest:
            shutil.rmtree(snapshot, ignore_errors=True)


def keep_as_snapshot(models: Path, output: Path) -> Path | None:
    """Move the largest model below `models` to the snapshots; None if there is none."""
    found = [path for path in (models, *models.glob("*")) if is_whole(path)]
    if not found:
        return None
    best = max(found, key=_count_images)
    target = snapshots_dir(output) / str(time.time_ns() // 1_000_000)
    target.mkdir(parents=True)
    for name in MODEL_FILES:
        os.replace(best / name, target / name)
    return target


def drop_snapshots(output: Path) -> None:
    """Delete what a stopped mapping left, as it was made from something else."""
    if work_dir(output).exists():
        shutil.rmtree(snapshots_dir(output), ignore_errors=True)


def start_work(output: Path, keep: Path | None) -> Path:
    """Make an empty work folder, but for the snapshots if `keep` is one of them."""
    work = work_dir(output)
    inside = keep is not None and keep.resolve().is_relative_to(work.resolve())
    for entry in work.glob("*"):
        if not (inside and entry == snapshots_dir(output)):
            remove(entry)
    snapshots_dir(output).mkdir(parents=True, exist_ok=True)
    return work


def publish(draft: Path, output: Path) -> None:
    """Put a finished folder in place of `output` by renaming, and drop the work."""
    refuse_foreign(output)
    work = work_dir(output)
    if output.exists():
        os.replace(output, work / "replaced")
    output.parent.mkdir(parents=True, exist_ok=True)
    os.replace(draft, output)
    shutil.rmtree(work, ignore_errors=True)


def refuse_foreign(output: Path) -> None:
    """Raise if `output` holds anything but models, which publishing would delete."""
    if not output.exists():
        return
    if output.is_dir():
        foreign = [path for path in output.iterdir() if not _is_model_part(path)]
        if not foreign:
            return
        output = foreign[0]
    raise OutputError(
        f"{output}: is not a part of a COLMAP model, so the folder will not be "
        "replaced; choose another output folder"
    )


def remove(path: Path) -> None:
    """Delete a file or a folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_model_part(path: Path) -> bool:
    names = {*MODEL_FILES, _LITTER}
    if path.name in names or _WORK_NAME.fullmatch(path.name):
        return True
    return path.name.isdigit() and all(p.name in names for p in path.glob("*"))


def _rank_snapshots(output: Path) -> Sequence[Path]:
    """List snapshots, the furthest first; COLMAP names them by the time in ms."""
    found = [path for path in snapshots_dir(output).glob("*") if path.name.isdigit()]
    return sorted(found, key=lambda p: (_count_images(p), p.name), reverse=True)


def _count_images(model: Path) -> int:
    """Read the number of registered images from the head of images.bin."""
    try:
        with (model / "images.bin").open("rb") as file:
            return int(struct.unpack("<Q", file.read(8))[0])
    except (OSError, struct.error):
        return -1
