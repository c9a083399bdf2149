"""Peaks between pixels, ties, edges, and keypoints that follow the picture."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from nets_kit import BlobNet, Blobs, scatter_blobs
from torch import Tensor
from torch.nn import functional

from sfm_features.nets.decode import decode, detect
from sfm_features.nets.dense import (
    CELL_PX,
    Dense,
    pad_to_stride,
    sample_bilinear,
    sample_rows,
)
from sfm_features.nets.evo import EvoNet
from sfm_features.nets.peaks import (
    DecodeOptions,
    find_peaks,
    fit_peaks,
    suppress_neighbours,
)
from sfm_features.types import F64, U8, Features

ALL = DecodeOptions(least_probability=0)
BLOBS = DecodeOptions(least_probability=0.1)  # the rest of the picture is below


def _to_grey(picture: U8) -> Tensor:
    return torch.from_numpy(picture)[None, None].float() / 255


def _find_distances(expected: F64, found: Features) -> F64:
    """Return how far the nearest keypoint of each expected place is."""
    offsets = expected[:, None] - found.keypoints[None]
    distances: F64 = np.linalg.norm(offsets, axis=2).min(axis=1)
    return distances


def _is_inside(points: F64, size: tuple[int, int], margin: float) -> np.ndarray:
    return ((points > margin) & (points < np.array(size) - margin)).all(axis=1)


def test_sub_pixel_peaks_of_a_known_surface() -> None:
    """Turned elliptic hills in log-probability: tops found to 0.05 px."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:200, :200].astype(float)
    log_p = np.full((200, 200), -14.0)
    tops = []
    for cx, cy in itertools.product(range(10, 191, 20), (10, 70, 130, 190)):
        x, y = np.array([cx, cy]) + rng.uniform(-0.5, 0.5, 2)
        turn, thin, wide = rng.uniform(0, np.pi), 1.2, rng.uniform(1.2, 2)
        u = (columns - x) * np.cos(turn) + (rows - y) * np.sin(turn)
        v = (rows - y) * np.cos(turn) - (columns - x) * np.sin(turn)
        hill = -0.5 - (u / wide) ** 2 / 2 - (v / thin) ** 2 / 2
        log_p = np.maximum(log_p, hill)
        tops.append((x, y))
    # As probabilities, those of a cell and its dustbin must add up to one.
    p = torch.from_numpy(np.exp(log_p))[None, None]
    filled = functional.avg_pool2d(p, CELL_PX) * CELL_PX**2
    p = p / (1.01 * filled.max())
    rest = 1 - functional.interpolate(filled / (1.01 * filled.max()), scale_factor=8)
    logits = p.log() - rest.log()
    dense = Dense(logits, torch.ones(1, 4, 50, 50))
    options = DecodeOptions(least_probability=1e-3)
    found = decode(EvoNet(), dense, (200, 200), options)[0]
    distances = _find_distances(np.array(tops), found)
    assert distances.max() < 0.05, distances.max()
    assert len(found) == len(tops)


@pytest.mark.parametrize("size", [(203, 157), (256, 192), (97, 230)])
@pytest.mark.parametrize(
    ("scale", "angle_deg", "shift"),
    [
        (1, 0, (0, 0)), (1, 0, (3.3, -2.6)), (1, 0, (1, 0)), (0.5, 0, (0, 0)),
        (0.7, 30, (1.2, 4.9)), (1.4, -70, (0, 0.5)), (2, 10, (-3.7, 2)),
        (1, 90, (0, 0)),
    ],
)  # fmt: skip
def test_keypoints_follow_the_picture(
    size: tuple[int, int],
    scale: float,
    angle_deg: float,
    shift: tuple[float, float],
) -> None:
    """Shifted, scaled and turned, at any size: keypoints stay on the blobs."""
    scene = scatter_blobs(size, count=9, seed=1)
    middle = np.array(size) / 2
    moved = scene.move(scale, angle_deg, np.array(shift), middle)
    before = detect(BlobNet(), _to_grey(scene.draw(size)), BLOBS)[0]
    after = detect(BlobNet(), _to_grey(moved.draw(size)), BLOBS)[0]
    assert len(before) == len(scene.centres)
    assert (_find_distances(scene.centres, before) < 0.1).all()
    places = Blobs(before.keypoints.astype(float), np.ones(len(before)))
    expected = places.move(scale, angle_deg, np.array(shift), middle).centres
    expected = expected[_is_inside(expected, size, 12)]
    assert len(expected) > 1
    distances = _find_distances(expected, after)
    assert np.median(distances) < 0.1
    assert (distances < 0.2).all()


def test_descriptors_belong_to_their_keypoints() -> None:
    """The network describes by the place in the padded picture."""
    size = (203, 157)
    found = detect(BlobNet(), _to_grey(scatter_blobs(size, 12).draw(size)), BLOBS)[0]
    assert len(found) == 12
    place = found.descriptors[:, :2] / found.descriptors[:, 2:]
    # The middles of the first and the last of 52 x 40 cells are 0 and 1.
    expected = (found.keypoints - 1.5) / (4 * np.array([51, 39]))
    np.testing.assert_allclose(place, expected, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(found.descriptors, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("radius", [1, 2, 3, 4, 7])
def test_suppression_agrees_with_max_pooling(radius: int) -> None:
    torch.manual_seed(radius)
    values = torch.randn(2, 1, 37, 53)
    pooled = functional.max_pool2d(values, 2 * radius + 1, 1, radius)
    assert (suppress_neighbours(values, radius) == (values == pooled)).all()


def test_of_equal_neighbours_the_first_counts() -> None:
    values = torch.zeros(1, 1, 20, 20)
    values[0, 0, 5, 5:8] = 1
    values[0, 0, 10, 10] = values[0, 0, 11, 9] = 1
    values[0, 0, 15, 3] = values[0, 0, 15, 6] = 1  # three apart: both stay
    peaks = suppress_neighbours(values, 2) & (values > 0)
    assert peaks.nonzero()[:, 2:].tolist() == [[5, 5], [10, 10], [15, 3], [15, 6]]
    # A pair of equals, fitted, has its top in the middle.
    top = fit_peaks(torch.tensor([[0.0, 1, 1, 0]] * 3), *torch.tensor([[1], [1]]))
    torch.testing.assert_close(top, torch.tensor([[1.5, 1.0]]))


def test_peaks_at_the_edge_stay_there() -> None:
    """Without a neighbour outside no fit is made across the edge."""
    rows, columns = torch.meshgrid(torch.arange(9.0), torch.arange(7.0), indexing="ij")
    for x, y in [(0.0, 4.2), (6.0, 3.9), (2.8, 0.0), (3.2, 8.0), (0.0, 0.0)]:
        hill = -((columns - x) ** 2) - (rows - y) ** 2
        pixel = torch.tensor([round(x)]), torch.tensor([round(y)])
        top = fit_peaks(hill, *pixel)
        torch.testing.assert_close(top, torch.tensor([[x, y]]), atol=1e-5, rtol=0)


def test_padding_and_border_hold_no_keypoints() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 1, 64, 96) + 5
    dense = Dense(logits, torch.randn(1, 8, 16, 24))
    options = DecodeOptions(least_probability=0, border_px=6)
    xy = decode(EvoNet(), dense, (83, 49), options)[0].keypoints
    assert len(xy) > 50
    assert (xy >= 6 - 0.75).all() and (xy <= np.array([82, 48]) - 6 + 0.75).all()
    # What is in the padding is not seen by the suppression either.
    louder = logits.clone()
    louder[..., 49:, :] = louder[..., 83:] = -50.0
    peaks = [
        find_peaks(part[:, :, :49, :83], DecodeOptions(border_px=0))
        for part in (logits, louder)
    ]
    assert (peaks[0] == peaks[1]).all()


def test_the_best_are_kept_in_order() -> None:
    torch.manual_seed(0)
    dense = Dense(torch.randn(1, 1, 64, 64), torch.randn(1, 8, 16, 16))
    everything = decode(EvoNet(), dense, (64, 64), ALL)[0]
    best = decode(EvoNet(), dense, (64, 64), DecodeOptions(20, least_probability=0))[0]
    assert len(everything) > 100 and len(best) == 20
    assert (np.diff(everything.scores) <= 0).all()
    assert (everything.keypoints[:20] == best.keypoints).all()
    least = float(everything.scores[30])
    some = decode(EvoNet(), dense, (64, 64), DecodeOptions(least_probability=least))[0]
    assert 30 <= len(some) <= 31


def test_equal_scores_are_chosen_in_reading_order() -> None:
    logits = torch.full((1, 1, 64, 64), -9.0)
    logits[:, :, 4:60:8, 4:60:8] = 3
    dense = Dense(logits, torch.ones(1, 8, 16, 16))
    found = decode(EvoNet(), dense, (64, 64), DecodeOptions(10))[0].keypoints
    expected = [[4 + 8 * (i % 7), 4 + 8 * (i // 7)] for i in range(10)]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("size", [(1, 1), (3, 90), (40, 7), (8, 8), (33, 65)])
def test_any_size(size: tuple[int, int]) -> None:
    width, height = size
    torch.manual_seed(0)
    net = EvoNet().eval()
    with torch.inference_mode():
        found = detect(net, torch.rand(1, 1, height, width), ALL)[0]
    assert found.image_size == size
    assert found.descriptors.shape == (len(found), EvoNet.descriptor_dim)
    assert (len(found) > 0) == (min(size) > 8)


def test_flat_pictures_have_no_keypoints() -> None:
    net = EvoNet().eval()
    with torch.inference_mode():
        found = detect(net, torch.full((1, 1, 96, 96), 0.4), DecodeOptions())[0]
    # Only the network's edges differ from the rest.
    assert _is_inside(found.keypoints.astype(float), (96, 96), 44).sum() == 0


def test_batches_are_their_images_and_repeat() -> None:
    torch.manual_seed(0)
    net = EvoNet().eval()
    batch = torch.rand(3, 1, 70, 90)
    with torch.inference_mode():
        together = detect(net, batch, ALL)
        again = detect(net, batch, ALL)
        alone = [detect(net, batch[i : i + 1], ALL)[0] for i in range(3)]
    for a, b, c in zip(together, again, alone, strict=True):
        assert (a.keypoints == b.keypoints).all()
        assert (a.descriptors == b.descriptors).all()
        assert len(a) == len(c)
        np.testing.assert_allclose(a.keypoints, c.keypoints, atol=1e-3)
        np.testing.assert_allclose(a.descriptors, c.descriptors, atol=1e-4)


def test_broken_maps_give_nothing() -> None:
    dense = Dense(torch.full((1, 1, 32, 32), torch.nan), torch.randn(1, 8, 8, 8))
    assert len(decode(EvoNet(), dense, (32, 32), ALL)[0]) == 0
    dense = Dense(torch.randn(1, 1, 32, 32), torch.zeros(1, 8, 8, 8))
    assert len(decode(EvoNet(), dense, (32, 32), ALL)[0]) == 0


def test_the_number_of_threads_is_given_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with torch.inference_mode():
            detect(EvoNet().eval(), torch.rand(1, 1, 64, 64))
        assert torch.get_num_threads() == 2
        with pytest.raises(RuntimeError):
            decode(EvoNet(), Dense(torch.rand(1, 1, 3, 3), torch.rand(1)), (3, 3))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("size", [(640, 480), (33, 65), (9, 9), (100, 17)])
def test_two_cores_find_what_one_finds(size: tuple[int, int]) -> None:
    """Halves of the picture and of the keypoints are done side by side."""
    torch.manual_seed(0)
    net = EvoNet().eval()
    before, found = torch.get_num_threads(), []
    with torch.inference_mode():
        dense = net(pad_to_stride(torch.rand(2, 1, size[1], size[0]), net.stride))
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with torch.inference_mode():
                found.append(decode(net, dense, size, ALL))
    finally:
        torch.set_num_threads(before)
    for one, two in zip(*found, strict=True):
        assert len(one) == len(two)
        np.testing.assert_allclose(one.keypoints, two.keypoints, atol=1e-3)
        np.testing.assert_allclose(one.descriptors, two.descriptors, atol=1e-3)


def test_rows_are_sampled_as_maps_are() -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 7, 12, 16).to(memory_format=torch.channels_last)
    xy = torch.rand(2, 200, 2) * torch.tensor([72.0, 56.0]) - 4
    expected = sample_bilinear(maps, xy, (64, 48))
    torch.testing.assert_close(sample_rows(maps, xy, (64, 48)), expected)
