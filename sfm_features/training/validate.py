"""How good a network is on photos it never learned from, under fixed changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import mean

import cv2
import numpy as np
import torch

from sfm_features import metrics
from sfm_features.nets.dense import DenseNet, pad_to_stride, sample_descriptors
from sfm_features.training.device import autocast
from sfm_features.training.peaks import find_peaks
from sfm_features.training.photometric import LightRanges, relight
from sfm_features.training.photos import Photo, PhotoSet
from sfm_features.training.warps import WarpRanges, cover, sample_homography, warp_image
from sfm_features.types import F32, F64, I32, U8

_SIZE_PX = 320
_KEYPOINTS = 512
_NMS_PX = 2
_CORRECT_PX = 3.0


@dataclass(frozen=True)
class Scores:
    """Means over pairs, at 3 px; `night` are pairs whose second image is dark.

    `views` is the share of points whose descriptors find each other in two photos of a
    place that was reconstructed, where there are any; `on_background` the share of the
    detector's probability that lies where no keypoint is wanted, where that is known.
    """

    repeatability: float
    matching_score: float
    homography: float
    night_repeatability: float
    night_matching_score: float
    night_homography: float
    views: float | None = None
    on_background: float | None = None

    @property
    def overall(self) -> float:
        """The mean matching score by day, against night, and from other views."""
        found = [self.matching_score, self.night_matching_score]
        return mean(found if self.views is None else [*found, self.views])


@dataclass(frozen=True)
class ProbePair:
    """Two crops (S, S) and b_from_a (3, 3)."""

    a: U8
    b: U8
    b_from_a: F64


@dataclass(frozen=True)
class ViewPair:
    """Two photos (H, W) of a place, and points (N, 2) that both show."""

    a: U8
    b: U8
    xy_a: F32
    xy_b: F32


def make_probes(
    photos: PhotoSet, held_back: Sequence[int], seed: int, night: bool
) -> list[ProbePair]:
    """Make the pairs to measure on: always the same for the same photos and seed."""
    probes = []
    for index in held_back:
        rng = np.random.default_rng([seed, 11, index, night])
        probes.append(_make_probe(photos, index, rng, night))
    return probes


def _make_probe(
    photos: PhotoSet, index: int, rng: np.random.Generator, night: bool
) -> ProbePair:
    photo = photos.photos[index]
    middle = (np.array(photo.size) - 1) / 2
    size = (_SIZE_PX, _SIZE_PX)
    images, warps = [], []
    for second in (False, True):
        # Much of the photo outside of a crop would leave little to measure on.
        fit = _SIZE_PX / min(photo.size)
        ranges = WarpRanges(scale=(0.9 * fit, 1.3 * fit), any_rotation_share=0.05)
        for _ in range(10):
            warp = sample_homography(rng, middle, _SIZE_PX, ranges)
            if cover(warp, photo.size, size).mean() > 0.7:
                break
        crop = warp_image(photo.grey, warp, size, fill=True)
        images.append(relight(crop, rng, LightRanges(), night and second)[0])
        warps.append(warp)
    return ProbePair(images[0], images[1], warps[1] @ np.linalg.inv(warps[0]))


@torch.no_grad()
def validate(
    net: DenseNet,
    photos: PhotoSet,
    held_back: Sequence[int],
    device: torch.device,
    seed: int = 0,
    views: Sequence[ViewPair] = (),
) -> Scores:
    """Measure a network; its mode is left as it was."""
    was_training = net.training
    net.eval()
    figures: list[float] = []
    for night in (False, True):
        probes = make_probes(photos, held_back, seed, night)
        measured = [measure_probe(net, probe, device) for probe in probes]
        columns = zip(*measured, strict=True)
        figures += [float(np.mean(column)) for column in columns]
    found = mean(_match_views(net, pair, device) for pair in views) if views else None
    known = [i for i in held_back if photos.photos[i].background is not None]
    shares = [_measure_background(net, photos.photos[i], device) for i in known]
    net.train(was_training)
    behind = mean(shares) if shares else None
    return replace(Scores(*figures), views=found, on_background=behind)


def _measure_background(net: DenseNet, photo: Photo, device: torch.device) -> float:
    """Return how much of the detector's probability lies on a photo's background."""
    image = torch.from_numpy(np.ascontiguousarray(photo.grey)).to(device)
    padded = pad_to_stride(image[None, None].float() / 255, net.stride)
    with autocast(device):
        dense = net(padded)
    width, height = photo.size
    p = net.probability(dense.logits.float())[0, 0, :height, :width]
    assert photo.background is not None
    behind = torch.from_numpy(photo.background).to(device)
    return float(p[behind].sum() / p.sum().clamp(min=1e-6))


def _match_views(net: DenseNet, pair: ViewPair, device: torch.device) -> float:
    """Return the share of a pair's points whose descriptors find each other."""
    both = []
    for grey, xy in ((pair.a, pair.xy_a), (pair.b, pair.xy_b)):
        image = torch.from_numpy(grey).to(device)[None, None].float() / 255
        padded = pad_to_stride(image, net.stride)
        with autocast(device):
            dense = net(padded)
        where = torch.from_numpy(xy).to(device)[None]
        size = (padded.shape[3], padded.shape[2])
        unit = sample_descriptors(dense.descriptors.float(), where, size)[0]
        both.append(unit.cpu().numpy())
    matches = match_mutually(*both)
    return float((matches[:, 0] == matches[:, 1]).sum() / len(pair.xy_a))


def measure_probe(
    net: DenseNet, probe: ProbePair, device: torch.device
) -> tuple[float, float, float]:
    """Return repeatability, matching score and whether the homography was found."""
    (xy_a, a), (xy_b, b) = detect(net, [probe.a, probe.b], device)
    size = (_SIZE_PX, _SIZE_PX)
    mapping = metrics.KnownMapping.from_homography(probe.b_from_a, size, size)
    matches = match_mutually(a, b)
    found: F64 | None = None
    if len(matches) >= 4:
        cv2.setRNGSeed(0)
        matrix, _ = cv2.findHomography(
            xy_a[matches[:, 0]], xy_b[matches[:, 1]], cv2.RANSAC, _CORRECT_PX
        )
        found = None if matrix is None else np.asarray(matrix, np.float64)
    error = metrics.homography_corner_error(found, probe.b_from_a, size)
    return (
        _or_zero(metrics.repeatability(xy_a, xy_b, mapping, _CORRECT_PX)),
        _or_zero(metrics.matching_score(xy_a, xy_b, matches, mapping, _CORRECT_PX)),
        float(error <= _CORRECT_PX),
    )


def _or_zero(value: float) -> float:
    """Nothing found is as bad as nothing found again."""
    return 0.0 if np.isnan(value) else value


def detect(
    net: DenseNet, images: Sequence[U8], device: torch.device
) -> list[tuple[F32, F32]]:
    """Find keypoints (K, 2) and unit descriptors (K, D) of images of one size."""
    stacked = torch.from_numpy(np.stack(images)[:, None]).to(device)
    with autocast(device):
        dense = net(stacked.float() / 255)
    p = net.probability(dense.logits.float())
    size = (stacked.shape[3], stacked.shape[2])
    found = []
    for i in range(len(images)):
        xy, _ = find_peaks(p[i, 0], _NMS_PX, 0.0, _KEYPOINTS)
        described = sample_descriptors(
            dense.descriptors[i : i + 1].float(), xy[None], size
        )
        found.append((xy.cpu().numpy(), described[0].cpu().numpy()))
    return found


def match_mutually(a: F32, b: F32) -> I32:
    """Return the pairs (K, 2) of descriptors that are nearest to each other."""
    if len(a) == 0 or len(b) == 0:
        return np.zeros((0, 2), np.int32)
    similarity = a @ b.T
    nearest_b, nearest_a = similarity.argmax(axis=1), similarity.argmax(axis=0)
    rows = np.arange(len(a))
    mutual = nearest_a[nearest_b] == rows
    return np.stack([rows[mutual], nearest_b[mutual]], axis=1).astype(np.int32)
