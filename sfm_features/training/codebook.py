"""Fits the codebook and the whitening of whole images' descriptors to photographs."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from sfm_features.errors import ImageError, InputError
from sfm_features.images import decode, resize_to
from sfm_features.nets.vlad import ARCHITECTURE, Vlad, save_vlad
from sfm_features.nets.weights import Card
from sfm_features.photo_files import list_images
from sfm_features.registry import build_extractor, hash_weights
from sfm_features.types import F16, F32, F64, Extractor, RunOptions

logger = logging.getLogger(__name__)

_KEYPOINTS = 1024
_SIDE_PX = 640
_WORD_SAMPLES = 200_000
_ROUNDS = 25
_SHRINKAGE = 1e-3
"""Added to variances, as a share of the largest: what is rare is not blown up."""
_LEAST_PHOTOS = 16


def train_codebook(
    folders: Sequence[Path],
    output: Path,
    extractor: str = "evo",
    weights: Path | None = None,
    words: int = 32,
    dim: int = 512,
    most_photos: int = 0,
    run: RunOptions = RunOptions(),
) -> Card:
    """Fit a codebook to an extractor's features of photographs, and write it."""
    build = build_extractor(
        extractor, max_keypoints=_KEYPOINTS, device=run.device, weights=weights,
        seed=run.seed,
    )  # fmt: skip
    paths = [folder / name for folder in folders for name in list_images(folder)]
    rng = np.random.default_rng(run.seed)
    if 0 < most_photos < len(paths):
        paths = [paths[i] for i in sorted(rng.choice(len(paths), most_photos, False))]
    described = list(_extract_all(build, paths))
    if len(described) < _LEAST_PHOTOS:
        raise InputError(
            f"{folders[0]}: {len(described)} photos have features; a codebook needs "
            f"{_LEAST_PHOTOS}, and gets good with thousands"
        )
    vlad = fit_vlad(described, words, dim, rng)
    recipe = {
        "extractor": extractor,
        "weights_sha256": hash_weights(extractor, weights),
        "photos": len(described),
        "folders": [folder.name for folder in folders],
    }
    card = Card(ARCHITECTURE, recipe=recipe, seeds=[run.seed])
    return save_vlad(vlad, output, card)


def _extract_all(extractor: Extractor, paths: Sequence[Path]) -> Iterable[F16]:
    """Yield descriptors in half precision: they all have to be kept."""
    for path in tqdm(paths, desc="features", unit="photo"):
        try:
            rgb = resize_to(decode(path).rgb, _SIDE_PX)
        except ImageError as error:
            logger.warning("skipped: %s", error)
            continue
        local = extractor.extract(rgb).descriptors.astype(np.float16)
        if len(local):
            yield local


def fit_vlad(
    described: Sequence[F16 | F32], words: int, dim: int, rng: np.random.Generator
) -> Vlad:
    """Fit to the descriptors (N, L) of many photos."""
    stacked = _sample(described, _WORD_SAMPLES, rng)
    words = min(words, len(stacked))
    cv2.setRNGSeed(int(rng.integers(2**31)))
    stop = (cv2.TERM_CRITERIA_MAX_ITER | cv2.TERM_CRITERIA_EPS, _ROUNDS, 1e-4)
    start = np.zeros((len(stacked), 1), np.int32)
    found = cv2.kmeans(stacked, words, start, stop, 1, cv2.KMEANS_PP_CENTERS)
    centres = np.asarray(found[2], np.float32)
    dim = min(dim, len(described) - 1, centres.size)
    vlad = Vlad(words, centres.shape[1], dim)
    vlad.codebook.copy_(torch.from_numpy(centres))
    sums = [
        vlad.aggregate(torch.from_numpy(local.astype(np.float32))).numpy()
        for local in described
    ]
    mean, whitening = _whiten(np.array(sums, np.float64), dim)
    vlad.mean.copy_(torch.from_numpy(mean))
    vlad.whitening.copy_(torch.from_numpy(whitening))
    return vlad.eval()


def _sample(described: Sequence[F16 | F32], most: int, rng: np.random.Generator) -> F32:
    """Draw rows of all photos without stacking all of them."""
    ends = np.cumsum([len(local) for local in described])
    count = int(ends[-1])
    rows = np.arange(count)
    if count > most:
        rows = rng.choice(count, most, replace=False)
    drawn = np.empty((len(rows), described[0].shape[1]), np.float32)
    photo = np.searchsorted(ends, rows, side="right")
    for i in np.unique(photo).tolist():
        mine = photo == i
        drawn[mine] = described[i][rows[mine] - ends[i]]  # counted from its end
    return drawn


def _whiten(rows: F64, dim: int) -> tuple[F64, F64]:
    """Return the mean, and the main directions (D, C) scaled to like variance."""
    mean = rows.mean(axis=0)
    _, spread, directions = np.linalg.svd(rows - mean, full_matrices=False)
    variance = spread[:dim] ** 2 / len(rows)
    scale = 1 / np.sqrt(variance + _SHRINKAGE * variance[0])
    # Only the ratio of lengths counts; half precision likes numbers near 1.
    return mean, scale[:, None] / scale[0] * directions[:dim]
