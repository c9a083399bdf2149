"""RobotCar Seasons and Extended CMU Seasons of the small town."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from miniature import HELD_OUT, make_model, move, show_camera, show_centre, write_photos
from nvm_files import write_nvm
from small_town import Photo, SmallTown, bend

from sfm_features.colmap import write_model
from sfm_features.types import Camera

SHIFT = (300.0, -500.0, 20.0)
LENSES = {"c0": -0.10, "c1": -0.06}


def write_robotcar(dataset: Path, town: SmallTown) -> dict[str, Photo]:
    """Write the data set; return its queries, whose truth v2 tells for those by day."""
    reference = {
        f"overcast-reference/rear/{1000 + i}.jpg": move(photo, SHIFT)
        for i, photo in town.day.items()
        if i not in HELD_OUT
    }
    dusk = {f"dusk/rear/{2000 + i}.jpg": move(town.day[i], SHIFT) for i in HELD_OUT}
    night = {
        f"night-rain/rear/{3000 + i}.jpg": move(photo, SHIFT)
        for i, photo in town.night.items()
    }
    write_photos(dataset / "images", {**reference, **dusk, **night})
    # The model has other names than the files, and cameras to the side as well.
    named = {f"./{name[:-4]}.png": photo for name, photo in reference.items()}
    first = next(iter(reference.values()))
    named["./overcast-reference/left/1000.png"] = first
    write_nvm(dataset / "3D-models/all-merged/all.nvm", make_model(named))
    focal, x, y = first.camera.params
    (dataset / "intrinsics").mkdir()
    text = f"fx {focal}\nfy {focal}\ncx {x}\ncy {y}\n"
    (dataset / "intrinsics/rear_intrinsics.txt").write_text(text)
    lines = []
    for name, photo in {**dusk, "dusk/left/1.jpg": first}.items():
        matrix = np.eye(4)
        matrix[:3, :3] = photo.cam_from_world.rotation.T
        matrix[:3, 3] = photo.cam_from_world.centre
        lines.append(" ".join([name, *(f"{value:.9f}" for value in matrix.ravel())]))
    (dataset / "robotcar_v2_train.txt").write_text("\n".join(lines) + "\n")
    return {**dusk, **night}


def write_cmu(dataset: Path, town: SmallTown) -> dict[str, Photo]:
    """Write slice 7 with two cameras; return its queries by bare name."""
    folder = dataset / "slice7"
    known, queries = {}, {}
    for i, photo in town.day.items():
        lens = f"c{i % 2}"
        taken = use_opencv(bend(move(photo, SHIFT), LENSES[lens]))
        name = f"img_{i:05}_{lens}_1303398475046031us.jpg"
        (queries if i in HELD_OUT else known)[name] = taken
    write_photos(folder / "database", known)
    write_photos(folder / "query", queries)
    write_model(make_model(known), folder / "sparse")
    cameras = {name.split("_")[2]: photo.camera for name, photo in known.items()}
    lines = [f"{lens} {show_camera(camera)}" for lens, camera in cameras.items()]
    (dataset / "intrinsics.txt").write_text("# cameras\n\n" + "\n".join(lines))
    (folder / "test-images-slice7.txt").write_text("\n".join(queries) + "\n")
    _write_centres(folder / "camera-poses/slice-7-gt-query-images.txt", queries)
    _write_centres(folder / "ground-truth-database-images-slice7.txt", known)
    return queries


def use_opencv(photo: Photo) -> Photo:
    """Call a camera of one radial OPENCV."""
    given = photo.camera
    focal, x, y, k = given.params
    params = (focal, focal, x, y, k, 0.0, 0.0, 0.0)
    return replace(photo, camera=Camera("OPENCV", given.width, given.height, params))


def _write_centres(path: Path, photos: Mapping[str, Photo]) -> None:
    path.parent.mkdir(exist_ok=True)
    lines = [
        " ".join(map(str, [name, *show_centre(photo.cam_from_world)]))
        for name, photo in photos.items()
    ]
    path.write_text("\n".join(lines) + "\n")
