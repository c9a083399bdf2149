"""Matches that stand still: what a camera that stands still sees behind a thing.

On a turntable the thing turns, and the room looks the same in all photographs. Then
pairs of views agree that nothing moved, and no model comes out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np

from sfm_features.types import F32, I32, Bool, Features, Matcher, Matches, Model, Pair

logger = logging.getLogger(__name__)

STILL_SHARE = 0.003
"""How far a match may move, as a share of the image's longer side: 2 px of 640."""
_LEAST_PX = 1.5
"""How far keypoints of one thing may lie apart in small images, too."""
_MOST_PAIRS = 500
"""Pairs that are looked at to tell what happened."""
_ONE_PLACE = 0.02
"""Breadth of the cameras' places over the distance of what they see."""

Place = tuple[F32, tuple[int, int]]
"""Keypoints of an image and its size."""


class OnlyMoving(Matcher):
    """A matcher whose matches that stand still are left out."""

    def __init__(self, matcher: Matcher, still_px: float = 0.0) -> None:
        """A match stands still if it moves so many pixels at most; 0 = by size."""
        self._matcher, self._still_px = matcher, still_px
        self._found = self._still = 0

    def match(self, a: Features, b: Features) -> Matches:
        """Match `a` against `b`."""
        return self.match_many(a, [b])[0]

    def match_many(self, a: Features, others: Sequence[Features]) -> list[Matches]:
        """Match one image against several."""
        results = self._matcher.match_many(a, others)
        return [self._drop(m, a, b) for m, b in zip(results, others, strict=True)]

    def tell(self, asked: bool) -> None:
        """Log how many matches stood still, and how to keep them if nobody asked."""
        share, how = self._still / max(self._found, 1), "; --keep-still keeps them"
        logger.info(
            *("%.0f %% of the matches stand still, and are left out%s", 100 * share),
            "" if asked else how,
        )

    def _drop(self, matches: Matches, a: Features, b: Features) -> Matches:
        first, second = matches.indices.T
        still = find_still(
            (a.keypoints[first], a.image_size),
            (b.keypoints[second], b.image_size),
            self._still_px,
        )
        self._found += len(still)
        self._still += int(still.sum())
        return Matches(matches.indices[~still], matches.scores[~still])


def find_still(first: Place, second: Place, still_px: float = 0.0) -> Bool:
    """Tell which matched pixels (N, 2) are at the same place in both images.

    Images of different sizes are not of a camera that stands still: none are.
    """
    (xy, size), (there, other) = first, second
    if size != other:
        return np.zeros(len(xy), np.bool_)
    most = still_px or max(_LEAST_PX, STILL_SHARE * max(size))
    moved: Bool = np.linalg.norm(xy - there, axis=1) <= most
    return moved


def explain_still(
    verified: Mapping[Pair, I32],
    read: Callable[[str], Place],
    models: Sequence[Model],
    images: int,
) -> str:
    """Say so if the camera seems to have stood still, and that is why it went wrong.

    Nothing is said of a model that has most images at different places.
    """
    if models and 2 * len(models[0].images) >= images and not _at_one_place(models[0]):
        return ""
    share = _measure_share(verified, read)
    if share <= 0.5:
        return ""
    return (
        f"{share:.0%} of the verified matches do not move between their images, so the "
        "camera seems to have stood still; if it looked at an object that turns, run "
        "again with --turntable and another --output, and if not, take photographs "
        "from different places"
    )


def _measure_share(verified: Mapping[Pair, I32], read: Callable[[str], Place]) -> float:
    """Return the share of matches that stand still, among evenly chosen pairs."""
    read = lru_cache(maxsize=100)(read)
    pairs = list(verified)
    still = total = 0
    for pair in pairs[:: len(pairs) // _MOST_PAIRS + 1]:
        rows = verified[pair]
        (first, size), (second, other) = read(pair[0]), read(pair[1])
        found = find_still((first[rows[:, 0]], size), (second[rows[:, 1]], other))
        still, total = still + int(found.sum()), total + len(found)
    return still / max(total, 1)


def _at_one_place(model: Model) -> bool:
    """Tell whether all cameras stand so close together that they see no depth."""
    centres = np.array([image.cam_from_world.centre for image in model.images.values()])
    middle = np.median(centres, axis=0)
    if not len(model.points):
        return True
    far = np.median(np.linalg.norm(model.points - middle, axis=1))
    return bool(np.ptp(centres, axis=0).max() < _ONE_PLACE * far)
