"""What a query's matches are worth: a pose, a doubt, or a reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sfm_features.candidates import Candidates
from sfm_features.colmap import PoseEstimate
from sfm_features.types import F32, Camera, Localization

LEAST_MATCHES = 6
_LEAST_SPREAD = 0.01
"""Least breadth of what is seen, as a share of the image's diagonal."""
_WEAK_BELOW = 100
"""Inliers below which a pose may be wrong, or better than it is."""
_DOUBTFUL_SHARE = 0.1
"""Share of the matched keypoints that a pose should fit."""
_MOST_BY_CHANCE = -4.0
"""Log10 of how many poses of wrong matches may pass for one that is right."""


@dataclass(frozen=True)
class Trial:
    """Matches, and the pose that fits most of them; each keypoint is an inlier once."""

    matched: Candidates
    estimate: PoseEstimate | None

    @property
    def num_inliers(self) -> int:
        """Keypoints that fit the pose."""
        return 0 if self.estimate is None else self.estimate.num_inliers

    def is_weak(self) -> bool:
        """Tell whether it fits so little that looking closer may find more."""
        return self.num_inliers < _WEAK_BELOW

    def is_doubtful(self) -> bool:
        """Tell whether it explains so little that another place may explain more."""
        if self.is_weak():
            return True
        matched = np.unique(self.matched.keypoints)
        return self.num_inliers < _DOUBTFUL_SHARE * len(matched)


def judge(
    best: Trial,
    by_chance: float,
    retrieved: tuple[str, ...],
    camera: Camera,
    min_inliers: int,
    milliseconds: dict[str, float],
) -> Localization:
    """Say what was found, or what is wrong with it.

    `by_chance`: log10 of how many such poses wrong matches alone would give.
    """
    matched, estimate = best.matched, best.estimate
    found = Localization(
        "few matches",
        f"{len(matched)} matches with points of {len(matched.names)} images",
        None,
        camera,
        retrieved=retrieved,
        xy=matched.xy,
        point_rows=matched.points,
        inliers=np.zeros(len(matched), np.bool_),
        milliseconds=milliseconds,
    )
    if len(matched) < LEAST_MATCHES:
        return found
    if estimate is None:
        reason = f"no pose fits any of {len(matched)} matches"
        return replace(found, status="few inliers", reason=reason)
    found = replace(found, inliers=estimate.inliers)
    reason = f"{estimate.num_inliers} of {len(matched)} matches fit one pose"
    if estimate.num_inliers < min_inliers:
        return replace(found, status="few inliers", reason=reason)
    if by_chance > _MOST_BY_CHANCE:
        reason = f"{reason}, no more than by chance"
        return replace(found, status="few inliers", reason=reason)
    if not _is_spread(matched.xy[estimate.inliers], camera):
        reason = f"{reason}, but all of them at one place"
        return replace(found, status="degenerate", reason=reason)
    return replace(
        found,
        status="localized",
        reason=reason,
        cam_from_world=estimate.cam_from_world,
        camera=estimate.camera,
        covariance=estimate.covariance,
    )


def _is_spread(xy: F32, camera: Camera) -> bool:
    """Tell whether pixels are neither at one place nor on a line."""
    breadth = np.linalg.svd(xy - xy.mean(axis=0), compute_uv=False)[-1]
    diagonal = np.hypot(camera.width, camera.height)
    return bool(breadth / np.sqrt(len(xy)) > _LEAST_SPREAD * diagonal)
