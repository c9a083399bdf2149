"""Light changes values, never places, and reaches night."""

from __future__ import annotations

import numpy as np
from training_kit import make_photo

from sfm_features.training import photometric
from sfm_features.training.photometric import LightRanges, cast_colour, relight


def test_same_seed_same_light() -> None:
    grey = make_photo().grey
    first, _ = relight(grey, np.random.default_rng(1), LightRanges())
    again, _ = relight(grey, np.random.default_rng(1), LightRanges())
    other, _ = relight(grey, np.random.default_rng(2), LightRanges())
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_night_is_darker_and_hides_what_cannot_be_seen() -> None:
    grey = make_photo((256, 256)).grey
    day, night, hidden = [], [], []
    for seed in range(30):
        image, seen = relight(grey, np.random.default_rng(seed), LightRanges(), False)
        dark, left = relight(grey, np.random.default_rng(seed), LightRanges(), True)
        day.append(np.median(image))
        night.append(np.median(dark))
        hidden.append(seen.mean() - left.mean())
    assert np.mean(night) < 0.6 * np.mean(day)
    assert np.mean(hidden) > 0.05


def test_flat_parts_are_not_visible() -> None:
    grey = np.full((64, 64), 120, np.uint8)
    grey[:, 32:] = make_photo((64, 64)).grey[:, 32:]
    off = LightRanges(0, 0, 0, 0, 0, 0, 0, 0, 0)
    image, visible = relight(grey, np.random.default_rng(0), off)
    np.testing.assert_array_equal(image, grey)
    assert not visible[:, :24].any()
    assert visible[:, 40:].mean() > 0.9


def test_blur_does_not_shift() -> None:
    dot = np.zeros((65, 65), np.uint8)
    dot[32, 32] = 255
    only_blur = LightRanges(0, 0, 0, 0, 0, 1.0, 0, 0, 0)
    y, x = np.mgrid[:65, :65]
    for seed in range(40):
        image, _ = relight(dot, np.random.default_rng(seed), only_blur)
        weight = image.astype(float)
        assert abs((x * weight).sum() / weight.sum() - 32) < 0.1
        assert abs((y * weight).sum() / weight.sum() - 32) < 0.1


def test_a_cast_changes_coloured_things_only() -> None:
    grey = np.full((8, 8), 100, np.uint8)
    chroma = np.full((8, 8, 2), 128, np.uint8)
    chroma[:, 4:, 0] = 200
    cast = cast_colour(grey, chroma, np.random.default_rng(0))
    assert (cast[:, :4] == 100).all()
    assert (cast[:, 4:] != 100).all()


def test_by_night_the_sky_is_found_and_windows_shine() -> None:
    street = make_photo((256, 128)).grey.astype(np.float32) / 255 * 0.4
    sky = np.full((128, 256), 0.8, np.float32)
    picture = np.vstack([sky, street])
    found = photometric._find_sky(picture)
    assert found[20:100, 20:236].min() > 0.9
    assert found[140:].max() < 0.1
    wall = np.full((128, 128), 0.6, np.float32)
    wall[60:68, 60:68] = 0.1
    shining = [
        photometric._light_windows(wall, np.random.default_rng(seed))
        for seed in range(20)
    ]
    inside = [light[60:68, 60:68].max() for light in shining]
    assert max(inside) > 0.3
    assert min(inside) == 0  # nobody is at home everywhere
    assert max(light[100:].max() for light in shining) < 0.01
