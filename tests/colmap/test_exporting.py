"""Text models and models without lens distortion, beside COLMAP's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pycolmap
import pytest
from colmap_scenes import make_scene
from samples import make_texture, write_image

from sfm_features.colmap import (
    exporting,
    pick_model,
    read_model,
    transform_model,
    undistort_camera,
    undistort_picture,
    write_text_model,
    write_undistorted_model,
)
from sfm_features.errors import InputError, OutputError
from sfm_features.geometry import Similarity, project
from sfm_features.images import decode
from sfm_features.types import Camera

CAMERAS = [
    Camera("SIMPLE_RADIAL", 200, 150, (180.0, 103.0, 71.0, 0.1)),
    Camera("OPENCV", 200, 150, (180.0, 183.0, 103.0, 71.0, 0.1, -0.05, 0.002, 0.001)),
    Camera("OPENCV_FISHEYE", 150, 200, (120.0, 121.0, 75.0, 98.0, 0.05, 0.01, 0, 0)),
    Camera("PINHOLE", 200, 150, (180.0, 183.0, 103.0, 71.0)),
]


def test_models_are_as_colmap_undistorts_them(tmp_path: Path) -> None:
    model = make_scene(tmp_path / "scene", images=4, points=60).write_truth(
        tmp_path / "model"
    )
    (tmp_path / "empty").mkdir()
    names = sorted(read_model(model).images)
    write_undistorted_model(model, tmp_path / "flat", {names[0]: "first.jpg"})
    pycolmap.undistort_images(tmp_path / "theirs", model, tmp_path / "empty")
    ours, theirs = read_model(tmp_path / "flat"), read_model(tmp_path / "theirs/sparse")
    assert ours.images.keys() == {"first.jpg", *names[1:]}
    for name in names[1:]:
        image, twin = ours.images[name], theirs.images[name]
        assert image.camera.model == "PINHOLE" and image.camera == twin.camera
        assert np.array_equal(image.keypoints, twin.keypoints)
        assert np.array_equal(image.point_ids, twin.point_ids)
    # And without their word: points are seen where a plain camera has them.
    image = ours.images["first.jpg"]
    pose, seen = image.cam_from_world, image.point_ids >= 0
    points = ours.points[image.point_ids[seen]] @ pose.rotation.T + pose.translation
    assert image.camera.params != read_model(model).images[names[0]].camera.params
    off = np.abs(project(image.camera, points) - image.keypoints[seen])
    assert np.median(off) < 0.5  # the noise of the scene


@pytest.mark.parametrize("camera", CAMERAS, ids=lambda camera: camera.model)
def test_pictures_are_as_colmap_undistorts_them(camera: Camera, tmp_path: Path) -> None:
    picture = make_texture((camera.width, camera.height))
    write_image(tmp_path / "photos/a.png", picture)
    made = pycolmap.Reconstruction()
    made.add_camera_with_trivial_rig(exporting.to_colmap_camera(camera, 1))
    image = pycolmap.Image(name="a.png", camera_id=1, image_id=1)
    made.add_image_with_trivial_frame(image, pycolmap.Rigid3d())
    (tmp_path / "model").mkdir()
    made.write_binary(tmp_path / "model")
    pycolmap.undistort_images(
        tmp_path / "theirs", tmp_path / "model", tmp_path / "photos"
    )
    flat, theirs = undistort_camera(camera), decode(tmp_path / "theirs/images/a.png")
    ours = undistort_picture(picture, camera)
    assert (flat.width, flat.height) == theirs.size
    assert np.array_equal(ours, theirs.rgb)


def test_an_image_of_all_around_is_refused() -> None:
    with pytest.raises(InputError, match="EQUIRECTANGULAR.*as text"):
        undistort_camera(Camera("EQUIRECTANGULAR", 400, 200, (400.0, 200.0)))


def test_text_holds_what_the_model_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_scene(tmp_path / "scene").write_truth(tmp_path / "model")
    (tmp_path / "text").mkdir()
    write_text_model(model, tmp_path / "text")
    ours, before = read_model(tmp_path / "text"), read_model(model)
    assert ours.images.keys() == before.images.keys()
    assert np.allclose(ours.points, before.points, atol=1e-9)
    write = pycolmap.Reconstruction.write_text

    def cut(self: pycolmap.Reconstruction, folder: Path) -> None:
        write(self, folder)
        points = folder / "points3D.txt"
        points.write_bytes(points.read_bytes()[:-200])

    monkeypatch.setattr(exporting.pycolmap.Reconstruction, "write_text", cut)
    with pytest.raises(OutputError, match="disk is full"):
        write_text_model(model, tmp_path / "text")


def test_a_model_is_picked_by_its_number(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene")
    for name in ("0", "2", "10"):
        scene.write_truth(tmp_path / "out/sparse" / name)
    out = tmp_path / "out"
    for folder in (out, out / "sparse"):
        assert pick_model(folder) == out / "sparse/0"
        assert pick_model(folder, 10) == out / "sparse/10"
        with pytest.raises(InputError, match="no model 1; --model may be .* 0, 2, 10"):
            pick_model(folder, 1)
    assert pick_model(out / "sparse/2") == out / "sparse/2"
    with pytest.raises(InputError, match="may be one of 0"):
        pick_model(out / "sparse/2", 2)
    for folder in (tmp_path / "absent", tmp_path / "scene"):
        with pytest.raises(InputError, match="has no COLMAP model"):
            pick_model(folder)


def test_a_model_with_rigs_moves_as_a_whole(tmp_path: Path) -> None:
    options = pycolmap.SyntheticDatasetOptions(
        num_rigs=2, num_cameras_per_rig=2, num_frames_per_rig=4, num_points3D=40
    )
    pycolmap.set_random_seed(0)
    (tmp_path / "model").mkdir()
    pycolmap.synthesize_dataset(options).write_binary(tmp_path / "model")
    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    move = Similarity(3.0, quarter, np.array([10.0, 0, -4]))
    transform_model(tmp_path / "model", tmp_path / "moved", move)
    before, after = read_model(tmp_path / "model"), read_model(tmp_path / "moved")
    assert before.images.keys() == after.images.keys() and len(before.images) == 16
    assert np.allclose(move.apply(before.points), after.points)
    for name, image in before.images.items():
        old, new = image.cam_from_world, after.images[name].cam_from_world
        assert np.allclose(move.apply(old.centre[None])[0], new.centre)
        assert np.allclose(old.rotation @ quarter.T, new.rotation)
        assert np.array_equal(image.point_ids, after.images[name].point_ids)
