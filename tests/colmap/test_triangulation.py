"""Triangulation with known poses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pycolmap
import pytest
from colmap_scenes import Scene, empty_dir, make_scene, model_bytes

from sfm_features.colmap import (
    Cancellation,
    project_points,
    read_model,
    read_verified,
    triangulate_model,
)
from sfm_features.colmap.files import MODEL_FILES
from sfm_features.errors import Cancelled, InputError, OutputError, ReconstructionError
from sfm_features.types import Model

POINTS = 150


def _without_configuration(scene: Scene, database: Path) -> None:
    """Write the matches as two-view geometries without saying of which kind."""
    with pycolmap.Database.open(database) as handle:
        ids = {image.name: image.image_id for image in handle.read_all_images()}
        for (one, other), found in scene.matches.items():
            geometry = pycolmap.TwoViewGeometry()
            geometry.inlier_matches = found.indices.astype(np.uint32)
            handle.write_two_view_geometry(ids[one], ids[other], geometry)


def test_all_points_come_out_where_colmap_alone_gives_none(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene", points=POINTS)
    reference = scene.write_truth(tmp_path / "reference")
    database = scene.import_into(tmp_path / "database.db", reference)
    images_dir = empty_dir(tmp_path / "images")
    _without_configuration(scene, database)
    unfixed = pycolmap.triangulate_points(
        *(pycolmap.Reconstruction(reference), database, images_dir),
        empty_dir(tmp_path / "unfixed"),
    )
    assert unfixed.num_points3D() == 0
    triangulate_model(reference, database, images_dir, tmp_path / "fixed")
    model = read_model(tmp_path / "fixed")
    assert len(model.points) == POINTS
    truth = np.array([point.xyz for point in scene.truth.points3D.values()])
    distances = np.linalg.norm(model.points[:, None] - truth[None], axis=2).min(axis=1)
    assert np.median(distances) < 0.01
    assert model.mean_error_px < 1


def _check_held(reference: Path, output: Path) -> Model:
    """Check that there are points now, and that poses and cameras are as before."""
    before, after = read_model(reference), read_model(output)
    assert before.images.keys() == after.images.keys()
    assert len(after.points) > 0.9 * POINTS
    for name, image in before.images.items():
        pose = after.images[name].cam_from_world
        assert np.allclose(pose.rotation, image.cam_from_world.rotation, atol=1e-12)
        assert np.array_equal(pose.translation, image.cam_from_world.translation)
        assert after.images[name].camera == image.camera
    return after


@pytest.mark.parametrize("same_ids", [True, False])
def test_poses_and_cameras_do_not_move(tmp_path: Path, same_ids: bool) -> None:
    scene = make_scene(tmp_path / "scene", noise_px=1.0)
    reference = scene.write_truth(tmp_path / "reference")
    database = tmp_path / "database.db"
    scene.import_into(database, reference if same_ids else None)
    output = triangulate_model(
        reference, database, empty_dir(tmp_path / "images"), tmp_path / "output"
    )
    assert {path.name for path in output.iterdir()} == set(MODEL_FILES)
    after = _check_held(reference, output)
    for name, image in after.images.items():
        assert np.array_equal(image.keypoints, scene.keypoints[name])


def test_cameras_of_a_rig_stay_where_they_are(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene", images=8, rig_cameras=2)
    assert [rig.num_sensors() for rig in scene.truth.rigs.values()] == [2]
    reference = scene.write_truth(tmp_path / "reference")
    database = scene.import_into(tmp_path / "database.db", reference)
    images_dir = empty_dir(tmp_path / "images")
    output = triangulate_model(reference, database, images_dir, tmp_path / "output")
    _check_held(reference, output)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene", inlier_ratio=0.7)
    reference = scene.write_truth(tmp_path / "reference")
    contents = []
    for name in "ab":
        database = scene.import_into(tmp_path / f"{name}.db", reference)
        images_dir = empty_dir(tmp_path / "images")
        output = triangulate_model(
            reference, database, images_dir, tmp_path / name, num_threads=4
        )
        contents.append(model_bytes(output))
    assert contents[0] == contents[1]


def test_two_view_tracks_are_a_choice(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene", images=2)
    reference = scene.write_truth(tmp_path / "reference")
    database = scene.import_into(tmp_path / "database.db", reference)
    images_dir = empty_dir(tmp_path / "images")
    with pytest.raises(ReconstructionError, match="no point could be triangulated"):
        triangulate_model(
            *(reference, database, images_dir, tmp_path / "output"),
            keep_two_view_tracks=False,
        )
    assert not (tmp_path / "output").exists()
    output = triangulate_model(reference, database, images_dir, tmp_path / "output")
    assert len(read_model(output).points) > 0.9 * POINTS


def test_a_bound_on_the_error_is_kept(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene", images=4, points=POINTS, noise_px=1.0)
    reference = scene.write_truth(tmp_path / "reference")
    images_dir, worst = empty_dir(tmp_path / "images"), list[float]()
    for number, bounds in enumerate(({}, {"max_error_px": 1.5})):
        database = scene.import_into(tmp_path / f"{number}.db", reference)
        output = tmp_path / f"{number}"
        triangulate_model(reference, database, images_dir, output, **bounds)
        model = read_model(output)
        errors = []
        for image in model.images.values():
            seen = image.point_ids >= 0
            points = model.points[image.point_ids[seen]]
            xy = project_points(points, image.cam_from_world, image.camera)
            errors.append(np.linalg.norm(xy - image.keypoints[seen], axis=1))
        worst.append(np.concatenate(errors).max())
    assert worst[1] <= 1.5 < worst[0]


def test_what_cannot_be_done_is_explained(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene", images=4)
    reference = scene.write_truth(tmp_path / "reference")
    database = scene.import_into(tmp_path / "database.db", reference)
    images_dir = empty_dir(tmp_path / "images")
    with pytest.raises(InputError, match="not a COLMAP model"):
        triangulate_model(images_dir, database, images_dir, tmp_path / "output")
    (empty_dir(tmp_path / "output") / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="notes.txt"):
        triangulate_model(reference, database, images_dir, tmp_path / "output")
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(Cancelled):
        triangulate_model(
            *(reference, database, images_dir, tmp_path / "new"),
            cancellation=cancellation,
        )
    assert read_verified(database) == {}
