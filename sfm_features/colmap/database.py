"""Writing features and matches into a new COLMAP database, all or nothing."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray
from tqdm import tqdm

from sfm_features.colmap.cameras import (
    CameraBook,
    CameraOptions,
    warn_of_unused_globs,
)
from sfm_features.colmap.convert import to_colmap_camera
from sfm_features.colmap.files import remove_database, require_space
from sfm_features.colmap.logs import forward_logs
from sfm_features.colmap.models import load
from sfm_features.colmap.opening import find_cause
from sfm_features.errors import InputError, OutputError
from sfm_features.types import F32, PIXEL_CENTRE, Matches, Pair

log = logging.getLogger(__name__)

_ROW_BYTES = 500  # of an image or a pair besides its arrays, at most
_SPACE_BYTES = 1_000_000  # of an empty database and its journal, and to spare


def import_features_and_matches(
    database: Path,
    images_dir: Path | None,
    names: Sequence[str],
    cameras: CameraOptions,
    keypoints: Iterable[tuple[str, F32, tuple[int, int]]],
    matches: Iterable[tuple[Pair, Matches]],
    reference: Path | None = None,
    same_camera: bool = False,
    num_pairs: int | None = None,
) -> None:
    """Write a new database, replacing one that is there; a kill leaves none or all.

    keypoints yields (name, xy (N, 2) f32, (width, height)), one for each of `names`.
    Images get ids in the order of their names; those of the `reference` model keep its
    ids and cameras, and with `same_camera` the others are given its camera of their
    size. Without `images_dir` no EXIF is read. `num_pairs` is how many matches yields.
    """
    draft = database.with_name(f".{database.name}.partial")
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        remove_database(draft)
        require_space(database, _SPACE_BYTES)
        with (
            forward_logs(),
            pycolmap.Database.open(draft) as handle,
            pycolmap.DatabaseTransaction(handle),
        ):
            warn_of_unused_globs(cameras, names)
            book = CameraBook(cameras, images_dir)
            writer = _Writer(handle, database, names, book, reference, same_camera)
            writer.write_images(keypoints)
            writer.write_matches(matches, num_pairs)
            num_cameras = handle.num_cameras()
        _publish_database(draft, database)
    except (OSError, RuntimeError) as error:  # COLMAP's are RuntimeErrors
        raise find_cause(database) or OutputError(
            f"{database}: cannot be written ({error}); check the folder's permissions "
            "and the free space"
        ) from error
    log.info(
        "%s: %d images, %d cameras, %d pairs",
        *(database, len(names), num_cameras, writer.num_pairs),
    )


class _Writer:
    """Fills one open database inside one transaction."""

    def __init__(
        self,
        handle: pycolmap.Database,
        database: Path,
        names: Sequence[str],
        book: CameraBook,
        reference: Path | None,
        same_camera: bool,
    ) -> None:
        self._handle = handle
        self._book = book
        self._ids: dict[str, int] = {}
        self._reference_cameras: dict[str, pycolmap.Camera] = {}
        self._camera_ids: dict[Hashable, int] = {}
        self._counts: dict[str, int] = {}
        self._next_camera_id = 1
        self._same_camera = same_camera
        self._by_size: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        self._database = database
        self._bytes = self._bytes_assured = 0
        self.num_pairs = 0
        if len(set(names)) != len(names):
            raise InputError("the list of images names one twice; remove the repeats")
        if reference is not None:
            self._adopt(reference, set(names))
        first = max(self._ids.values(), default=0) + 1
        fresh = sorted(name for name in names if name not in self._ids)
        self._ids.update({name: first + rank for rank, name in enumerate(fresh)})

    def _adopt(self, reference: Path, wanted: set[str]) -> None:
        """Take over the cameras of a model, and the ids of its images."""
        model = load(reference)
        for camera in model.cameras.values():
            camera.has_prior_focal_length = True
            self._handle.write_camera(camera, use_camera_id=True)
            self._by_size[camera.width, camera.height].append(camera.camera_id)
        self._next_camera_id = max(model.cameras, default=0) + 1
        for image in model.images.values():
            if image.name in wanted:
                self._ids[image.name] = image.image_id
                self._reference_cameras[image.name] = model.cameras[image.camera_id]

    def write_images(
        self, keypoints: Iterable[tuple[str, F32, tuple[int, int]]]
    ) -> None:
        """Write cameras, images and keypoints."""
        bar = tqdm(
            keypoints, desc="import features", total=len(self._ids), unit="image"
        )
        for name, xy, size in bar:
            if name not in self._ids or name in self._counts:
                raise InputError(
                    f"{name}: its features are given twice or were not asked for; "
                    "extract again into a new file"
                )
            image_id = self._ids[name]
            camera_id = self._camera(name, size)
            image = pycolmap.Image(name=name, camera_id=camera_id, image_id=image_id)
            self._handle.write_image(image, use_image_id=True)
            self._assure_space(xy.nbytes)
            self._handle.write_keypoints(image_id, xy + np.float32(PIXEL_CENTRE))
            self._counts[name] = len(xy)
        missing = sorted(set(self._ids) - set(self._counts))
        if missing:
            raise InputError(
                f"{missing[0]}: has no features ({len(missing)} such images); "
                "extract them first"
            )

    def _assure_space(self, size: int) -> None:
        """Raise unless so many more bytes fit, in the journal and in the database."""
        self._bytes += size + _ROW_BYTES
        if self._bytes > self._bytes_assured:
            self._bytes_assured = self._bytes * 5 // 4 + _SPACE_BYTES // 2
            require_space(self._database, 2 * self._bytes_assured)

    def _camera(self, name: str, size: tuple[int, int]) -> int:
        """Return the id of an image's camera, which is written once."""
        known = self._reference_cameras.get(name)
        if known is not None:
            if (known.width, known.height) != size:
                raise InputError(
                    f"{name}: its features are of {size[0]} x {size[1]} pixels but the "
                    f"model's camera has {known.width} x {known.height}; extract from "
                    "the files that the model was made of"
                )
            return known.camera_id
        if self._same_camera:
            return self._known_camera(name, size)
        group, prior = self._book.describe(name, size)
        if group not in self._camera_ids:
            camera = to_colmap_camera(prior.camera, self._next_camera_id)
            camera.has_prior_focal_length = prior.has_prior
            self._handle.write_camera(camera, use_camera_id=True)
            self._camera_ids[group] = self._next_camera_id
            self._next_camera_id += 1
        return self._camera_ids[group]

    def _known_camera(self, name: str, size: tuple[int, int]) -> int:
        """Return the id of the reference's only camera of a size."""
        found = self._by_size[size]
        if len(found) != 1:
            raise InputError(
                f"{name}: is of {size[0]} x {size[1]} pixels, and {len(found)} cameras "
                "of the map are; leave out --same-camera, or add it apart"
            )
        return found[0]

    def write_matches(
        self, matches: Iterable[tuple[Pair, Matches]], total: int | None
    ) -> None:
        """Write the matches of all pairs, each pair once."""
        seen: set[frozenset[str]] = set()
        bar = tqdm(matches, desc="import matches", total=total, unit="pair")
        for pair, found in bar:
            first, second = pair
            if first == second or frozenset(pair) in seen:
                raise InputError(
                    f"{first} - {second}: the pair is given twice, or is one image "
                    "with itself; make the pairs and matches again"
                )
            seen.add(frozenset(pair))
            indices = self._checked(pair, found)
            self._assure_space(indices.nbytes)
            self._handle.write_matches(self._ids[first], self._ids[second], indices)
        self.num_pairs = len(seen)

    def _checked(self, pair: Pair, found: Matches) -> NDArray[np.uint32]:
        """Return the matches (K, 2) as COLMAP wants them; it checks nothing itself."""
        for name in pair:
            if name not in self._counts:
                raise InputError(
                    f"{pair[0]} - {pair[1]}: {name} is not among the images; make the "
                    "pairs from the same images"
                )
        counts = [self._counts[name] for name in pair]
        indices = found.indices
        if len(indices) and ((indices < 0) | (indices >= counts)).any():
            raise InputError(
                f"{pair[0]} - {pair[1]}: a match points outside the images' "
                f"{counts[0]} and {counts[1]} keypoints, so it was made from other "
                "features; match again into a new file"
            )
        # A match that is there twice would be counted twice as an inlier.
        _, first_rows = np.unique(indices, axis=0, return_index=True)
        return indices[np.sort(first_rows)].astype(np.uint32)


def _publish_database(draft: Path, database: Path) -> None:
    """Put the finished draft in place. SQLite would apply an old -wal to a new file."""
    with draft.open("rb+") as file:
        os.fsync(file.fileno())
    remove_database(database)
    os.replace(draft, database)
