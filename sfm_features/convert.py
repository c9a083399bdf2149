"""Features and matches of a COLMAP database, into files of ours."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sfm_features import colmap
from sfm_features.errors import InputError, OptionError, require_other_file
from sfm_features.store import (
    FeatureStore,
    MatchStore,
    refuse_collisions,
    refuse_nested,
)
from sfm_features.types import I32, Features, Matches, Pair

logger = logging.getLogger(__name__)

_SOURCE = "COLMAP database"
_OF_SIFT: Mapping[str, Any] = {"max_keypoints": 8192, "max_size": 3200}
"""COLMAP's defaults for SIFT; `localize` makes the features of its queries so. What the
database was made with it does not tell."""


@dataclass(frozen=True)
class ConvertOptions:
    """What is taken over."""

    matches: Path | None = None
    """HDF5 file for the matches, to write or to complete."""
    verified: bool = False
    """Take only the matches that COLMAP verified."""
    overwrite: bool = False
    """Start the files anew."""

    def __post_init__(self) -> None:
        if self.verified and self.matches is None:
            raise OptionError("--verified is about matches; give --matches, too")


@dataclass(frozen=True)
class ConvertSummary:
    """What was done: images and pairs in the files now, images left out, seconds."""

    images: int
    pairs: int
    left_out: Sequence[str]
    seconds: float

    def to_text(self) -> str:
        """Say it in a line."""
        left = f", {len(self.left_out)} images left out" if self.left_out else ""
        return f"{self.images} images, {self.pairs} pairs{left}"


def convert(
    database: Path, features: Path, options: ConvertOptions = ConvertOptions()
) -> ConvertSummary:
    """Write the features of a COLMAP database to a file, and its matches if asked to.

    What the files have already and is the same stays. The database is only read.
    """
    start = time.perf_counter()
    _refuse_same_files(database, features, options.matches)
    with colmap.open_tables(database) as tables:
        images = _choose_images(database, tables, options)
        if options.matches is not None:
            _require_matches(database, tables, options.verified)
        names = {image.name for image in tables.images}
        config = _describe(tables)
        with FeatureStore.append(features, config, options.overwrite) as store:
            _write_features(tables, images, store)
            num_pairs = 0
            if options.matches is not None:
                made_from = {f"features.{key}": value for key, value in config.items()}
                settings = {"source": _SOURCE, "verified": options.verified}
                with MatchStore.append(
                    options.matches, {**settings, **made_from}, options.overwrite
                ) as matches:
                    num_pairs = _write_matches(tables, options, store, matches)
    left_out = sorted(names - {image.name for image in images})
    return ConvertSummary(len(images), num_pairs, left_out, time.perf_counter() - start)


def _refuse_same_files(database: Path, features: Path, matches: Path | None) -> None:
    require_other_file(features, database)
    if matches is not None:
        require_other_file(matches, database)
        if matches.resolve() == features.resolve():
            raise OptionError(
                f"{matches}: is to hold features and matches; choose another --matches"
            )


def _describe(tables: colmap.DatabaseTables) -> dict[str, Any]:
    """Return what is known of how the features were made, for the file.

    COLMAP's SIFT is RootSIFT, as ours is: nearly the same keypoints and descriptors.
    """
    name = tables.extractor
    if name != colmap.SIFT:
        return {"extractor": f"colmap-{name}", "source": _SOURCE}
    return {"extractor": name, "source": _SOURCE, **_OF_SIFT}


def _choose_images(
    database: Path, tables: colmap.DatabaseTables, options: ConvertOptions
) -> list[colmap.StoredImage]:
    """Choose the images that have features, and tell of the others."""
    refuse_collisions(image.name for image in tables.images)
    refuse_nested(image.name for image in tables.images)
    images = [image for image in tables.images if image.num_keypoints]
    if not images:
        raise InputError(
            f"{database}: none of its {len(tables.images)} images has keypoints; run "
            "COLMAP's feature_extractor on it, or `sfm-features extract` instead"
        )
    _tell_without("keypoints", tables.images, images)
    described = [image for image in images if image.num_descriptors]
    if described:
        _tell_without("descriptors", images, described)
        _refuse_different(database, described)
        return described
    if options.matches is None:
        raise InputError(
            f"{database}: has keypoints but no descriptors, so nothing could be "
            "matched; take over its matches, too, with --matches"
        )
    logger.warning(
        "%s: has no descriptors: its features serve with its matches, not to be "
        "matched again, nor to localize",
        database,
    )
    return images


def _require_matches(
    database: Path, tables: colmap.DatabaseTables, verified: bool
) -> None:
    """Raise InputError if there are none of the kind that is asked for."""
    if tables.count_pairs(verified):
        return
    if tables.count_pairs(not verified):
        what, remedy = (
            ("has no verified matches", "leave out --verified")
            if verified
            else ("has verified matches only", "add --verified")
        )
        raise InputError(f"{database}: {what}; {remedy}")
    raise InputError(
        f"{database}: has no matches; leave out --matches, and match its features with "
        "`sfm-features match`"
    )


def _tell_without(
    what: str, images: Sequence[colmap.StoredImage], chosen: Sequence[Any]
) -> None:
    left = sorted({image.name for image in images} - {image.name for image in chosen})
    if left:
        logger.warning(
            "left out %d of %d images that have no %s, %r first",
            *(len(left), len(images), what, left[0]),
        )


def _refuse_different(database: Path, images: Sequence[colmap.StoredImage]) -> None:
    for image in images:
        if image.num_descriptors != image.num_keypoints:
            raise InputError(
                f"{database}: {image.name!r} has {image.num_keypoints} keypoints but "
                f"{image.num_descriptors} descriptors; extract its features again"
            )


def _write_features(
    tables: colmap.DatabaseTables,
    images: Sequence[colmap.StoredImage],
    store: FeatureStore,
) -> None:
    """Write the features of images, but for those that are there and the same."""
    for image in tqdm(images, desc="convert features", unit="image"):
        keypoints = tables.read_keypoints(image)
        descriptors = np.zeros((len(keypoints), 0), np.float32)
        if image.num_descriptors:
            descriptors = tables.read_descriptors(image)
        scores = np.ones(len(keypoints), np.float32)
        features = Features(keypoints, descriptors, scores, image.size)
        if not _is_there(store, image.name, features):
            store.write(image.name, features)


def _is_there(store: FeatureStore, name: str, features: Features) -> bool:
    if (
        name not in store
        or store.read_size(name) != features.image_size
        or not np.array_equal(store.read_keypoints(name), features.keypoints)
    ):
        return False
    if not features.descriptors.shape[1]:
        return True
    stored = store.read(name).descriptors
    return np.array_equal(stored, features.descriptors.astype(np.float16))


def _write_matches(
    tables: colmap.DatabaseTables,
    options: ConvertOptions,
    features: FeatureStore,
    store: MatchStore,
) -> int:
    """Write the matches, but for those that are there and the same; count the pairs."""
    known = {name: features.fingerprint(name) for name in features.names()}
    counts = {image.name: image.num_keypoints for image in tables.images}
    num_lost, num_foreign, num_pairs = 0, 0, 0
    rows = tables.read_matches(options.verified)
    total = tables.count_pairs(options.verified)
    for pair, indices in tqdm(rows, "convert matches", total, unit="pair"):
        if pair is None or not {*pair} <= known.keys():
            num_foreign += 1
            continue
        matches, lost = _make_matches(tables.path, pair, indices, counts)
        fingerprints = known[pair[0]], known[pair[1]]
        num_lost += lost
        num_pairs += 1
        if not store.has_of(pair, fingerprints) or not np.array_equal(
            store.read(pair).indices, matches.indices
        ):
            store.write(pair, matches, counts[pair[0]], fingerprints)
    if num_foreign:
        logger.warning("left out %d pairs of images without features", num_foreign)
    if num_lost:
        logger.warning(
            "left out %d matches of keypoints that have another one in the same image",
            num_lost,
        )
    return num_pairs


def _make_matches(
    database: Path, pair: Pair, indices: I32, counts: Mapping[str, int]
) -> tuple[Matches, int]:
    """Return matches by the first image's keypoints, and how many that leaves out."""
    if (indices >= [counts[name] for name in pair]).any():
        raise InputError(
            f"{database}: a match of {pair[0]!r} and {pair[1]!r} points outside their "
            f"{counts[pair[0]]} and {counts[pair[1]]} keypoints, so it was made of "
            "other features; match again"
        )
    _, rows = np.unique(indices[:, 0], return_index=True)
    kept = np.ascontiguousarray(indices[rows])
    return Matches(kept, np.ones(len(kept), np.float32)), len(indices) - len(kept)
