"""Photographs that several tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from samples import make_texture, write_image

from sfm_features.scenes import render_town


@pytest.fixture(scope="session")
def town_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve small photographs of the town, images/ and truth.json."""
    folder = tmp_path_factory.mktemp("town")
    render_town(folder, 12, size=(512, 384))
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six overlapping crops of one picture, in two folders."""
    folder = tmp_path / "photos"
    scene = make_texture((420, 240))
    for i in range(6):
        crop = scene[10 * (i % 2) : 10 * (i % 2) + 200, 30 * i : 30 * i + 240]
        write_image(folder / f"{'ab'[i % 2]}/view {i}.png", crop)
    return folder
