"""Synthetic scenes with ground truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pycolmap

from sfm_features.colmap import CameraOptions, import_features_and_matches
from sfm_features.types import F32, PIXEL_CENTRE, Matches, Pair


@dataclass(frozen=True)
class Scene:
    """A synthetic reconstruction with features and matches as a user has them."""

    truth: pycolmap.Reconstruction
    keypoints: dict[str, F32]
    matches: dict[Pair, Matches]
    size: tuple[int, int]
    cameras: CameraOptions = CameraOptions(
        "SIMPLE_RADIAL", "1280,512,384,0.05", "folder"
    )

    @property
    def names(self) -> list[str]:
        return list(self.keypoints)

    def features(self) -> Iterator[tuple[str, F32, tuple[int, int]]]:
        for name, xy in self.keypoints.items():
            yield name, xy, self.size

    def with_cameras(self, model: str, params: str) -> Scene:
        """Pretend to know something else about the cameras."""
        return replace(self, cameras=CameraOptions(model, params))

    def without(self, names: list[str]) -> Scene:
        """Leave images out."""
        keypoints = {n: xy for n, xy in self.keypoints.items() if n not in names}
        matches = {p: m for p, m in self.matches.items() if not {*p} & {*names}}
        return replace(self, keypoints=keypoints, matches=matches)

    def write_truth(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        self.truth.write_binary(folder)
        return folder

    def import_into(self, database: Path, reference: Path | None = None) -> Path:
        import_features_and_matches(
            *(database, None, self.names, self.cameras, self.features()),
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
    rig_cameras: int = 1,
) -> Scene:
    """Synthesise a scene; with several groups, their images share no matches."""
    pycolmap.set_random_seed(seed)
    options = pycolmap.SyntheticDatasetOptions(
        num_rigs=groups,
        num_cameras_per_rig=rig_cameras,
        num_frames_per_rig=images // groups // rig_cameras,
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
                if groups > 1 and one.camera_id != other.camera_id:
                    continue
                rows = database.read_matches(one.image_id, other.image_id)
                found = Matches(rows.astype(np.int32), np.ones(len(rows), np.float32))
                matches[one.name, other.name] = found
    return Scene(truth, keypoints, matches, (1024, 768))


def empty_dir(path: Path) -> Path:
    """Make a folder without images; COLMAP wants images only for colours."""
    path.mkdir(parents=True, exist_ok=True)
    return path


def verified_rows(database: Path) -> list[tuple[object, ...]]:
    """Return all that verification wrote, in a form that can be compared."""
    with pycolmap.Database.open(database) as handle:
        rows = zip(*handle.read_two_view_geometries(), strict=True)
        return sorted(
            (pair_id, g.config, g.inlier_matches.tobytes(), str(g.E), str(g.F))
            for pair_id, g in rows
        )


def model_bytes(folder: Path) -> dict[str, bytes]:
    """Return the content of all files below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
