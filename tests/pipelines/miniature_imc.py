"""A scene of the Image Matching Challenge in small, as its validation set has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import h5py
import numpy as np
from miniature import write_photos
from small_town import Photo, calibration

from sfm_features.geometry import quaternion_wxyz


def write_scene(
    root: Path,
    photos: Mapping[int, Photo],
    bags: Mapping[int, Sequence[Sequence[int]]] = {},
    gap: int = 2,
) -> None:
    """Write root/set_100; pairs are photographs at most `gap` stations apart."""
    folder = root / "set_100"
    write_photos(folder / "images", {f"{_stem(i)}.jpg": p for i, p in photos.items()})
    (folder / "calibration").mkdir()
    for i, photo in photos.items():
        pose = photo.cam_from_world
        path = folder / f"calibration/calibration_{_stem(i)}.h5"
        with h5py.File(path, "w") as file:
            file["K"], file["R"] = calibration(photo), pose.rotation
            file["T"], file["q"] = pose.translation, quaternion_wxyz(pose.rotation)
    near = [(b, a) for a, b in combinations(sorted(photos), 2) if b - a <= gap]
    (folder / "new-vis-pairs").mkdir()
    keys = np.array([f"{_stem(a)}-{_stem(b)}" for a, b in near])
    np.save(folder / "new-vis-pairs/keys-th-0.1.npy", keys)
    (folder / "sub_set").mkdir()
    for size, several in bags.items():
        for k, bag in enumerate(several):
            lines = "".join(f"images/{_stem(i)}.jpg\n" for i in bag)
            (folder / f"sub_set/{size}bag_{k:03d}.txt").write_text(lines)


def _stem(station: int) -> str:
    return f"{54614000 + station:08d}_{9050854768 + 7 * station}"
