"""Making finished models exact: keypoints placed anew, and all adjusted to them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
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
from sfm_features.types import F64, Bool, Model

logger = logging.getLogger(__name__)

_SIDE_PX = 1600
"""How large pictures are laid upon each other."""
_EXACT_PX = 0.25
"""Of such a picture: how well keypoints are placed."""
_PICTURES_BYTES = 1 << 30


def polish(
    folders: Sequence[Path],
    source: Path,
    target: Path,
    options: colmap.MapperOptions,
    stop: colmap.Cancellation,
    hold: colmap.Hold = colmap.Hold(),
    placed: Mapping[str, Bool] | None = None,
) -> None:
    """Place the keypoints of a folder's models anew, and adjust the models to them.

    Each photograph is read from the first of the `folders` that has it. What `hold`
    names stays as it is, and so do the keypoints of an image that are `placed` already.
    `target` appears as a whole or not at all; polished a second time, models change
    little more. Raises Cancelled.
    """
    models = [colmap.read_model(path) for path in colmap.list_models(source)]
    read = Recent(partial(_read_picture, folders), _weigh, _PICTURES_BYTES)
    moved = [_place_anew(model, read, stop, placed or {}) for model in models]
    sizes = [
        max(image.camera.width, image.camera.height)
        for model in models
        for image in model.images.values()
    ]
    exact_px = _EXACT_PX * max(1.0, median(sizes) / _SIDE_PX)
    colmap.adjust_models(source, target, moved, exact_px, options, stop, hold)


def _place_anew(
    model: Model,
    read: Recent[Picture | None],
    stop: colmap.Cancellation,
    placed: Mapping[str, Bool],
) -> colmap.Moved:
    """Return where keypoints are now that were found in another photograph, too."""
    tracks = read_tracks(model)
    held = np.zeros(len(tracks), np.bool_)
    for name, mine in zip(tracks.names, tracks.group_by_image(), strict=True):
        if name in placed:
            held[mine] = placed[name][tracks.keypoint[mine]]
    bar = tqdm(total=len(tracks.names), desc="align keypoints", unit="image")

    def step() -> None:
        if stop.is_cancelled:
            raise Cancelled("stopped on request while keypoints were aligned")
        bar.update()

    with bar:
        aligned = align(tracks, read, step, held)
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


def _read_picture(folders: Sequence[Path], name: str) -> Picture | None:
    paths = (folder / name for folder in folders)
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return None  # which was said of all that are absent
    try:
        decoded = decode(path)
    except ImageError as error:
        logger.warning("%s; its keypoints stay where they are", error)
        return None
    grey = resize_to(grey_from_rgb(decoded.rgb), _SIDE_PX).astype(np.float32)
    return Picture(grey, np.divide(grey.shape[::-1], decoded.size))


def _weigh(picture: Picture | None) -> int:
    return 0 if picture is None else picture.grey.nbytes
