"""Adding images to a model: what is new comes right, what is old stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from colmap_scenes import Scene, make_scene, model_bytes

from sfm_features.colmap import Cancellation, add_images, read_model, verify_pairs
from sfm_features.colmap.files import MODEL_FILES
from sfm_features.errors import Cancelled, InputError, OutputError, ReconstructionError
from sfm_features.geometry import rotation_angle_deg
from sfm_features.types import Model

PARTNERS = 3


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Synthesise ten images; two of them are new, and matched with three old ones."""
    made = make_scene(tmp_path / "scene")
    new, partners = made.names[3:5], made.names[:PARTNERS]
    return replace(
        made,
        matches={
            (a, b): found
            for (a, b), found in made.matches.items()
            if (a in partners and b in new)
        },
    )


def _write_old(scene: Scene, folder: Path) -> tuple[Path, list[str]]:
    """Write the true model without the two new images, and return their names."""
    model, new = pycolmap.Reconstruction(scene.truth), scene.names[3:5]
    for image in list(model.images.values()):
        if image.name in new:
            model.deregister_frame(image.frame_id)
    folder.mkdir()
    model.write_binary(folder)
    return folder, new


def _import(scene: Scene, reference: Path, database: Path) -> Path:
    scene.import_into(database, reference)
    verify_pairs(database)
    return database


def _check_old(before: Model, after: Model) -> None:
    for name, image in before.images.items():
        pose, other = image.cam_from_world, after.images[name].cam_from_world
        np.testing.assert_array_equal(pose.rotation, other.rotation)
        np.testing.assert_array_equal(pose.translation, other.translation)
        assert image.camera == after.images[name].camera


def test_old_images_without_new_pairs_stay_where_they_are(
    scene: Scene, tmp_path: Path
) -> None:
    base, new = _write_old(scene, tmp_path / "base")
    database = _import(scene, base, tmp_path / "database.db")
    output = tmp_path / "sparse/0"
    assert add_images(base, database, [], output, new) == output
    assert {path.name for path in output.iterdir()} == set(MODEL_FILES)
    assert [path.name for path in output.parent.iterdir()] == ["0"]
    before, after = read_model(base), read_model(output)
    assert set(after.images) == set(scene.names) > set(before.images)
    _check_old(before, after)
    true = {image.name: image for image in scene.truth.images.values()}
    for name in new:
        pose = after.images[name].cam_from_world
        apart = pose.centre - true[name].projection_center()
        assert np.linalg.norm(apart) < 0.05  # the cameras stand about 5 from the middle
        turn = pose.rotation @ true[name].cam_from_world().rotation.matrix().T
        assert rotation_angle_deg(turn) < 0.3
    first = model_bytes(output)
    add_images(base, database, [], output, new)
    assert model_bytes(output) == first


def test_what_matches_nothing_is_left_out(scene: Scene, tmp_path: Path) -> None:
    base, new = _write_old(scene, tmp_path / "base")
    database = _import(replace(scene, matches={}), base, tmp_path / "database.db")
    add_images(base, database, [], tmp_path / "out", new)
    before, after = read_model(base), read_model(tmp_path / "out")
    assert set(after.images) == set(before.images)
    assert len(after.points) == len(before.points)
    _check_old(before, after)


def test_a_stop_leaves_no_half_model(scene: Scene, tmp_path: Path) -> None:
    base, new = _write_old(scene, tmp_path / "base")
    database = _import(scene, base, tmp_path / "database.db")
    stop = Cancellation()
    stop.cancel()
    with pytest.raises(Cancelled):
        add_images(base, database, [], tmp_path / "out", new, cancellation=stop)
    assert not (tmp_path / "out").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/photo.jpg").touch()
    with pytest.raises(OutputError, match=r"photo\.jpg"):
        add_images(base, database, [], tmp_path / "mine", new)
    with pytest.raises(InputError, match="not a COLMAP model"):
        add_images(tmp_path / "mine", database, [], tmp_path / "out", new)
    other = make_scene(tmp_path / "other", images=4, seed=1)
    foreign = other.import_into(tmp_path / "foreign.db")
    with pytest.raises(ReconstructionError, match="cannot go on"):
        add_images(base, foreign, [], tmp_path / "out", new)
