"""Depth maps of photos from the points of one's own reconstruction: no sensor needed.

A thing that is photographed from all around is what the cameras look at: what stands
nearer than that counts as equally near, and a background has to be much farther. So a
model of the thing alone, with its own near and far side, has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from sfm_features.depths import DepthMap, fit_depth, scale_nearness, split_nearness
from sfm_features.errors import ImageError, InputError
from sfm_features.images import Decoded, decode
from sfm_features.training.photos import PhotoSet
from sfm_features.types import (
    F32,
    F64,
    PIXEL_CENTRE,
    Bool,
    Model,
    RegisteredImage,
    undo_resize,
)

_SIGNS = ("sparse", "database.db", "cameras.bin", "images.bin", "points3D.bin")
"""What a folder has that is meant as a reconstruction, even if nothing came out."""
_LEAST_POINTS = 30
_LEAST_VIEWS = 3
"""Views that must agree on a point: two lines of sight meet by chance."""
_CELLS = 128
"""Cells of a map along its longer side; each has the median of its points."""
_REACH = 0.05
"""How far around a point its depth is believed, as a share of the longer side."""
_SMOOTHED = 5
_SPLIT_PX = 256
_LEAST_RATIO = 1.5
"""How much farther than the thing its background stands. Seen from no nearer than it is
wide, a thing reaches to 1.5 times the depth of its middle."""
_SAME_SHAPE = 0.02
_LEAST_FAR = 0.03
"""Share of what is known of an image that a background has: single points may be wrong.
"""
_LEAST_SPREAD_DEG = 10.0
_LEAST_ALIKE = 0.2
"""Correlation of a photo with the colours of the points that it shows: 0.5 to 0.9 for
its own, about 0.1 for those of another."""


class _UnlikeError(ImageError):
    """A photo is not the one that was reconstructed under its name."""


def read_reconstruction(folder: Path) -> list[Model] | None:
    """Read what `reconstruct` wrote, its sparse/, or one model; None if it is neither.

    Raise InputError for a reconstruction in which there is nothing.
    """
    # Only now: training without a reconstruction works where there is no COLMAP.
    from sfm_features.colmap import find_models, read_model

    paths = find_models(folder)
    if not paths:
        if any((folder / name).exists() for name in _SIGNS):
            raise InputError(
                f"{folder}: has no whole model; run sfm-features reconstruct to its "
                "end, or give a folder with cameras.bin, images.bin and points3D.bin"
            )
        return None
    models = [model for path in paths if len((model := read_model(path)).points)]
    if not models:
        raise InputError(
            f"{folder}: its model has no points, and only these tell depth; "
            "reconstruct anew, or triangulate it"
        )
    return models


def render_depths(
    photos: PhotoSet, folders: Sequence[Path], models: Sequence[Model], source: Path
) -> tuple[dict[int, DepthMap], dict[str, str]]:
    """Render depth maps of photos, by their numbers, and tell what others lack.

    A photo belongs to the first model that it is in. Of folders without any photo in a
    model nothing is told.
    """
    aims = [find_aim(model) for model in models]
    homes: dict[str, int] = {}
    for number, model in enumerate(models):
        homes |= {name: number for name in model.images if name not in homes}
    meant = {photo.folder for photo in photos.photos if photo.name in homes}
    if not meant:
        raise InputError(
            f"{source}: was not made from these photos (it has {min(homes)!r}, they "
            f"{photos.photos[0].name!r}); give the folder that was reconstructed, and "
            "do not rename or move what is in it"
        )
    maps: dict[int, DepthMap] = {}
    problems: dict[str, str] = {}
    unlike = 0
    for i, photo in enumerate(tqdm(photos.photos, "depth", unit="photo")):
        if photo.folder not in meant:
            continue
        try:
            home = homes.get(photo.name)
            if home is None:
                raise ImageError(f"is not registered in {source}")
            path = folders[photo.folder] / photo.name
            maps[i] = _render_photo(path, photo.name, models[home], aims[home])
        except ImageError as error:
            problems[photo.name] = str(error)
            unlike += isinstance(error, _UnlikeError)
    named = sum(photo.name in homes for photo in photos.photos)
    # A few may look alike by chance; and other folders may have the same names.
    if 2 * unlike > named and unlike > 4 * len(maps):
        raise InputError(
            f"{source}: was made from other photos of the same names, which look "
            f"different ({unlike} of {named}); reconstruct these"
        )
    return maps, problems


def find_aim(model: Model) -> F64 | None:
    """Find the point (3,) next to all optical axes; None if these are all alike."""
    axes = np.array([i.cam_from_world.rotation[2] for i in model.images.values()])
    centres = np.array([i.cam_from_world.centre for i in model.images.values()])
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    total: F64 = across.sum(0)
    # The least of its eigenvalues is the mean squared sine to the commonest direction.
    least = np.linalg.eigvalsh(total)[0] / max(len(axes), 1)
    if least < np.sin(np.radians(_LEAST_SPREAD_DEG)) ** 2:
        return None
    return np.linalg.solve(total, np.einsum("nij,nj->i", across, centres))


def render_depth(image: RegisteredImage, model: Model, aim: F64 | None) -> DepthMap:
    """Render the points that an image sees into a small map, as it is stored.

    What is nearer than the aim is put where that is. Raise ImageError if they are few.
    """
    rows = image.point_ids
    good = rows >= 0
    good[good] = model.track_lengths[rows[good]] >= _LEAST_VIEWS
    # Others may be in view, but hidden: what a keypoint saw is not.
    xy, depths = image.keypoints[good], _measure_depths(image, model.points[rows[good]])
    front = depths > 0
    if front.sum() < _LEAST_POINTS:
        raise ImageError(
            f"{front.sum()} points of the model are seen in it, of {_LEAST_POINTS} "
            "that are needed"
        )
    if aim is not None:
        depths = np.maximum(depths, _measure_depths(image, aim[None]))
    size = image.camera.width, image.camera.height
    return _spread(xy[front], depths[front], size)


def split_depth(depth: DepthMap) -> Bool:
    """Tell background (S, S) of the whole image; raise ImageError if it is near."""
    behind = split_nearness(scale_nearness(depth, "distance", _SPLIT_PX))
    size = depth.values.shape[::-1]
    there = cv2.resize(behind.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    far, near = (depth.values[depth.known & (there == k)] for k in (1, 0))
    if len(far) < _LEAST_FAR * depth.known.sum():
        raise ImageError("no more of the model is far than a few wrong points may make")
    ratio = float(np.median(far) / np.median(near)) if len(near) else 1.0
    if ratio < _LEAST_RATIO:
        raise ImageError(
            f"what is far is hardly farther than what is near ({ratio:.2f} times), as "
            "if the model had the thing alone; give a mask if there is a background"
        )
    return behind


def _render_photo(path: Path, name: str, model: Model, aim: F64 | None) -> DepthMap:
    """Render the map of a photo, turned upright as that is; it must tell something."""
    decoded, image = decode(path), model.images[name]
    _check_likeness(decoded, image, model)
    depth = render_depth(image, model, aim)
    split_depth(depth)
    return fit_depth(depth, decoded.size, decoded.orientation, path)


def _check_likeness(decoded: Decoded, image: RegisteredImage, model: Model) -> None:
    """Raise ImageError if a photo does not look like its image in the model.

    Shrunk it may be.
    """
    size, there = decoded.size, (image.camera.width, image.camera.height)
    if abs(size[0] * there[1] / (size[1] * there[0]) - 1) > _SAME_SHAPE:
        raise ImageError(
            f"is {size[0]} x {size[1]}, in the model {there[0]} x {there[1]}; give the "
            "photos that were reconstructed"
        )
    rows = image.point_ids
    column, row = np.rint(undo_resize(image.keypoints[rows >= 0], size, there)).T
    column, row = column.clip(0, size[0] - 1), row.clip(0, size[1] - 1)
    shown = decoded.rgb[row.astype(int), column.astype(int)].mean(1, dtype=np.float64)
    expected = model.colours[rows[rows >= 0]].mean(1, dtype=np.float64)
    # A model may come without colours.
    if len(shown) < _LEAST_POINTS or expected.std() < 1 or shown.std() < 1:
        return
    alike = float(np.corrcoef(shown, expected)[0, 1])
    if alike < _LEAST_ALIKE:
        raise _UnlikeError(
            "does not look like the image of that name in the model (their colours "
            f"correlate by {alike:.2f}); give the photos that were reconstructed"
        )


def _measure_depths(image: RegisteredImage, points: F64) -> F64:
    pose = image.cam_from_world
    return np.asarray(points @ pose.rotation[2] + pose.translation[2], np.float64)


def _spread(xy: F32, depths: F64, size: tuple[int, int]) -> DepthMap:
    """Give cells the depth of the next one with points (N, 2), up to some distance."""
    scale = _CELLS / max(size)
    shape = [max(2, round(side * scale)) for side in size]
    cells = np.floor((xy + PIXEL_CENTRE) * np.divide(shape, size)).astype(np.int64)
    column, row = cells.clip(0, np.array(shape) - 1).T
    places = row * shape[0] + column
    order = np.lexsort((depths, places))
    places, first, counts = np.unique(
        places[order], return_index=True, return_counts=True
    )
    empty = np.ones((shape[1], shape[0]), np.uint8)
    empty.ravel()[places] = 0
    away, labels = cv2.distanceTransformWithLabels(
        empty, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    table = np.zeros(labels.max() + 1, np.float32)
    table[labels.ravel()[places]] = depths[order][first + counts // 2]
    # Single points that are wrong do not make islands.
    smooth = cv2.medianBlur(table[labels], _SMOOTHED)
    return DepthMap(np.asarray(smooth, np.float32), away <= _REACH * _CELLS)
