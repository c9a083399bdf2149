"""The 1,500 pairs of MegaDepth, as LoFTR's index or glue-factory's lists tell them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pipelines.protocols.pickles import load_arrays
from pipelines.protocols.two_view import PoseTask, make_pinhole, relate
from sfm_features.errors import InputError
from sfm_features.images import decode
from sfm_features.photo_files import read_lines
from sfm_features.types import F64, Camera, Pair, Pose

_INDEX = "megadepth_test_1500_scene_info"
_FIELDS = ("image_paths", "intrinsics", "poses", "pair_infos")


def read_tasks(dataset: Path) -> tuple[Path, list[PoseTask]]:
    """Return the folder of images and the pairs, in whichever layout they are."""
    if (dataset / "views.txt").is_file():
        images = dataset / "images"
        return images, _read_lists(dataset)
    indices = sorted((dataset / _INDEX).glob("*.npz")) or sorted(dataset.glob("*.npz"))
    if not indices:
        raise InputError(
            f"{dataset}: has neither views.txt nor {_INDEX}/*.npz; see --help for the "
            "layouts"
        )
    sizes = _Sizes(dataset)
    bar = tqdm(indices, desc="read the index", unit="file")
    return dataset, [task for path in bar for task in _read_index(path, sizes)]


class _Sizes:
    """Widths and heights of images, each read once: the index does not tell them."""

    def __init__(self, images: Path) -> None:
        self._images = images
        self._known: dict[str, tuple[int, int]] = {}

    def __getitem__(self, name: str) -> tuple[int, int]:
        if name not in self._known:
            self._known[name] = decode(self._images / name).size
        return self._known[name]


def _read_index(path: Path, sizes: _Sizes) -> Iterator[PoseTask]:
    found = load_arrays(path)
    try:
        paths, intrinsics, poses, infos = (found[k] for k in _FIELDS)
        for (i, j), *_ in infos:
            names = str(paths[i]), str(paths[j])
            cameras = [
                make_pinhole(_shape(intrinsics[k], (3, 3)), sizes[name])
                for k, name in zip((i, j), names, strict=True)
            ]
            known = [_to_pose(poses[k]) for k in (i, j)]
            yield PoseTask(names, (cameras[0], cameras[1]), relate(*known))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: is no index of pairs with {', '.join(_FIELDS)} "
            f"({error!r}); copy it from LoFTR's assets again"
        ) from error


def _shape(numbers: Any, shape: tuple[int, int]) -> F64:
    return np.asarray(numbers, np.float64).reshape(shape)


def _to_pose(matrix: Any) -> Pose:
    cam_from_world = _shape(matrix, (4, 4))
    return Pose(cam_from_world[:3, :3], cam_from_world[:3, 3])


def _read_lists(dataset: Path) -> list[PoseTask]:
    """Read `name R(9) t(3) MODEL w h parameters` and `name0 name1`."""
    path = dataset / "views.txt"
    views: dict[str, tuple[Camera, Pose]] = {}
    for line in read_lines(path):
        name, *rest = line.split()
        try:
            numbers = np.array(rest[:12], np.float64)
            pose = Pose(numbers[:9].reshape(3, 3), numbers[9:].reshape(3))
            width, height = (int(side) for side in rest[13:15])
            camera = Camera(rest[12], width, height, tuple(map(float, rest[15:])))
        except (ValueError, IndexError) as error:
            raise InputError(
                f"{path}: {name}: is not followed by R, t and a camera ({error}); "
                "download it again"
            ) from error
        views[name] = camera, pose
    return [
        _make_task(pair, views, dataset)
        for line in read_lines(dataset / "pairs.txt")
        for pair in [line.split()[:2]]
    ]


def _make_task(
    pair: Sequence[str], views: Mapping[str, tuple[Camera, Pose]], dataset: Path
) -> PoseTask:
    missing = [name for name in pair if name not in views]
    if missing or len(pair) != 2:
        raise InputError(
            f"{dataset / 'pairs.txt'}: {' '.join(pair)}: is no pair of images of "
            "views.txt; download both again"
        )
    names: Pair = (pair[0], pair[1])
    (camera_a, a), (camera_b, b) = (views[name] for name in names)
    return PoseTask(names, (camera_a, camera_b), relate(a, b))
