"""Scenes of the Image Matching Challenge's phototourism sets, on the disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipelines.protocols.two_view import make_pinhole
from sfm_features.errors import InputError
from sfm_features.images import decode
from sfm_features.photo_files import list_images
from sfm_features.store import read_arrays
from sfm_features.types import F64, Camera, Pair, Pose

_SUBSET = "set_100"
BAG_SIZES = (5, 10, 25)


@dataclass(frozen=True)
class Scene:
    """A folder of images, what is known of them, which pairs and bags are measured.

    cameras and poses (cam_from_world) by name; bags by size.
    """

    images: Path
    cameras: Mapping[str, Camera]
    poses: Mapping[str, Pose]
    pairs: Sequence[Pair]
    bags: Mapping[int, Sequence[Sequence[str]]] = field(default_factory=dict)


def list_scenes(dataset: Path, wanted: Sequence[str] | None) -> dict[str, Path]:
    """Find scenes by name, in the folder given or below it."""
    if _is_scene(dataset):
        return {dataset.name: dataset}
    below = sorted(dataset.iterdir()) if dataset.is_dir() else []
    scenes = {p.name: q for p in below for q in (p / _SUBSET, p) if _is_scene(q)}
    missing = sorted(set(wanted or ()) - scenes.keys())
    if missing or not scenes:
        raise InputError(
            f"{dataset}: has no scene{' '.join(['', *missing])} with a folder "
            "calibration; see --help for the layout"
        )
    return {name: scenes[name] for name in wanted or scenes}


def _is_scene(folder: Path) -> bool:
    return (folder / "calibration").is_dir()


def read_calibrations(folder: Path) -> dict[str, tuple[F64, Pose]]:
    """Read K (3, 3) and cam_from_world of each image of a scene, by name."""
    found = {}
    for name in list_images(folder / "images"):
        path = folder / f"calibration/calibration_{Path(name).stem}.h5"
        k, r, t = read_arrays(path, ["K", "R", "T"])
        found[name] = k, Pose(r.reshape(3, 3), t.reshape(3))
    return found


def read_scene(folder: Path, covisibility: str = "0.1") -> Scene:
    """Read all of a scene; pairs are those with at least so much in common."""
    found = read_calibrations(folder)
    images = folder / "images"
    cameras = {
        name: make_pinhole(k, decode(images / name).size)
        for name, (k, _) in found.items()
    }
    by_stem = {Path(name).stem: name for name in found}
    pairs = _read_pairs(folder / f"new-vis-pairs/keys-th-{covisibility}.npy", by_stem)
    bags = {size: _read_bags(folder, size, set(found)) for size in BAG_SIZES}
    poses = {name: pose for name, (_, pose) in found.items()}
    return Scene(images, cameras, poses, pairs, bags)


def _read_pairs(path: Path, by_stem: Mapping[str, str]) -> list[Pair]:
    """Read keys `a-b` of names without their ends."""
    try:
        keys = np.load(path, allow_pickle=False).tolist()
        pairs = [str(key).split("-") for key in keys]
        return [(by_stem[a], by_stem[b]) for a, b in pairs]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{path}: is no list of pairs of the scene's images ({error}); unpack the "
            "data set again"
        ) from error


def _read_bags(folder: Path, size: int, known: set[str]) -> list[list[str]]:
    """Read the bags of a size; those with images that were withdrawn are left out."""
    paths = sorted((folder / "sub_set").glob(f"{size}bag_*.txt"))
    bags = [
        [Path(line).name for line in path.read_text(encoding="utf-8").split()]
        for path in paths
    ]
    return [bag for bag in bags if known.issuperset(bag)]
