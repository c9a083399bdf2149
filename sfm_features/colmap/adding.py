"""Adding images to a model that stays where it is."""

from __future__ import annotations

import logging
from collections.abc import Sequence, Set
from pathlib import Path

import numpy as np
import pycolmap

from sfm_features.colmap import snapshots
from sfm_features.colmap.adjusting import move_back
from sfm_features.colmap.convert import from_colmap_pose
from sfm_features.colmap.files import require_whole
from sfm_features.colmap.models import load
from sfm_features.colmap.running import Cancellation, run_with_progress
from sfm_features.errors import ReconstructionError

log = logging.getLogger(__name__)

_STILL = 1e-6  # COLMAP moves a fixed model by rounding errors only


def add_images(
    model_dir: Path,
    database: Path,
    image_folders: Sequence[Path],
    output: Path,
    names: Sequence[str],
    seed: int = 0,
    refine: bool = False,
    cancellation: Cancellation | None = None,
) -> Path:
    """Register images of a database in a model, and triangulate what they see.

    The database holds the model's images and those `names`, imported with it as the
    `reference`, and verified pairs of the latter. The model's poses and cameras stay as
    they are, bit by bit, unless `refine` is asked for: then all are bundle-adjusted.
    New points are coloured from the first of the folders that has an image.
    `output` is the new model's folder; it appears whole or not at all.
    Raises Cancelled.
    """
    stop = cancellation or Cancellation()
    snapshots.refuse_foreign(output)
    base = load(model_dir)
    work = snapshots.start_work(output, keep=None)
    (work / "models").mkdir()
    draft = work / "added"
    draft.mkdir()
    made = _map(base, model_dir, database, work / "models", len(names), seed, stop)
    _put_back(base, made)
    _colour(made, image_folders, set(names))
    if refine:
        _refine(made, base, seed, stop)
    made.write_binary(draft)
    require_whole(draft, output)
    snapshots.publish(draft, output)
    log.info("%s: %d images", output, made.num_reg_images())
    return output


def _map(
    base: pycolmap.Reconstruction,
    model_dir: Path,
    database: Path,
    folder: Path,
    total: int,
    seed: int,
    stop: Cancellation,
) -> pycolmap.Reconstruction:
    """Go on from a model, whose frames and cameras are held."""
    options = _pipeline_options(seed)
    options.fix_existing_frames = True
    options.constant_cameras = set(base.cameras)
    # Images of the model without a new pair would be absent, and COLMAP would fail.
    options.load_all_images = True
    registered = 0

    def count() -> None:
        nonlocal registered
        registered += 1

    def work() -> dict[int, pycolmap.Reconstruction]:
        return pycolmap.incremental_mapping(
            *(database, folder, folder, options),
            input_path=model_dir,
            next_image_callback=count,
            cancellation_token=stop.token,
        )

    try:
        models = run_with_progress(work, "add images", stop, total, lambda: registered)
    except (IndexError, ValueError, RuntimeError) as error:
        raise ReconstructionError(
            f"{model_dir}: COLMAP cannot go on from this model ({error}); make it "
            "again with `sfm-features reconstruct` or `triangulate`"
        ) from error
    return models[0]


def _pipeline_options(seed: int) -> pycolmap.IncrementalPipelineOptions:
    options = pycolmap.IncrementalPipelineOptions(
        num_threads=1,  # with more the threads race, and the result is never the same
        random_seed=seed,
        extract_colors=False,
        multiple_models=False,
        # It places images that see none of the points by chance matches, slowly.
        structure_less_registration_fallback=False,
    )
    options.mapper.random_seed = options.triangulation.random_seed = seed
    return options


def _put_back(base: pycolmap.Reconstruction, made: pycolmap.Reconstruction) -> None:
    """Undo the rounding of COLMAP, which scales a model and scales it back."""
    centres = [image.projection_center() for image in base.images.values()]
    size = max(float(np.ptp(centres, axis=0).max()), 1e-12)
    for image in base.images.values():
        moved = made.images[image.image_id].projection_center()
        assert np.abs(moved - image.projection_center()).max() < _STILL * size, (
            f"{image.name} was moved"
        )
    for frame_id in base.reg_frame_ids():
        made.frame(frame_id).rig_from_world = base.frame(frame_id).rig_from_world


def _colour(
    made: pycolmap.Reconstruction, folders: Sequence[Path], names: Set[str]
) -> None:
    """Colour black points by the new images, and the rest by what else sees them."""
    ids = {image.image_id: image.name for image in made.images.values()}
    for among in (names, set(ids.values()) - names):
        black = {
            element.image_id
            for point in made.points3D.values()
            if not point.color.any()
            for element in point.track.elements
        }
        for image_id in sorted(i for i in black if ids[i] in among):
            for folder in folders:
                if (folder / ids[image_id]).is_file():
                    made.extract_colors_for_image(image_id, folder)
                    break


def _refine(
    made: pycolmap.Reconstruction,
    base: pycolmap.Reconstruction,
    seed: int,
    stop: Cancellation,
) -> None:
    """Bundle-adjust all, and move the model back to where its old images stood."""
    options = _pipeline_options(seed).get_global_bundle_adjustment()
    config = pycolmap.BundleAdjustmentConfig()
    for image_id in made.reg_image_ids():
        config.add_image(image_id)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    # Not `pycolmap.bundle_adjustment`: it writes to the terminal, whatever it is told.
    adjuster = pycolmap.create_default_bundle_adjuster(options, config, made)
    run_with_progress(adjuster.solve, "bundle adjustment", stop, stoppable=False)
    before = [base.images[image_id] for image_id in base.reg_image_ids()]
    move_back(made, {i.name: from_colmap_pose(i.cam_from_world()) for i in before})
    made.update_point_3d_errors()
