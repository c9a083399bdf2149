"""What of photos is background: told from depth maps, or from masks.

A thing that is photographed is nearer than what is behind it, so 1 / depth falls into
two heaps. Where they part best (Otsu), object and background part; a map in which they
hardly do says nothing about its photo.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import cv2
import numpy as np
from tqdm import tqdm

from sfm_features.depths import (
    DepthKind,
    DepthMap,
    find_depth,
    fit_depth,
    read_depth,
    scale_nearness,
    split_nearness,
    vote_kind,
)
from sfm_features.errors import ImageError, InputError
from sfm_features.images import decode, decode_values
from sfm_features.training.nearness import draw_nearness, stretch_mask
from sfm_features.training.photos import Photo, PhotoSet
from sfm_features.training.sparse_depth import read_reconstruction, render_depths
from sfm_features.types import U8, Bool

logger = logging.getLogger(__name__)

_SIDE_PX = 256
_DRAWN, _DRAWN_PX = 12, 160


def add_backgrounds(
    photos: PhotoSet,
    folders: Sequence[Path],
    depths: Path,
    kind: DepthKind,
    picture: Path,
) -> PhotoSet:
    """Tell the background of each photo that has a depth map, a mask or sparse points.

    `depths` has files, or is a reconstruction of the photos. Other photos stay as they
    are; what cannot be used is named. `picture` shows the result.
    """
    problems: dict[str, str] = {}
    maps: Iterable[tuple[int, DepthMap | Bool]]
    if (models := read_reconstruction(depths)) is not None:
        rendered, problems = render_depths(photos, folders, models, depths)
        maps, kind = rendered.items(), "distance"
    else:
        maps = _read_maps(photos, folders, depths, problems)
    # What a map would say either way is kept, and not the map, which may be large.
    kinds: Sequence[DepthKind] = ("distance", "nearness") if kind == "auto" else (kind,)
    votes: list[float] = []
    outcomes: dict[int, dict[DepthKind, Photo | str]] = {}
    for number, seen in maps:
        if kind == "auto" and isinstance(seen, DepthMap):
            votes.append(vote_kind(seen))
        photo = photos.photos[number]
        outcomes[number] = {each: _try_mark(photo, seen, each) for each in kinds}
    if kind == "auto":
        kind = "nearness" if votes and median(votes) > 0 else "distance"
        if votes:
            larger = "nearer" if kind == "nearness" else "farther"
            logger.info("depth maps: larger values are taken for %s", larger)
    found = list(photos.photos)
    for number, outcome in outcomes.items():
        result = outcome[kind]
        if isinstance(result, str):
            problems[photos.photos[number].name] = result
        else:
            found[number] = result
    marked = [photo for photo in found if photo.background is not None]
    if not marked:
        reason = next(iter(problems.values()), "none is called as a photo")
        raise InputError(
            f"{depths}: has no depth map or mask that tells an object from its "
            f"background ({reason}); name maps as the photos, give masks or a "
            "reconstruction, or leave --depth out"
        )
    _tell(marked, len(found), problems)
    _draw(marked, picture)
    return PhotoSet(found, {**photos.skipped, **problems})


def _read_maps(
    photos: PhotoSet, folders: Sequence[Path], depths: Path, problems: dict[str, str]
) -> Iterator[tuple[int, DepthMap | Bool]]:
    """Yield the maps, and masks (True is background), of photos, by their numbers."""
    for number, photo in enumerate(tqdm(photos.photos, "depth", unit="photo")):
        path = find_depth(depths, photo.name)
        if path is None:
            continue
        try:
            yield number, _read_map(path, folders[photo.folder] / photo.name)
        except ImageError as error:
            problems[str(path)] = str(error)


def _read_map(path: Path, image: Path) -> DepthMap | Bool:
    """Read a map turned as its photo; one of zeros and one other value is a mask."""
    decoded = decode(image)
    mask = _read_mask(path)
    if mask is None:
        return fit_depth(read_depth(path), decoded.size, decoded.orientation, path)
    everywhere = np.ones(mask.shape, bool)
    shown = DepthMap(mask.astype(np.float32), everywhere)
    turned = fit_depth(shown, decoded.size, decoded.orientation, path)
    return np.asarray(turned.values == 0)


def _read_mask(path: Path) -> Bool | None:
    if path.suffix == ".npy":
        return None
    values = decode_values(path)
    if values.ndim == 3:
        values = values[..., 0]
    kept = values != 0
    if kept.all() or not kept.any() or values[kept].min() != values[kept].max():
        return None
    return np.asarray(kept)


def _mark(photo: Photo, seen: DepthMap | Bool, kind: DepthKind) -> Photo:
    """Give a photo its background, of which nothing is that a sensor did not see.

    A depth map also says how near things are; a mask does not.
    """
    if not isinstance(seen, DepthMap):
        return replace(photo, background=stretch_mask(seen, photo.size))
    small = scale_nearness(seen, kind, _SIDE_PX)
    behind = stretch_mask(split_nearness(small), photo.size)
    nearness = draw_nearness(small, seen.known, photo.size)
    return replace(photo, background=behind & nearness.known, nearness=nearness)


def _try_mark(photo: Photo, seen: DepthMap | Bool, kind: DepthKind) -> Photo | str:
    """Mark a photo, or say why its map is no use."""
    try:
        return _mark(photo, seen, kind)
    except ImageError as error:
        return str(error)


def _tell(marked: Sequence[Photo], count: int, problems: dict[str, str]) -> None:
    shares = [
        float(photo.background.mean())
        for photo in marked
        if photo.background is not None
    ]
    logger.info(
        "background is known of %d of %d photos: %.0f %% of their pixels in the median",
        len(marked), count, 100 * median(shares),
    )  # fmt: skip
    for name, reason in problems.items():
        logger.warning("%s: used without depth (%s)", name, reason)


def _draw(marked: Sequence[Photo], path: Path) -> None:
    """Draw some photos, their background dark red."""
    step = -(-len(marked) // _DRAWN)
    tiles = [_draw_one(photo) for photo in marked[::step]]
    done, data = cv2.imencode(".jpg", np.concatenate(tiles, axis=1))
    assert done
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.tobytes())


def _draw_one(photo: Photo) -> U8:
    shown = cv2.cvtColor(photo.grey, cv2.COLOR_GRAY2BGR)
    assert photo.background is not None
    shown[photo.background] = shown[photo.background] // 3 + np.array([0, 0, 90])
    size = (_DRAWN_PX, _DRAWN_PX)
    return np.asarray(cv2.resize(shown, size, interpolation=cv2.INTER_AREA), np.uint8)
