"""Pairs of views of one place, related by points that a reconstruction is sure of."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from sfm_features.orientation import turn_points
from sfm_features.training.photos import Photo, PhotoSet
from sfm_features.training.validate import ViewPair
from sfm_features.types import F32, F64, I64, Bool, Model, RegisteredImage, undo_resize

_WIDE_DEG = 20.0
"""Pairs are chosen in proportion to how much their views differ, up to this."""
_DEG_PER_DOUBLING = 20.0
"""A place at twice the size differs as much as one seen from so far to the side."""
_NARROW_DEG = 2.0
_SAME_SHAPE = 0.02
_MOST_HELD_BACK = 32
"""Pairs that are measured on."""
_SEPARATE_PX = 3.0


@dataclass(frozen=True)
class TrackOptions:
    """Which points are believed, and which pairs are worth learning from."""

    least_views: int = 3
    """Views that must agree on a point: two lines of sight meet by chance."""
    most_error_px: float = 1.0
    """Mean reprojection error of a point, in pixels of the training photo."""
    least_shared: int = 24
    """Points that a pair of views must share."""
    most_angle_deg: float = 60.0
    """Median angle between the rays of a pair, beyond which little looks alike."""


@dataclass(frozen=True)
class SeenPoints:
    """What one photo sees: ids (N,) of points, rising, and their pixels (N, 2)."""

    ids: I64
    xy: F32


class TrackPairs:
    """Photos of reconstructed places; a point's observations correspond."""

    def __init__(
        self,
        seen: Mapping[int, SeenPoints],
        pairs: I64,
        changes_deg: F64,
    ) -> None:
        """seen by photo; pairs (P, 2) of photos, and how much (P,) their views differ.

        That is the angle between their rays, and something for a change of size.
        """
        self.seen, self.pairs, self.changes_deg = seen, pairs, changes_deg
        weights = np.clip(changes_deg, _NARROW_DEG, _WIDE_DEG)
        self._shares = np.cumsum(weights / weights.sum()) if len(pairs) else weights

    def __len__(self) -> int:
        return len(self.pairs)

    def choose(self, rng: np.random.Generator) -> tuple[int, int, F64, F64]:
        """Choose two photos and a place that both show, as pixels (2,) of either."""
        row = int(np.searchsorted(self._shares, rng.random(), "right"))
        pair = self.pairs[min(row, len(self.pairs) - 1)]
        first, second = (int(i) for i in rng.permutation(pair))
        xy_first, xy_second = self.relate(first, second, np.zeros((0, 2)))
        k = rng.integers(len(xy_first))
        return first, second, xy_first[k], xy_second[k]

    def relate(self, first: int, second: int, candidates: F64) -> tuple[F64, F64]:
        """Return pixels (M, 2) of two photos that show the same points.

        Nothing is known about candidates that are no points of the reconstruction.
        """
        a, b = self.seen[first], self.seen[second]
        _, in_a, in_b = np.intersect1d(a.ids, b.ids, True, return_indices=True)
        return a.xy[in_a].astype(np.float64), b.xy[in_b].astype(np.float64)

    def among(self, photos: Container[int]) -> TrackPairs:
        """Return the pairs whose photos are both among these."""
        keep = np.array([a in photos and b in photos for a, b in self.pairs], bool)
        return TrackPairs(self.seen, self.pairs[keep], self.changes_deg[keep])

    def held_back(
        self, photos: PhotoSet, held_back: Sequence[int], seed: int
    ) -> list[ViewPair]:
        """Choose pairs to measure on: with a photo that is never learned from."""
        touching = np.isin(self.pairs, held_back).any(axis=1).nonzero()[0]
        order = np.random.default_rng([seed, 17]).permutation(touching)
        chosen = []
        for a, b in self.pairs[np.sort(order[:_MOST_HELD_BACK])].tolist():
            xy_a, xy_b = self.relate(a, b, np.zeros((0, 2)))
            greys = photos.photos[a].grey, photos.photos[b].grey
            chosen.append(ViewPair(*greys, np.float32(xy_a), np.float32(xy_b)))
        return chosen

    def add_keypoints(self, labels: Mapping[int, F32]) -> dict[int, F32]:
        """Put the points that survived before the keypoints of the labelled photos."""
        return {
            photo: _merge(self.seen[photo].xy, xy) if photo in self.seen else xy
            for photo, xy in labels.items()
        }


def collect_tracks(
    photos: PhotoSet,
    folder: int,
    models: Iterable[tuple[str, Model]],
    options: TrackOptions = TrackOptions(),
) -> TrackPairs:
    """Collect what models say about a folder's photos.

    Models come with the prefix of their images' names. A photo belongs to the first
    model that it is in.
    """
    by_name = {p.name: i for i, p in enumerate(photos.photos) if p.folder == folder}
    seen: dict[int, SeenPoints] = {}
    pairs: list[tuple[int, int]] = []
    changes: list[float] = []
    first_id = 0
    for prefix, model in models:
        views: dict[int, RegisteredImage] = {}
        for name, image in model.images.items():
            photo = by_name.get(prefix + name)
            if photo is None or photo in seen:
                continue
            if not _has_shape(photos.photos[photo], image):
                continue
            views[photo] = image
            scale = _stored_size(photos.photos[photo])[0] / image.camera.width
            good = model.track_lengths >= options.least_views
            good &= model.errors_px * scale <= options.most_error_px
            seen[photo] = _see(photos.photos[photo], image, good, first_id)
        for a, b in combinations(views, 2):
            shared = np.intersect1d(seen[a].ids, seen[b].ids, assume_unique=True)
            if len(shared) < options.least_shared:
                continue
            rays = [
                model.points[shared - first_id] - views[photo].cam_from_world.centre
                for photo in (a, b)
            ]
            angle = _median_angle_deg(*rays)
            if angle <= options.most_angle_deg:
                pairs.append((a, b))
                places = [
                    seen[photo].xy[np.isin(seen[photo].ids, shared)] for photo in (a, b)
                ]
                changes.append(angle + _DEG_PER_DOUBLING * _count_doublings(*places))
        first_id += len(model.points)
    return TrackPairs(
        seen, np.array(pairs, np.int64).reshape(-1, 2), np.array(changes, np.float64)
    )


def _has_shape(photo: Photo, image: RegisteredImage) -> bool:
    """Tell whether a photo is its image shrunk, turned by its EXIF and not cut."""
    width, height = _stored_size(photo)
    aspect = (width / height) / (image.camera.width / image.camera.height)
    return abs(aspect - 1) < _SAME_SHAPE


def _stored_size(photo: Photo) -> tuple[int, int]:
    width, height = photo.size
    return (height, width) if photo.orientation > 4 else (width, height)


def _see(photo: Photo, image: RegisteredImage, good: Bool, first_id: int) -> SeenPoints:
    rows = image.point_ids
    keep = rows >= 0
    keep[keep] = good[rows[keep]]
    # A point may have two keypoints in one image; the first of them counts.
    ids, first = np.unique(rows[keep], return_index=True)
    size = (image.camera.width, image.camera.height)
    stored = undo_resize(image.keypoints[keep][first], _stored_size(photo), size)
    xy = turn_points(stored, photo.orientation, photo.size)
    inside = ((xy >= 0) & (xy <= np.array(photo.size) - 1)).all(axis=1)
    return SeenPoints(ids[inside] + first_id, xy[inside])


def _count_doublings(a: F32, b: F32) -> float:
    """Return how often points (N, 2) double the size that they take up."""
    areas = [np.linalg.det(np.cov(xy.astype(np.float64).T)) for xy in (a, b)]
    if min(areas) <= 0:
        return 0.0  # all on a line
    return float(abs(np.log2(areas[0] / areas[1])) / 4)


def _median_angle_deg(a: F64, b: F64) -> float:
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return float(np.degrees(np.median(np.arccos(cosine.clip(-1, 1)))))


def _merge(better: F32, others: F32) -> F32:
    """Join points (N, 2); of the others, those that are near a better one go."""
    if not len(better) or not len(others):
        return np.concatenate([better, others]).astype(np.float32)
    apart = np.abs(others[:, None] - better[None]).max(axis=2).min(axis=1)
    return np.concatenate([better, others[apart > _SEPARATE_PX]]).astype(np.float32)
