"""Depth, poses and pictures must agree: everything else is measured against them."""

from __future__ import annotations

import numpy as np
import pytest

from sfm_features.errors import OptionError
from sfm_features.geometry import look_at, project
from sfm_features.scenes import Rendering, Town, View, correspond, render_view
from sfm_features.scenes.mesh import Surfaces, make_texture
from sfm_features.scenes.raster import NEAR_PLANE, clip_corners, get_corners
from sfm_features.scenes.render import make_rays, render_depth
from sfm_features.scenes.shade import Place, sample_texture
from sfm_features.types import Camera


def _pixels(rng: np.random.Generator, size: tuple[int, int], count: int) -> np.ndarray:
    return rng.uniform((4, 4), (size[0] - 5, size[1] - 5), (count, 2))


def test_image_and_depth_have_the_promised_types(day: list[Rendering]) -> None:
    first = day[0]
    assert first.rgb.shape == (192, 256, 3) and first.rgb.dtype == np.uint8
    assert first.depth.shape == (192, 256) and first.depth.dtype == np.float32
    sky = first.ids < 0
    assert np.isinf(first.depth[sky]).all() and sky.any()
    assert (first.depth[~sky] > NEAR_PLANE).all()
    assert 60 < first.rgb.mean() < 190 and first.rgb.std() > 30


def test_depth_lies_on_the_surface_that_is_named(
    town: Town, views: list[View], day: list[Rendering]
) -> None:
    view, picture = views[0], day[0]
    x, y = make_rays(view.camera, 1)
    seen = picture.ids >= 0
    rays = np.stack([x, y, np.ones_like(x)], axis=-1)[seen]
    pose = view.cam_from_world
    in_cam = rays * picture.depth[seen].astype(np.float64)[:, None]
    world = (in_cam - pose.translation) @ pose.rotation
    surfaces, ids = town.surfaces, picture.ids[seen]
    away = ((world - surfaces.origin[ids]) * surfaces.normal[ids]).sum(1)
    assert np.abs(away).max() < 1e-4
    edges = np.stack([surfaces.edge_u, surfaces.edge_v, surfaces.normal], axis=2)[ids]
    place = np.linalg.solve(edges, (world - surfaces.origin[ids])[..., None])[:, :2, 0]
    assert place.min() > -1e-3 and place.max() < 1 + 1e-3
    pixels = project(view.camera, in_cam)
    grid = np.stack(np.meshgrid(np.arange(256), np.arange(192)), axis=-1)[seen]
    assert np.abs(pixels - grid).max() < 1e-6


def test_nothing_nearer_is_missed(town: Town, views: list[View]) -> None:
    """Compare with a slow search over all surfaces, ray by ray."""
    view = views[4]
    depth, ids = render_depth(town, view.camera, view.cam_from_world)
    pose, s = view.cam_from_world, town.surfaces
    opaque = np.array([town.textures[t].solid is None for t in s.texture])
    corners = get_corners(s, pose.rotation, pose.translation)
    o, a, b = (
        corners[:, 0],
        corners[:, 1] - corners[:, 0],
        corners[:, 3] - corners[:, 0],
    )
    n = np.cross(a, b)
    x, y = make_rays(view.camera, 1)
    for row, col in np.random.default_rng(0).integers((0, 0), (192, 256), (150, 2)):
        ray = np.array([x[row, col], y[row, col], 1.0])
        with np.errstate(divide="ignore", invalid="ignore"):
            z = (n * o).sum(1) / (n @ ray)
            at = z[:, None] * ray - o
            u = (at * np.cross(b, n)).sum(1) / (n * n).sum(1)
            v = (at * np.cross(n, a)).sum(1) / (n * n).sum(1)
            disc = (u - 0.5) ** 2 + (v - 0.5) ** 2 < 0.2499
            quad = np.abs(2 * u - 1) < 1 - 1e-3 - s.taper * (1 - v)
        inner = np.where(s.taper < 0, disc, quad)
        inner &= (v > 1e-3) & (v < 0.999) & (z > NEAR_PLANE) & opaque
        inner &= s.two_sided | (n @ ray > 0)
        best = z[inner].min() if inner.any() else np.inf
        assert depth[row, col] <= best * 1.0001, (row, col, ids[row, col])


def test_neighbouring_photographs_show_the_same_colours(
    views: list[View], day: list[Rendering]
) -> None:
    xy = _pixels(np.random.default_rng(1), (256, 192), 6000)
    a, b = day[0], day[1]
    xy_b, visible = correspond(a.depth, views[0], b.depth, views[1], xy)
    assert visible.mean() > 0.25
    ia, ib = (np.rint(p[visible]).astype(int) for p in (xy, xy_b))
    seen_a = a.rgb[ia[:, 1], ia[:, 0]].mean(1)
    seen_b = b.rgb[ib[:, 1], ib[:, 0]].mean(1)
    truly = np.corrcoef(seen_a, seen_b)[0, 1]
    there = np.corrcoef(seen_a, b.rgb[ia[:, 1], ia[:, 0]].mean(1))[0, 1]
    assert truly > 0.7, truly
    assert truly > there + 0.3, (truly, there)


def test_correspondences_come_back(views: list[View], day: list[Rendering]) -> None:
    xy = _pixels(np.random.default_rng(2), (256, 192), 6000)
    a, b = day[1], day[2]
    xy_b, there = correspond(a.depth, views[1], b.depth, views[2], xy)
    xy_a, back = correspond(b.depth, views[2], a.depth, views[1], xy_b[there])
    error = np.linalg.norm(xy_a - xy[there], axis=1)[back]
    assert back.mean() > 0.6
    assert np.median(error) < 1e-3
    assert np.percentile(error, 99) < 0.05


def test_correspondences_of_one_view_are_itself(
    views: list[View], day: list[Rendering]
) -> None:
    xy = _pixels(np.random.default_rng(3), (256, 192), 500)
    xy_b, visible = correspond(day[0].depth, views[0], day[0].depth, views[0], xy)
    assert visible.mean() > 0.4
    assert np.abs(xy_b - xy)[visible].max() < 1e-6
    sky = np.isinf(
        day[0].depth[np.rint(xy[:, 1]).astype(int), np.rint(xy[:, 0]).astype(int)]
    )
    assert not (visible & sky).any()


def test_what_is_hidden_is_not_visible(views: list[View], day: list[Rendering]) -> None:
    wall = np.full_like(day[1].depth, 0.5)
    xy = _pixels(np.random.default_rng(4), (256, 192), 500)
    _, visible = correspond(day[0].depth, views[0], wall, views[1], xy)
    assert not visible.any()


def test_day_and_night_have_one_depth(
    town: Town, views: list[View], day: list[Rendering]
) -> None:
    view = views[0]
    night = render_view(town, view.camera, view.cam_from_world, "night", seed=0)
    np.testing.assert_array_equal(night.depth, day[0].depth)
    np.testing.assert_array_equal(night.ids, day[0].ids)
    sky = day[0].ids < 0
    assert night.rgb.mean() < 0.65 * day[0].rgb.mean()
    assert night.rgb[sky].mean() < 0.4 * day[0].rgb[sky].mean()


def test_seeds_move_only_the_camera_s_moods(
    town: Town, views: list[View], day: list[Rendering]
) -> None:
    view = views[0]
    same, other = (
        render_view(town, view.camera, view.cam_from_world, "day", seed=s)
        for s in (0, 9)
    )
    np.testing.assert_array_equal(same.rgb, day[0].rgb)
    np.testing.assert_array_equal(other.depth, day[0].depth)
    assert 0 < np.abs(other.rgb.astype(int) - same.rgb).mean() < 40


def test_an_unknown_lighting_names_the_choices(town: Town, views: list[View]) -> None:
    with pytest.raises(OptionError, match="use day or night"):
        render_view(town, views[0].camera, views[0].cam_from_world, "dusk")


def test_distortion_is_that_of_the_camera(town: Town) -> None:
    """A bent and a straight camera see the same world along the same ray."""
    pose = look_at(np.array([9.0, -2.0, 1.7]), np.array([-8.0, 1.0, 3.0]))
    straight = Camera("PINHOLE", 256, 192, (200.0, 200.0, 128.0, 96.0))
    bent = Camera("RADIAL", 256, 192, (200.0, 128.0, 96.0, -0.12, 0.02))
    depths = [render_depth(town, camera, pose)[0] for camera in (straight, bent)]

    class Here:
        def __init__(self, camera: Camera) -> None:
            self.camera, self.cam_from_world = camera, pose

    xy = _pixels(np.random.default_rng(5), (256, 192), 800)
    xy_bent, seen = correspond(depths[0], Here(straight), depths[1], Here(bent), xy)
    assert seen.mean() > 0.3
    corner = np.linalg.norm(xy - (127.5, 95.5), axis=1) > 110
    assert np.linalg.norm(xy_bent - xy, axis=1)[seen & corner].min() > 2


def test_far_textures_are_averaged_not_picked() -> None:
    """A fine checkerboard far away is grey, whatever the angle."""
    board = np.indices((256, 256)).sum(0) % 2 * 255
    texture = make_texture(np.repeat(board[..., None], 4, axis=2).astype(np.uint8))
    spots = np.random.default_rng(6).random((2, 500)).astype(np.float32)
    region = np.array([0.0, 0, 256, 256])
    for wide, tall in ((0.03, 0.03), (0.008, 0.09), (0.09, 0.008)):
        step = [np.full(500, s, np.float32) for s in (wide, 0, 0, tall)]
        place = Place(spots[0], spots[1], (step[0], step[1], step[2], step[3]))
        colours = sample_texture(texture, region, place)
        assert np.abs(colours[:, 0] - 127.5).max() < 12, (wide, tall)


def test_near_textures_are_exact() -> None:
    """Up close a ramp reads as the ramp, at the texels' centres."""
    ramp = np.tile(np.arange(64, dtype=np.uint8)[None, :, None] * 4, (64, 1, 4))
    u = np.linspace(0.1, 0.9, 300).astype(np.float32)
    tiny = np.full(300, 1e-3, np.float32)
    place = Place(u, np.full(300, 0.5, np.float32), (tiny, 0 * tiny, 0 * tiny, tiny))
    colours = sample_texture(make_texture(ramp), np.array([0.0, 0, 64, 64]), place)
    assert np.abs(colours[:, 0] - (u * 64 - 0.5) * 4).max() < 0.75


def test_surfaces_are_cut_at_the_near_plane() -> None:
    flat = np.array([[[-1.0, 1, -1], [1, 1, -1], [1, 1, 3], [-1, 1, 3]]])
    points, counts = clip_corners(flat)
    kept = points[counts]
    assert len(kept) == 4 and kept[:, 2].min() == pytest.approx(NEAR_PLANE)


def test_normals_face_the_viewer_of_the_front() -> None:
    surfaces = Surfaces(
        np.zeros((1, 3)),
        np.array([[1.0, 0, 0]]),
        np.array([[0.0, 0, -1]]),
        np.zeros(1, np.int32),
        np.zeros((1, 4)),
        np.zeros(1),
        np.zeros(1, np.bool_),
    )
    np.testing.assert_allclose(surfaces.normal, [[0, -1, 0]])
    np.testing.assert_allclose(surfaces.normal_at(0), [0, -1, 0])
