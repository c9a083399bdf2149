"""Pictures and the scene: what is drawn lies where it belongs."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from report_pages import make_model
from samples import write_image

from sfm_features.geometry import look_at
from sfm_features.report import pictures, scene
from sfm_features.types import Pose


def test_triangulated_keypoints_are_green_and_the_others_red() -> None:
    grey = np.full((60, 80, 3), 90, np.uint8)
    upright = pictures.Upright(grey, 1, (160, 120))
    xy = np.array([[40.5, 40.5], [120.5, 80.5]], np.float32)
    drawn = _decode(pictures.draw_keypoints(upright, xy, np.array([True, False])))
    green, red = drawn[20, 20].astype(int), drawn[40, 60].astype(int)
    assert green[1] > green[0] + 40 and red[0] > red[1] + 20
    assert np.abs(drawn[5:12, 5:12].astype(int) - 90).max() < 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_keypoints_follow_a_picture_that_is_turned(
    tmp_path: Path, orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = np.zeros((60, 100, 3), np.uint8)
    stored[40:44, 80:84] = 255
    write_image(tmp_path / "a.png", stored)
    decoded = replace(pictures.decode(tmp_path / "a.png"), orientation=orientation)
    monkeypatch.setattr(pictures, "decode", lambda path: decoded)
    upright = pictures.load_upright(tmp_path / "a.png", 50)
    x, y = upright.place(np.array([[81.5, 41.5]], np.float32))[0]
    rows, columns = np.nonzero(upright.rgb[..., 0] > 200)
    assert np.allclose([x, y], [columns.mean(), rows.mean()], atol=0.01)


def test_lines_end_at_the_keypoints() -> None:
    a = pictures.Upright(np.zeros((40, 60, 3), np.uint8), 1, (60, 40))
    b = pictures.Upright(np.zeros((80, 60, 3), np.uint8), 1, (120, 160))
    xy_a = np.array([[10, 20]], np.float32)
    xy_b = np.array([[100.5, 20.5]], np.float32)
    none = np.zeros((0, 2), np.float32)
    drawn = _decode(pictures.draw_pair(a, b, (xy_a, xy_b), (none, none))).astype(int)
    # The first image is centred beside the taller one; a gap of 6 px lies between.
    for x, y in [(10, 40), (66 + 50, 10)]:
        assert drawn[y, x, 1] > drawn[y, x, 0] + 30
    assert drawn[70:, :60].max() < 60


def test_rejected_matches_are_those_that_were_not_verified() -> None:
    xy = np.arange(20, dtype=np.float32).reshape(10, 2)
    matches = np.array([[0, 1], [2, 3], [4, 5]], np.int32)
    inliers, rejected = pictures.split_matches((xy, xy), matches[1:2], matches)
    assert np.array_equal(inliers[0], xy[[2]]) and np.array_equal(inliers[1], xy[[3]])
    assert np.array_equal(rejected[0], xy[[0, 4]])
    assert np.array_equal(rejected[1], xy[[1, 5]])


def test_scene_stands_upright_whatever_the_world() -> None:
    model = make_model()
    turn = look_at(np.array([1.0, 2, 3]), np.array([5.0, -1, 0])).rotation
    turned = replace(
        model,
        points=model.points @ turn.T,
        images={
            name: replace(
                image,
                cam_from_world=Pose(
                    image.cam_from_world.rotation @ turn.T,
                    image.cam_from_world.translation,
                ),
            )
            for name, image in model.images.items()
        },
    )
    for each in (model, turned):
        arranged = scene.arrange_scene(each, {})
        points = _unpack(arranged["points"])
        frusta = _unpack(arranged["frusta"]).reshape(-1, 5, 3)
        # Heights order as in the world, where z was up; cameras stand in front.
        height = model.points[:, 2]
        assert np.corrcoef(height, points[:, 2])[0, 1] > 0.999
        assert frusta[:, 0, 1].max() < points[:, 1].min()
        assert np.linalg.norm(points, axis=1).max() < 1.5
        # They look at the points: corners lie nearer than centres, the top is higher.
        assert (frusta[:, 1:, 1] > frusta[:, :1, 1]).all()
        assert (frusta[:, 1:3, 2].min(1) > frusta[:, 3:, 2].max(1)).all()


def test_camera_held_upright_counts_as_level() -> None:
    model = make_model()
    # The sensor's x axis points down: EXIF says 6, turn clockwise to see it upright.
    roll = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    images = {
        name: replace(
            image,
            cam_from_world=Pose(
                roll @ image.cam_from_world.rotation,
                roll @ image.cam_from_world.translation,
            ),
        )
        for name, image in model.images.items()
    }
    arranged = scene.arrange_scene(
        replace(model, images=images), dict.fromkeys(images, 6)
    )
    heights = _unpack(arranged["points"])[:, 2]
    assert np.corrcoef(model.points[:, 2], heights)[0, 1] > 0.999


def test_far_points_do_not_shrink_the_scene(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(400)
    points = model.points.copy()
    points[:7] *= 1e6
    monkeypatch.setattr(scene, "MAX_POINTS", 100)
    arranged = scene.arrange_scene(replace(model, points=points), {})
    assert (arranged["far"], arranged["near"], arranged["shown"]) == (7, 393, 100)
    assert len(_unpack(arranged["points"])) == 100
    assert np.ptp(_unpack(arranged["points"])[:, 0]) > 0.3


def _decode(picture: pictures.Picture) -> np.ndarray:
    content = base64.b64decode(picture.uri.split(",")[1])
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def _unpack(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4").reshape(-1, 3)
