"""Where a photograph was taken, in a map of the town whose truth is known."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from samples import make_texture

from sfm_features.atlas import Atlas
from sfm_features.errors import InputError, OptionError
from sfm_features.images import decode
from sfm_features.localizer import Localizer
from sfm_features.metrics import align_poses, rotation_angle_deg
from sfm_features.nets.vlad import save_vlad
from sfm_features.nets.weights import Card
from sfm_features.queries import LocalizeOptions
from sfm_features.retrieve import describe
from sfm_features.scenes import read_truth
from sfm_features.store import FeatureStore, GlobalStore
from sfm_features.training.codebook import fit_vlad
from sfm_features.types import Camera, Localization, RunOptions


@pytest.fixture(scope="module")
def localizer(town_map: tuple[Path, list[Path]]) -> Iterator[Localizer]:
    made = Localizer(town_map[0], run=RunOptions(device="cpu"))
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


def test_the_map_is_never_written_to(
    town_map: tuple[Path, list[Path]],
) -> None:
    folder, queries = town_map
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    made = Localizer(folder, run=RunOptions(device="cpu"))
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
    strict = Localizer(
        town_map[0], LocalizeOptions(min_inliers=10_000), RunOptions(device="cpu")
    )
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
    near = Localizer(town_map[0], few, RunOptions(device="cpu"))
    found = near.localize(rgb, prior=pose)
    assert found.status == "localized" and len(found.retrieved) == 2
    known = [image.cam_from_world for image in near.atlas.model.images.values()]
    away = max(known, key=lambda p: float(np.linalg.norm(p.centre - pose.centre)))
    assert set(near.localize(rgb, prior=away).retrieved) != set(found.retrieved)
    near.atlas.close()


def test_what_does_not_fit_is_refused(
    town_map: tuple[Path, list[Path]], localizer: Localizer, tmp_path: Path
) -> None:
    rgb = decode(town_map[1][0]).rgb
    with pytest.raises(InputError, match="of this image"):
        localizer.localize(rgb, Camera("SIMPLE_PINHOLE", 9, 9, (9.0, 4.5, 4.5)))
    with pytest.raises(OptionError, match="--neighbours 0"):
        Localizer(town_map[0], LocalizeOptions(neighbours=0))
    with pytest.raises(InputError, match="sparse/0"):
        Localizer(tmp_path)
    broken = tmp_path / "map"
    shutil.copytree(town_map[0], broken)
    (broken / "features.h5").unlink()
    with pytest.raises(InputError, match=r"features\.h5"):
        Localizer(broken)
    assert json.dumps(localizer.atlas.config)


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
