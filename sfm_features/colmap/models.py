"""Reading and writing COLMAP models."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, combinations
from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray

from sfm_features.colmap.convert import (
    from_colmap_camera,
    from_colmap_pose,
    to_colmap_camera,
    to_colmap_pose,
)
from sfm_features.colmap.files import (
    KEYPOINT,
    POINT,
    is_cut,
    scan_images,
    scan_points,
)
from sfm_features.colmap.logs import silence
from sfm_features.errors import InputError
from sfm_features.types import (
    I64,
    PIXEL_CENTRE,
    Camera,
    Model,
    Pair,
    Pose,
    RegisteredImage,
)

log = logging.getLogger(__name__)

_POSES = ("cameras.txt", "images.txt")
_NO_POINT = np.uint64(2**64 - 1)


def list_models(folder: Path) -> list[Path]:
    """List the models below a folder by number: [folder/0, folder/1, ...]."""
    found = [path for path in folder.glob("*") if path.name.isdigit()]
    return sorted(filter(_is_model, found), key=lambda path: int(path.name))


def find_models(folder: Path) -> list[Path]:
    """List the models of what `reconstruct` wrote, of its sparse/, or of one model."""
    if _is_model(folder):
        return [folder]
    below = folder / "sparse"
    return list_models(folder) or list_models(below) or [below] * _is_model(below)


def choose_model(path: Path) -> Path:
    """Return the only model of what `find_models` looks through; say which it is."""
    found = find_models(path)
    if len(found) > 1:
        names = [str(model.relative_to(path)) for model in found]
        raise InputError(
            f"{path}: has {len(found)} models, {', '.join(names)}; give one of them, "
            f"as {found[0]}"
        )
    if found and found[0] != path:
        log.info("%s: its model in %s is used", path, found[0].relative_to(path))
    return found[0] if found else path  # reading that will tell what it is not


def pick_model(folder: Path, number: int = 0) -> Path:
    """Return one model of what `find_models` lists, by the number that it is called.

    In an output of ours 0 is the largest. A folder that is a model itself has only 0.
    """
    found = find_models(folder)
    if not found:
        raise InputError(
            f"{folder}: has no COLMAP model; give a folder that `sfm-features "
            "reconstruct` wrote, or one with cameras.bin, images.bin and points3D.bin "
            "(or .txt)"
        )
    by_number = {int(p.name) if p != folder else 0: p for p in found}
    if number not in by_number:
        numbers = ", ".join(map(str, by_number))
        raise InputError(
            f"{folder}: has no model {number}; --model may be one of {numbers}"
        )
    return by_number[number]


def read_model(path: Path) -> Model:
    """Read a model, binary or text; only registered images are in it."""
    model = load(path)
    with _in_binary(path, model) as binary:
        keypoints = _read_keypoints(binary)
        points, track_lengths = _read_points(binary)
    cameras = {key: from_colmap_camera(camera) for key, camera in model.cameras.items()}
    images = [model.images[image_id] for image_id in model.reg_image_ids()]
    return Model(
        images={
            image.name: _read_image(
                image, cameras[image.camera_id], keypoints[image.name], points["id"]
            )
            for image in sorted(images, key=lambda image: image.name)
        },
        points=points["xyz"].copy(),
        colours=points["colour"].copy(),
        errors_px=points["error"].copy(),
        track_lengths=track_lengths,
    )


def write_model(model: Model, path: Path) -> None:
    """Write a model in binary; equal cameras become one, ids follow the names."""
    made = pycolmap.Reconstruction()
    camera_ids: dict[Camera, int] = {}
    tracks: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for image_id, name in enumerate(sorted(model.images), start=1):
        image = model.images[name]
        camera_id = camera_ids.setdefault(image.camera, len(camera_ids) + 1)
        if camera_id not in made.cameras:
            made.add_camera_with_trivial_rig(to_colmap_camera(image.camera, camera_id))
        made.add_image_with_trivial_frame(
            pycolmap.Image(
                name=name,
                keypoints=image.keypoints.astype(np.float64) + PIXEL_CENTRE,
                camera_id=camera_id,
                image_id=image_id,
            ),
            to_colmap_pose(image.cam_from_world),
        )
        for index in np.flatnonzero(image.point_ids >= 0):
            tracks[int(image.point_ids[index])].append((image_id, int(index)))
    for row, xyz in enumerate(model.points):
        elements = [pycolmap.TrackElement(*element) for element in tracks[row]]
        track = pycolmap.Track(elements=elements)
        point_id = made.add_point3D(xyz, track, model.colours[row])
        made.points3D[point_id].error = float(model.errors_px[row])
    path.mkdir(parents=True, exist_ok=True)
    made.write_binary(path)


def write_poses(
    cameras: Mapping[str, Camera], poses: Mapping[str, Pose], path: Path
) -> None:
    """Write a model of known poses by image name, without points."""
    write_model(make_posed_model(cameras, poses), path)


def make_posed_model(cameras: Mapping[str, Camera], poses: Mapping[str, Pose]) -> Model:
    """Make a model of known poses by image name, without points."""
    no_points = np.zeros((0, 3))
    images = {
        name: RegisteredImage(
            name,
            cameras[name],
            pose,
            np.zeros((0, 2), np.float32),
            np.zeros(0, np.int64),
        )
        for name, pose in poses.items()
    }
    return Model(
        images,
        no_points,
        no_points.astype(np.uint8),
        np.zeros(0),
        np.zeros(0, np.int64),
    )


def covisible_counts(model: Model) -> dict[Pair, int]:
    """Count the points that pairs of images share; pairs without any are absent."""
    viewers: list[list[str]] = [[] for _ in model.points]
    for name in sorted(model.images):
        for row in np.unique(model.images[name].point_ids):
            if row >= 0:
                viewers[row].append(name)
    counts: defaultdict[Pair, int] = defaultdict(int)
    for names in viewers:
        for pair in combinations(names, 2):
            counts[pair] += 1
    return dict(counts)


def load(path: Path) -> pycolmap.Reconstruction:
    """Load COLMAP's own object, or explain why there is none."""
    if not _is_model(path):
        raise InputError(
            f"{path}: not a COLMAP model; give the folder with cameras.bin, images.bin "
            "and points3D.bin (or .txt), often sparse/0"
        )
    silence()
    damaged = f"{path}: the model is damaged or cut off; copy or make it again"
    if (path / "images.bin").is_file() and is_cut(path):
        raise InputError(damaged)
    try:
        if _lacks_points(path):
            return _load_poses(path)
        return pycolmap.Reconstruction(path)
    except (ValueError, RuntimeError, LookupError, MemoryError) as error:
        raise InputError(f"{damaged} ({error})") from error


def without_rigs(model: pycolmap.Reconstruction) -> pycolmap.Reconstruction:
    """Copy the poses of a model, each image's its own, as our databases have it.

    Ids, cameras and poses stay; keypoints and points are left out.
    """
    made = pycolmap.Reconstruction()
    for camera in model.cameras.values():
        made.add_camera_with_trivial_rig(camera)
    for image_id in model.reg_image_ids():
        image = model.images[image_id]
        made.add_image_with_trivial_frame(
            pycolmap.Image(
                name=image.name, camera_id=image.camera_id, image_id=image_id
            ),
            image.cam_from_world(),
        )
    return made


def _is_model(path: Path) -> bool:
    binary = ("cameras.bin", "images.bin", "points3D.bin")
    return any(
        all((path / name).is_file() for name in names) for names in (binary, _POSES)
    )


def _lacks_points(path: Path) -> bool:
    return not any((path / name).is_file() for name in ("images.bin", "points3D.txt"))


def _load_poses(path: Path) -> pycolmap.Reconstruction:
    """Load text that poses were written to by hand, without the file of points."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for text in _POSES:
            shutil.copy(path / text, folder)
        (folder / "points3D.txt").touch()
        model = pycolmap.Reconstruction(folder)
    model.delete_all_points2D_and_points3D()  # images may name points that are absent
    return model


@contextmanager
def _in_binary(path: Path, model: pycolmap.Reconstruction) -> Iterator[Path]:
    """Give a folder with the model's binary files."""
    if (path / "images.bin").is_file():
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        model.write_binary(folder)
        yield Path(folder)


def _read_keypoints(binary: Path) -> dict[str, NDArray[np.void]]:
    """Read all keypoints; one by one from COLMAP's objects takes 20 times as long."""
    content = (binary / "images.bin").read_bytes()
    return {
        name: np.frombuffer(content, KEYPOINT, count, offset)
        for name, offset, count in scan_images(content)
    }


def _read_points(binary: Path) -> tuple[NDArray[np.void], I64]:
    """Read all points and their track lengths, in the order of their ids."""
    content = (binary / "points3D.bin").read_bytes()
    numbers = chain.from_iterable(scan_points(content))
    found = np.fromiter(numbers, np.int64).reshape(-1, 2)
    # As if a point began at every byte: no index of all their bytes is needed so.
    count = max(0, len(content) - POINT.itemsize + 1)
    anywhere = np.ndarray((count,), POINT, content, strides=(1,))
    found = found[np.argsort(anywhere["id"][found[:, 0]])]
    return anywhere[found[:, 0]], found[:, 1].copy()


def _read_image(
    image: pycolmap.Image,
    camera: Camera,
    keypoints: NDArray[np.void],
    ids: NDArray[np.uint64],
) -> RegisteredImage:
    rows = np.full(len(keypoints), -1, np.int64)
    is_seen = keypoints["point"] != _NO_POINT
    rows[is_seen] = np.searchsorted(ids, keypoints["point"][is_seen])
    return RegisteredImage(
        name=image.name,
        camera=camera,
        cam_from_world=from_colmap_pose(image.cam_from_world()),
        keypoints=(keypoints["xy"] - PIXEL_CENTRE).astype(np.float32),
        point_ids=rows,
    )
