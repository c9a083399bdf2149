"""Synthetic scenes with ground truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from sfm_features.colmap import CameraOptions, import_features_and_matches
from sfm_features.types import F32, PIXEL_CENTRE, Matches, Pair


@dataclass(frozen=True)
class Scene:
    """A synthetic reconstruction, and features and matches as a user would have them."""

    truth: pycolmap.Reconstruction
    keypoints: dict[str, F32]
    matches: dict[Pair, Matches]
    size: tuple[int, int]

    @property
    def names(self) -> list[str]:
        return list(self.keypoints)

    def features(self) -> Iterator[tuple[str, F32, tuple[int, int]]]:
        for name, xy in self.keypoints.items():
            yield name, xy, self.size

    def write_truth(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        self.truth.write_binary(folder)
        return folder

    def import_into(self, database: Path, reference: Path | None = None) -> Path:
        options = CameraOptions("SIMPLE_RADIAL", "1280,512,384,0.05", "single")
        import_features_and_matches(
            *(database, None, self.names, options, self.features()),
            *(self.matches.items(), reference),
        )
        return database


def make_scene(
    folder: Path,
    images: int = 10,
    points: int = 150,
    noise_px: float = 0.3,
    inlier_ratio: float = 1.0,
    groups: int = 1,
    seed: int = 0,
) -> Scene:
    """Synthesise a scene; with several groups, their images share no matches."""
    pycolmap.set_random_seed(seed)
    options = pycolmap.SyntheticDatasetOptions(
        num_rigs=groups,
        num_cameras_per_rig=1,
        num_frames_per_rig=images // groups,
        num_points3D=points,
        inlier_match_ratio=inlier_ratio,
    )
    folder.mkdir(parents=True, exist_ok=True)
    with pycolmap.Database.open(folder / "synthetic.db") as database:
        truth = pycolmap.synthesize_dataset(options, database)
        noise = pycolmap.SyntheticNoiseOptions(point2D_stddev=noise_px)
        pycolmap.synthesize_noise(noise, truth, database)
        stored = sorted(database.read_all_images(), key=lambda image: image.name)
        keypoints = {
            image.name: (
                database.read_keypoints(image.image_id)[:, :2] - PIXEL_CENTRE
            ).astype(np.float32)
            for image in stored
        }
        matches: dict[Pair, Matches] = {}
        for rank, one in enumerate(stored):
            for other in stored[rank + 1 :]:
                if one.camera_id != other.camera_id:
                    continue
                rows = database.read_matches(one.image_id, other.image_id)
                found = Matches(rows.astype(np.int32), np.ones(len(rows), np.float32))
                matches[one.name, other.name] = found
    return Scene(truth, keypoints, matches, (1024, 768))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return make_scene(tmp_path / "scene")


@pytest.fixture
def images_dir(tmp_path: Path) -> Path:
    """A folder without images; COLMAP wants it only for colours."""
    folder = tmp_path / "images"
    folder.mkdir()
    return folder
