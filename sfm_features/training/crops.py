"""Crops of photos, drawn from one surface or more, and what is known of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np

from sfm_features.geometry import warp_points
from sfm_features.training.nearness import Nearness
from sfm_features.training.photometric import LightRanges, cast_colour, relight
from sfm_features.training.photos import Photo, PhotoSet
from sfm_features.training.targets import IGNORED, draw_heat, draw_target
from sfm_features.training.warps import cover, map_inside, shift, warp_image
from sfm_features.types import F32, F64, U8, Bool

Labels: TypeAlias = Mapping[int, F32]
"""Keypoints (K, 2) of each labelled photo, by its number, strongest first."""

_EDGE_PX = 5
"""Side of the neighbourhood in which the outline of a surface says nothing."""
_SUBPIXEL_BITS = 4


@dataclass(frozen=True)
class Surface:
    """A photo, or what is within an outline (N, 2) of it, as a crop shows it."""

    photo: int
    crop_from_photo: F64
    outline: F64 | None = None


@dataclass(frozen=True)
class Crop:
    """An image (S, S), what the detector is told about it, and where things are.

    owner (S, S) is the number of the surface that a pixel shows, background (S, S)
    tells where no keypoint is wanted, nearness (S, S) how near things are. Keypoints
    (K, 2) are those that can be seen.
    """

    image: U8
    target: np.ndarray
    heat: np.ndarray
    surfaces: tuple[Surface, ...]
    owner: U8
    background: Bool
    nearness: Nearness
    keypoints: F64

    def follow(self, other: Crop, xy: F64) -> tuple[F64, Bool]:
        """Map points (N, 2) to another crop of the same surfaces.

        Tells which of them both crops show, and say something about.
        """
        side = self.image.shape[0]
        owner = _read(self.owner, xy)
        landed = np.zeros_like(xy)
        shared = np.zeros(len(xy), bool)
        pairs = zip(self.surfaces, other.surfaces, strict=True)
        for k, (here, there) in enumerate(pairs):
            mine = owner == k
            between = there.crop_from_photo @ np.linalg.inv(here.crop_from_photo)
            landed[mine], inside = map_inside(between, xy[mine], (side, side))
            inside[inside] = _read(other.owner, landed[mine][inside]) == k
            shared[mine] = inside
        shared[shared] &= self.knows(xy[shared]) & other.knows(landed[shared])
        return landed, shared

    def knows(self, xy: F64) -> Bool:
        """Tell about which points (N, 2) inside the crop there is anything to say."""
        known = _read(self.target, xy) != IGNORED
        return np.asarray(known & ~_read(self.background, xy))


def draw_crop(
    photos: PhotoSet,
    labels: Labels,
    surfaces: Sequence[Surface],
    size_px: int,
    rng: np.random.Generator,
    light: LightRanges,
) -> Crop:
    """Draw a crop of surfaces, the farthest first, in a light of its own."""
    size = (size_px, size_px)
    behind = surfaces[0]
    photo = photos.photos[behind.photo]
    image = cut_crop(photo, behind.crop_from_photo, size, rng, light)
    known = cover(behind.crop_from_photo, photo.size, size)
    owner = np.zeros((size_px, size_px), np.uint8)
    for k, surface in enumerate(surfaces[1:], 1):
        _paste(
            image, known, owner, k, surface, photos.photos[surface.photo], rng, light
        )
    # What is of the night already is not darkened any more.
    night = False if photo.by_night else None
    image, visible = relight(image, rng, light, night)
    found = []
    for k, surface in enumerate(surfaces):
        keypoints = labels[surface.photo]
        keypoints = keypoints[photos.photos[surface.photo].keeps(keypoints)]
        xy, inside = map_inside(surface.crop_from_photo, keypoints, size)
        inside[inside] = _read(owner, xy[inside]) == k
        found.append(xy[inside])
    xy = np.concatenate(found)
    target = draw_target(xy, known, visible & known)
    xy = xy[_read(visible & known, xy)]
    heat = draw_heat(xy, size_px)
    background = _draw_background(photos, surfaces, owner)
    # What is said of a keypoint at the rim of the thing must not be taken back.
    background &= heat == 0
    nearness = _draw_nearness(photos, surfaces, owner)
    return Crop(image, target, heat, tuple(surfaces), owner, background, nearness, xy)


def _draw_background(photos: PhotoSet, surfaces: Sequence[Surface], owner: U8) -> Bool:
    """Warp what is known of backgrounds just as the photos (S, S)."""
    found = np.zeros(owner.shape, bool)
    for k, surface in enumerate(surfaces):
        background = photos.photos[surface.photo].background
        if background is not None:
            warped = cv2.warpPerspective(
                background.astype(np.uint8), surface.crop_from_photo,
                owner.shape[::-1], flags=cv2.INTER_NEAREST,
            )  # fmt: skip
            found |= (warped > 0) & (owner == k)
    return found


def _draw_nearness(
    photos: PhotoSet, surfaces: Sequence[Surface], owner: U8
) -> Nearness:
    """Warp what is known of depth just as the photos; mirrored as they are."""
    grey = np.zeros(owner.shape, np.uint8)
    known = np.zeros(owner.shape, bool)
    size = (owner.shape[1], owner.shape[0])
    for k, surface in enumerate(surfaces):
        photo, warp = photos.photos[surface.photo], surface.crop_from_photo
        if photo.nearness is None:
            continue
        # Where what is in front has no depth, what is behind it shows instead.
        place = owner == k if k else np.ones_like(known)
        grey[place] = warp_image(photo.nearness.grey, warp, size)[place]
        seen = photo.nearness.known.astype(np.uint8)
        known |= (warp_image(seen, warp, size, fill=True) > 0) & (owner == k)
    return Nearness(grey, known)


def cut_crop(
    photo: Photo,
    crop_from_photo: F64,
    size: tuple[int, int],
    rng: np.random.Generator,
    light: LightRanges,
) -> U8:
    """Warp a photo to (width, height), now and then seen through a colour cast."""
    crop = warp_image(photo.grey, crop_from_photo, size)
    if rng.random() >= light.cast_share:
        return crop
    from_chroma = crop_from_photo @ photo.full_from_chroma
    return cast_colour(crop, warp_image(photo.chroma, from_chroma, size), rng)


def _paste(
    image: U8,
    known: Bool,
    owner: U8,
    number: int,
    surface: Surface,
    photo: Photo,
    rng: np.random.Generator,
    light: LightRanges,
) -> None:
    """Draw a surface in front of what is there: only where it is, as it is small."""
    assert surface.outline is not None
    corners = warp_points(surface.crop_from_photo, surface.outline)
    low = np.floor(corners.min(axis=0)).astype(int) - _EDGE_PX
    high = np.ceil(corners.max(axis=0)).astype(int) + _EDGE_PX
    left, top = np.maximum(low, 0).tolist()
    right, bottom = np.minimum(high, image.shape[0]).tolist()
    if left >= right or top >= bottom:
        return
    place = np.s_[top:bottom, left:right]
    size = (right - left, bottom - top)
    opacity = _draw_outline(corners - [left, top], size)
    local = shift((-left, -top)) @ surface.crop_from_photo
    front = cut_crop(photo, local, size, rng, light)
    image[place] = _blend(image[place], front, opacity)
    owner[place][opacity > 0.5] = number
    known[place] = (known[place] | (opacity == 1)) & ~_find_edge(opacity)


def _draw_outline(corners: F64, size: tuple[int, int]) -> F32:
    """Draw how much (H, W) of each pixel an outline hides, from 0 to 1."""
    fixed = np.rint(corners * 2**_SUBPIXEL_BITS).astype(np.int32)
    opacity = np.zeros(size[::-1], np.uint8)
    cv2.fillPoly(opacity, [fixed], 255, cv2.LINE_AA, _SUBPIXEL_BITS)
    return np.asarray(opacity / 255, np.float32)


def _blend(behind: U8, front: U8, opacity: F32) -> U8:
    mixed = behind + opacity * (front.astype(np.float32) - behind)
    return np.rint(mixed).astype(np.uint8)


def _find_edge(opacity: F32) -> Bool:
    """Tell where a neighbourhood (H, W) is neither hidden nor left free."""
    square = np.ones((_EDGE_PX, _EDGE_PX), np.uint8)
    most, least = cv2.dilate(opacity, square), cv2.erode(opacity, square)
    return np.asarray((most > 0) & (least < 1))


def _read(pixels: np.ndarray, xy: F64) -> np.ndarray:
    columns, rows = np.rint(xy).astype(np.int64).T
    return np.asarray(pixels[rows, columns])
