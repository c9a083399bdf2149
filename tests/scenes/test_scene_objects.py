"""The mannequin and the turntable: what they say about themselves is what is seen."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from sfm_features.errors import StaleStore
from sfm_features.geometry import project
from sfm_features.scenes import correspond, read_truth
from sfm_features.scenes.capture import (
    Light,
    Shot,
    aim_camera,
    draw_still,
    render_solids,
)
from sfm_features.scenes.figures import render_figures
from sfm_features.scenes.mannequin import JOINTS, MIRRORED, render_figure
from sfm_features.scenes.piles import PILE_RADIUS_M, build_pile
from sfm_features.scenes.solids import Box, Capsule, Skin
from sfm_features.scenes.turntable import build_turntable, render_turntable
from sfm_features.scenes.views import View

CAMERA_OF_SCENE_0 = (0.0, -0.9, 1.108267375544581)
MEANS_OF_SCENE_0 = [137.294, 141.448, 138.16, 138.743, 141.435]
GREY = Skin(np.full((8, 8, 3), 128, np.uint8))
LIGHT = Light(np.array([0.0, -1.0, 0.0]))


def test_depth_of_balls_and_boxes_is_exact() -> None:
    camera, pose = aim_camera((65, 65), 80.0, np.array([0, -4.0, 0]), np.zeros(3))
    shot = Shot(camera, pose, LIGHT)
    ball = Capsule(np.zeros(3), np.zeros(3), 0.5, GREY, 1)
    wall = Box(np.array([0, 2.5, 0]), np.eye(3), np.array([9.0, 0.5, 9.0]), GREY)
    seen = render_solids([wall, ball], shot)
    assert seen.depth[32, 32] == pytest.approx(3.5, abs=1e-5)
    np.testing.assert_allclose(seen.depth[:4], 6.0, atol=1e-5)
    # From 4 m the rim of a ball of half a metre is seen at the tangent's angle.
    radius_px = 80 * np.tan(np.arcsin(0.5 / 4))
    assert np.sqrt((seen.tags == 1).sum() / np.pi) == pytest.approx(radius_px, abs=0.2)


def test_a_capsule_is_balls_along_a_line() -> None:
    camera, pose = aim_camera((64, 48), 60.0, np.array([0.3, -3, 1]), np.zeros(3))
    start, end = np.array([-0.7, 0.2, -0.3]), np.array([0.6, -0.3, 0.5])
    shot = Shot(camera, pose, LIGHT, 1)
    whole = render_solids([Capsule(start, end, 0.2, GREY, 1)], shot)
    middles = [start + t * (end - start) for t in np.linspace(0, 1, 400)]
    balls = render_solids([Capsule(m, m, 0.2, GREY, 1) for m in middles], shot)
    assert (whole.tags != balls.tags).mean() < 0.002
    both = (whole.tags == 1) & (balls.tags == 1)
    np.testing.assert_allclose(whole.depth[both], balls.depth[both], atol=2e-3)


def test_what_stands_still_is_drawn_once() -> None:
    camera, pose = aim_camera((64, 48), 60.0, np.array([0, -3.0, 1]), np.zeros(3))
    shot = Shot(camera, pose, LIGHT)
    wall = Box(np.array([0, 2.5, 0]), np.eye(3), np.array([9.0, 0.5, 9.0]), GREY)
    ball = Capsule(np.zeros(3), np.zeros(3), 0.5, GREY, 1)
    still = draw_still([wall], shot)
    for _ in range(2):  # drawing before it leaves it as it is
        apart, together = (
            render_solids([ball], shot, still),
            render_solids([wall, ball], shot),
        )
        np.testing.assert_array_equal(apart.rgb, together.rgb)
        np.testing.assert_array_equal(apart.depth, together.depth)


@pytest.mark.parametrize("backdrop", ["plain", "busy"])
def test_joints_lie_on_the_figure_and_near(backdrop: str) -> None:
    for index in range(6):
        figure = render_figure(3, index, backdrop)  # type: ignore[arg-type]
        assert figure.joints.shape == (len(JOINTS), 2)
        assert 0.03 < figure.mask.mean() < 0.5
        x, y = np.round(figure.joints.T).astype(int).clip(0, 127)
        assert figure.mask[y, x].mean() > 0.9
        behind = np.median(figure.depth[~figure.mask & np.isfinite(figure.depth)])
        assert np.median(figure.depth[figure.mask]) < behind


def test_a_plain_room_says_less_than_a_busy_one() -> None:
    detail = {
        kind: np.mean(
            [
                cv2.Laplacian(f.rgb[..., 1], cv2.CV_32F)[~f.mask].std()
                for f in (render_figure(1, i, kind) for i in range(3))
            ]
        )
        for kind in ("plain", "busy")
    }
    assert detail["busy"] > 2 * detail["plain"]


def test_a_figure_is_a_function_of_its_seed() -> None:
    one, same, other = (render_figure(s, 4) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.rgb, same.rgb)
    np.testing.assert_array_equal(one.joints, same.joints)
    assert (one.rgb != other.rgb).mean() > 0.5


def test_mirrored_joints_are_pairs_of_sides() -> None:
    for left, right in MIRRORED:
        assert JOINTS[left].replace("left", "right") == JOINTS[right]


def test_a_folder_of_figures_goes_on_and_refuses_others(tmp_path: Path) -> None:
    first = render_figures(tmp_path, 2, "plain", seed=1, size=64)
    stamp = (first.images / first.names[0]).stat().st_mtime_ns
    (first.images / first.names[1]).unlink()
    again = render_figures(tmp_path, 3, "plain", seed=1, size=64)
    assert (again.images / again.names[0]).stat().st_mtime_ns == stamp
    assert all((again.images / name).exists() for name in again.names)
    np.testing.assert_array_equal(again.joints[:2], first.joints)
    millimetres = cv2.imread(str(again.depths / again.names[2]), cv2.IMREAD_UNCHANGED)
    assert millimetres.dtype == np.uint16 and 2000 < np.median(millimetres) < 9000
    with pytest.raises(StaleStore, match="asked for"):
        render_figures(tmp_path, 2, "busy", seed=1, size=64)


def test_the_turntable_turns_and_the_room_does_not() -> None:
    """Depth and poses relate views of the thing; pixels alone relate the room."""
    table = build_turntable(0, (320, 240))
    camera = table.shot.camera
    turns = (0.0, 0.3)
    first, second = (table.photograph(turn) for turn in turns)
    still = (first.tags <= 0) & (second.tags <= 0)
    moved = np.abs(first.rgb.astype(int) - second.rgb).mean(2)
    assert np.median(moved[still]) < 12 < np.median(moved[first.tags > 0])
    a, b = (View("", camera, table.cam_from_thing(turn)) for turn in turns)
    y, x = np.nonzero(cv2.erode((first.tags > 0).astype(np.uint8), np.ones((7, 7))))
    xy = np.stack([x, y], 1).astype(np.float64)[::7]
    there, known = correspond(first.depth, a, second.depth, b, xy)
    assert known.mean() > 0.5
    u, v = np.round(there[known]).astype(int).T
    assert (second.tags[v, u] > 0).mean() > 0.98
    here = first.rgb[xy[known, 1].astype(int), xy[known, 0].astype(int)].astype(int)
    same = np.abs(here - second.rgb[v, u]).mean()
    stays = np.abs(
        here - second.rgb[xy[known, 1].astype(int), xy[known, 0].astype(int)]
    )
    assert same < 0.6 * stays.mean()


def test_the_thing_that_is_measured_on_stays_as_it_is() -> None:
    """Published figures are of this very scene; paint may differ by rounding only."""
    table = build_turntable(0, (64, 48))
    assert [type(part) for part in table.thing] == [Box, Box, Capsule, Capsule, Capsule]
    assert table.shot.cam_from_world.centre == pytest.approx(CAMERA_OF_SCENE_0)
    means = [part.skin.picture.mean() for part in table.thing]
    assert means == pytest.approx(MEANS_OF_SCENE_0, abs=0.05)


def find_lowest(part: Box | Capsule) -> np.ndarray:
    """Find the lowest point of a part, by itself."""
    if isinstance(part, Capsule):
        low = min((part.start, part.end), key=lambda end: float(end[2]))
        return low - (0, 0, part.radius)
    signs = np.array([[i, j, k] for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)])
    corners = part.centre + (signs * part.half) @ part.axes
    flat = np.isclose(corners[:, 2], corners[:, 2].min())
    return corners[flat].mean(0)  # the middle of what it stands on


def touches_top(point: np.ndarray, box: Box) -> bool:
    own = (point - box.centre) @ box.axes.T
    return bool(
        np.isclose(own[2], box.half[2]) and (np.abs(own[:2]) < box.half[:2]).all()
    )


def sink(part: Box | Capsule, box: Box) -> float:
    """How deep a part reaches into an upright box, by points on its surface."""
    if isinstance(part, Capsule):
        share = np.linspace(0, 1, 200)[:, None]
        middles = part.start + share * (part.end - part.start)
        out = np.abs((middles - box.centre) @ box.axes.T) - box.half
        away = np.linalg.norm(np.maximum(out, 0), axis=1) + np.minimum(out.max(1), 0)
        return float((part.radius - away).max())
    steps = np.linspace(-1, 1, 25)
    grid = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3)
    points = part.centre + (grid * part.half) @ part.axes
    own = np.abs((points - box.centre) @ box.axes.T) - box.half
    return float(-own.max(1).min())


def test_parts_of_piles_stand_or_lean_and_never_float_or_sink() -> None:
    shapes, leaning = set(), 0
    for seed in range(40):
        floor = 0.7 + 0.01 * seed
        parts = build_pile(np.random.default_rng(seed), floor, 1)
        boxes = [part for part in parts if isinstance(part, Box)]
        upright = [box for box in boxes if np.isclose(box.axes[2, 2], 1)]
        for part in parts:
            low = find_lowest(part)
            assert low[2] > floor - 1e-9
            assert np.isclose(low[2], floor) or any(touches_top(low, b) for b in boxes)
            assert np.hypot(*low[:2]) < PILE_RADIUS_M
            reach = [sink(part, box) for box in upright if box is not part]
            assert max(reach, default=0.0) < 1e-6
            tilted = (
                not np.isclose(part.axes[2, 2], 1)
                if isinstance(part, Box)
                else not np.isclose(part.start[2], part.end[2])
                and not np.allclose(part.start[:2], part.end[:2])
            )
            if tilted:  # it touches what it leans on, but for the steps of `sink`
                leaning += 1
                assert max(reach) > -2e-3
        shapes.add((len(boxes), len(parts)))
        assert any(part.skin.picture.shape[0] > 8 for part in parts)
    assert len(shapes) > 10 and leaning > 10


def test_a_pile_is_seen_whole_and_in_front_of_its_room() -> None:
    for seed in range(3):
        table = build_turntable(seed, (160, 120), "pile")
        first, second = (table.photograph(turn) for turn in (0.0, 1.0))
        for picture in (first, second):
            thing = picture.tags > 0
            assert 0.02 < thing.mean() < 0.8
        still = (first.tags <= 0) & (second.tags <= 0)
        np.testing.assert_array_equal(first.depth[still], second.depth[still])
        other = build_turntable(seed + 100, (160, 120), "pile")
        assert other.shot.camera.params[0] != table.shot.camera.params[0]


def test_a_turn_is_written_with_its_truth(tmp_path: Path) -> None:
    views = render_turntable(tmp_path, 3, size=(160, 120))
    truth = read_truth(tmp_path)
    assert list(truth.poses) == [view.name for view in views]
    middle = np.array([[0, 0, 0.85]])
    for name, pose in truth.poses.items():
        assert (tmp_path / "images" / name).exists()
        seen = middle @ pose.rotation.T + pose.translation
        (at,) = project(truth.cameras[name], seen)
        np.testing.assert_allclose(at, [79.5, 59.5], atol=3)
    with pytest.raises(StaleStore):
        render_turntable(tmp_path, 4, size=(160, 120))
    with pytest.raises(StaleStore, match="with a pile"):
        render_turntable(tmp_path, 3, size=(160, 120), thing="pile")
