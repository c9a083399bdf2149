"""Batches of training pairs: a pure function of the photos, labels, seed and step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from sfm_features.geometry import warp_points
from sfm_features.training.crops import Crop, Labels, Surface, draw_crop
from sfm_features.training.layers import LayerRanges, sample_layer
from sfm_features.training.photometric import LightRanges
from sfm_features.training.photos import REPLAY_FOLDER, TOWN_FOLDER, PhotoSet
from sfm_features.training.warps import WarpRanges, map_inside, sample_homography
from sfm_features.types import F64, Bool


@dataclass(frozen=True)
class DataOptions:
    """What a batch is made of."""

    batch: int = 8
    """Pairs in a step."""
    crop_px: int = 256
    """Side of a crop, a multiple of 32 px."""
    points: int = 256
    """Corresponding points of a pair that descriptors learn from."""
    keypoint_share: float = 0.75
    """Share of those points that are labelled keypoints; the rest lie anywhere."""
    aligned_share: float = 0.2
    """Share of pairs from fixed cameras, where there are any."""
    day_to_night_share: float = 0.6
    """Share of those whose frames are surely one by day and one by night."""
    town_share: float = 0.0
    """Share of pairs from two views of a rendered town, if there is one."""
    track_share: float = 0.0
    """Share of pairs from two views of a place that was reconstructed, if any was."""
    turntable_share: float = 0.0
    """Share of pairs from two views of a thing on a turntable, if there is one."""
    one_place: bool = False
    """All photos may show the same place, but those that are replayed."""
    replay_share: float = 0.25
    """Share of pairs from the photos that are replayed, where there are any."""
    warps: WarpRanges = WarpRanges()
    """Geometric changes."""
    view_warps: WarpRanges = WarpRanges(
        (0.75, 1.33), 15.0, any_rotation_share=0.05, stretch_sigma=0.05,
        perspective_sigma=0.04,
    )  # fmt: skip
    """Geometric changes on top of those that two views of a place have anyway."""
    light: LightRanges = LightRanges()
    """Photometric changes."""
    layers: LayerRanges = LayerRanges()
    """Near things that hang in front of a photo."""

    def soften(self, hardness: float) -> DataOptions:
        """Return the same with fewer nights and fixed cameras; 1 changes nothing."""
        light = replace(self.light, night_share=hardness * self.light.night_share)
        aligned_share = hardness * self.aligned_share
        return replace(self, aligned_share=aligned_share, light=light)


@dataclass(frozen=True)
class Batch:
    """B pairs; the 2 B images are all first ones, then all second ones.

    images (2 B, 1, S, S) u8; targets (2 B, S, S) i8 of IGNORED, EMPTY or KEYPOINT;
    heat (2 B, S, S) f16, each keypoint spread around its place between the pixels;
    background (2 B, S, S) where no keypoint is wanted; nearness (2 B, 1, S, S) u8 what
    a depth teacher sees instead of images, depth_known (2 B, S, S) where there is any;
    xy (2, B, N, 2) are corresponding points, used (B, N) where there are any;
    b_from_a (B, 3, 3), nan where no homography relates the pair; places (B,) are equal
    where pairs may show the same.
    """

    images: Tensor
    targets: Tensor
    heat: Tensor
    background: Tensor
    nearness: Tensor
    depth_known: Tensor
    xy: Tensor
    used: Tensor
    b_from_a: Tensor
    places: Tensor
    names: tuple[str, ...]

    def to(self, device: torch.device) -> Batch:
        """Move everything to a device."""
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, **moved)

    def see_depth(self) -> Batch:
        """Return the batch as a network sees it that sees depth."""
        return replace(self, images=self.nearness)


class RelatedViews(Protocol):
    """Views of one place, related by what is known of its shape."""

    def choose(self, rng: np.random.Generator) -> tuple[int, int, F64, F64]:
        """Choose two photos and a place that both show, as pixels (2,) of either."""
        ...

    def relate(self, first: int, second: int, candidates: F64) -> tuple[F64, F64]:
        """Return pixels (M, 2) of two photos that show the same.

        candidates (N, 2) are pixels of the first that are worth knowing about.
        """
        ...


class PairSource:
    """Makes the k-th batch, always the same for the same seed and labels."""

    def __init__(
        self,
        photos: PhotoSet,
        labels: Labels,
        options: DataOptions = DataOptions(),
        seed: int = 0,
        related: Sequence[tuple[float, RelatedViews]] = (),
        excluded: Sequence[int] = (),
    ) -> None:
        """`related` are places of which there are several views, and their shares."""
        self.photos, self.labels, self.options = photos, labels, options
        self.seed, self.related = seed, related
        left_out = set(excluded)
        self.groups = [
            usable
            for members in photos.groups(left_out).values()
            if len(usable := [i for i in members if i in labels]) > 1
        ]
        grouped = {i for members in self.groups for i in members}
        loose = [i for i in labels if i not in left_out and i not in grouped]
        replayed = [i for i in loose if photos.photos[i].folder == REPLAY_FOLDER]
        self.replayed = sorted(replayed)
        self.loose = sorted(set(loose) - set(replayed))
        assert self.loose or self.groups, "no labelled photo to train on"

    def make_batch(self, k: int) -> Batch:
        """Make the k-th batch."""
        rng = np.random.default_rng([self.seed, 7, k])
        pairs = [self._make_pair(child) for child in rng.spawn(self.options.batch)]
        firsts, seconds, xy, used, warps, shown = zip(*pairs, strict=True)
        views = [*firsts, *seconds]
        return Batch(
            torch.from_numpy(np.stack([view.image for view in views])[:, None]),
            torch.from_numpy(np.stack([view.target for view in views])),
            torch.from_numpy(np.stack([view.heat for view in views])),
            torch.from_numpy(np.stack([view.background for view in views])),
            torch.from_numpy(np.stack([view.nearness.grey for view in views])[:, None]),
            torch.from_numpy(np.stack([view.nearness.known for view in views])),
            torch.from_numpy(np.stack(xy, axis=1).astype(np.float32)),
            torch.from_numpy(np.stack(used)),
            torch.from_numpy(np.stack(warps).astype(np.float32)),
            self._number_places(shown),
            tuple(self._name(*photos) for photos in shown),
        )

    def _number_places(self, shown: Sequence[tuple[int, int]]) -> Tensor:
        """Give pairs (B,) of photos that may show the same place the same number."""
        places = []
        for first, second in shown:
            photo = self.photos.photos[first]
            place = photo.name if first == second else photo.name.rpartition("/")[0]
            own = self.options.one_place and photo.folder != REPLAY_FOLDER
            if own or photo.folder == TOWN_FOLDER:
                place = ""
            places.append((photo.folder, place))
        known = {place: number for number, place in enumerate(dict.fromkeys(places))}
        return torch.tensor([known[place] for place in places])

    def _name(self, first: int, second: int) -> str:
        a, b = (self.photos.photos[i].name for i in (first, second))
        return a if first == second else f"{a} + {b}"

    def _make_pair(
        self, rng: np.random.Generator
    ) -> tuple[Crop, Crop, F64, Bool, F64, tuple[int, int]]:
        for share, views in self.related:
            if rng.random() < share:
                return self._make_related_pair(views, rng)
        first, second = self._choose(rng)
        size_px = self.options.crop_px
        width, height = self.photos.photos[first].size
        margin = np.minimum(size_px / 2, np.array([width, height]) / 2)
        centre = rng.uniform(margin, np.array([width, height]) - margin)
        nearby = centre + rng.uniform(-0.1, 0.1, 2) * size_px
        warp_a = sample_homography(rng, centre, size_px, self.options.warps)
        warp_b = sample_homography(rng, nearby, size_px, self.options.warps)
        b_from_a = warp_b @ np.linalg.inv(warp_a)
        layers = self._sample_layers(b_from_a, rng) if first == second else []
        a = self._draw([Surface(first, warp_a), *(front for front, _ in layers)], rng)
        b = self._draw([Surface(second, warp_b), *(front for _, front in layers)], rng)
        xy_a, xy_b, used = self._choose_points(a, b, rng)
        if layers:
            b_from_a = np.full((3, 3), np.nan)
        return a, b, np.stack([xy_a, xy_b]), used, b_from_a, (first, second)

    def _sample_layers(
        self, b_from_a: F64, rng: np.random.Generator
    ) -> list[tuple[Surface, Surface]]:
        """Choose what hangs in front of both crops of a photo, if anything does."""
        ranges = self.options.layers
        if not self.loose or rng.random() >= ranges.share:
            return []
        layers = []
        for _ in range(rng.integers(1, ranges.most, endpoint=True)):
            number = self.loose[rng.integers(len(self.loose))]
            photo, size_px = self.photos.photos[number], self.options.crop_px
            layer = sample_layer(rng, number, photo, b_from_a, size_px, ranges)
            if layer is not None:
                layers.append(layer)
        return layers

    def _choose(self, rng: np.random.Generator) -> tuple[int, int]:
        """Choose two aligned frames, or one photo twice."""
        fixed = rng.random() < self.options.aligned_share
        if self.groups and (fixed or not self.loose):
            members = self.groups[rng.integers(len(self.groups))]
            return self._choose_frames(members, rng)
        replay = rng.random() < self.options.replay_share
        choices = self.replayed if self.replayed and replay else self.loose
        chosen = choices[rng.integers(len(choices))]
        return chosen, chosen

    def _choose_frames(
        self, members: list[int], rng: np.random.Generator
    ) -> tuple[int, int]:
        """Choose two frames of one camera, mostly one by day and one by night."""
        first, second = rng.choice(members, 2, replace=False)
        photos = self.photos.photos
        others = [i for i in members if photos[i].by_night != photos[first].by_night]
        if others and rng.random() < self.options.day_to_night_share:
            second = others[rng.integers(len(others))]
        return int(first), int(second)

    def _draw(self, surfaces: Sequence[Surface], rng: np.random.Generator) -> Crop:
        size_px, light = self.options.crop_px, self.options.light
        return draw_crop(self.photos, self.labels, surfaces, size_px, rng, light)

    def _choose_points(
        self, a: Crop, b: Crop, rng: np.random.Generator
    ) -> tuple[F64, F64, Bool]:
        """Choose keypoints that both see, and points anywhere that both show."""
        size_px = self.options.crop_px
        keypoints = rng.permutation(a.keypoints)
        keypoints = keypoints[a.follow(b, keypoints)[1]]
        wanted = round(self.options.points * self.options.keypoint_share)
        anywhere = rng.uniform(0, size_px - 1, (4 * self.options.points, 2))
        anywhere = anywhere[a.follow(b, anywhere)[1]]
        xy_a = np.concatenate([keypoints[:wanted], anywhere])
        xy_a = xy_a[: self.options.points]
        return _pad(xy_a, a.follow(b, xy_a)[0], self.options.points)

    def _make_related_pair(
        self, views: RelatedViews, rng: np.random.Generator
    ) -> tuple[Crop, Crop, F64, Bool, F64, tuple[int, int]]:
        """Cut crops around the same place out of two views of it."""
        first, second, centre, elsewhere = views.choose(rng)
        size_px, ranges = self.options.crop_px, self.options.view_warps
        warp_a = sample_homography(rng, centre, size_px, ranges)
        warp_b = sample_homography(rng, elsewhere, size_px, ranges)
        a = self._draw([Surface(first, warp_a)], rng)
        b = self._draw([Surface(second, warp_b)], rng)
        anywhere = rng.uniform(0, size_px - 1, (self.options.points, 2))
        candidates = np.concatenate([a.keypoints, anywhere])
        photo_from_a = np.asarray(np.linalg.inv(warp_a), np.float64)
        in_first, in_second = views.relate(
            first, second, warp_points(photo_from_a, candidates)
        )
        xy_a, inside_a = map_inside(warp_a, in_first, (size_px, size_px))
        xy_b, inside_b = map_inside(warp_b, in_second, (size_px, size_px))
        used = inside_a & inside_b
        used[used] &= a.knows(xy_a[used]) & b.knows(xy_b[used])
        order = rng.permutation(used.nonzero()[0])[: self.options.points]
        xy_a, xy_b, used = _pad(xy_a[order], xy_b[order], self.options.points)
        unknown = np.full((3, 3), np.nan)
        return a, b, np.stack([xy_a, xy_b]), used, unknown, (first, second)


def _pad(xy_a: F64, xy_b: F64, count: int) -> tuple[F64, F64, Bool]:
    used = np.arange(count) < len(xy_a)
    missing = ((0, count - len(xy_a)), (0, 0))
    return np.pad(xy_a, missing), np.pad(xy_b, missing), used
