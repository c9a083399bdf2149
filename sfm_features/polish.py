"""Making finished models exact: keypoints placed anew, and all adjusted to them."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from tqdm import tqdm

from sfm_features import colmap
from sfm_features.align import Picture, align
from sfm_features.errors import Cancelled, ImageError
from sfm_features.images import decode, resize_to
from sfm_features.nets.grey import grey_from_rgb
from sfm_features.recent import Recent
from sfm_features.tracks import Tracks, read_tracks
from sfm_features.types import F64, Model

logger = logging.getLogger(__name__)

_SIDE_PX = 1600
"""How large pictures are laid upon each other."""
_EXACT_PX = 0.25
"""Of such a picture: how well keypoints are placed."""
_PICTURES_BYTES = 1 << 30


def polish(
    images: Path,
    source: Path,
    target: Path,
    options: colmap.MapperOptions,
    stop: colmap.Cancellation,
    points_only: bool = False,
) -> None:
    """Place the keypoints of a folder's models anew, and adjust the models to them.

    With `points_only` poses and cameras stay as they are. `target` appears as a whole
    or not at all; polished a second time, models change little more. Raises Cancelled.
    """
    models = [colmap.read_model(path) for path in colmap.list_models(source)]
    read = Recent(partial(_read_picture, images), _weigh, _PICTURES_BYTES)
    moved = [_place_anew(model, read, stop) for model in models]
    sizes = [
        max(image.camera.width, image.camera.height)
        for model in models
        for image in model.images.values()
    ]
    exact_px = _EXACT_PX * max(1.0, median(sizes) / _SIDE_PX)
    colmap.adjust_models(source, target, moved, exact_px, options, stop, points_only)


def _place_anew(
    model: Model, read: Recent[Picture | None], stop: colmap.Cancellation
) -> colmap.Moved:
    """Return where keypoints are now that were found in another photograph, too."""
    tracks = read_tracks(model)
    bar = tqdm(total=len(tracks.names), desc="align keypoints", unit="image")

    def step() -> None:
        if stop.is_cancelled:
            raise Cancelled("stopped on request while keypoints were aligned")
        bar.update()

    with bar:
        aligned = align(tracks, read, step)
    share = aligned.found.mean() if len(aligned.found) else 0.0
    logger.info("%.0f %% of the keypoints aligned", 100 * share)
    return _sort_by_image(tracks, aligned.xy)


def _sort_by_image(tracks: Tracks, xy: F64) -> colmap.Moved:
    changed = (xy != tracks.xy).any(axis=1)
    return {
        name: (tracks.keypoint[rows], xy[rows])
        for name, mine in zip(tracks.names, tracks.group_by_image(), strict=True)
        if len(rows := mine[changed[mine]])
    }


def _read_picture(images: Path, name: str) -> Picture | None:
    try:
        decoded = decode(images / name)
    except ImageError as error:
        logger.warning("%s; its keypoints stay where they are", error)
        return None
    grey = resize_to(grey_from_rgb(decoded.rgb), _SIDE_PX).astype(np.float32)
    return Picture(grey, np.divide(grey.shape[::-1], decoded.size))


def _weigh(picture: Picture | None) -> int:
    return 0 if picture is None else picture.grey.nbytes
