"""Cambridge Landmarks and 7-Scenes of the small town."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from miniature import (
    HELD_OUT,
    make_model,
    move,
    show_camera,
    show_centre,
    write_photos,
)
from nvm_files import write_nvm
from small_town import Photo, SmallTown, bend

from sfm_features.colmap import write_model
from sfm_features.geometry import quaternion_wxyz
from sfm_features.types import Camera, Model, Pose

RADIAL = 0.05
SHIFT = (25.0, -80.0, 54.0)
_RETRIANGULATED = "CambridgeLandmarks_Colmap_Retriangulated_1024px"
_HEADER = "Visual Landmark Dataset V1\nImageFile, Camera Position [X Y Z W P Q R]\n\n"


def write_archive(scene: Path, town: SmallTown) -> dict[str, Photo]:
    """Write a scene of Cambridge as its authors did; return its test images."""
    photos = _name_sequences(town, (-RADIAL, 3 * RADIAL**2))
    write_photos(scene, photos)
    test = {name: photo for name, photo in photos.items() if name.startswith("seq2/")}
    train = {name: photo for name, photo in photos.items() if name not in test}
    for part, listed in (("train", train), ("test", test)):
        lines = []
        for name, photo in listed.items():
            *quaternion, x, y, z = show_centre(photo.cam_from_world)
            lines.append(" ".join(map(str, [name, x, y, z, *quaternion])))
        (scene / f"dataset_{part}.txt").write_text(_HEADER + "\n".join(lines) + "\n")
    # VisualSfM knew the images as JPEG, and could not place one of the test images.
    placed = {str(Path(n).with_suffix(".jpg")): p for n, p in photos.items()}
    del placed[str(Path(next(iter(test))).with_suffix(".jpg"))]
    model = make_model(placed)
    write_nvm(scene / "reconstruction.nvm", model, "\t", centred=True, focal_factor=1)
    return test


def write_retriangulated(dataset: Path, name: str, town: SmallTown) -> dict[str, Photo]:
    """Write a scene with hloc's models, of pictures half as large."""
    photos = _name_sequences(town, (-RADIAL,))
    write_photos(dataset / name, photos)
    test = {name: photo for name, photo in photos.items() if name.startswith("seq2/")}
    train = {name: photo for name, photo in photos.items() if name not in test}
    models = dataset / _RETRIANGULATED / name
    write_model(_halve(make_model(train)), models / "model_train")
    _write_text(
        models / "empty_all", {n: _halve_camera(p) for n, p in photos.items()}, photos
    )
    (models / "list_query.txt").write_text("\n".join(test))
    return test


def write_seven_scenes(scene: Path, town: SmallTown) -> dict[str, Photo]:
    """Write a scene of 7-Scenes, with DOS line ends; return its test frames."""
    scene.mkdir(parents=True)
    (scene / "TrainSplit.txt").write_bytes(b"sequence1\r\n")
    (scene / "TestSplit.txt").write_bytes(b"sequence12\r\n")
    photos = {}
    for i, photo in town.day.items():
        sequence = "seq-12" if i in HELD_OUT else "seq-01"
        photos[f"{sequence}/frame-{i:06}.color.png"] = photo
    write_photos(scene, photos)
    for name, photo in photos.items():
        matrix = np.eye(4)
        matrix[:3, :3] = photo.cam_from_world.rotation.T
        matrix[:3, 3] = photo.cam_from_world.centre
        rows = ["\t".join(f" {value: .7e}" for value in row) for row in matrix]
        path = scene / name.replace(".color.png", ".pose.txt")
        path.write_bytes("\t\r\n".join([*rows, ""]).encode())
    return {name: photo for name, photo in photos.items() if "seq-12" in name}


def _name_sequences(town: SmallTown, bends: tuple[float, ...]) -> dict[str, Photo]:
    return {
        f"seq{1 + (i in HELD_OUT)}/frame{i:05}.png": bend(move(photo, SHIFT), *bends)
        for i, photo in town.day.items()
    }


def _halve_camera(photo: Photo) -> Camera:
    given = photo.camera
    params = (*(value / 2 for value in given.params[:3]), *given.params[3:])
    return replace(
        given, width=given.width // 2, height=given.height // 2, params=params
    )


def _halve(model: Model) -> Model:
    images = {
        name: replace(image, camera=_halve_camera(image))
        for name, image in model.images.items()
    }
    return replace(model, images=images)


def _write_text(
    folder: Path, cameras: Mapping[str, Camera], photos: Mapping[str, Photo]
) -> None:
    """Write a model without points as COLMAP's text."""
    folder.mkdir(parents=True)
    rows, images = [], []
    for number, (name, photo) in enumerate(photos.items(), 1):
        pose: Pose = photo.cam_from_world
        numbers = [*quaternion_wxyz(pose.rotation), *pose.translation]
        rows.append(f"{number} {show_camera(cameras[name])}\n")
        images.append(f"{number} {' '.join(map(str, numbers))} {number} {name}\n\n")
    (folder / "cameras.txt").write_text("# cameras\n" + "".join(rows))
    (folder / "images.txt").write_text("# images\n" + "".join(images))
    (folder / "points3D.txt").write_text("# points\n")
