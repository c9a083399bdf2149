"""RobotCar and CMU in miniature, from the files to the server's file and the table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from miniature import CPU, assert_close, read_rows, read_submission
from miniature_seasons import write_cmu, write_robotcar
from small_town import SmallTown

from pipelines import cmu, robotcar
from pipelines.protocols.chain import Located
from pipelines.protocols.poses import (
    pose_from_camera_to_world,
    pose_from_centre,
    read_numbered,
    write_pose,
)
from pipelines.protocols.submission import use_camera_folder, write_submission
from sfm_features.errors import InputError
from sfm_features.geometry import look_at, quaternion_wxyz


def test_robotcar(
    small_town: SmallTown, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, output = tmp_path / "robotcar", tmp_path / "out"
    queries = write_robotcar(dataset, small_town)
    arguments = [str(dataset), "--output", str(output), *CPU]
    assert robotcar.main(arguments) == 0
    sent = read_submission(output / "RobotCar_eval_sfm-features-evo.txt")
    assert sent.keys() == {use_camera_folder(name) for name in queries}
    for name, photo in queries.items():
        assert_close(sent[use_camera_folder(name)], photo.cam_from_world, 0.15, 0.5)
    rows = {row["images"]: row for row in read_rows(output, "robotcar")}
    for group in ("all by day", "dusk"):
        assert rows[group]["with a pose"] == "4 of 4"
        assert rows[group]["% in 0.25 m, 2 deg"] == 100
        assert rows[group]["median cm"] < 4
    assert rows["night-rain"] == {"images": "night-rain", "with a pose": "3 of 3"}
    assert (
        rows["kapture, Feather2D2, AP-GeM-10: all by night"]["% in 5 m, 10 deg"] == 54.3
    )
    assert robotcar.main([*arguments, "--conditions", "fog"]) == 2
    assert "--conditions fog: is not one of" in capsys.readouterr().err
    assert robotcar.main([*arguments, "--conditions", "snow"]) == 2
    assert "has no snow/rear/*.jpg" in capsys.readouterr().err


def test_cmu(
    small_town: SmallTown, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, output = tmp_path / "cmu", tmp_path / "out"
    queries = write_cmu(dataset, small_town)
    arguments = [str(dataset), "--output", str(output), *CPU]
    assert cmu.main([*arguments, "--slices", "7"]) == 0
    (row,) = read_rows(output, "cmu")
    assert (row["slice"], row["area"], row["with a pose"]) == (7, "urban", "4 of 4")
    assert row["% in 0.25 m, 2 deg"] == 100 and row["median cm"] < 4
    sent = read_submission(output / "CMU_eval_sfm-features-evo.txt")
    assert sent.keys() == queries.keys()
    for name, photo in queries.items():
        assert_close(sent[name], photo.cam_from_world, 0.15, 0.5)
    assert cmu.main(arguments) == 2  # slice 7 is not one that the server scores
    assert "has no slice2" in capsys.readouterr().err
    (dataset / "intrinsics.txt").write_text("c0 PINHOLE 480 360 384 384 240 180\n")
    assert cmu.main([*arguments, "--slices", "7"]) == 2
    assert "does not tell its camera, one of c0" in capsys.readouterr().err


def test_every_convention_comes_back() -> None:
    """Off the origin and turned every way, so that no mix-up goes unnoticed."""
    pose = look_at(np.array([738.0, -6.2, -41.8]), np.array([700.0, 15.0, -40.0]))
    wxyz = quaternion_wxyz(pose.rotation)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = pose.rotation.T, pose.centre
    for made in (
        pose_from_centre(wxyz, pose.centre),
        pose_from_centre(-3 * wxyz, pose.centre),
        pose_from_camera_to_world(matrix),
        pose_from_camera_to_world(matrix.ravel().round(5)),
    ):
        assert_close(made, pose, 1e-3, 1e-3)
    written = [float(word) for word in write_pose(pose).split()]
    np.testing.assert_allclose(written, [*wxyz, *pose.translation])
    for wrong in (matrix * 2, matrix @ np.diag([1, 1, -1, 1]), matrix * np.nan):
        with pytest.raises(ValueError, match="no rotation"):
            pose_from_camera_to_world(wrong)


def test_lists_of_poses_are_read_with_care(tmp_path: Path) -> None:
    path = tmp_path / "poses.txt"
    path.write_bytes(b"# name x y\r\n\r\na.jpg 1 2e0\r\nb.jpg -3 4\r\n")
    assert read_numbered(path, 2) == {"a.jpg": [1, 2], "b.jpg": [-3, 4]}
    for text, complaint in (
        ("a 1\n", "is not a name and 2 numbers"),
        ("a 1 x\n", "is not a name and 2 numbers"),
        ("a 1 nan\n", "is not a name and 2 numbers"),
        ("a 1 2\na 1 3\n", "names 'a' twice"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=complaint):
            read_numbered(path, 2)


def test_equal_names_do_not_become_one_line(tmp_path: Path) -> None:
    pose = look_at(np.array([1.0, 2, 3]), np.zeros(3))
    found = {
        name: Located("localized", "", pose) for name in ("day/1.jpg", "sun/1.jpg")
    }
    with pytest.raises(InputError, match="would both be '1.jpg'"):
        write_submission(tmp_path / "sent.txt", found)
    found["sun/1.jpg"] = Located("few matches", "", None)
    write_submission(tmp_path / "sent.txt", found, use_camera_folder)
    assert read_submission(tmp_path / "sent.txt").keys() == {"day/1.jpg"}
