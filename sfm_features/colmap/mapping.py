"""Mapping: from verified matches to models."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import pycolmap

from sfm_features.colmap import snapshots
from sfm_features.colmap.files import copy_database, require_database, require_whole
from sfm_features.colmap.opening import open_database
from sfm_features.colmap.running import Cancellation, run_with_progress
from sfm_features.colmap.verification import count_verified
from sfm_features.errors import (
    Cancelled,
    InputError,
    OptionError,
    ReconstructionError,
    require_at_least,
)

log = logging.getLogger(__name__)

MapperName: TypeAlias = Literal["incremental", "global", "hierarchical"]
Models: TypeAlias = Mapping[int, pycolmap.Reconstruction]

_LIKE_PINHOLE = (
    *("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV"),
)
"""Models whose images fit together without a focal length."""
_FOCAL_RANGE = 2.5  # calibrated over guessed: beyond it the pairs tell nothing


@dataclass(frozen=True)
class MapperOptions:
    """How models are made."""

    mapper: MapperName = "incremental"
    """incremental; global (fast for many images); hierarchical (for thousands)."""
    num_threads: int = -1
    """Threads of a mapping that need not be repeatable; -1 = all cores."""
    repeatable: bool = True
    """Same seed, same files byte for byte on one machine; mapping takes one thread."""
    min_model_size: int = 3
    """Drop models with fewer images."""
    min_matches: int = 15
    """Leave out pairs with fewer verified matches."""
    keep_two_view_tracks: bool = True
    """Make points of what only two images see, too."""
    refine_focal_length: bool = True
    """Refine focal lengths."""
    refine_principal_point: bool = False
    """Refine principal points."""
    refine_extra_params: bool = True
    """Refine distortion."""
    extract_colours: bool = True
    """Colour the points from the images."""
    snapshot_images: int = 100
    """Save an incremental mapping each time so many images are registered, so that a
    kill loses little; 0 = never."""
    max_runtime_s: int = 0
    """End early with what there is; 0 = no limit."""

    def __post_init__(self) -> None:
        if self.mapper not in get_args(MapperName):
            raise OptionError(
                f"mapper: {self.mapper!r} is not one of "
                f"{', '.join(get_args(MapperName))}"
            )
        if self.num_threads < 1 and self.num_threads != -1:
            raise OptionError(
                f"--num-threads {self.num_threads}: must be at least 1, or -1 = all"
            )
        require_at_least(-1, num_threads=self.num_threads)
        require_at_least(
            1, min_model_size=self.min_model_size, min_matches=self.min_matches
        )
        require_at_least(
            0, snapshot_images=self.snapshot_images, max_runtime_s=self.max_runtime_s
        )


def run_mapper(
    database: Path,
    images_dir: Path,
    output: Path,
    options: MapperOptions,
    seed: int = 0,
    cancellation: Cancellation | None = None,
    resume_from: Path | None = None,
) -> list[Path]:
    """Make models, the largest as output/0, and return their folders.

    `output` appears whole or not at all. A cancelled mapping raises Cancelled; it and a
    killed one can be resumed from `find_snapshot(output)`, incremental mapping only.
    """
    require_database(database)
    if not images_dir.is_dir():
        raise InputError(f"{images_dir}: no such folder; give the folder of the images")
    snapshots.refuse_foreign(output)
    if options.mapper != "incremental":
        resume_from = None
    work = snapshots.start_work(output, keep=resume_from)
    (work / "models").mkdir()
    stop = cancellation or Cancellation()
    run = _Run(database, images_dir, output, options, seed, stop)
    try:
        models = _MAPPERS[options.mapper](run, resume_from)
    except Cancelled as error:
        kept = snapshots.keep_as_snapshot(work / "models", output)
        kept = kept or snapshots.find_snapshot(output)
        state = f"what is done is in {kept}" if kept else "nothing was done yet"
        raise Cancelled(f"mapping stopped on request; {state}") from error
    return _publish(models, run)


@dataclass(frozen=True)
class _Run:
    """What a mapper needs to know."""

    database: Path
    images_dir: Path
    output: Path
    options: MapperOptions
    seed: int
    cancellation: Cancellation

    @property
    def models_dir(self) -> Path:
        return snapshots.work_dir(self.output) / "models"


def _map_incrementally(run: _Run, resume_from: Path | None) -> Models:
    options = _incremental_options(run)
    if run.options.snapshot_images > 0:
        options.snapshot_path = snapshots.snapshots_dir(run.output)
        options.snapshot_frames_freq = run.options.snapshot_images
    registered = 0
    if resume_from is not None:
        registered = pycolmap.Reconstruction(resume_from).num_reg_images()
        log.info("resuming from %s: %d images", resume_from, registered)

    def register(images: int) -> None:
        nonlocal registered
        registered += images

    def count() -> int:
        snapshots.prune_snapshots(run.output)
        return registered

    def work() -> Models:
        return pycolmap.incremental_mapping(
            *(run.database, run.images_dir, run.models_dir, options),
            input_path=resume_from or "",
            initial_image_pair_callback=lambda: register(2),
            next_image_callback=lambda: register(1),
            cancellation_token=run.cancellation.token,
        )

    total = _count_images(run.database)
    return run_with_progress(work, "map images", run.cancellation, total, count)


def _map_globally(run: _Run, _: Path | None) -> Models:
    options = run.options
    database = snapshots.work_dir(run.output) / "database.db"
    copy_database(run.database, database)  # calibration changes its cameras and pairs
    mapper = pycolmap.GlobalPipelineOptions(
        min_num_matches=options.min_matches,
        min_model_size=options.min_model_size,
        num_threads=1 if options.repeatable else options.num_threads,
        random_seed=run.seed,
    )
    adjustment = mapper.mapper.bundle_adjustment
    adjustment.ceres.use_gpu = mapper.mapper.global_positioning.use_gpu = False
    adjustment.refine_focal_length = options.refine_focal_length
    adjustment.refine_principal_point = options.refine_principal_point
    adjustment.refine_extra_params = options.refine_extra_params

    def work() -> Models:
        pycolmap.set_random_seed(run.seed)
        if not _calibrate(database, run.seed):
            log.info("the pairs do not tell the focal lengths; starting from guesses")
            copy_database(run.database, database)
        if run.cancellation.is_cancelled:
            raise InterruptedError
        return pycolmap.global_mapping(database, run.images_dir, run.models_dir, mapper)

    return _run_uncounted(work, "map images globally", run)


def _map_hierarchically(run: _Run, _: Path | None) -> Models:
    options = run.options
    mapper = pycolmap.HierarchicalPipelineOptions(num_threads=options.num_threads)
    mapper.incremental_options = _incremental_options(run)
    mapper.incremental_options.ba_refine_sensor_from_rig = False  # we make no rigs
    if options.repeatable:
        mapper.num_threads = mapper.num_workers = 1

    def work() -> Models:
        # The clustering takes its random numbers from this thread's generator.
        pycolmap.set_random_seed(run.seed)
        try:
            return pycolmap.hierarchical_mapping(
                run.database, run.images_dir, run.models_dir, mapper
            )
        except IndexError:  # how it says that no cluster gave a model
            return {}

    return _run_uncounted(work, "map clusters", run)


_MAPPERS: dict[MapperName, Callable[[_Run, Path | None], Models]] = {
    "incremental": _map_incrementally,
    "global": _map_globally,
    "hierarchical": _map_hierarchically,
}


def _run_uncounted(work: Callable[[], Models], description: str, run: _Run) -> Models:
    """Run a mapper that COLMAP cannot stop; a cancellation takes effect at its end."""
    models = run_with_progress(work, description, run.cancellation, stoppable=False)
    if run.cancellation.is_cancelled:
        log.info("the %s mapper cannot be stopped half-way", run.options.mapper)
    return models


def _incremental_options(run: _Run) -> pycolmap.IncrementalPipelineOptions:
    options = run.options
    made = pycolmap.IncrementalPipelineOptions(
        min_num_matches=options.min_matches,
        min_model_size=options.min_model_size,
        # With more the threads race, and the model differs from run to run.
        num_threads=1 if options.repeatable else options.num_threads,
        random_seed=run.seed,
        extract_colors=options.extract_colours,
        ba_refine_focal_length=options.refine_focal_length,
        ba_refine_principal_point=options.refine_principal_point,
        ba_refine_extra_params=options.refine_extra_params,
        max_runtime_seconds=options.max_runtime_s or -1,
        # It places images that see none of the points by chance matches, slowly.
        structure_less_registration_fallback=False,
    )
    made.triangulation.ignore_two_view_tracks = not options.keep_two_view_tracks
    # The clusters of a hierarchy do not pass their seed on to these.
    made.mapper.random_seed = made.triangulation.random_seed = run.seed
    return made


def _publish(models: Models, run: _Run) -> list[Path]:
    """Write the models, largest first, and put them in place."""
    solid = [m for m in models.values() if m.num_points3D() >= m.num_reg_images()]
    if len(solid) < len(models):
        log.warning(
            "%s dropped with fewer points than images: taken from one place, "
            "photographs tell no depth",
            _count(len(models) - len(solid)),
        )
    if not solid:
        raise ReconstructionError(_explain_failure(run.database))
    ranked = sorted(solid, key=lambda m: (-m.num_reg_images(), -m.num_points3D()))
    draft = snapshots.work_dir(run.output) / "ranked"
    for rank, model in enumerate(ranked):
        (draft / str(rank)).mkdir(parents=True)
        model.write_binary(draft / str(rank))
        require_whole(draft / str(rank), run.output)
    snapshots.publish(draft, run.output)
    log.info(
        "%s: %s with %s images",
        *(run.output, _count(len(ranked))),
        ", ".join(str(m.num_reg_images()) for m in ranked),
    )
    return [run.output / str(rank) for rank in range(len(ranked))]


def _count(models: int) -> str:
    return f"{models} model{'' if models == 1 else 's'}"


def _explain_failure(database: Path) -> str:
    with open_database(database) as handle:
        images, pairs = handle.num_images(), count_verified(handle)
        inliers = handle.num_inlier_matches()
        bent = sorted(
            camera.model.name
            for camera in handle.read_all_cameras()
            if not camera.has_prior_focal_length
            and camera.model.name not in _LIKE_PINHOLE
        )
    per_pair = inliers // pairs if pairs else 0
    remedy = (
        "take photographs that overlap more and from different places, or give more "
        "pairs, or extract more keypoints"
    )
    if bent and not pairs:
        remedy = (
            f"pairs of {bent[0]} cameras fit only if their parameters are known: give "
            f"them with --camera-params, or {remedy}"
        )
    return (
        f"{database}: no model came out of {images} images, {pairs} verified pairs and "
        f"{per_pair} inliers a pair; {remedy}"
    )


def _count_images(database: Path) -> int:
    with open_database(database) as handle:
        return handle.num_images()


def _calibrate(database: Path, seed: int) -> bool:
    """Find guessed focal lengths from the pairs; False if the result is not plausible.

    Cameras that all look at one thing, as people do, do not determine it: then COLMAP
    may come up with a tenth of the truth.
    """
    guesses = _read_guessed_focals(database)
    if not guesses:
        return True
    options = pycolmap.ViewGraphCalibrationOptions(random_seed=seed)
    if not pycolmap.calibrate_view_graph(database, options):
        return False
    with open_database(database) as handle:
        return all(
            1 / _FOCAL_RANGE
            < handle.read_camera(camera_id).mean_focal_length() / guess
            < _FOCAL_RANGE
            for camera_id, guess in guesses.items()
        )


def _read_guessed_focals(database: Path) -> dict[int, float]:
    with open_database(database) as handle:
        return {
            camera.camera_id: camera.mean_focal_length()
            for camera in handle.read_all_cameras()
            if not camera.has_prior_focal_length and camera.is_perspective()
        }
