"""Photographs that several tests share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from object_capture import Capture, make_capture
from samples import HELD_OUT, make_texture, write_image

from sfm_features.extract import ExtractOptions
from sfm_features.reconstruct import ReconstructOptions, reconstruct
from sfm_features.scenes import render_town
from sfm_features.types import RunOptions


@pytest.fixture(scope="session")
def town_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve small photographs of the town, images/ and truth.json."""
    folder = tmp_path_factory.mktemp("town")
    render_town(folder, 12, size=(512, 384))
    return folder


@pytest.fixture(scope="session")
def capture() -> Capture:
    """A thing in a room, photographed from around it, with its model."""
    return make_capture()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six overlapping crops of one picture, in two folders."""
    folder = tmp_path / "photos"
    scene = make_texture((420, 240))
    for i in range(6):
        crop = scene[10 * (i % 2) : 10 * (i % 2) + 200, 30 * i : 30 * i + 240]
        write_image(folder / f"{'ab'[i % 2]}/view {i}.png", crop)
    return folder


@pytest.fixture(scope="session")
def town_map(
    town_photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Path]]:
    """A map of the town without two of its photos, and those two."""
    folder = tmp_path_factory.mktemp("map")
    photos = sorted((town_photos / "images").iterdir())
    (folder / "images").mkdir()
    for i, path in enumerate(photos):
        if i not in HELD_OUT:
            shutil.copy(path, folder / "images")
    reconstruct(
        folder / "images",
        folder / "map",
        ReconstructOptions(report=False),
        ExtractOptions(extractor="sift", max_keypoints=1500),
        run=RunOptions(device="cpu"),
    )
    return folder / "map", [photos[i] for i in HELD_OUT]
