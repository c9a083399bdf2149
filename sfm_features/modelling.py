"""From a database to models in OUTPUT/sparse: verified, mapped, polished.

What is done is kept, and what is not appears in `sparse` as a whole or not at all.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from sfm_features import colmap
from sfm_features.errors import ReconstructionError
from sfm_features.polish import polish
from sfm_features.workspace import (
    Stopwatch,
    Workspace,
    digest,
    forget_stamp,
    has_stamp,
    write_stamp,
)


def verify(
    workspace: Workspace,
    options: colmap.VerifyOptions,
    seed: int,
    imported: str,
    stop: colmap.Cancellation,
) -> str:
    """Verify the matches unless it is done; return the stamp."""
    product, stamp = workspace.verification, digest(imported, options, seed)
    if not has_stamp(product, stamp):
        forget_stamp(product)  # or, after a stop, it would vouch for the rows of two
        colmap.verify_pairs(workspace.database, options, seed, cancellation=stop)
        write_stamp(product, stamp)
    return stamp


@dataclass(frozen=True)
class ModelMaker:
    """Makes the models of a workspace from matches that are verified."""

    workspace: Workspace
    images: Path
    options: colmap.MapperOptions
    seed: int
    verified: str
    stop: colmap.Cancellation

    def make(self, polishes: bool, watch: Stopwatch) -> ReconstructionError | None:
        """Make what is not there yet; return why no model came out, or None."""
        mapped = digest(self.verified, self.options, self.seed)
        wanted = digest(mapped, "polished") if polishes else mapped
        sparse, rough = self.workspace.sparse, self.workspace.unpolished
        with watch.time("map"):
            if is_made(sparse, wanted):
                return None
            if polishes and is_made(sparse, mapped) and not is_made(rough, mapped):
                _move_models(sparse, rough, mapped)
            failure = self._map(rough if polishes else sparse, mapped)
        if failure is not None:
            return failure
        if polishes:
            with watch.time("polish"):
                forget_stamp(sparse)
                polish([self.images], rough, sparse, self.options, self.stop)
                write_stamp(sparse, wanted)
        remove_models(rough)
        return None

    def _map(self, target: Path, made_from: str) -> ReconstructionError | None:
        """Map unless it is done; continue a stopped one that was made from the same."""
        if is_made(target, made_from):
            return None
        forget_stamp(target)
        started = self.workspace.root / "mapping"
        begun = digest(made_from, target.name)
        if not has_stamp(started, begun):
            colmap.drop_snapshots(target)
            write_stamp(started, begun)
        resume = colmap.find_snapshot(target)
        try:
            colmap.run_mapper(
                *(self.workspace.database, self.images, target, self.options),
                *(self.seed, self.stop, resume),
            )
        except ReconstructionError as error:
            return error
        write_stamp(target, made_from)
        forget_stamp(started)
        return None


def remove_models(folder: Path) -> None:
    """Delete models that are not needed any more, and their stamp."""
    forget_stamp(folder)
    shutil.rmtree(folder, ignore_errors=True)


def is_made(models: Path, stamp: str) -> bool:
    """Tell whether models are there, and of what the stamp says."""
    return models.exists() and has_stamp(models, stamp)


def _move_models(source: Path, target: Path, stamp: str) -> None:
    remove_models(target)
    forget_stamp(source)
    os.replace(source, target)
    write_stamp(target, stamp)
