"""The town, the walk through it, and the folder that a walk is written to."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from sfm_features.errors import InputError, OptionError, StaleStore
from sfm_features.geometry import rotation_angle_deg
from sfm_features.scenes import (
    Rendering,
    Town,
    View,
    build_town,
    read_truth,
    render_town,
    town_views,
    truth,
)


def test_a_seed_gives_one_town(town: Town) -> None:
    again = build_town(seed=0, detail=0.4, workers=1)
    np.testing.assert_array_equal(again.surfaces.origin, town.surfaces.origin)
    for mine, other in zip(town.textures, again.textures, strict=True):
        np.testing.assert_array_equal(mine.atlas, other.atlas)
    np.testing.assert_array_equal(again.sky_day, town.sky_day)
    np.testing.assert_array_equal(again.sky_night, town.sky_night)


def test_another_seed_gives_another_town(town: Town) -> None:
    other = build_town(seed=1, detail=0.2)
    shared = min(len(other.surfaces), len(town.surfaces))
    same = other.surfaces.origin[:shared] == town.surfaces.origin[:shared]
    assert same.all(1).mean() < 0.1


@pytest.mark.parametrize("seed", range(4))
def test_no_camera_stands_in_anything(town: Town, seed: int) -> None:
    assert town.is_blocked(np.array([0.5, 0.8, 1.6]))
    for view in town_views(40, seed):
        centre = view.cam_from_world.centre
        assert 1.3 < centre[2] < 2.1
        assert not town.is_blocked(centre), view.name


def test_nothing_is_right_before_a_camera(
    views: list[View], day: list[Rendering]
) -> None:
    for picture in day:
        assert np.percentile(picture.depth, 10) > 1.0


def test_the_walk_is_wide_but_its_steps_overlap() -> None:
    for seed in range(3):
        poses = [v.cam_from_world for v in town_views(30, seed)]
        ring = [*poses, poses[0]]
        turns, steps = [], []
        for a, b in zip(ring[:-1], ring[1:], strict=True):
            turns.append(rotation_angle_deg(b.rotation @ a.rotation.T))
            steps.append(np.linalg.norm(b.centre - a.centre))
        assert max(turns) < 42, max(turns)
        assert 0.3 < np.median(steps) < 4
        headings = [rotation_angle_deg(p.rotation @ poses[0].rotation.T) for p in poses]
        assert max(headings) > 150


def test_the_camera_bends_visibly() -> None:
    camera = town_views(1, size=(640, 480))[0].camera
    assert camera.model == "RADIAL" and (camera.width, camera.height) == (640, 480)
    assert 0.75 < camera.params[0] / 640 < 0.85
    assert -0.1 < camera.params[3] < -0.05


def test_a_shorter_walk_is_the_start_of_a_round() -> None:
    long, short = town_views(30, 5), town_views(4, 5)
    for a, b in zip(long, short, strict=False):
        np.testing.assert_allclose(a.cam_from_world.centre, b.cam_from_world.centre)


def test_a_walk_needs_a_view() -> None:
    with pytest.raises(OptionError, match="at least one"):
        town_views(0)


@pytest.fixture
def folder(tmp_path: Path, town: Town, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder, and lend the built town to `render_town`."""
    monkeypatch.setattr(truth, "build_town", lambda seed, workers: town)
    return tmp_path / "town"


def test_a_rendered_town_is_complete(folder: Path) -> None:
    views = render_town(folder, 3, size=(128, 96), depth=True)
    found = read_truth(folder / "truth.json")
    assert list(found.poses) == [v.name for v in views]
    for view in views:
        image = cv2.imread(str(folder / "images" / view.name))
        assert image is not None and image.shape == (96, 128, 3)
        assert found.cameras[view.name] == view.camera
        pose = found.poses[view.name]
        np.testing.assert_array_equal(pose.rotation, view.cam_from_world.rotation)
        np.testing.assert_array_equal(pose.translation, view.cam_from_world.translation)
        depth = np.load(folder / "depth" / f"{view.name}.npy")
        assert depth.shape == (96, 128) and depth.dtype == np.float32
    centres = [v.cam_from_world.centre for v in views]
    apart = max(np.linalg.norm(a - b) for a in centres for b in centres)
    assert found.diameter == pytest.approx(apart)
    assert json.loads((folder / "truth.json").read_text())["units"] == "metre"
    assert not list(folder.rglob("*.part*"))


def test_a_stopped_run_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    render_town(folder, 2, size=(128, 96))
    first, second = sorted((folder / "images").iterdir())
    before, pixels = first.stat().st_mtime_ns, second.read_bytes()
    os.remove(second)
    render_town(folder, 2, size=(128, 96))
    assert first.stat().st_mtime_ns == before
    assert second.read_bytes() == pixels

    def refuse(seed: int, workers: int) -> Town:
        raise AssertionError("everything was there")

    monkeypatch.setattr(truth, "build_town", refuse)
    render_town(folder, 2, size=(128, 96))


def test_a_folder_of_other_settings_is_refused(folder: Path) -> None:
    render_town(folder, 1, size=(128, 96))
    with pytest.raises(StaleStore, match="lighting day, asked for night"):
        render_town(folder, 1, lighting="night", size=(128, 96))


def test_a_missing_or_foreign_truth_is_explained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="render the town first"):
        read_truth(tmp_path / "truth.json")
    path = tmp_path / "truth.json"
    path.write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        read_truth(path)
    path.write_text('{"images": {"a.jpg": {}}}')
    with pytest.raises(InputError, match="no truth file"):
        read_truth(tmp_path)
