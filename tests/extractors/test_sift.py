"""RootSIFT: unbiased positions and a repeatable choice of keypoints."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from samples import make_texture

from sfm_features.errors import OptionError
from sfm_features.extractors.sift import Sift


@pytest.mark.parametrize("sigma", [1.5, 2, 3, 5, 8])
def test_positions_are_unbiased(sigma: float) -> None:
    """Blobs with known sub-pixel centres: the mean error stays below 0.05 px."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:96, :96]
    errors = []
    for _ in range(20):
        centre = 48 + rng.uniform(-0.5, 0.5, 2)
        square = (columns - centre[0]) ** 2 + (rows - centre[1]) ** 2
        grey = (60 + 150 * np.exp(-square / (2 * sigma**2))).astype(np.uint8)
        found = Sift(max_keypoints=50).extract(np.dstack([grey] * 3)).keypoints
        offsets = found - centre
        errors.append(offsets[np.argmin(np.linalg.norm(offsets, axis=1))])
    assert np.abs(np.mean(errors, 0)).max() < 0.05
    assert np.abs(errors).max() < 0.1


def test_follows_a_known_motion() -> None:
    """Mutual matches of a turned, scaled picture agree with the motion."""
    picture = make_texture((320, 240), seed=3)
    motion = cv2.getRotationMatrix2D((150, 110), 25, 0.9)
    moved = cv2.warpAffine(picture, motion, (320, 240), flags=cv2.INTER_AREA)
    sift = Sift(max_keypoints=400)
    a, b = sift.extract(picture), sift.extract(moved)
    similarity = a.descriptors @ b.descriptors.T
    best = similarity.argmax(1)
    mutual = similarity.argmax(0)[best] == np.arange(len(a))
    expected = a.keypoints[mutual] @ motion[:, :2].T + motion[:, 2]
    errors = b.keypoints[best[mutual]] - expected
    close = np.linalg.norm(errors, axis=1) < 2
    assert close.sum() > 80
    assert np.abs(np.median(errors[close], 0)).max() < 0.1


def test_limit_order_and_rows() -> None:
    features = Sift(max_keypoints=40).extract(make_texture((300, 200)))
    assert len(features) == 40
    assert (np.diff(features.scores) <= 0).all()
    norms = np.linalg.norm(features.descriptors, axis=1)
    np.testing.assert_allclose(norms, 1, atol=1e-5)
    everything = Sift(max_keypoints=10_000).extract(make_texture((300, 200)))
    assert set(features.scores) <= set(everything.scores)


@pytest.mark.parametrize("size", [(1, 1), (5, 700), (700, 5), (64, 64)])
def test_nothing_to_find(size: tuple[int, int]) -> None:
    width, height = size
    features = Sift(max_keypoints=10).extract(np.full((height, width, 3), 90, np.uint8))
    assert len(features) == 0
    assert features.descriptors.shape == (0, 128)
    assert features.image_size == size


def test_weights_are_refused() -> None:
    with pytest.raises(OptionError, match="no weights"):
        Sift(max_keypoints=10, download=True)
