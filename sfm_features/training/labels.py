"""What a network is taught: keypoints that it, or a corner measure, finds again.

A photo is looked at through several random affine views; what is found in them is
mapped back and averaged (affine adaption). Frames of a fixed camera serve as views of
each other, so that moving things and passing light average out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sfm_features.nets.dense import Dense, DenseNet, sample_descriptors
from sfm_features.training.device import autocast
from sfm_features.training.peaks import find_peaks
from sfm_features.training.photometric import LightRanges, relight
from sfm_features.training.photos import Photo
from sfm_features.training.warps import (
    is_inside,
    pixel_grid,
    sample_affine,
    sample_maps,
    transform,
    warp_image,
    warp_maps,
)
from sfm_features.types import F32

LabelKind: TypeAlias = Literal[
    "random", "corners", "detector", "reliability", "product"
]
RIM_PX = 8
"""What lies this near to the rim of a view is not trusted."""

_MULTIPLE_PX = 32
_LEAST_P = {"cell": 0.02, "pixel": 0.2}
_LEAST_R = 0.85
_GOOD_R = 2.0
_FLOOR_R = 0.03
_CHUNK = 4096
_MILD = LightRanges(
    night_share=0.0, gamma_sigma=0.25, contrast_sigma=0.2, local_share=0.3,
    blur_share=0.2, noise_share=0.3, jpeg_share=0.0,
)  # fmt: skip


@dataclass(frozen=True)
class LabelOptions:
    """How keypoints are chosen."""

    views: int = 6
    """Random affine views of a photo that are averaged, itself included; 1 = off."""
    reliability_views: int = 2
    """Views that the reliability is averaged over, of a photo that is by itself."""
    frames: int = 24
    """Pictures of one view that are averaged, at most: the more of them, the surer
    what is found is there by day and by night."""
    density: float = 4.0
    """Keypoints wanted per 1,000 px."""
    nms_radius_px: int = 4
    """Keypoints are at least so far apart."""


@dataclass(frozen=True)
class Views:
    """V views of a photo, itself first: images (V, 1, H, W) u8, photo (width, height).

    view_from_photo (V, 3, 3); H and W are padded to a multiple of 32.
    """

    images: Tensor
    view_from_photo: Tensor
    size: tuple[int, int]


@dataclass(frozen=True)
class PhotoLabels:
    """Keypoints (K, 2) strongest first, and the maps (H, W) they came from, if any."""

    xy: F32
    p: Tensor | None = None
    r: Tensor | None = None


def make_views(frames: Sequence[Photo], count: int, rng: np.random.Generator) -> Views:
    """Look at a photo, or at aligned frames in turn, through random affine views."""
    size = frames[0].size
    padded = tuple(-(-side // _MULTIPLE_PX) * _MULTIPLE_PX for side in size)
    images, warps = [], []
    for v in range(count):
        warp = np.eye(3) if v == 0 else sample_affine(rng, size)
        image = warp_image(frames[v % len(frames)].grey, warp, (padded[0], padded[1]))
        images.append(relight(image, rng, _MILD)[0] if v > 0 else image)
        warps.append(warp)
    stacked = torch.from_numpy(np.stack(images)[:, None])
    return Views(stacked, torch.from_numpy(np.stack(warps)).float(), size)


def average_views(maps: Tensor, views: Views) -> Tensor:
    """Average maps (V, 1, H, W) of views in the photo's frame -> (h, w)."""
    size = (views.size[1], views.size[0])
    warps = views.view_from_photo.to(maps.device)
    mapped, _ = warp_maps(maps.float(), warps, size)
    xy = transform(warps, pixel_grid(size, maps.device))
    last = torch.tensor(maps.shape[:1:-1], device=maps.device) - 1
    inside = ((xy >= RIM_PX) & (xy <= last - RIM_PX)).all(dim=-1).float()
    # The photo itself has no view around it that could tell more about its rim.
    inside[0] = 1
    weight = inside.reshape(-1, 1, *size)
    return (mapped * weight).sum(dim=0)[0] / weight.sum(dim=0)[0]


def measure_corners(views: Views) -> Tensor:
    """Return the share of views (h, w) in which a pixel is a Shi-Tomasi peak."""
    found = []
    for image in views.images[:, 0].numpy():
        smooth = cv2.GaussianBlur(image, (0, 0), 1.0)
        response = cv2.cornerMinEigenVal(smooth, 3, ksize=3)
        highest = cv2.dilate(response, np.ones((5, 5), np.uint8))
        least = max(1e-5, 3e-3 * float(response.max()))
        peaks = ((response == highest) & (response > least)).astype(np.float32)
        # Views agree to about a pixel, so a peak is a small hill of height one.
        hill = cv2.GaussianBlur(peaks, (7, 7), 1.0)
        found.append(hill * np.float32(2 * np.pi))
    return average_views(torch.from_numpy(np.stack(found)[:, None]), views)


@torch.no_grad()
def measure_detector(
    net: DenseNet, views: Views, device: torch.device
) -> tuple[Tensor, Dense]:
    """Return the averaged detector map (h, w), and the output for all views."""
    with autocast(device):
        dense = net(views.images.to(device).float() / 255)
    return average_views(net.probability(dense.logits.float()), views), dense


@torch.no_grad()
def measure_reliability(
    dense: Dense, views: Views, xy: Tensor, stride_px: int, count: int
) -> Tensor:
    """Return how much better points (N, 2) match themselves than their neighbours.

    R is the distance to the nearest descriptor around the matched point, over that to
    the matched one itself, averaged over `count` views and over two resolutions.
    """
    fine = dense.descriptors if dense.fine is None else dense.fine
    maps = ((fine, 2.0), (dense.descriptors, 2.0 * stride_px))
    size = (views.images.shape[3], views.images.shape[2])
    chosen = range(1, min(count + 1, len(views.images))) or range(1)
    total = torch.zeros(len(xy), device=xy.device)
    seen = torch.zeros_like(total)
    for v in chosen:
        there = transform(views.view_from_photo[v : v + 1].to(xy.device), xy[None])[0]
        for descriptors, step_px in maps:
            for begin in range(0, len(xy), _CHUNK):
                part = slice(begin, begin + _CHUNK)
                r, inside = _compare(
                    descriptors[0], descriptors[v], xy[part], there[part], step_px, size
                )
                total[part] += torch.where(inside, r, 0)
                seen[part] += inside
    return total / seen.clamp(min=1)


def _compare(
    own: Tensor, other: Tensor, xy: Tensor, there: Tensor, step_px: float,
    size: tuple[int, int],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Compare points (N, 2) with a 7 x 7 neighbourhood of where they are in a view."""
    steps = torch.arange(-3, 4, device=xy.device) * step_px
    offsets = torch.cartesian_prod(steps, steps)
    around = there[:, None] + offsets
    last = torch.tensor(size, device=xy.device) - 1
    inside = ((around >= 0) & (around <= last)).all(dim=-1).all(dim=-1)
    ours = sample_descriptors(own[None], xy[None], size)[0]
    theirs = sample_descriptors(other[None], around.reshape(1, -1, 2), size)
    theirs = theirs.reshape(*around.shape[:2], -1)
    cosine = (theirs @ ours[:, :, None])[..., 0]
    distance = _to_distance(cosine)
    itself = len(offsets) // 2
    matched = distance[:, itself]
    others = torch.cat([distance[:, :itself], distance[:, itself + 1 :]], dim=1)
    return others.min(dim=1).values / (matched + _FLOOR_R), inside


def map_reliability(dense: Dense, views: Views, stride_px: int, count: int) -> Tensor:
    """Return the reliability of all pixels (h, w), measured at every second one.

    As `measure_reliability`, but what surrounds a match is taken where the photo has
    it: then a neighbourhood is a shift of the whole map, far quicker than look-ups.
    """
    width, height = views.size
    coarse = ((height + 1) // 2, (width + 1) // 2)
    device = dense.descriptors.device
    xy = 2 * pixel_grid(coarse, device)
    fine = dense.descriptors if dense.fine is None else dense.fine
    size = (views.images.shape[3], views.images.shape[2])
    chosen = range(1, min(count + 1, len(views.images))) or range(1)
    total = torch.zeros(coarse, device=device)
    seen = torch.zeros_like(total)
    for maps, step in ((fine, 1), (dense.descriptors, stride_px)):
        own = _to_map(sample_descriptors(maps[:1], xy, size), coarse)
        for v in chosen:
            there = transform(views.view_from_photo[v : v + 1].to(device), xy)
            other = _to_map(sample_descriptors(maps[v : v + 1], there, size), coarse)
            known = is_inside(there, size).reshape(coarse)
            r, inside = _compare_maps(own, other, known, step)
            total += torch.where(inside, r, 0)
            seen += inside
    r = total / seen.clamp(min=1)
    back = pixel_grid((height, width), device) / 2
    return sample_maps(r[None, None], back).reshape(height, width)


def _to_map(rows: Tensor, size: tuple[int, int]) -> Tensor:
    """Turn rows (1, h * w, D) into maps (D, h, w)."""
    return rows[0].T.reshape(-1, *size).contiguous()


def _compare_maps(
    own: Tensor, other: Tensor, known: Tensor, step: int
) -> tuple[Tensor, Tensor]:
    """Compare a map (D, h, w) with the 7 x 7 shifts of another, `step` apart."""
    reach = 3 * step
    around = functional.pad(other, (reach,) * 4)
    height, width = own.shape[1:]
    nearest = torch.full((height, width), -torch.inf, device=own.device)
    for y in range(0, 2 * reach + 1, step):
        for x in range(0, 2 * reach + 1, step):
            if (y, x) != (reach, reach):
                shifted = around[:, y : y + height, x : x + width]
                nearest = torch.maximum(nearest, (own * shifted).sum(dim=0))
    missing = functional.pad((~known).float()[None], (reach,) * 4, value=1.0)
    inside = functional.max_pool2d(missing, 2 * reach + 1, stride=1)[0] == 0
    matched = _to_distance((own * other).sum(dim=0))
    return _to_distance(nearest) / (matched + _FLOOR_R), inside


def _to_distance(cosine: Tensor) -> Tensor:
    return (2 - 2 * cosine + 1e-4).clamp(min=1e-4).sqrt()


def label_photo(
    frames: Sequence[Photo],
    kind: LabelKind,
    options: LabelOptions,
    rng: np.random.Generator,
    net: DenseNet | None = None,
    device: torch.device = torch.device("cpu"),
) -> PhotoLabels:
    """Choose the keypoints of a photo, or those that aligned frames share."""
    width, height = frames[0].size
    most = max(8, round(options.density * width * height / 1000))
    if kind == "random":
        low, high = RIM_PX, np.array([width, height]) - 1 - RIM_PX
        return PhotoLabels(rng.uniform(low, high, (most, 2)).astype(np.float32))
    # Each picture of a view is looked at, be it only as it is.
    count = max(options.views, len(frames))
    views = make_views(frames, count, rng)
    if kind == "corners":
        p = measure_corners(views)
        xy, _ = find_peaks(_blank(p, frames[0]), options.nms_radius_px, 0.15, most)
        return PhotoLabels(xy.numpy(), p)
    assert net is not None, f"{kind} needs a network"
    if kind == "reliability":
        # Without affine adaption one view is still needed to compare with.
        if count == 1:
            views = make_views(frames, 2, rng)
        p, dense = measure_detector(net, views, device)
        r = map_reliability(dense, views, net.descriptor_stride, max(count - 1, 1))
        shown = _blank(r, frames[0])
        xy, _ = find_peaks(shown, options.nms_radius_px, _LEAST_R, most)
        return PhotoLabels(xy.cpu().numpy(), p.cpu(), r.cpu())
    p, dense = measure_detector(net, views, device)
    p = _blank(p, frames[0])
    wanted = 2 * most if kind == "product" else most
    xy, score = find_peaks(p, options.nms_radius_px, _LEAST_P[net.head], wanted)
    if kind == "product" and len(xy):
        compared = max(options.reliability_views, len(frames) - 1)
        r = measure_reliability(dense, views, xy, net.descriptor_stride, compared)
        score = score * (r / _GOOD_R).clamp(max=1) * (r > _LEAST_R)
        order = score.argsort(descending=True, stable=True)[:most]
        xy = xy[order][score[order] > 0]
    return PhotoLabels(xy.cpu().numpy(), p.cpu())


def _blank(found: Tensor, photo: Photo) -> Tensor:
    """Find nothing on the background, so that the rest gets all of the keypoints."""
    if photo.background is None:
        return found
    background = torch.from_numpy(photo.background).to(found.device)
    return found.masked_fill(background, 0)
