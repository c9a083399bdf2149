"""Labels, points, images and maps land on the same content."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sfm_features.geometry import warp_points
from sfm_features.training import warps

SIZE = (240, 180)


def draw_dot(
    xy: np.ndarray, size: tuple[int, int], sigma_px: float = 2.5
) -> np.ndarray:
    """Draw a smooth dot between the pixels."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    squared = (x - xy[0]) ** 2 + (y - xy[1]) ** 2
    return 250 * np.exp(-squared / (2 * sigma_px**2))


def find_dot(image: np.ndarray) -> np.ndarray:
    """Return the centre of mass of the picture."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    weight = image.astype(np.float64)
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


def test_a_dot_lands_where_its_label_does() -> None:
    rng = np.random.default_rng(3)
    off = []
    for _ in range(40):
        # A dot's centre of mass shifts under perspective itself, so affine here.
        ranges = warps.WarpRanges(perspective_sigma=0)
        warp = warps.sample_homography(rng, (120, 90), 128, ranges)
        xy = np.array([120, 90]) + rng.uniform(-20, 20, 2)
        landed, inside = warps.map_inside(warp, xy[None], (128, 128))
        if not inside[0] or np.abs(landed[0] - 63.5).max() > 45:
            continue
        dot = draw_dot(xy, SIZE).astype(np.uint8)
        crop = warps.warp_image(dot, warp, (128, 128), fill=True)
        off.append(np.linalg.norm(find_dot(crop) - landed[0]))
    assert len(off) > 20
    assert max(off) < 0.05


def test_every_pixel_shows_the_place_it_is_mapped_from() -> None:
    """A picture of its own coordinates, warped, tells where each pixel came from."""
    rng = np.random.default_rng(4)
    x, y = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    pixels = warps.pixel_grid((128, 128))[0].double().numpy()
    for _ in range(20):
        warp = warps.sample_homography(rng, (120, 90), 128)
        came_from, inside = warps.map_inside(np.linalg.inv(warp), pixels, SIZE)
        for axis, picture in enumerate((x, y)):
            crop = warps.warp_image(picture.astype(np.uint8), warp, (128, 128))
            off = crop.ravel()[inside] - came_from[inside, axis]
            # Whole values: each is rounded, their mean is not.
            assert abs(off.mean()) < 0.02
            assert np.abs(off).max() < 0.6


def test_the_inverse_grid_would_miss() -> None:
    """The tests above can fail: labels through the inverse warp land elsewhere."""
    warp = warps.sample_homography(np.random.default_rng(5), (120, 90), 128)
    xy = np.array([[110.0, 95.0]])
    right = warp_points(warp, xy)
    wrong = warp_points(np.linalg.inv(warp), xy)
    assert np.linalg.norm(right - wrong) > 5


def test_maps_come_back_registered() -> None:
    """A dot warped to a copy as an image is mapped back as a map to where it was."""
    rng = np.random.default_rng(6)
    off = []
    for _ in range(30):
        xy = np.array([119.5, 89.5]) + rng.uniform(-15, 15, 2)
        warp = warps.sample_affine(rng, SIZE)
        copy = warps.warp_image(
            draw_dot(xy, SIZE).astype(np.uint8), warp, SIZE, fill=True
        )
        maps, known = warps.warp_maps(
            torch.from_numpy(copy).float()[None, None],
            torch.from_numpy(warp).float()[None],
            (SIZE[1], SIZE[0]),
        )
        off.append(np.linalg.norm(find_dot((maps * known)[0, 0].numpy()) - xy))
    assert max(off) < 0.1


def test_sampling_a_map_reads_between_pixels() -> None:
    ramp = torch.arange(12.0).reshape(1, 1, 3, 4)
    found = warps.sample_maps(ramp, torch.tensor([[[1.0, 1.0], [1.5, 0.25]]]))
    torch.testing.assert_close(found, torch.tensor([[[5.0], [2.5]]]))


def test_torch_and_numpy_map_points_alike() -> None:
    rng = np.random.default_rng(7)
    warp = warps.sample_homography(rng, (120, 90), 128)
    xy = rng.uniform(0, 180, (20, 2))
    mapped = warps.transform(torch.from_numpy(warp)[None], torch.from_numpy(xy)[None])
    np.testing.assert_allclose(mapped[0].numpy(), warp_points(warp, xy), atol=1e-9)


@pytest.mark.parametrize("scale", [0.7, 1.5])
def test_ranges_are_kept(scale: float) -> None:
    rng = np.random.default_rng(8)
    ranges = warps.WarpRanges((scale, scale + 1e-9), 0, 0, 0, 0)
    warp = warps.sample_homography(rng, (10, 20), 65, ranges)
    np.testing.assert_allclose(warp_points(warp, np.array([[10.0, 20.0]])), [[32, 32]])
    np.testing.assert_allclose(warp[:2, :2], np.eye(2) * scale, atol=1e-6)


def test_cover_marks_what_shows_the_photo() -> None:
    shift = np.array([[1.0, 0, 10], [0, 1, -5], [0, 0, 1]])
    shown = warps.cover(shift, (40, 30), (60, 60))
    expected = np.zeros((60, 60), bool)
    expected[:25, 10:50] = True
    np.testing.assert_array_equal(shown, expected)
