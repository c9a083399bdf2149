"""Reading and writing models."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from colmap_scenes import make_scene

from sfm_features.colmap import (
    choose_model,
    covisible_counts,
    list_models,
    models,
    read_model,
    write_model,
)
from sfm_features.colmap.files import MODEL_FILES, POINT, scan_points
from sfm_features.errors import InputError
from sfm_features.geometry import project
from sfm_features.types import Model


def _assert_same(one: Model, other: Model) -> None:
    assert one.images.keys() == other.images.keys()
    for name, image in one.images.items():
        twin = other.images[name]
        assert image.camera == twin.camera
        pose, twin_pose = image.cam_from_world, twin.cam_from_world
        assert np.allclose(pose.rotation, twin_pose.rotation, atol=1e-12)
        assert np.allclose(pose.translation, twin_pose.translation, atol=1e-12)
        assert np.array_equal(image.keypoints, twin.keypoints)
        assert np.array_equal(image.point_ids, twin.point_ids)
    for field in ("points", "colours", "errors_px", "track_lengths"):
        assert np.array_equal(getattr(one, field), getattr(other, field)), field


def test_points_project_to_their_keypoints(tmp_path: Path) -> None:
    """Ties the pixel convention of the reader to that of `geometry.project`."""
    scene = make_scene(tmp_path / "scene", noise_px=0)
    model = read_model(scene.write_truth(tmp_path / "model"))
    assert list(model.images) == sorted(scene.names)
    assert len(model.points) == 150
    assert model.mean_track_length == 10
    for name, image in model.images.items():
        assert np.allclose(image.keypoints, scene.keypoints[name], atol=1e-3)
        seen = image.point_ids >= 0
        assert seen.sum() == 150
        pose = image.cam_from_world
        points = model.points[image.point_ids[seen]]
        in_camera = points @ pose.rotation.T + pose.translation
        assert np.allclose(
            project(image.camera, in_camera), image.keypoints[seen], atol=1e-3
        )


def test_a_model_is_written_as_it_was_read(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene", groups=2)
    model = read_model(scene.write_truth(tmp_path / "model"))
    colours = np.random.default_rng(0).integers(0, 256, model.colours.shape)
    model = replace(model, colours=colours.astype(np.uint8))
    write_model(model, tmp_path / "written")
    assert {path.name for path in (tmp_path / "written").iterdir()} == set(MODEL_FILES)
    _assert_same(model, read_model(tmp_path / "written"))
    assert pycolmap.Reconstruction(tmp_path / "written").is_valid()


def test_text_and_older_models_are_read(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene")
    binary = scene.write_truth(tmp_path / "binary")
    text = tmp_path / "text"
    text.mkdir()
    scene.truth.write_text(text)
    model = read_model(binary)
    assert read_model(text).images.keys() == model.images.keys()
    for name in ("rigs.bin", "frames.bin"):
        (binary / name).unlink()
    _assert_same(model, read_model(binary))


def test_images_without_a_pose_are_left_out(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene")
    image_id, *_ = scene.truth.reg_image_ids()
    image = scene.truth.images[image_id]
    scene.truth.deregister_frame(image.frame_id)
    model = read_model(scene.write_truth(tmp_path / "model"))
    assert set(model.images) == set(scene.names) - {image.name}


def test_a_model_without_points_is_read(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene")
    scene.truth.delete_all_points2D_and_points3D()
    model = read_model(scene.write_truth(tmp_path / "model"))
    assert len(model.images) == 10
    assert model.points.shape == (0, 3) and model.mean_error_px == 0
    write_model(model, tmp_path / "written")
    _assert_same(model, read_model(tmp_path / "written"))


def test_points_may_be_in_any_order(tmp_path: Path) -> None:
    """Other tools write them as they come."""
    path = make_scene(tmp_path / "scene").write_truth(tmp_path / "model")
    before = read_model(path)
    content = (path / "points3D.bin").read_bytes()
    starts = [start for start, _ in scan_points(content)]
    parts = [content[a:b] for a, b in zip(starts, [*starts[1:], None], strict=True)]
    (path / "points3D.bin").write_bytes(content[:8] + b"".join(parts[::-1]))
    after = read_model(path)
    np.testing.assert_array_equal(after.points, before.points)
    for name, image in after.images.items():
        np.testing.assert_array_equal(image.point_ids, before.images[name].point_ids)


def test_points_are_read_in_little_more_memory_than_they_take(tmp_path: Path) -> None:
    count, rng = 20_000, np.random.default_rng(0)
    entry = np.dtype([("point", POINT), ("views", "<u8"), ("track", "<u4", (3, 2))])
    entries = np.zeros(count, entry)
    entries["point"]["id"] = rng.permutation(count) + 1
    entries["point"]["xyz"] = rng.random((count, 3))
    entries["views"] = 3
    content = np.uint64(count).tobytes() + entries.tobytes()
    (tmp_path / "points3D.bin").write_bytes(content)
    tracemalloc.start()
    points, track_lengths = models._read_points(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * len(content)
    order = np.argsort(entries["point"]["id"])
    np.testing.assert_array_equal(points, entries["point"][order])
    np.testing.assert_array_equal(track_lengths, np.full(count, 3))


def test_models_are_listed_by_number(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene")
    for name in ("10", "2", "0", "notes", ".1"):
        scene.write_truth(tmp_path / "sparse" / name)
    (tmp_path / "sparse/3").mkdir()
    found = list_models(tmp_path / "sparse")
    assert [path.name for path in found] == ["0", "2", "10"]
    assert list_models(tmp_path / "absent") == []


def test_the_only_model_below_a_folder_is_chosen(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scene, out = make_scene(tmp_path / "scene"), tmp_path / "out"
    whole = scene.write_truth(tmp_path / "known/sparse")
    assert choose_model(whole) == choose_model(tmp_path / "known") == whole
    first = scene.write_truth(out / "sparse/0")
    caplog.set_level("INFO")
    assert choose_model(first) == first and not caplog.messages
    for given, below in ((out / "sparse", "0"), (out, "sparse/0")):
        assert choose_model(given) == first
        assert caplog.messages[-1] == f"{given}: its model in {below} is used"
    scene.write_truth(out / "sparse/1")
    with pytest.raises(InputError, match=r"2 models, sparse/0, sparse/1; give one"):
        choose_model(out)
    with pytest.raises(InputError, match="not a COLMAP model"):
        read_model(choose_model(tmp_path / "absent"))


def test_text_needs_no_file_of_points(tmp_path: Path) -> None:
    scene, text = make_scene(tmp_path / "scene"), tmp_path / "text"
    text.mkdir()
    scene.truth.write_text(text)
    before = read_model(text)
    (text / "points3D.txt").unlink()
    after = read_model(text)
    assert after.points.shape == (0, 3) and after.images.keys() == before.images.keys()
    for name, image in after.images.items():
        assert (image.point_ids == -1).all()
        pose = before.images[name].cam_from_world
        np.testing.assert_array_equal(image.cam_from_world.rotation, pose.rotation)


def test_what_is_not_a_model_is_explained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a COLMAP model"):
        read_model(tmp_path / "absent")
    path = make_scene(tmp_path / "scene").write_truth(tmp_path / "model")
    for name in ("points3D.bin", "images.bin", "frames.bin"):
        content = (path / name).read_bytes()
        (path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(InputError, match="damaged or cut off"):
            read_model(path)
        (path / name).write_bytes(content)
    read_model(path)


def test_shared_points_are_counted(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene", images=4)
    model = read_model(scene.write_truth(tmp_path / "model"))
    first, *others = sorted(model.images)
    image = model.images[first]
    ids = image.point_ids.copy()
    ids[np.flatnonzero(ids >= 0)[20:]] = -1
    images = {**model.images, first: replace(image, point_ids=ids)}
    counts = covisible_counts(replace(model, images=images))
    assert len(counts) == 6
    assert all(counts[first, other] == 20 for other in others)
    assert counts[others[0], others[1]] == 150


def test_a_point_that_an_image_sees_twice_is_shared_once(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene", images=3)
    model = read_model(scene.write_truth(tmp_path / "model"))
    first, second, third = sorted(model.images)
    image = model.images[first]
    ids = image.point_ids.copy()
    ids[np.flatnonzero(ids >= 0)[:2]] = ids.max()
    images = {**model.images, first: replace(image, point_ids=ids)}
    counts = covisible_counts(replace(model, images=images))
    shared = len(np.unique(ids[ids >= 0]))
    assert counts[first, second] == counts[first, third] == shared
    assert counts[second, third] == 150
