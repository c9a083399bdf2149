"""Where a photograph was taken, in a map of the town whose truth is known."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from samples import make_texture

from sfm_features.atlas import Atlas, _find_model
from sfm_features.colmap import read_model, write_model, write_poses
from sfm_features.errors import InputError, OptionError
from sfm_features.georegister import GeoregisterOptions, georegister
from sfm_features.images import decode
from sfm_features.localizer import Localizer, _as_rgb, _scale
from sfm_features.metrics import align_poses, rotation_angle_deg
from sfm_features.nets.vlad import save_vlad
from sfm_features.nets.weights import Card
from sfm_features.queries import LocalizeOptions
from sfm_features.retrieve import describe
from sfm_features.scenes import read_truth
from sfm_features.store import FeatureStore, GlobalStore
from sfm_features.training.codebook import fit_vlad
from sfm_features.triangulate import triangulate
from sfm_features.types import Camera, Localization, Model, Pose, RunOptions
from sfm_features.workspace import Workspace

CPU = RunOptions(device="cpu")


@pytest.fixture(scope="module")
def localizer(town_map: tuple[Path, list[Path]]) -> Iterator[Localizer]:
    made = Localizer(town_map[0], run=CPU)
    yield made
    made.atlas.close()


def _measure(
    town: Path, localizer: Localizer, name: str, found: Localization
) -> tuple[float, float]:
    """Return the errors in shares of the scene's diameter and in degrees."""
    truth = read_truth(town).poses
    images = localizer.atlas.model.images
    names = sorted(images)
    pose = found.cam_from_world
    assert pose is not None
    to_truth = align_poses(
        [images[n].cam_from_world for n in names], [truth[n] for n in names]
    )
    centres = np.array([truth[n].centre for n in names])
    diameter = np.linalg.norm(np.ptp(centres, axis=0))
    off = np.linalg.norm(to_truth.apply(pose.centre[None])[0] - truth[name].centre)
    turn = pose.rotation @ to_truth.rotation.T @ truth[name].rotation.T
    return float(off / diameter), rotation_angle_deg(turn)


def test_held_out_photos_are_where_they_were_taken(
    town_photos: Path, town_map: tuple[Path, list[Path]], localizer: Localizer
) -> None:
    cameras = read_truth(town_photos).cameras
    for path in town_map[1]:
        rgb = decode(path).rgb
        for camera, share, deg in ((cameras[path.name], 0.01, 0.5), (None, 0.05, 1.0)):
            found = localizer.localize(rgb, camera)
            assert found.status == "localized", found.reason
            errors = _measure(town_photos, localizer, path.name, found)
            assert errors[0] < share and errors[1] < deg, errors
            assert found.num_inliers >= 15 and found.covariance is not None
            assert set(found.milliseconds) == {"extract", "retrieve", "match", "pose"}
            assert len(found.xy) == len(found.point_rows) == len(found.inliers)


def test_it_is_the_same_every_time(
    town_map: tuple[Path, list[Path]], localizer: Localizer
) -> None:
    rgb = decode(town_map[1][0]).rgb
    first, second = localizer.localize(rgb), localizer.localize(rgb)
    assert first.cam_from_world is not None and second.cam_from_world is not None
    np.testing.assert_array_equal(
        first.cam_from_world.translation, second.cam_from_world.translation
    )


def test_distances_are_less_in_small_images_only() -> None:
    for side, expected in ((512, 4.0), (1024, 8.0), (4096, 8.0)):
        camera = Camera("SIMPLE_PINHOLE", side // 2, side, (side, side / 4, side / 2))
        assert _scale(8.0, camera) == expected


def test_a_weak_pose_is_looked_at_again_unless_told_not_to(
    town_map: tuple[Path, list[Path]], localizer: Localizer
) -> None:
    small = (192, 144)
    rgb = cv2.resize(decode(town_map[1][0]).rgb, small, interpolation=cv2.INTER_AREA)
    found = {}
    for guided in (False, True):
        options = replace(localizer.options, guided=guided)
        made = Localizer(town_map[0], options, CPU)
        found[guided] = made.localize(rgb)
        made.atlas.close()
        assert ("second look" in found[guided].milliseconds) == guided
    assert 0 < found[False].num_inliers < 100
    assert found[True].num_inliers > 1.1 * found[False].num_inliers


def test_a_rough_focal_length_is_refined(
    town_photos: Path, town_map: tuple[Path, list[Path]], localizer: Localizer
) -> None:
    path = town_map[1][0]
    camera = read_truth(town_photos).cameras[path.name]
    focal, *others = camera.params
    off = replace(camera, params=(1.04 * focal, *others))
    rgb = decode(path).rgb
    as_given = localizer.localize(rgb, off)
    refined = localizer.localize(rgb, off, rough=True)
    assert as_given.camera == off
    assert abs(refined.camera.params[0] / focal - 1) < 0.02


def test_the_map_is_never_written_to(
    town_map: tuple[Path, list[Path]],
) -> None:
    folder, queries = town_map
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    made = Localizer(folder, run=CPU)
    made.localize(decode(queries[0]).rgb)
    made.atlas.close()
    after = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert before == after


def test_failures_have_a_reason_and_no_pose(
    town_map: tuple[Path, list[Path]], localizer: Localizer
) -> None:
    blank = np.full((384, 512, 3), 200, np.uint8)
    other = make_texture((512, 384), 77)
    rgb = decode(town_map[1][0]).rgb
    strict = Localizer(town_map[0], LocalizeOptions(min_inliers=10_000), CPU)
    tiny = np.ascontiguousarray(rgb[:8, :8])
    for image, made, expected in (
        (blank, localizer, {"no features"}),
        (tiny, localizer, {"no features", "few matches"}),
        (other, localizer, {"few matches", "few inliers"}),
        (rgb, strict, {"few inliers"}),
    ):
        found = made.localize(image)
        assert found.status in expected, (found.status, found.reason)
        assert found.cam_from_world is None and found.covariance is None
        assert found.reason
    strict.atlas.close()


def test_upside_down_is_said_by_the_orientation(
    town_map: tuple[Path, list[Path]], localizer: Localizer
) -> None:
    """EXIF's 3: the file is stored turned by half a turn; so is the pose."""
    rgb = decode(town_map[1][0]).rgb
    turned = np.ascontiguousarray(rgb[::-1, ::-1])
    upright, found = localizer.localize(rgb), localizer.localize(turned, orientation=3)
    assert upright.cam_from_world is not None and found.cam_from_world is not None
    turn = found.cam_from_world.rotation @ upright.cam_from_world.rotation.T
    assert rotation_angle_deg(turn) == pytest.approx(180, abs=1)


def test_a_prior_keeps_the_search_near(
    town_map: tuple[Path, list[Path]], localizer: Localizer
) -> None:
    rgb = decode(town_map[1][0]).rgb
    pose = localizer.localize(rgb).cam_from_world
    assert pose is not None
    few = replace(localizer.options, neighbours=2)
    near = Localizer(town_map[0], few, CPU)
    found = near.localize(rgb, prior=pose)
    assert found.status == "localized" and len(found.retrieved) == 2
    known = [image.cam_from_world for image in near.atlas.model.images.values()]
    away = max(known, key=lambda p: float(np.linalg.norm(p.centre - pose.centre)))
    assert set(near.localize(rgb, prior=away).retrieved) != set(found.retrieved)
    near.atlas.close()


def test_far_from_its_prior_nothing_is_searched(
    town_map: tuple[Path, list[Path]], localizer: Localizer
) -> None:
    rgb = decode(town_map[1][0]).rgb
    images = localizer.atlas.model.images
    prior = localizer.localize(rgb).cam_from_world
    assert prior is not None
    centres = {n: image.cam_from_world.centre for n, image in images.items()}
    distances = {n: np.linalg.norm(c - prior.centre) for n, c in centres.items()}
    reach = float(np.median(list(distances.values())))
    gated = replace(localizer.options, max_distance=reach)
    near = Localizer(town_map[0], gated, CPU)
    found = near.localize(rgb, prior=prior)
    assert found.status == "localized"
    assert set(found.retrieved) == {n for n, d in distances.items() if d <= reach}
    away = replace(prior, translation=prior.translation + 1e3)
    nothing = near.localize(rgb, prior=away)
    assert nothing.status == "no candidates"
    assert f"beyond --max-distance {reach:g}" in nothing.reason
    assert len(near.localize(rgb).retrieved) == len(images)
    near.atlas.close()


def test_in_doubt_other_images_are_tried_and_the_time_is_told(
    town_map: tuple[Path, list[Path]], localizer: Localizer
) -> None:
    few = replace(localizer.options, neighbours=2)
    made = Localizer(town_map[0], few, CPU)
    prior = made.atlas.model.images[made.atlas.names[0]].cam_from_world
    found = made.localize(make_texture((512, 384), 77), prior=prior)
    assert found.status in ("few matches", "few inliers") and len(found.retrieved) == 6
    assert {"match", "second match", "pose"} < set(found.milliseconds)
    made.atlas.close()


@pytest.fixture(scope="module")
def evo_localizer(
    town_photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Localizer]:
    """In a map of evo's features: a codebook fits them, and none is refused a match."""
    folder = tmp_path_factory.mktemp("evo")
    truth = read_truth(town_photos)
    names = sorted(truth.poses)[::2]
    write_poses(truth.cameras, {n: truth.poses[n] for n in names}, folder / "known")
    triangulate(folder / "known", town_photos / "images", folder / "map", run=CPU)
    made = Localizer(folder / "map", LocalizeOptions(neighbours=2), run=CPU)
    yield made
    made.atlas.close()


def test_nothing_unrelated_is_localized(evo_localizer: Localizer) -> None:
    """In small pictures, and for unknown cameras, wrong matches fit a pose at times."""
    for seed, size in enumerate([(512, 384), (1024, 768), (320, 240), (160, 120)]):
        width, height = size
        camera = Camera("SIMPLE_PINHOLE", *size, (0.8 * width, width / 2, height / 2))
        rng = np.random.default_rng(seed)
        noise = rng.integers(0, 256, (height, width, 3), np.uint8)
        for image in (noise, make_texture(size, seed)):
            for known in (camera, None):
                found = evo_localizer.localize(image, known)
                assert found.cam_from_world is None, (size, known, found.reason)
                assert len(found.retrieved) == len(evo_localizer.atlas.names)
                assert "second match" in found.milliseconds


def test_what_looks_alike_is_matched_and_enough(
    town_photos: Path, evo_localizer: Localizer
) -> None:
    truth = read_truth(town_photos)
    name = sorted(truth.poses)[5]
    rgb = decode(town_photos / "images" / name).rgb
    found = evo_localizer.localize(rgb, truth.cameras[name])
    assert found.cam_from_world is not None, found.reason
    off = np.linalg.norm(found.cam_from_world.centre - truth.poses[name].centre)
    assert off < 0.0025 * truth.diameter
    fitting = found.xy[found.inliers]
    assert len(np.unique(fitting, axis=0)) == len(fitting)  # no keypoint counts twice


def test_a_photo_of_the_map_is_where_the_map_says(
    town_photos: Path, localizer: Localizer
) -> None:
    for name in localizer.atlas.names[:2]:
        known = localizer.atlas.model.images[name]
        rgb = decode(town_photos / "images" / name).rgb
        found = localizer.localize(rgb, known.camera).cam_from_world
        assert found is not None
        turn = found.rotation @ known.cam_from_world.rotation.T
        assert rotation_angle_deg(turn) < 0.1
        off = np.linalg.norm(found.centre - known.cam_from_world.centre)
        assert off < 0.005 * np.linalg.norm(np.ptp(localizer.atlas.centres, axis=0))


def test_upside_down_without_a_word_of_it(
    town_map: tuple[Path, list[Path]], localizer: Localizer
) -> None:
    """By features that do not mind, it is found as it is: turned by half a turn."""
    rgb = decode(town_map[1][0]).rgb
    upright = localizer.localize(rgb).cam_from_world
    turned = localizer.localize(np.ascontiguousarray(rgb[::-1, ::-1])).cam_from_world
    assert upright is not None and turned is not None
    turn = turned.rotation @ upright.rotation.T
    assert rotation_angle_deg(turn) == pytest.approx(180, abs=1)


def _write_twins(town_map: Path, folder: Path) -> None:
    """Write a map that has a place twice: the second one with every third point."""
    model = read_model(town_map / "sparse/0")
    far, count = np.array([500.0, 0, 0]), len(model.points)
    images = {}
    with (
        FeatureStore.open(town_map / "features.h5") as source,
        FeatureStore.append(folder / "features.h5", source.config) as features,
    ):
        for name, image in model.images.items():
            pose, ids = image.cam_from_world, image.point_ids
            moved = Pose(pose.rotation, pose.translation - pose.rotation @ far)
            fewer = np.where((ids >= 0) & (ids % 3 == 0), ids + count, -1)
            for twin in (
                replace(image, name=f"b/{name}"),
                replace(image, name=f"a/{name}", cam_from_world=moved, point_ids=fewer),
            ):
                images[twin.name] = twin
                features.write(twin.name, source.read(name))
    both = Model(
        images,
        np.concatenate([model.points, model.points + far]),
        np.tile(model.colours, (2, 1)),
        np.tile(model.errors_px, 2),
        np.tile(model.track_lengths, 2),
    )
    write_model(both, folder / "sparse/0")


def test_a_place_that_is_there_twice(
    town_map: tuple[Path, list[Path]], localizer: Localizer, tmp_path: Path
) -> None:
    """Clustered, the matches of one place do not stand in the way of the other's."""
    _write_twins(town_map[0], tmp_path)
    rgb = decode(town_map[1][0]).rgb
    alone, found = localizer.localize(rgb), {}
    for covisibility in (False, True):
        options = replace(localizer.options, covisibility=covisibility)
        made = Localizer(tmp_path, options, CPU)
        found[covisibility] = made.localize(rgb)
        groups = made.atlas.group(made.atlas.names)
        assert sorted(map(len, groups)) == [len(made.atlas.names) // 2] * 2
        made.atlas.close()
    mixed, clustered = found[False], found[True]
    assert alone.cam_from_world is not None and clustered.cam_from_world is not None
    assert len(mixed.xy) > len(clustered.xy) == len(alone.xy)
    assert clustered.num_inliers == alone.num_inliers
    np.testing.assert_allclose(
        clustered.cam_from_world.centre, alone.cam_from_world.centre, atol=1e-6
    )
    assert len(clustered.retrieved) == 2 * len(alone.retrieved)


def test_what_does_not_fit_is_refused(
    town_map: tuple[Path, list[Path]], localizer: Localizer, tmp_path: Path
) -> None:
    rgb = decode(town_map[1][0]).rgb
    with pytest.raises(InputError, match="of this image"):
        localizer.localize(rgb, Camera("SIMPLE_PINHOLE", 9, 9, (9.0, 4.5, 4.5)))
    with pytest.raises(OptionError, match="wants f, cx, cy"):
        size = (rgb.shape[1], rgb.shape[0])
        localizer.localize(rgb, Camera("SIMPLE_PINHOLE", *size, (0.0, 4.5, 4.5)))
    with pytest.raises(OptionError, match="--max-distance 0"):
        Localizer(town_map[0], LocalizeOptions(max_distance=0))
    with pytest.raises(OptionError, match="--neighbours 0"):
        Localizer(town_map[0], LocalizeOptions(neighbours=0))
    with pytest.raises(InputError, match="sparse/0"):
        Localizer(tmp_path)
    broken = tmp_path / "map"
    shutil.copytree(town_map[0], broken)
    (broken / "features.h5").unlink()
    with pytest.raises(InputError, match=r"features\.h5"):
        Localizer(broken)


def test_features_that_changed_under_the_model_are_refused(
    town_map: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    """As many keypoints as before, so that their number tells nothing."""
    folder = tmp_path / "map"
    shutil.copytree(town_map[0], folder)
    Atlas(folder).close()
    with FeatureStore.append(folder / "features.h5", _config(folder)) as store:
        name = store.names()[1]
        found = store.read(name)
        store.write(name, replace(found, keypoints=found.keypoints[::-1].copy()))
    with pytest.raises(InputError, match="was changed since the model was made"):
        Atlas(folder)


def _config(folder: Path) -> Mapping[str, Any]:
    with FeatureStore.open(folder / "features.h5") as store:
        return dict(store.config)


def test_descriptors_of_another_codebook_are_not_used(
    town_map: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    """A file that is beside the map counts only if it was made the same way."""
    folder, codebook = tmp_path / "map", tmp_path / "sift.safetensors"
    shutil.copytree(town_map[0], folder)
    with FeatureStore.open(folder / "features.h5") as store:
        local = [store.read(name).descriptors for name in store.names()]
    vlad = fit_vlad(local, 4, 6, np.random.default_rng(0))
    save_vlad(vlad, codebook, Card("vlad", recipe={"extractor": "sift"}))
    made = Atlas(folder, codebook)
    with GlobalStore.append(folder / "global.h5", {"codebook": "other"}) as other:
        for name in made.names:
            other.write(name, np.zeros(6, np.float32))
    again = Atlas(folder, codebook)
    np.testing.assert_array_equal(again.descriptors, made.descriptors)
    assert made.descriptors.any()
    (folder / "global.h5").unlink()
    describe(folder / "features.h5", folder / "global.h5", codebook)
    read = Atlas(folder, codebook)
    np.testing.assert_array_equal(read.descriptors, made.descriptors)
    for atlas in (made, again, read):
        atlas.close()


def test_which_model_is_used_or_where_the_map_is_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    camera = Camera("PINHOLE", 9, 9, (9, 9, 4.5, 4.5))
    for i in range(2):
        model = tmp_path / f"out/sparse/{i}"
        write_poses({"a": camera}, {"a": Pose(np.eye(3), np.zeros(3))}, model)
    (tmp_path / "out/features.h5").touch()
    caplog.set_level("INFO")
    assert _find_model(Workspace(tmp_path / "out")) == tmp_path / "out/sparse/0"
    assert "has 2 models; only the largest, sparse/0, is used" in caplog.text
    for part in ("sparse", "sparse/0"):
        with pytest.raises(InputError, match="give .*/out, which it is a part of"):
            Atlas(tmp_path / "out" / part)
    with pytest.raises(InputError, match="give a folder that"):
        Atlas(tmp_path)


def test_what_is_no_picture_is_told() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    rgb = _as_rgb(grey)
    assert rgb.shape == (3, 4, 3) and (rgb == grey[..., None]).all()
    assert _as_rgb(rgb[..., ::-1]).flags.c_contiguous
    for image, words in (
        (grey / 255, "float64 and shape"),
        (np.zeros((3, 4, 4), np.uint8), r"uint8 and shape \(3, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), r"shape \(0, 4, 3\)"),
        ("a.jpg", "a str, not of uint8"),
    ):
        with pytest.raises(InputError, match=f"the image is .*{words}"):
            _as_rgb(image)


def test_photographs_are_localized_in_metres(
    town_photos: Path, town_map: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    truth, (out, held_out) = read_truth(town_photos), town_map
    known = {n: truth.poses[n].centre for n in read_model(out / "sparse/0").images}
    lines = [f"{n} {' '.join(map(str, centre))}" for n, centre in known.items()]
    (tmp_path / "r.txt").write_text("\n".join(lines))
    georegister(out, None, tmp_path / "new", GeoregisterOptions(tmp_path / "r.txt"))
    diameter = np.linalg.norm(np.ptp(np.array([*known.values()]), axis=0))
    with Localizer(tmp_path / "new", run=CPU) as localizer:
        for path in held_out:
            right = truth.poses[path.name]
            found = localizer.localize(decode(path).rgb, truth.cameras[path.name])
            pose = found.cam_from_world
            assert pose is not None, found.reason
            assert np.linalg.norm(pose.centre - right.centre) < 0.01 * diameter
            assert rotation_angle_deg(pose.rotation @ right.rotation.T) < 0.5
