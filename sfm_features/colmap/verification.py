"""Geometric verification of matches. It resumes: verified pairs are not done again."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pycolmap

from sfm_features.colmap.files import require_database, require_space, settings_note
from sfm_features.colmap.models import load
from sfm_features.colmap.opening import open_database
from sfm_features.colmap.running import Cancellation, run_with_progress
from sfm_features.errors import InputError, OptionError, require_at_least
from sfm_features.types import I32, Pair

log = logging.getLogger(__name__)

_MATCH_BYTES, _ROW_BYTES = 8, 1000  # of a two-view geometry, at most
_BATCH_PAIRS = 200  # rows are committed a batch at a time: what a kill can lose


@dataclass(frozen=True)
class VerifyOptions:
    """How matches are verified by the geometry of two views."""

    max_error_px: float = 4.0
    """Largest distance from the epipolar line at which a match is an inlier."""
    min_inliers: int = 15
    """Drop pairs with fewer verified matches."""
    max_trials: int = 2000
    """RANSAC samples of a pair at most; COLMAP's own 10,000 take four times as long."""

    def __post_init__(self) -> None:
        if not 0 < self.max_error_px < math.inf:
            raise OptionError(
                f"--max-error-px {self.max_error_px}: must be more than 0"
            )
        require_at_least(1, min_inliers=self.min_inliers, max_trials=self.max_trials)


@dataclass(frozen=True)
class VerifiedPair:
    """Matches that fit one two-view geometry.

    indices (K, 2) i32 of the inliers, the number of matches they were chosen from, and
    the geometry's name: CALIBRATED, UNCALIBRATED, PLANAR, PANORAMIC, WATERMARK, ...
    """

    indices: I32
    num_matches: int
    configuration: str

    def __len__(self) -> int:
        return len(self.indices)


def verify_pairs(
    database: Path,
    options: VerifyOptions = VerifyOptions(),
    seed: int = 0,
    num_threads: int = -1,
    cancellation: Cancellation | None = None,
) -> None:
    """Verify the matches of all pairs by two-view geometry, several at a time.

    Killed or cancelled and run again, it goes on; the rows are the same as without
    interruption, whatever the number of threads. Other settings start it afresh.
    Raises Cancelled.
    """
    two_view = _two_view_options(options, seed)
    verifier = pycolmap.GeometricVerifierOptions(num_threads=num_threads)
    settings = {"seed": seed, **asdict(options)}
    stop = cancellation or Cancellation()

    def verify() -> None:
        pycolmap.geometric_verification(
            *(database, verifier, _pairing(), two_view, stop.token)
        )

    _verify(database, settings, verify, stop)


def verify_pairs_by_poses(
    database: Path,
    model_dir: Path,
    options: VerifyOptions = VerifyOptions(),
    seed: int = 0,
    num_threads: int = -1,
    cancellation: Cancellation | None = None,
) -> None:
    """Verify matches by the epipolar geometry of a model's poses: all, each time.

    Raises InputError if images of the database are not in the model.
    """
    two_view = _two_view_options(options, seed)
    settings = {"model": _digest(model_dir), **asdict(options)}
    stop = cancellation or Cancellation()
    model = read_matching_model(model_dir, database)

    def verify() -> None:
        pycolmap.guided_geometric_verification(
            *(model, database, _pairing(), two_view, num_threads, stop.token)
        )

    _verify(database, settings, verify, stop)


def read_verified(database: Path) -> dict[Pair, VerifiedPair]:
    """Read the pairs that passed verification, in the order of their image ids."""
    require_database(database)
    with open_database(database) as handle:
        names = {image.image_id: image.name for image in handle.read_all_images()}
        num_matches = dict(zip(*handle.read_num_matches(), strict=True))
        rows = sorted(
            zip(*handle.read_two_view_geometries(), strict=True),
            key=lambda row: row[0],
        )
    verified = {}
    for pair_id, geometry in rows:
        indices = np.asarray(geometry.inlier_matches).astype(np.int32).reshape(-1, 2)
        if len(indices) == 0:
            continue
        first, second = pycolmap.pair_id_to_image_pair(pair_id)
        name = pycolmap.TwoViewGeometryConfiguration(geometry.config).name
        count = num_matches.get(pair_id, len(indices))
        verified[names[first], names[second]] = VerifiedPair(indices, count, name)
    return verified


def count_verified(handle: pycolmap.Database) -> int:
    """Count the pairs that passed; COLMAP counts those that were tried."""
    _, counts = handle.read_two_view_geometry_num_inliers()
    return sum(count > 0 for count in counts)


def read_matching_model(model_dir: Path, database: Path) -> pycolmap.Reconstruction:
    """Read a model and give its images the ids that they have in a database."""
    require_database(database)
    model = load(model_dir)
    known = {image.name for image in model.images.values()}
    with open_database(database) as handle:
        present = {image.name for image in handle.read_all_images()}
        for missing, home in (
            (present - known, model_dir),
            (known - present, database),
        ):
            if missing:
                raise InputError(
                    f"{home}: has no image {min(missing)} ({len(missing)} such); "
                    "import the features with this model as the reference"
                )
        model.transcribe_image_ids_to_database(handle)
    return model


def _verify(
    database: Path,
    settings: Mapping[str, object],
    verify: Callable[[], None],
    stop: Cancellation,
) -> None:
    require_database(database)
    _forget_other_settings(database, json.dumps(settings, sort_keys=True))
    with open_database(database) as reader:
        count = reader.num_verified_image_pairs
        total = reader.num_matched_image_pairs()
        size = reader.num_matches() * _MATCH_BYTES + total * _ROW_BYTES
        require_space(database, 2 * size)  # once in the journal, once in the database
        run_with_progress(verify, "verify pairs", stop, total, count)
    with open_database(database) as handle:
        log.info(
            "%s: %d of %d pairs verified, %d of %d matches",
            *(database, count_verified(handle), total),
            *(handle.num_inlier_matches(), handle.num_matches()),
        )


def _forget_other_settings(database: Path, settings: str) -> None:
    """Delete what was verified with other settings; COLMAP would keep those rows.

    The settings are in a file beside the database. In the database they would need
    Python's own SQLite, which undoes the locks of COLMAP's when one process has both.
    """
    note = settings_note(database)
    if note.is_file() and note.read_text(encoding="utf-8") == settings:
        return
    note.unlink(missing_ok=True)
    with open_database(database) as handle:
        handle.clear_two_view_geometries()
    draft = note.with_name(note.name + ".partial")
    draft.write_text(settings, encoding="utf-8")
    os.replace(draft, note)


def _two_view_options(
    options: VerifyOptions, seed: int
) -> pycolmap.TwoViewGeometryOptions:
    made = pycolmap.TwoViewGeometryOptions(min_num_inliers=options.min_inliers)
    made.ransac.max_error = options.max_error_px
    made.ransac.max_num_trials = options.max_trials
    least = made.ransac.min_num_trials  # COLMAP's own is 100
    made.ransac.min_num_trials = min(least, options.max_trials)
    made.ransac.random_seed = seed
    return made


def _pairing() -> pycolmap.ExistingMatchedPairingOptions:
    return pycolmap.ExistingMatchedPairingOptions(batch_size=_BATCH_PAIRS)


def _digest(model_dir: Path) -> str:
    """Return a hash of a model's files."""
    digest = hashlib.sha256()
    for path in sorted(model_dir.glob("*")):
        if path.suffix in (".bin", ".txt"):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
