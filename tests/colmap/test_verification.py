"""Geometric verification."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from colmap_scenes import Scene, make_scene, verified_rows

from sfm_features.colmap import (
    Cancellation,
    VerifyOptions,
    read_verified,
    verification,
    verify_pairs,
    verify_pairs_by_poses,
)
from sfm_features.errors import Cancelled, InputError, OutputError
from sfm_features.types import Matches


def _true_rows(scene: Scene, pair: tuple[str, str]) -> set[tuple[int, int]]:
    """The matches that the truth agrees with: both keypoints see one point."""
    seen = []
    for name in pair:
        image = scene.truth.find_image_with_name(name)
        seen.append([point.point3D_id for point in image.points2D])
    rows = scene.matches[pair].indices.tolist()
    return {(i, j) for i, j in rows if seen[0][i] == seen[1][j]}


def test_outliers_are_found_and_true_matches_kept(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, inlier_ratio=0.7)
    database = scene.import_into(tmp_path / "database.db")
    verify_pairs(database)
    verified = read_verified(database)
    assert list(verified) == sorted(scene.matches)
    for pair, found in verified.items():
        assert found.num_matches == len({*map(tuple, scene.matches[pair].indices)})
        assert found.configuration == "CALIBRATED"
        assert found.indices.dtype == np.int32
        truth = _true_rows(scene, pair)
        inliers = {(i, j) for i, j in found.indices.tolist()}
        assert len(inliers & truth) > 0.95 * len(truth)
        assert len(inliers - truth) < 0.1 * len(inliers)


def test_the_seed_decides_whatever_the_threads(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, inlier_ratio=0.5)
    rows = []
    for threads, seed in ((1, 0), (4, 0), (4, 0), (4, 1)):
        database = scene.import_into(tmp_path / "database.db")
        verify_pairs(database, seed=seed, num_threads=threads)
        rows.append(verified_rows(database))
    assert rows[0] == rows[1] == rows[2]
    assert rows[0] != rows[3]


def test_a_cancelled_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "_BATCH_PAIRS", 5)
    scene = make_scene(tmp_path, images=12, points=200, inlier_ratio=0.5)
    whole = scene.import_into(tmp_path / "whole.db")
    verify_pairs(whole)
    database = scene.import_into(tmp_path / "database.db")
    cancellation = Cancellation()
    timer = threading.Timer(0.15, cancellation.cancel)
    timer.start()
    with pytest.raises(Cancelled):
        verify_pairs(database, num_threads=1, cancellation=cancellation)
    timer.join()
    assert 0 < len(read_verified(database)) < len(scene.matches)
    verify_pairs(database)
    assert verified_rows(database) == verified_rows(whole)


def test_a_request_made_before_stops_it_at_once(tmp_path: Path) -> None:
    database = make_scene(tmp_path).import_into(tmp_path / "database.db")
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(Cancelled):
        verify_pairs(database, cancellation=cancellation)
    assert read_verified(database) == {}


@pytest.mark.parametrize(
    "options",
    [
        VerifyOptions(max_error_px=0.5),
        VerifyOptions(min_inliers=1000),
        VerifyOptions(max_trials=100),
    ],
)
def test_each_setting_counts_and_starts_afresh(
    tmp_path: Path, options: VerifyOptions
) -> None:
    scene = make_scene(tmp_path, images=4, noise_px=1, inlier_ratio=0.2)
    database = scene.import_into(tmp_path / "database.db")
    verify_pairs(database)
    before = verified_rows(database)
    verify_pairs(database, options)
    after = verified_rows(database)
    assert after != before
    fresh = scene.import_into(tmp_path / "fresh.db")
    verify_pairs(fresh, options)
    assert verified_rows(fresh) == after


@pytest.mark.parametrize("max_trials", [1, 99])
def test_few_trials_may_be_asked_for(tmp_path: Path, max_trials: int) -> None:
    """Fewer than COLMAP's own least number, which it would refuse."""
    scene = make_scene(tmp_path / "scene", images=3)
    reference = scene.write_truth(tmp_path / "reference")
    database = scene.import_into(tmp_path / "database.db")
    options = VerifyOptions(max_trials=max_trials)
    verify_pairs(database, options)
    assert set(read_verified(database)) == set(scene.matches)
    verify_pairs_by_poses(database, reference, options)
    assert set(read_verified(database)) == set(scene.matches)


def test_poor_pairs_are_left_out(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, images=3)
    poor, *_ = scene.matches
    few = Matches(scene.matches[poor].indices[:5], scene.matches[poor].scores[:5])
    scene = replace(scene, matches={**scene.matches, poor: few})
    database = scene.import_into(tmp_path / "database.db")
    verify_pairs(database)
    assert set(read_verified(database)) == set(scene.matches) - {poor}


def test_known_poses_verify_without_guessing(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene", inlier_ratio=0.5)
    reference = scene.write_truth(tmp_path / "reference")
    database = scene.import_into(tmp_path / "database.db")  # other ids than the model
    verify_pairs_by_poses(database, reference)
    verified = read_verified(database)
    assert set(verified) == set(scene.matches)
    for pair, found in verified.items():
        truth = _true_rows(scene, pair)
        inliers = {(i, j) for i, j in found.indices.tolist()}
        assert found.configuration == "CALIBRATED"
        assert len(truth - inliers) <= 0.02 * len(truth)


def test_other_poses_start_afresh(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene", images=4)
    reference = scene.write_truth(tmp_path / "reference")
    database = scene.import_into(tmp_path / "database.db")
    verify_pairs_by_poses(database, reference)
    right = sum(map(len, read_verified(database).values()))
    assert right > 0
    wrong = pycolmap.Reconstruction(scene.truth)
    ids = sorted(wrong.reg_frame_ids())
    poses = [wrong.frame(i).rig_from_world for i in ids]
    for i, pose in zip(ids, [*poses[1:], poses[0]], strict=True):
        wrong.frame(i).rig_from_world = pose
    wrong.write_binary(reference)
    verify_pairs_by_poses(database, reference)
    assert sum(map(len, read_verified(database).values())) < 0.5 * right


def test_images_must_be_those_of_the_model(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene", images=4)
    database = scene.import_into(tmp_path / "database.db")
    other = make_scene(tmp_path / "other", images=6)
    reference = other.write_truth(tmp_path / "reference")
    with pytest.raises(InputError, match="has no image .*000004.png"):
        verify_pairs_by_poses(database, reference)


def test_a_missing_or_foreign_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such database"):
        verify_pairs(tmp_path / "absent.db")
    assert not (tmp_path / "absent.db").exists()
    (tmp_path / "text.db").write_text("This is not a database. " * 100)
    with pytest.raises(InputError, match="not a COLMAP database"):
        read_verified(tmp_path / "text.db")
    with pytest.raises(InputError, match="not a COLMAP database"):
        verify_pairs(tmp_path / "text.db")


def test_other_handles_do_not_disturb_it(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, images=12, points=300)
    database = scene.import_into(tmp_path / "database.db")
    with pycolmap.Database.open(database) as handle:
        verify_pairs(database)
        assert handle.num_verified_image_pairs() == len(scene.matches)


def test_a_full_disk_is_noticed_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = make_scene(tmp_path).import_into(tmp_path / "database.db")
    usage = shutil.disk_usage(tmp_path)._replace(free=100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OutputError, match="make room"):
        verify_pairs(database)
