"""Cambridge and 7-Scenes in miniature, from the files to the table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from miniature import CPU, assert_close, make_model, read_rows
from miniature_scenes import (
    write_archive,
    write_retriangulated,
    write_seven_scenes,
)
from small_town import SmallTown

from pipelines import cambridge, seven_scenes
from pipelines.protocols.cameras import convert_visualsfm, rescale
from pipelines.protocols.scenes import Scene
from sfm_features.colmap import write_model
from sfm_features.errors import InputError
from sfm_features.geometry import project, quaternion_wxyz
from sfm_features.types import Camera, Pose


def test_cambridge_with_and_without_hlocs_models(
    small_town: SmallTown, tmp_path: Path
) -> None:
    dataset, output = tmp_path / "cambridge", tmp_path / "out"
    truth = {
        "ShopFacade": write_archive(dataset / "ShopFacade", small_town),
        "StMarysChurch": write_retriangulated(dataset, "StMarysChurch", small_town),
    }
    for name, photos in truth.items():
        scene = cambridge.read_scene(dataset, name, 5)
        assert len(scene.task.known.poses) == 11 and scene.task.known.pairs
        _assert_true(scene, {n: photo.cam_from_world for n, photo in photos.items()})
        for query in scene.task.queries:
            given, true = query.camera, photos[query.name].camera
            assert given is not None and given.model == true.model
            np.testing.assert_allclose(given.params, true.params, atol=1e-6)
    assert cambridge.main([str(dataset), "--output", str(output), *CPU]) == 0
    rows = read_rows(output, "cambridge")
    assert [row["scene"] for row in rows] == list(truth)
    for row in rows:
        assert (row["queries"], row["localized"]) == (4, 4)
        assert row["% in 5 cm, 5 deg"] == 100
        assert row["median cm"] < 2.5 and row["median deg"] < 0.1
    assert rows[0]["DSAC*"] == "5 / 0.3"


def test_seven_scenes(
    small_town: SmallTown, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, output = tmp_path / "7scenes", tmp_path / "out"
    test = write_seven_scenes(dataset / "heads", small_town)
    arguments = [str(dataset), "--every", "1", "--focal-px", "384", *CPU]
    scene = seven_scenes.read_scene(seven_scenes.parse_args(arguments), "heads")
    _assert_true(scene, {name: photo.cam_from_world for name, photo in test.items()})
    assert seven_scenes.main([*arguments, "--output", str(output)]) == 0
    (row,) = read_rows(output, "7scenes")
    assert (row["scene"], row["queries"], row["localized"]) == ("heads", 4, 4)
    assert row["% in 5 cm, 5 deg"] == 100
    assert row["median cm"] < 2.5 and row["median deg"] < 0.1
    thinned = [*arguments, "--every", "3"]
    scene = seven_scenes.read_scene(seven_scenes.parse_args(thinned), "heads")
    assert len(scene.task.known.poses) == 4
    assert seven_scenes.main([*arguments, "--scenes", "fire"]) == 2
    assert "has no folder fire" in capsys.readouterr().err
    (dataset / "heads/seq-01/frame-000003.pose.txt").write_text("1 2 3")
    assert seven_scenes.main(arguments) == 2
    assert "frame-000003.pose.txt: is no pose" in capsys.readouterr().err


def test_other_poses_and_models_of_seven_scenes(
    small_town: SmallTown, tmp_path: Path
) -> None:
    """A pseudo truth has focal lengths; hloc's models hold the test frames, too."""
    dataset = tmp_path / "7scenes"
    test = write_seven_scenes(dataset / "heads", small_town)
    names = sorted(p.relative_to(dataset / "heads").as_posix()
                   for p in dataset.glob("heads/*/*.color.png"))  # fmt: skip
    photos = {name: small_town.day[int(name[-16:-10])] for name in names}
    moved = Pose(np.eye(3), np.array([1.0, 2.0, 3.0]))
    row = " ".join(
        map(str, [*quaternion_wxyz(moved.rotation), *moved.translation, 500])
    )
    for part in ("train", "test"):
        (tmp_path / f"heads_{part}.txt").write_text(
            "".join(f"{name} {row}\n" for name in names)
        )
    args = [str(dataset), "--pseudo-truth", str(tmp_path), "--every", "1"]
    scene = seven_scenes.read_scene(seven_scenes.parse_args(args), "heads")
    assert {q.camera.params[0] for q in scene.task.queries if q.camera} == {500}
    _assert_true(scene, dict.fromkeys(test, moved))
    write_model(make_model(photos), tmp_path / "models/heads/triangulated")
    args = [str(dataset), "--models", str(tmp_path / "models"), "--every", "1"]
    scene = seven_scenes.read_scene(seven_scenes.parse_args(args), "heads")
    assert scene.task.known.poses.keys() == photos.keys() - test.keys()


def test_cameras_for_another_size_and_of_visualsfm() -> None:
    small = Camera("SIMPLE_RADIAL", 1024, 576, (800.0, 512.0, 288.0, -0.05))
    large = rescale(small, (1920, 1080))
    assert large.params == pytest.approx((1500, 960, 540, -0.05))
    rays = np.array([[0.3, -0.2, 1.0], [0.5, 0.3, 1.0]])
    np.testing.assert_allclose(
        (project(large, rays) + 0.5) / 1.875, project(small, rays) + 0.5
    )
    with pytest.raises(InputError, match="another shape"):
        rescale(small, (1080, 1920))
    with pytest.raises(InputError, match="cannot be rescaled"):
        rescale(Camera("FISHEYE", 10, 10, (1.0, 1.0, 1.0, 1.0)), (20, 20))
    # What VisualSfM's radial unbends must come from where COLMAP's camera bends to.
    camera = convert_visualsfm(1000.0, 0.08, (1000, 800))
    seen = (project(camera, rays) + 0.5 - [500, 400]) / 1000
    unbent = seen * (1 + 0.08 * (seen**2).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(unbent, rays[:, :2], atol=2e-3)


def _assert_true(scene: Scene, truth: dict[str, Pose]) -> None:
    assert scene.truth.keys() == truth.keys()
    for name, true in truth.items():
        assert_close(scene.truth[name], true, 1e-5, 1e-4)
