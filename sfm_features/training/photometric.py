"""Photometric changes that a feature must survive, up to night, on grey images."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from sfm_features.types import F32, U8, Bool


@dataclass(frozen=True)
class LightRanges:
    """How strong and how frequent photometric changes are."""

    night_share: float = 0.25
    """Share of images that are turned into night."""
    gamma_sigma: float = 0.35
    """Spread of the logarithm of gamma."""
    contrast_sigma: float = 0.3
    """Spread of the logarithm of the contrast."""
    brightness_sigma: float = 0.12
    """Spread of the brightness, of 1."""
    local_share: float = 0.5
    """Share of images with soft lights or shadows."""
    blur_share: float = 0.25
    """Share of images with a soft focus; half as many are blurred by motion."""
    noise_share: float = 0.7
    """Share of images with noise that grows with the signal."""
    jpeg_share: float = 0.3
    """Share of images that go through JPEG."""
    cast_share: float = 0.4
    """Share of images that are seen through a colour cast."""


NO_NIGHT = LightRanges(night_share=0.0)


def relight(
    grey: U8, rng: np.random.Generator, ranges: LightRanges, night: bool | None = None
) -> tuple[U8, Bool]:
    """Return the image (H, W) under other light, and where it still shows anything.

    What drowned in the dark or in noise cannot be found again by anyone, so it should
    not be asked of a detector.
    """
    picture: F32 = grey.astype(np.float32) / np.float32(255)
    picture = _change_tone(picture, rng, ranges)
    if rng.random() < ranges.local_share:
        picture *= _make_local_gain(picture.shape, rng)
    dark = rng.random() < ranges.night_share if night is None else night
    if dark:
        picture = _make_night(picture, rng)
    picture = _blur(picture.clip(0, 1), rng, ranges)
    noise_floor, noise_slope = _sample_noise(rng, ranges, dark)
    visible = _find_visible(picture, noise_floor)
    if noise_floor > 0:
        sigma = np.sqrt(noise_floor**2 + noise_slope * picture)
        picture = picture + sigma * rng.standard_normal(picture.shape, np.float32)
    result = (picture.clip(0, 1) * 255 + np.float32(0.5)).astype(np.uint8)
    if rng.random() < ranges.jpeg_share:
        result = _compress(result, int(rng.integers(25, 91)))
    return result, visible


def cast_colour(grey: U8, chroma: U8, rng: np.random.Generator) -> U8:
    """Return the image (H, W) under coloured light; chroma (H, W, 2) is Cr and Cb.

    Under a lamp of one colour, brightness is another mixture of red, green and blue.
    """
    red, blue = rng.normal(0, 0.45, 2).clip(-1, 1)
    colour = chroma.astype(np.float32) - 128
    mixed = grey + np.float32(red) * colour[..., 0] + np.float32(blue) * colour[..., 1]
    return np.asarray(mixed.clip(0, 255), np.uint8)


def _change_tone(picture: F32, rng: np.random.Generator, ranges: LightRanges) -> F32:
    gamma = np.exp(np.clip(rng.normal(0, ranges.gamma_sigma), -1.0, 1.0))
    contrast = np.exp(np.clip(rng.normal(0, ranges.contrast_sigma), -0.9, 0.6))
    brightness = rng.normal(0, ranges.brightness_sigma)
    # A table of the 256 values is faster than a power of every pixel.
    values = np.linspace(0, 1, 256) ** gamma
    middle = float(picture.mean()) ** gamma
    table = ((values - middle) * contrast + middle + brightness).clip(0, 1)
    index = (picture * 255 + np.float32(0.5)).astype(np.uint8)
    changed: F32 = table.astype(np.float32)[index]
    return changed


def _make_local_gain(shape: tuple[int, ...], rng: np.random.Generator) -> F32:
    """Make a field (H, W) of soft lights, shadows and now and then a shadow's edge."""
    height, width = shape
    x, y = _small_grid(shape)
    field = np.zeros_like(x)
    for _ in range(rng.integers(1, 4)):
        centre, radius = rng.uniform(0, 1, 2), rng.uniform(0.1, 0.5)
        spot = ((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / radius**2
        field += rng.normal(0, 0.7) * np.exp(-0.5 * spot)
    if rng.random() < 0.5:
        angle, offset = rng.uniform(0, 2 * np.pi), rng.uniform(-0.3, 0.3)
        side = (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle) - offset
        softness = rng.uniform(0.01, 0.2)
        field -= rng.uniform(0.3, 1.2) / (1 + np.exp(-(side / softness).clip(-30, 30)))
    gain = np.exp(field.clip(-2.5, 1.2)).astype(np.float32)
    return np.asarray(cv2.resize(gain, (width, height)), np.float32)


def _make_night(picture: F32, rng: np.random.Generator) -> F32:
    """Darken, light by lamps, let bright things bloom, and expose for the rest."""
    height, width = picture.shape
    x, y = _small_grid(picture.shape)
    light = np.full_like(x, rng.uniform(0.02, 0.2))
    glare = np.zeros_like(x)
    for _ in range(rng.integers(0, 5)):
        centre, reach = rng.uniform(-0.1, 1.1, 2), rng.uniform(0.08, 0.35)
        distance = (x - centre[0]) ** 2 + (y - centre[1]) ** 2
        light += rng.uniform(0.2, 1.0) * np.exp(-0.5 * distance / reach**2)
        if rng.random() < 0.6:
            size = rng.uniform(0.008, 0.05)
            glare += rng.uniform(0.3, 1.5) / (1 + distance / size**2) ** 1.5
    lit = picture ** np.float32(rng.uniform(1.0, 1.8))
    if rng.random() < 0.6:
        lit = lit * (1 - np.float32(rng.uniform(0.8, 1.0)) * _find_sky(picture))
    dark = lit * cv2.resize(light.astype(np.float32), (width, height))
    if rng.random() < 0.5:
        dark = dark + _light_windows(picture, rng)
    exposure = rng.uniform(0.25, 0.9) / max(
        float(np.quantile(dark[::4, ::4], 0.97)), 1e-3
    )
    dark = dark * np.float32(min(exposure, 6.0))
    dark = dark + cv2.resize(glare.astype(np.float32), (width, height))
    bright = np.maximum(dark - np.float32(0.8), 0)
    bloom = cv2.GaussianBlur(bright, (0, 0), float(rng.uniform(2, 8)))
    return np.asarray(dark + np.float32(rng.uniform(0.5, 2)) * bloom, np.float32)


def _find_sky(picture: F32) -> F32:
    """Find large areas that are bright and plain (H, W), from 0 to 1."""
    height, width = picture.shape
    quarter = (width // 4 or 1, height // 4 or 1)
    small = cv2.resize(picture, quarter, interpolation=cv2.INTER_AREA)
    mean = cv2.blur(small, (5, 5))
    variance = cv2.blur(small * small, (5, 5)) - mean * mean
    plain = ((mean > 0.5) & (variance < 0.04**2)).astype(np.float32)
    large = plain * (cv2.blur(plain, (17, 17)) > 0.4)
    # Plain areas end a little before the skyline, so they are widened up to it.
    grown = cv2.GaussianBlur(cv2.dilate(large, np.ones((5, 5), np.uint8)), (5, 5), 1.0)
    bright = ((picture - 0.4) / 0.15).clip(0, 1)
    return np.asarray(cv2.resize(grown, (width, height)) * bright, np.float32)


def _light_windows(picture: F32, rng: np.random.Generator) -> F32:
    """Let here and there shine what is darker than around it, as windows do."""
    height, width = picture.shape
    size_px = int(rng.integers(7, 32))
    hollow = cv2.blur(picture, (size_px, size_px)) - picture - np.float32(0.05)
    cells = (max(height // 24, 2), max(width // 24, 2))
    lit = (rng.random(cells) < rng.uniform(0.1, 0.6)) * rng.random(cells)
    lamps = cv2.resize(lit.astype(np.float32), (width, height))
    gain = np.float32(rng.uniform(1, 6))
    return np.asarray((gain * np.maximum(hollow, 0)).clip(0, 1) * lamps, np.float32)


def _small_grid(shape: tuple[int, ...]) -> tuple[F32, F32]:
    """Return x and y from 0 to 1, an eighth as fine, which does for soft things."""
    y, x = np.meshgrid(
        np.linspace(0, 1, max(shape[0] // 8, 2), dtype=np.float32),
        np.linspace(0, 1, max(shape[1] // 8, 2), dtype=np.float32),
        indexing="ij",
    )
    return x, y


def _blur(picture: F32, rng: np.random.Generator, ranges: LightRanges) -> F32:
    if rng.random() < ranges.blur_share:
        sigma_px = float(rng.uniform(0.5, 1.6))
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma_px), np.float32)
    if rng.random() < ranges.blur_share / 2:
        picture = np.asarray(cv2.filter2D(picture, -1, _make_motion(rng)), np.float32)
    return picture


def _make_motion(rng: np.random.Generator) -> F32:
    """Make a kernel of a straight motion around its middle, so that nothing shifts."""
    radius = int(rng.integers(1, 5))
    angle = rng.uniform(0, np.pi)
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1), np.float32)
    for t in np.linspace(-radius, radius, 8 * radius + 1):
        column = round(radius + t * np.cos(angle))
        row = round(radius + t * np.sin(angle))
        kernel[row, column] += 1
    kernel += kernel[::-1, ::-1]
    return np.asarray(kernel / kernel.sum(), np.float32)


def _sample_noise(
    rng: np.random.Generator, ranges: LightRanges, dark: bool
) -> tuple[float, float]:
    """Return the noise of black and how its variance grows with the signal."""
    if rng.random() >= ranges.noise_share:
        return 0.0, 0.0
    most = 0.05 if dark else 0.025
    return rng.uniform(0.003, most), rng.uniform(0, most) ** 2


def _find_visible(picture: F32, noise: float) -> Bool:
    """Tell where (H, W) the contrast around a pixel stands out of black and noise."""
    mean = cv2.blur(picture, (7, 7))
    variance = cv2.blur(picture * picture, (7, 7)) - mean * mean
    return np.asarray(variance > max(0.006, 0.7 * noise) ** 2)


def _compress(grey: U8, quality: int) -> U8:
    done, data = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8)
