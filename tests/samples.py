"""Small pictures and features that several tests share."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from sfm_features.types import Features

HELD_OUT = (3, 8)
"""Views of the town that its map was made without."""


def make_texture(size: tuple[int, int] = (160, 120), seed: int = 0) -> np.ndarray:
    """Make an RGB picture with detail at several scales."""
    rng = np.random.default_rng(seed)
    width, height = size
    picture = np.zeros((height, width, 3))
    for cell in (4, 8, 16, 32):
        noise = rng.normal(size=(height // cell + 2, width // cell + 2, 3)) * cell
        picture += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    picture = (picture - picture.min()) / (picture.max() - picture.min())
    return (255 * picture).astype(np.uint8)


def make_features(count: int = 50, dimension: int = 32, seed: int = 0) -> Features:
    """Make features with random unit descriptors."""
    rng = np.random.default_rng(seed)
    descriptors = rng.normal(size=(count, dimension)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    return Features(
        rng.uniform(0, 4000, (count, 2)).astype(np.float32),
        descriptors,
        np.sort(rng.random(count).astype(np.float32))[::-1].copy(),
        (4000, 3000),
        1.5,
    )


def write_image(path: Path, rgb: np.ndarray) -> None:
    """Write an RGB array to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ok, content = cv2.imencode(path.suffix, rgb[..., ::-1])
    assert ok
    path.write_bytes(content.tobytes())


def note_calls(
    monkeypatch: pytest.MonkeyPatch, where: object, *names: str
) -> list[str]:
    """Return a list that tells, as it goes, which of these functions were called."""
    calls: list[str] = []

    def note(name: str) -> None:
        call = getattr(where, name)
        monkeypatch.setattr(where, name, lambda *a: (calls.append(name), call(*a))[1])

    for name in names:
        note(name)
    return calls
