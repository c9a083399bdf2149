"""Pieces of photos in front of others: what they hide is hidden, and they move."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from training_kit import make_photo

from sfm_features.training.data import Batch, DataOptions, PairSource
from sfm_features.training.layers import LayerRanges
from sfm_features.training.photometric import LightRanges
from sfm_features.training.photos import Photo, PhotoSet
from sfm_features.training.targets import IGNORED
from sfm_features.training.warps import sample_maps

PLAIN = LightRanges(0, 0, 0, 0, 0, 0, 0, 0, 0)
FULL = DataOptions(
    batch=8, crop_px=96, points=64, light=PLAIN, layers=LayerRanges(share=1)
)
VALUES = (20, 120, 220)


def _make_labels(photos: PhotoSet) -> dict[int, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        i: rng.uniform(8, 140, (150, 2)).astype(np.float32) for i in range(len(photos))
    }


def _make_batch(options: DataOptions, flat: bool, k: int = 0) -> Batch:
    """Make a batch of textured photos, or of photos of one value each."""
    if flat:
        grey = [np.full((150, 200), value, np.uint8) for value in VALUES]
        chroma = np.full((75, 100, 2), 128, np.uint8)
        photos = [Photo(f"{i}.png", g, chroma) for i, g in enumerate(grey)]
    else:
        photos = [make_photo(seed=i) for i in range(3)]
    loaded = PhotoSet(photos)
    return PairSource(loaded, _make_labels(loaded), options, 0).make_batch(k)


def _read_points(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    first, second = batch.images.float().chunk(2)
    a, b = sample_maps(first, batch.xy[0]), sample_maps(second, batch.xy[1])
    return a[batch.used], b[batch.used]


def test_corresponding_points_show_the_same() -> None:
    a, b = _read_points(_make_batch(FULL, flat=False))
    assert len(a) > 200
    assert (a - b).abs().median() < 5
    assert (a - b.roll(1)).abs().median() > 20


def test_what_is_hidden_corresponds_to_nothing() -> None:
    """Photos of one value each: a pair of points that differ is on two surfaces."""
    shown = set()
    for k in range(4):
        batch = _make_batch(FULL, flat=True, k=k)
        a, b = _read_points(batch)
        assert (a - b).abs().max() < 1
        shown |= set(a.round().int().flatten().tolist())
        assert torch.isnan(batch.b_from_a).any(dim=(1, 2)).sum() >= 6
    assert shown == set(VALUES)


def test_nothing_is_said_about_outlines() -> None:
    batch = _make_batch(FULL, flat=True)
    pure = torch.isin(batch.images[:, 0], torch.tensor(VALUES, dtype=torch.uint8))
    assert (~pure).sum() > 100
    assert (batch.targets[~pure] == IGNORED).all()
    assert (batch.targets != IGNORED).float().mean() > 0.5


def test_pieces_move_otherwise_than_what_is_behind() -> None:
    """Surfaces of one pair are apart by pixels, on average."""
    still = replace(FULL, layers=LayerRanges(share=0))
    assert torch.isfinite(_make_batch(still, flat=False).b_from_a).all()
    apart = []
    for k in range(3):
        batch = _make_batch(replace(FULL, points=256), flat=True, k=k)
        for i in range(FULL.batch):
            values = sample_maps(batch.images[i, None].float(), batch.xy[0, i, None])
            shown, used = values[0].round().flatten(), batch.used[i]
            moved = batch.xy[1, i] - batch.xy[0, i]
            each = [moved[used & (shown == value)] for value in VALUES]
            motions = [steps.mean(0) for steps in each if len(steps) > 4]
            if len(motions) > 1:
                apart.append(float((motions[0] - motions[1]).norm()))
    assert len(apart) >= 6
    assert np.median(apart) > 4
