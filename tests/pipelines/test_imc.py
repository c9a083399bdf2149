"""The Image Matching Challenge's pipeline on a miniature scene."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import numpy as np
import pytest
from miniature import CPU, assert_close, read_rows
from miniature_imc import write_scene
from small_town import SmallTown

from pipelines import imc
from pipelines.protocols.phototourism import list_scenes, read_scene


@pytest.fixture(scope="module")
def dataset(small_town: SmallTown, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("imc")
    photos = {i: small_town.day[i] for i in range(6)}
    # The last photograph of the second bag was withdrawn: the bag does not count.
    write_scene(root / "square", photos, {5: [range(5), [0, 1, 2, 3, 14]]})
    return root


def test_stereo_and_bags_are_measured_once(dataset: Path, tmp_path: Path) -> None:
    given = [str(dataset), "--output", str(tmp_path), *CPU]
    assert imc.main([*given, "--bags", "--estimator", "colmap"]) == 0
    scene, average, published = read_rows(tmp_path, "imc")
    assert (scene["method"], scene["pairs"]) == ("square", 9)
    assert scene["mAA@10"] == average["mAA@10"] > 0.8
    assert published["mAA@10"] == 0.5756
    assert not (tmp_path / "square/bag").exists()  # nothing is left of the bags
    # All is done already: another run reads the ledgers alone.
    ledgers = [tmp_path / f"square/{name}.jsonl" for name in ("bags", "measured")]
    before = [path.read_text() for path in ledgers]
    assert imc.main([*given, "--bags", "--estimator", "colmap"]) == 0
    assert before == [path.read_text() for path in ledgers]


def test_bags_are_reconstructed(dataset: Path, tmp_path: Path) -> None:
    """Views straight ahead, each with a focal length of its own, are nearly ambiguous:
    of five seeds one was seen to go astray, so the median of three counts."""
    found = []
    for seed in range(3):
        output = tmp_path / f"{seed}"
        given = [str(dataset), "--output", str(output), "--seed", f"{seed}", *CPU]
        assert imc.main([*given, "--bags"]) == 0
        bag = read_rows(output, "imc-bags")[0]
        assert bag["registered"] == 1 and bag["mAA@10, 5"] == bag["mAA@10"]
        found.append(bag["mAA@10"])
    assert median(found) > 0.8


def test_calibrations_are_read_as_they_are_meant(
    dataset: Path, small_town: SmallTown
) -> None:
    scene = read_scene(list_scenes(dataset, ["square"])["square"])
    assert len(scene.poses) == 6 and len(scene.bags[5]) == 1
    for name, photo in zip(sorted(scene.poses), small_town.day.values(), strict=False):
        assert_close(scene.poses[name], photo.cam_from_world, 1e-9, 1e-6)
        focal, x, y = photo.camera.params
        assert scene.cameras[name].params == (focal, focal, x, y)
    # A walk of 13 m around: had world and camera been exchanged, nothing would fit.
    (a, b), task = scene.pairs[0], imc.list_tasks(scene)[0]
    true = scene.poses[b].rotation @ scene.poses[a].rotation.T
    np.testing.assert_allclose(task.b_from_a.rotation, true, atol=1e-12)


def test_what_is_missing_is_named(
    dataset: Path,
    small_town: SmallTown,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["--output", str(tmp_path / "out"), *CPU]
    assert imc.main([str(dataset), *given, "--scenes", "reichstag"]) == 2
    assert "has no scene reichstag" in capsys.readouterr().err
    write_scene(tmp_path / "bare", {i: small_town.day[i] for i in range(2)})
    assert imc.main([str(tmp_path), *given, "--bags", "--max-keypoints", "64"]) == 2
    assert "has no bags in sub_set" in capsys.readouterr().err
    assert imc.main([str(tmp_path / "nothing"), *given]) == 2
    assert "see --help" in capsys.readouterr().err
