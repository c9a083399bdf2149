"""Triangulation with known poses."""

from __future__ import annotations

import logging
from pathlib import Path

import pycolmap

from sfm_features.colmap import snapshots
from sfm_features.colmap.files import require_whole
from sfm_features.colmap.models import without_rigs
from sfm_features.colmap.running import Cancellation, run_with_progress
from sfm_features.colmap.verification import (
    VerifyOptions,
    read_matching_model,
    verify_pairs_by_poses,
)
from sfm_features.errors import InputError, ReconstructionError

log = logging.getLogger(__name__)


def triangulate_model(
    model_dir: Path,
    database: Path,
    images_dir: Path,
    output: Path,
    seed: int = 0,
    max_error_px: float = 4.0,
    min_angle_deg: float = 1.5,
    keep_two_view_tracks: bool = True,
    extract_colours: bool = True,
    num_threads: int = -1,
    cancellation: Cancellation | None = None,
) -> Path:
    """Triangulate a database's matches with a model's poses and intrinsics, unchanged.

    Cameras of one rig stay where they are, but the new model has no rigs.
    The database must hold the model's images; import them with it as `reference`.
    `output` is the new model's folder; it appears whole or not at all.
    Raises Cancelled.
    """
    stop = cancellation or Cancellation()
    if not images_dir.is_dir():
        raise InputError(f"{images_dir}: no such folder; give the folder of the images")
    snapshots.refuse_foreign(output)
    # COLMAP skips two-view geometries without a configuration and then triangulates
    # nothing, silently; verification by poses writes rows that it does use.
    verify_pairs_by_poses(
        *(database, model_dir, VerifyOptions(max_error_px), seed),
        num_threads=num_threads,
        cancellation=stop,
    )
    # COLMAP wants the rigs of the database, where each camera is a rig of its own.
    model = without_rigs(read_matching_model(model_dir, database))
    draft = snapshots.start_work(output, keep=None) / "triangulated"
    draft.mkdir()
    options = pycolmap.IncrementalPipelineOptions(
        num_threads=num_threads, random_seed=seed, extract_colors=extract_colours
    )
    options.triangulation.ignore_two_view_tracks = not keep_two_view_tracks
    options.triangulation.min_angle = min_angle_deg
    options.mapper.filter_min_tri_angle = min_angle_deg
    options.mapper.filter_max_reproj_error = max_error_px

    def work() -> pycolmap.Reconstruction:
        return pycolmap.triangulate_points(
            *(model, database, images_dir, draft),
            clear_points=True,
            options=options,
            cancellation_token=stop.token,
        )

    try:
        made = run_with_progress(work, "triangulate", stop)
    except (IndexError, ValueError, RuntimeError) as error:
        raise ReconstructionError(
            f"{model_dir}: COLMAP cannot triangulate with this model ({error}); "
            f"delete {database} and run the same command again"
        ) from error
    if made.num_points3D() == 0:
        raise ReconstructionError(
            f"{database}: no point could be triangulated; check that {model_dir} was "
            "made from the same image files"
        )
    require_whole(draft, output)
    snapshots.publish(draft, output)
    log.info("%s: %d points", output, made.num_points3D())
    return output
