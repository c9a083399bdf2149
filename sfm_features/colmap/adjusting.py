"""Adjusting finished models to keypoints that were placed anew."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pycolmap

from sfm_features.colmap import snapshots
from sfm_features.colmap.convert import from_colmap_pose
from sfm_features.colmap.files import require_whole
from sfm_features.colmap.mapping import MapperOptions
from sfm_features.colmap.models import list_models, load
from sfm_features.colmap.running import Cancellation, run_with_progress
from sfm_features.metrics import align_poses
from sfm_features.types import F64, I64, PIXEL_CENTRE, Pose

log = logging.getLogger(__name__)

Moved = Mapping[str, tuple[I64, F64]]
"""By image: numbers of keypoints, and their pixels (N, 2)."""

_MOST_PX, _LEAST_DEG = 4.0, 1.5
"""What the mapper asks of points, too: their error, and the angle of their rays."""
_FUNCTION_TOLERANCE = 1e-5
_LEAST_KEPT = 0.7
"""Share of a model's points that must be left, or the adjustment went astray."""
_ALIGNED_BY = 3  # images, at least


@dataclass(frozen=True)
class Hold:
    """What an adjustment leaves as it is."""

    images: Collection[str] = ()
    """Images whose poses and cameras stay, bit by bit."""
    frame: Mapping[str, Pose] = field(default_factory=dict)
    """Where images stood: to there the whole model is moved back in the end."""


def adjust_models(
    source: Path,
    target: Path,
    moved: Sequence[Moved],
    exact_px: float,
    options: MapperOptions,
    stop: Cancellation,
    hold: Hold = Hold(),
) -> None:
    """Move keypoints of each model of a folder, adjust it, and write all to another.

    Poses, cameras and points follow small errors: beyond `exact_px` an error counts
    less and less, as wrong matches have large ones. What `hold` names stays as it is.
    Points that are off are dropped.
    `target` appears as a whole or not at all. Raises Cancelled.
    """
    snapshots.refuse_foreign(target)
    draft = snapshots.start_work(target, keep=None) / "adjusted"
    for path, places in zip(list_models(source), moved, strict=True):
        made = draft / path.name
        made.mkdir(parents=True)
        before = load(path)
        model = _move(load(path), places)
        config = _make_config(model, hold.images)
        _adjust(model, config, exact_px, options, stop)
        _put_back(before, model, hold.images)
        move_back(model, hold.frame)
        left, count = model.num_points3D(), before.num_points3D()
        if left < _LEAST_KEPT * count:
            log.warning(
                "%s: not polished, as %d of %d points were off",
                path,
                count - left,
                count,
            )
            model = before
        model.write_binary(made)
        require_whole(made, target)
    snapshots.publish(draft, target)


def _move(model: pycolmap.Reconstruction, moved: Moved) -> pycolmap.Reconstruction:
    for image_id in model.reg_image_ids():
        image = model.images[image_id]
        if image.name in moved:
            numbers, xy = moved[image.name]
            for number, pixel in zip(numbers.tolist(), xy + PIXEL_CENTRE, strict=True):
                image.points2D[number].xy = pixel
    return model


def _put_back(
    before: pycolmap.Reconstruction,
    model: pycolmap.Reconstruction,
    held: Collection[str],
) -> None:
    """Undo the rounding of COLMAP, which what is held does not escape."""
    for image_id in before.reg_image_ids():
        image = before.images[image_id]
        if image.name in held:
            frame = model.frame(image.frame_id)
            frame.rig_from_world = before.frame(image.frame_id).rig_from_world


def move_back(model: pycolmap.Reconstruction, frame: Mapping[str, Pose]) -> None:
    """Move a model so that, on the whole, images stand where they are said to."""
    images = [image for image in model.images.values() if image.name in frame]
    if len(images) >= _ALIGNED_BY:
        here = [from_colmap_pose(image.cam_from_world()) for image in images]
        back = align_poses(here, [frame[image.name] for image in images])
        rotation = pycolmap.Rotation3d(back.rotation)
        model.transform(pycolmap.Sim3d(back.scale, rotation, back.translation))


def _make_config(
    model: pycolmap.Reconstruction, held: Collection[str]
) -> pycolmap.BundleAdjustmentConfig:
    config = pycolmap.BundleAdjustmentConfig()
    for image_id in model.reg_image_ids():
        image = model.images[image_id]
        config.add_image(image_id)
        if image.name in held:
            config.set_constant_rig_from_world_pose(image.frame_id)
            config.set_constant_cam_intrinsics(image.camera_id)
    if not held:
        config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    return config


def _adjust(
    model: pycolmap.Reconstruction,
    config: pycolmap.BundleAdjustmentConfig,
    exact_px: float,
    options: MapperOptions,
    stop: Cancellation,
) -> None:
    made = pycolmap.BundleAdjustmentOptions(
        print_summary=False,
        refine_focal_length=options.refine_focal_length,
        refine_principal_point=options.refine_principal_point,
        refine_extra_params=options.refine_extra_params,
        refine_sensor_from_rig=False,  # we make no rigs
    )
    made.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    made.ceres.loss_function_scale = exact_px
    made.ceres.use_gpu = False
    threads = 1 if options.repeatable else options.num_threads
    made.ceres.solver_options.num_threads = threads
    made.ceres.solver_options.function_tolerance = _FUNCTION_TOLERANCE
    # Not `pycolmap.bundle_adjustment`: it writes to the terminal, whatever it is told.
    adjuster = pycolmap.create_default_bundle_adjuster(made, config, model)
    run_with_progress(adjuster.solve, "adjust", stop, stoppable=False)
    pycolmap.ObservationManager(model).filter_all_points3D(_MOST_PX, _LEAST_DEG)
    model.update_point_3d_errors()
