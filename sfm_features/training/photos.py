"""All photographs of some folders, decoded once and kept as small grey images."""

from __future__ import annotations

import hashlib
import logging
import os
import zlib
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sfm_features import images as image_files
from sfm_features import photo_files
from sfm_features.errors import ImageError, InputError
from sfm_features.orientation import turn_upright
from sfm_features.training.nearness import Nearness
from sfm_features.types import F64, PIXEL_CENTRE, U8, Bool

logger = logging.getLogger(__name__)

_FRAME_PREFIXES = ("day_", "night_")
_LEAST_HELD_BACK = 8
REPLAY_FOLDER = 1_000_000
"""The folder number of photos that are replayed while a network is adapted."""
TOWN_FOLDER = 1_000_001
"""The folder number of rendered photos."""
MIN_SIDE_PX = 96
"""Photos with a shorter side than this are left out."""


@dataclass(frozen=True)
class Photo:
    """One photo: grey (H, W), and chroma (H // 2, W // 2, 2) for colour casts.

    `group` is the folder of a fixed camera whose frames are aligned, or nothing. `view`
    is the same for all pictures that show the same pixel for pixel, such as those
    frames, and is nothing where there is only one.
    `background` (H, W) tells where no keypoint is wanted, `nearness` how near things
    are, if that is known. By `orientation`, of EXIF, the stored photo was turned.
    """

    name: str
    grey: U8
    chroma: U8
    group: str = ""
    view: str = ""
    folder: int = 0
    background: Bool | None = None
    nearness: Nearness | None = None
    orientation: int = 1

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.grey.shape[1], self.grey.shape[0]

    @property
    def by_night(self) -> bool:
        """Whether its view has others, and its name says that it is of the night."""
        return bool(self.view) and Path(self.name).name.lower().startswith("night_")

    def keeps(self, xy: NDArray[np.floating]) -> Bool:
        """Tell which points (N, 2) inside the photo are not of its background."""
        if self.background is None:
            return np.ones(len(xy), bool)
        columns, rows = np.rint(xy).astype(np.int64).T
        return np.asarray(~self.background[rows, columns])

    @property
    def full_from_chroma(self) -> F64:
        """Return the matrix (3, 3) from pixels of the chroma to those of the grey."""
        scale = np.divide(self.grey.shape[::-1], self.chroma.shape[1::-1])
        matrix = np.diag([*scale, 1.0])
        matrix[:2, 2] = PIXEL_CENTRE * scale - PIXEL_CENTRE
        return matrix


@dataclass(frozen=True)
class PhotoSet:
    """Photos in a fixed order, and why others were left out."""

    photos: list[Photo]
    skipped: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.photos)

    def fingerprint(self) -> str:
        """Tell photos, by their names and all that is known of them, from others."""
        found = hashlib.sha256()
        for photo in self.photos:
            pixels = zlib.crc32(photo.chroma.tobytes() + photo.grey.tobytes())
            named = f"{photo.folder} {photo.name} {photo.size} {pixels}\n"
            found.update(named.encode())
            if photo.background is not None:
                found.update(np.packbits(photo.background).tobytes())
            if photo.nearness is not None:
                found.update(photo.nearness.grey.tobytes())
                found.update(np.packbits(photo.nearness.known).tobytes())
        return found.hexdigest()[:16]

    def list_with_depth(self) -> list[int]:
        """List the photos of which it is known how near things are."""
        numbers = range(len(self.photos))
        return [i for i in numbers if self.photos[i].nearness is not None]

    def show_depth(self) -> PhotoSet:
        """Return the same with nearness in place of pictures, where it is known."""
        shown = [
            replace(photo, grey=photo.nearness.grey) if photo.nearness else photo
            for photo in self.photos
        ]
        return PhotoSet(shown, self.skipped)

    def forget_depth(self) -> PhotoSet:
        """Return the same; of depth, only backgrounds are known."""
        flat = [replace(photo, nearness=None) for photo in self.photos]
        return PhotoSet(flat, self.skipped)

    def groups(self, excluded: Collection[int] = ()) -> dict[str, list[int]]:
        """List the photos of each fixed camera that has at least two frames."""
        return _list_alike([photo.group for photo in self.photos], excluded)

    def views(self, excluded: Collection[int] = ()) -> dict[str, list[int]]:
        """List the photos of each view of which there are at least two."""
        return _list_alike([photo.view for photo in self.photos], excluded)


def _list_alike(keys: Sequence[str], excluded: Collection[int]) -> dict[str, list[int]]:
    """List where each key occurs that occurs twice or more; an empty one does not."""
    found: dict[str, list[int]] = {}
    for i, key in enumerate(keys):
        if key and i not in excluded:
            found.setdefault(key, []).append(i)
    return {key: members for key, members in found.items() if len(members) > 1}


def load_photos(
    folders: Sequence[Path],
    max_side: int = 480,
    budget_mib: int = 3000,
    cache: Path | None = None,
    strict: bool = False,
) -> PhotoSet:
    """Decode all photos; what exceeds the memory budget goes to a mapped file.

    Broken and tiny ones are left out and counted, with the reason; with `strict` the
    first one is an error.
    """
    jobs = [
        (folder, number, name)
        for number, folder in enumerate(folders)
        for name in photo_files.list_images(folder)
    ]
    keeper = _Keeper(budget_mib * 2**20, cache)
    photos: list[Photo] = []
    skipped: dict[str, str] = {}
    shapes: dict[str, tuple[int, int]] = {}
    workers = min(4, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        decoded = pool.map(lambda job: _decode(job, max_side), jobs)
        for job, found in tqdm(
            zip(jobs, decoded, strict=True), "photos", len(jobs), unit="photo"
        ):
            if isinstance(found, Photo):
                found = _check_group(found, shapes)
            if isinstance(found, str) and strict:
                raise ImageError(found)
            if isinstance(found, str):
                skipped[str(job[0] / job[2])] = found
            else:
                photos.append(keeper.keep(found))
    if not photos:
        places = ", ".join(map(str, folders))
        raise InputError(
            f"{places}: none of {len(jobs)} images can be used; photos must decode and "
            f"measure at least {MIN_SIDE_PX} px on the shorter side"
        )
    logger.info("photos: %d used, %d skipped", len(photos), len(skipped))
    return PhotoSet(photos, skipped)


def _decode(job: tuple[Path, int, str], max_side: int) -> Photo | str:
    folder, number, name = job
    try:
        decoded = image_files.decode(folder / name)
    except ImageError as error:
        return str(error)
    if min(decoded.size) < MIN_SIDE_PX:
        return f"{name}: {decoded.size[0]} x {decoded.size[1]} px is too small"
    small = image_files.resize_to(decoded.rgb, max_side)
    if min(small.shape[:2]) < MIN_SIDE_PX // 2:
        return f"{name}: is a strip, {small.shape[1]} x {small.shape[0]} px when shrunk"
    upright = turn_upright(small, decoded.orientation)
    parts = cv2.cvtColor(upright, cv2.COLOR_RGB2YCrCb)
    height, width = parts.shape[:2]
    chroma = cv2.resize(
        parts[..., 1:], (width // 2, height // 2), interpolation=cv2.INTER_AREA
    )
    path = Path(name)
    fixed = path.name.lower().startswith(_FRAME_PREFIXES)
    group = f"{number}:{path.parent.as_posix()}" if fixed else ""
    grey = np.ascontiguousarray(parts[..., 0], np.uint8)
    return Photo(
        *(name, grey, np.asarray(chroma, np.uint8), group, group, number),
        orientation=decoded.orientation,
    )


def _check_group(photo: Photo, shapes: dict[str, tuple[int, int]]) -> Photo | str:
    """Refuse a frame that cannot be aligned with the first one of its camera."""
    if not photo.group:
        return photo
    first = shapes.setdefault(photo.group, photo.size)
    if first == photo.size:
        return photo
    return f"{photo.name}: is {photo.size} px, the first frame of its camera is {first}"


class _Keeper:
    """Keeps arrays in memory up to a budget, and the rest in a file that is mapped."""

    def __init__(self, budget: int, cache: Path | None) -> None:
        self.left = budget
        self.cache = cache
        if cache is not None:
            cache.unlink(missing_ok=True)

    def keep(self, photo: Photo) -> Photo:
        self.left -= photo.grey.nbytes + photo.chroma.nbytes
        if self.left >= 0 or self.cache is None:
            return photo
        grey, chroma = self._map(photo.grey), self._map(photo.chroma)
        return replace(photo, grey=grey, chroma=chroma)

    def _map(self, array: U8) -> U8:
        assert self.cache is not None
        self.cache.parent.mkdir(parents=True, exist_ok=True)
        with self.cache.open("ab") as file:
            start = file.tell()
            file.write(array.tobytes())
        return np.memmap(self.cache, np.uint8, "r", start, array.shape)


def hold_back(photos: PhotoSet, share: float, most: int, seed: int) -> list[int]:
    """Choose photos that are only ever measured on: a share of them, `most` at most.

    Frames of fixed cameras are not chosen, as the next frame would give them away.
    """
    loose = [i for i, photo in enumerate(photos.photos) if not photo.group]
    if len(loose) < 4:
        loose = list(range(len(photos)))
    # Of a small collection a tenth would be too few to tell better from worse.
    least = max(1, min(_LEAST_HELD_BACK, len(loose) // 4))
    count = min(most, max(least, round(share * len(loose))), len(loose) - 1)
    rng = np.random.default_rng([seed, 101])
    return sorted(rng.choice(loose, max(count, 0), replace=False).tolist())
