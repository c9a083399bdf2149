"""A folder of images to COLMAP models; run it again after any stop to continue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sfm_features import colmap
from sfm_features.errors import ReconstructionError
from sfm_features.extract import ExtractOptions, extract
from sfm_features.journal import explain_os_errors
from sfm_features.match import MatchOptions, match
from sfm_features.pairs import (
    pair_exhaustively,
    pair_sequentially,
    read_pairs,
    write_pairs,
)
from sfm_features.store import FeatureStore, MatchStore
from sfm_features.summary import Summary, explain_unregistered, summarize_model
from sfm_features.types import Pair, RunOptions
from sfm_features.workspace import (
    Stopwatch,
    Workspace,
    digest,
    forget_stamp,
    has_stamp,
    import_database,
    write_stamp,
)


@dataclass(frozen=True)
class ReconstructOptions:
    """What to use and what to match."""

    features: Path | None = None
    """Use this feature file (ours or hloc's) instead of extracting."""
    matches: Path | None = None
    """Use this match file (ours or hloc's) instead of matching."""
    pairs: Path | None = None
    """Match the pairs of this file instead of choosing them."""
    pairing: Literal["exhaustive", "sequential"] = "exhaustive"
    """Match all images with all, or each with those that follow it by name."""
    overlap: int = 10
    """How many images ahead, for sequential pairing."""
    verify_error_px: float = 4.0
    """Largest distance from the epipolar line at which a match is an inlier."""
    min_inliers: int = 15
    """Drop pairs with fewer verified matches."""


def reconstruct(
    images: Path,
    output: Path,
    options: ReconstructOptions = ReconstructOptions(),
    extraction: ExtractOptions = ExtractOptions(),
    matching: MatchOptions = MatchOptions(),
    cameras: colmap.CameraOptions = colmap.CameraOptions(),
    mapping: colmap.MapperOptions = colmap.MapperOptions(),
    run: RunOptions = RunOptions(),
) -> Summary:
    """Reconstruct a folder of images into OUTPUT/sparse/0, 1, ..., largest first.

    Raises ReconstructionError when no model comes out, with the summary written.
    """
    watch, workspace = Stopwatch(), Workspace(output)
    workspace.create()
    skipped: dict[str, str] = {}
    with watch.time("extract"):
        features = options.features
        if features is None:
            features = workspace.features
            skipped = extract(images, features, extraction, run).skipped
    with watch.time("match"):
        matches = options.matches
        if matches is None:
            matches = workspace.matches
            wanted = _choose_pairs(workspace, features, options)
            match(features, wanted, matches, matching, run)
    with colmap.cancel_on_signals() as stop:
        with watch.time("import"):
            imported = import_database(workspace, images, features, matches, cameras)
        with watch.time("verify"):
            colmap.verify_pairs(
                workspace.database,
                run.seed,
                options.verify_error_px,
                options.min_inliers,
                cancellation=stop,
            )
        with watch.time("map"):
            mapping = replace(mapping, seed=run.seed)
            made_from = digest(imported, options, mapping)
            failure = _map(workspace, images, mapping, made_from, stop)
    summary = _summarize(workspace, features, matches, skipped, watch.seconds)
    with explain_os_errors(output):
        summary.write(output)
    if failure is not None:
        raise failure
    return summary


def _choose_pairs(
    workspace: Workspace, features: Path, options: ReconstructOptions
) -> list[Pair]:
    with FeatureStore.open(features) as store:
        names = store.names()
    if options.pairs is not None:
        return read_pairs(options.pairs, names)
    if options.pairing == "sequential":
        chosen = pair_sequentially(names, options.overlap)
    else:
        chosen = pair_exhaustively(names)
    with explain_os_errors(workspace.pairs):
        write_pairs(workspace.pairs, chosen)
    return chosen


def _map(
    workspace: Workspace,
    images: Path,
    options: colmap.MapperOptions,
    made_from: str,
    stop: colmap.Cancellation,
) -> ReconstructionError | None:
    """Map unless it is done; continue a stopped mapping that was made from the same."""
    sparse, started = workspace.sparse, workspace.root / "mapping"
    if sparse.exists() and has_stamp(sparse, made_from):
        return None
    forget_stamp(sparse)
    resume = colmap.find_snapshot(sparse) if has_stamp(started, made_from) else None
    write_stamp(started, made_from)
    try:
        colmap.run_mapper(workspace.database, images, sparse, options, stop, resume)
    except ReconstructionError as error:
        return error
    write_stamp(sparse, made_from)
    forget_stamp(started)
    return None


def _summarize(
    workspace: Workspace,
    features: Path,
    matches: Path,
    skipped: Mapping[str, str],
    seconds: Mapping[str, float],
) -> Summary:
    with FeatureStore.open(features) as f, MatchStore.open(matches) as m:
        counts = {name: len(f.read_keypoints(name)) for name in f.names()}
        paired = m.pairs(counts)
    verified = {
        pair: len(found)
        for pair, found in colmap.read_verified(workspace.database).items()
    }
    folders = colmap.list_models(workspace.sparse)
    models = [colmap.read_model(folder) for folder in folders]
    return Summary(
        len(counts) + len(skipped),
        [
            summarize_model(model, f"sparse/{folder.name}")
            for model, folder in zip(models, folders, strict=True)
        ],
        skipped,
        explain_unregistered(counts, paired, verified, models),
        seconds,
    )
