"""MegaDepth-1500 in small, in both of the layouts in which it is passed around."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from miniature import write_photos
from small_town import Photo, calibration

SCENE = "0015"


def name_image(station: int) -> str:
    """Name a photograph as LoFTR's index does."""
    return f"Undistorted_SfM/{SCENE}/images/{station}_o.jpg"


def write_index(
    root: Path, photos: Mapping[int, Photo], pairs: Sequence[tuple[int, int]]
) -> Path:
    """Write photographs and LoFTR's index: a pickle named .npz, with holes in it."""
    write_photos(root, {name_image(i): photo for i, photo in photos.items()})
    length = max(photos) + 2
    columns: dict[str, Any] = {
        key: np.full(length, None, object)
        for key in ("image_paths", "depth_paths", "intrinsics", "poses")
    }
    for i, photo in photos.items():
        pose = np.eye(4)
        pose[:3, :3] = photo.cam_from_world.rotation
        pose[:3, 3] = photo.cam_from_world.translation
        columns["image_paths"][i] = name_image(i)
        columns["depth_paths"][i] = f"phoenix/{SCENE}/dense0/depths/{i}.h5"
        columns["intrinsics"][i] = calibration(photo)
        columns["poses"][i] = pose
    infos = [((i, j), 0.3, np.zeros((4, 2), np.float32)) for i, j in pairs]
    path = root / f"megadepth_test_1500_scene_info/{SCENE}_0.1_0.3.npz"
    path.parent.mkdir(parents=True)
    path.write_bytes(pickle.dumps({**columns, "pair_infos": infos}, protocol=4))
    return path


def write_lists(
    root: Path, photos: Mapping[int, Photo], pairs: Sequence[tuple[int, int]]
) -> None:
    """Write photographs and glue-factory's views.txt and pairs.txt."""
    write_photos(root / "images", {name_image(i): p for i, p in photos.items()})
    lines = []
    for i, photo in photos.items():
        pose, camera = photo.cam_from_world, photo.camera
        numbers = [*pose.rotation.ravel(), *pose.translation]
        focal, x, y = camera.params
        size = f"{camera.width} {camera.height}"
        text = " ".join(map(repr, map(float, numbers)))
        lines.append(f"{name_image(i)} {text} PINHOLE {size} {focal} {focal} {x} {y}")
    (root / "views.txt").write_text("\n".join(lines))
    listed = [f"{name_image(i)} {name_image(j)}" for i, j in pairs]
    (root / "pairs.txt").write_text("\n".join(listed))
