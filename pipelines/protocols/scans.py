"""InLoc's cutouts of laser scans: where in a building each of their pixels is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from pipelines.protocols.chain import Located
from pipelines.protocols.ledger import Figures
from pipelines.protocols.matlab import read_matrix
from sfm_features.colmap import PoseEstimate, estimate_absolute_pose
from sfm_features.errors import InputError
from sfm_features.geometry import quaternion_wxyz, rotation_from_quaternion
from sfm_features.store import FeatureStore, MatchStore
from sfm_features.types import F32, F64, Bool, Camera, Pose

CUTOUTS = "database/cutouts"
_ALIGNMENTS = "database/alignments"
_MATRIX = "XYZcut"
_POSE = ("qw", "qx", "qy", "qz", "tx", "ty", "tz")
_FOCAL_SHARE = 28 / 36
"""Focal length over the longer side: that of 28 mm on film of 36 mm."""
_AFTER_ICP = slice(7, 11)
"""Lines of an alignment: a title and a matrix, a title and the better matrix."""


@dataclass(frozen=True)
class Seen:
    """Pixels (N, 2) of a query and the points (N, 3) that a cutout says they show."""

    xy: F32
    points: F64


class Scans:
    """Looks up what queries see of the scans, by their matches with cutouts."""

    def __init__(
        self,
        dataset: Path,
        features: FeatureStore,
        matches: MatchStore,
        least_matches: int,
    ) -> None:
        self._dataset = dataset
        self._features, self._matches = features, matches
        self._least_matches = least_matches

    def gather(self, query: str, cutouts: Sequence[str]) -> dict[str, list[Seen]]:
        """Gather what a query sees, building by building; few matches do not count."""
        seen: defaultdict[str, list[Seen]] = defaultdict(list)
        xy = self._features.read_keypoints(query)
        for cutout in cutouts:
            rows = self._matches.read((query, cutout)).indices
            if len(rows) >= self._least_matches:
                there = self._features.read_keypoints(cutout)[rows[:, 1]]
                part = look_up(self._dataset, cutout, xy[rows[:, 0]], there)
                seen[name_building(cutout)].append(part)
        return dict(seen)


def make_camera(size: tuple[int, int]) -> Camera:
    """Make the camera that all queries are said to have."""
    width, height = size
    focal = _FOCAL_SHARE * max(size)
    return Camera("SIMPLE_PINHOLE", width, height, (focal, width / 2, height / 2))


def name_building(cutout: str) -> str:
    """Return the building of a cutout, which has a frame of its own."""
    return PurePosixPath(cutout).relative_to(CUTOUTS).parts[0]


def read_alignment(dataset: Path, cutout: str) -> Pose:
    """Read building_from_scan of the scan that a cutout is of."""
    building, scan, file = PurePosixPath(cutout).relative_to(CUTOUTS).parts
    prefix = file.split("_")[0]
    path = dataset / _ALIGNMENTS / building / "transformations"
    path /= f"{prefix}_trans_{scan}.txt"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()[_AFTER_ICP]
        matrix = np.array([line.split() for line in lines], np.float64).reshape(4, 4)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: is no alignment with two 4 x 4 matrices ({error}); unpack the "
            "data set again"
        ) from error
    return Pose(matrix[:3, :3], matrix[:3, 3])


def look_up(dataset: Path, cutout: str, xy_query: F32, xy_cutout: F32) -> Seen:
    """Find the points of matches (N, 2) with a cutout; holes of the scan drop out."""
    inside = read_matrix(dataset / f"{cutout}.mat", _MATRIX)
    in_scan, known = interpolate(inside, xy_cutout)
    to_building = read_alignment(dataset, cutout)
    points = in_scan[known] @ to_building.rotation.T + to_building.translation
    return Seen(xy_query[known], points)


def interpolate(image: F64, xy: F32) -> tuple[F64, Bool]:
    """Read (H, W, C) between its pixels (N, 2); the nearest one where that is a hole.

    Returns the values (N, C) and which are known (N,).
    """
    height, width = image.shape[:2]
    x, y = np.clip(xy.astype(np.float64).T, 0, [[width - 1], [height - 1]])
    left = np.minimum(x.astype(int), width - 2)
    top = np.minimum(y.astype(int), height - 2)
    right, low = (x - left)[:, None], (y - top)[:, None]
    # An exact pixel must not turn into a hole because of a neighbour of no weight.
    parts = [
        (top, left, (1 - low) * (1 - right)),
        (top, left + 1, (1 - low) * right),
        (top + 1, left, low * (1 - right)),
        (top + 1, left + 1, low * right),
    ]
    values = np.zeros((len(xy), image.shape[2]))
    for row, column, weight in parts:
        values += np.where(weight > 0, weight * image[row, column], 0.0)
    nearest = image[y.round().astype(int), x.round().astype(int)]
    values = np.where(np.isnan(values).any(axis=1, keepdims=True), nearest, values)
    return values, np.asarray(~np.isnan(values).any(axis=1), np.bool_)


def estimate_pose(
    seen: Mapping[str, Sequence[Seen]], camera: Camera, max_error_px: float, seed: int
) -> PoseEstimate | None:
    """Estimate a query's pose in each building; the one with the most inliers counts.

    Buildings have frames of their own, so their points must not be mixed.
    """
    best: PoseEstimate | None = None
    for _, parts in sorted(seen.items()):
        xy = np.concatenate([part.xy for part in parts])
        points = np.concatenate([part.points for part in parts])
        found = estimate_absolute_pose(xy, points, camera, max_error_px, seed)
        if found is not None and (best is None or found.num_inliers > best.num_inliers):
            best = found
    return best


def to_figures(estimate: PoseEstimate | None) -> Figures:
    """Turn a pose into numbers for a ledger."""
    if estimate is None:
        return {"inliers": 0}
    pose = estimate.cam_from_world
    numbers = [*quaternion_wxyz(pose.rotation), *pose.translation]
    named = dict(zip(_POSE, map(float, numbers), strict=True))
    return {"inliers": estimate.num_inliers, **named}


def to_located(found: Figures) -> Located:
    """Turn the numbers of a ledger back into a pose."""
    if _POSE[0] not in found:
        return Located("few matches", "no pose fits any match", None)
    numbers = np.array([found[key] for key in _POSE])
    pose = Pose(rotation_from_quaternion(numbers[:4]), numbers[4:])
    return Located("localized", "", pose, int(found["inliers"]))
