"""Triangulation with the town's true poses, which must not move."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sfm_features import colmap
from sfm_features.errors import InputError, OptionError
from sfm_features.extract import ExtractOptions, extract
from sfm_features.scenes import read_truth
from sfm_features.triangulate import TriangulateOptions, triangulate


@pytest.fixture(scope="module")
def posed(town_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the true poses, without points."""
    truth = read_truth(town_photos)
    folder = tmp_path_factory.mktemp("posed")
    colmap.write_poses(truth.cameras, truth.poses, folder)
    return folder


def test_points_appear_and_poses_stay(
    posed: Path, town_photos: Path, tmp_path: Path
) -> None:
    summary = triangulate(
        posed,
        town_photos / "images",
        tmp_path,
        TriangulateOptions(neighbours=6),
        ExtractOptions(extractor="sift", max_keypoints=1000),
    )
    assert summary.models[0].points > 400
    assert summary.models[0].mean_error_px < 0.6
    assert "All 12 images are registered" in (tmp_path / "report.html").read_text()
    truth = read_truth(town_photos)
    made = colmap.read_model(tmp_path / "sparse/0")
    assert set(made.images) == set(truth.poses)
    for name, image in made.images.items():
        true = truth.poses[name]
        np.testing.assert_allclose(
            image.cam_from_world.rotation, true.rotation, atol=1e-9
        )
        np.testing.assert_allclose(image.cam_from_world.centre, true.centre, atol=1e-9)
        np.testing.assert_allclose(image.camera.params, truth.cameras[name].params)


def test_features_may_be_of_more_images_than_the_model(
    posed: Path, town_photos: Path, tmp_path: Path
) -> None:
    """As those of a benchmark are, where the queries are in the same file."""
    known, photos = tmp_path / "known", town_photos / "images"
    truth = read_truth(town_photos)
    some = sorted(truth.poses)[:8]
    poses = {name: truth.poses[name] for name in some}
    colmap.write_poses({n: truth.cameras[n] for n in some}, poses, known)
    features = tmp_path / "all.h5"
    extract(photos, features, ExtractOptions(extractor="sift", max_keypoints=800))
    options = TriangulateOptions(features=features, neighbours=4)
    summary = triangulate(known, photos, tmp_path / "out", options)
    assert summary.models[0].registered == 8 and summary.models[0].points > 100


def test_an_absent_image_is_named(
    posed: Path, town_photos: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for path in sorted((town_photos / "images").iterdir())[1:]:
        (images / path.name).symlink_to(path)
    with pytest.raises(InputError, match=r"'view0000\.jpg' \(1 such\)"):
        triangulate(posed, images, tmp_path / "out")


def test_what_an_earlier_run_left_is_not_taken_for_the_result(
    posed: Path, town_photos: Path, tmp_path: Path
) -> None:
    """Nor is a database that was made with another model of the same name."""
    images, known, output = town_photos / "images", tmp_path / "known", tmp_path / "out"
    features = tmp_path / "features.h5"
    extract(images, features, ExtractOptions(extractor="sift", max_keypoints=600))
    options = TriangulateOptions(features=features, neighbours=3, report=False)
    shutil.copytree(posed, known)
    triangulate(known, images, output, options)
    shutil.copytree(output / "sparse/0", output / "sparse/1")
    (output / "report.html").touch()
    truth = read_truth(town_photos)
    cameras = {  # each has its own now
        name: replace(camera, params=(*camera.params[:-1], camera.params[-1] + i / 1e3))
        for i, (name, camera) in enumerate(truth.cameras.items())
    }
    colmap.write_poses(cameras, truth.poses, known)
    triangulate(known, images, output, options)
    assert [path.name for path in (output / "sparse").iterdir()] == ["0"]
    assert not (output / "report.html").exists()
    made = colmap.read_model(output / "sparse/0")
    assert {n: image.camera for n, image in made.images.items()} == cameras


def test_the_model_that_is_read_is_not_written(
    posed: Path, town_photos: Path, tmp_path: Path
) -> None:
    model = tmp_path / "sparse/0"
    shutil.copytree(posed, model)
    with pytest.raises(InputError, match="would be replaced by what is made from it"):
        triangulate(model, town_photos / "images", tmp_path)


def test_an_absent_folder_is_named(posed: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no: no such folder"):
        triangulate(posed, tmp_path / "no", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_would_have_no_effect_is_refused(posed: Path, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.touch()
    for options, extraction, words in (
        (TriangulateOptions(), ExtractOptions(image_list=given), "--image-list: .*mod"),
        (TriangulateOptions(features=given), ExtractOptions("sift"), "--extractor"),
        (TriangulateOptions(matches=given, pairs=given), ExtractOptions(), "--pairs"),
        (TriangulateOptions(pairs=given, neighbours=3), ExtractOptions(), "--neighb"),
    ):
        with pytest.raises(OptionError, match=words):
            triangulate(posed, tmp_path, tmp_path / "out", options, extraction)
    assert not (tmp_path / "out").exists()
