"""ETH3D's pipeline on a miniature scene, and its own program played by another."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from miniature import CPU, assert_close, read_rows
from miniature_eth3d import name_image, write_scene
from small_town import SmallTown

from pipelines import eth3d
from pipelines.protocols import eth3d_scenes
from pipelines.protocols.eth3d_scenes import (
    HELD_OUT,
    choose_held_out,
    list_beside,
    list_scenes,
)
from pipelines.protocols.eth3d_surface import evaluate
from sfm_features.colmap import covisible_counts
from sfm_features.errors import InputError

STATIONS = range(9)


@pytest.fixture(scope="module")
def dataset(small_town: SmallTown, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("eth3d")
    write_scene(root / "square", {i: small_town.day[i] for i in STATIONS})
    return root


def _write_program(path: Path, says: str, code: int = 0) -> Path:
    """Write a program that wants a PLY of points and says something."""
    path.write_text(
        f"#!{sys.executable}\nimport sys\n"
        "points = sys.argv[sys.argv.index('--reconstruction_ply_path') + 1]\n"
        "assert open(points, 'rb').read(4) == b'ply\\n'\n"
        f"print({says!r})\nsys.exit({code})\n"
    )
    path.chmod(0o755)
    return path


def test_held_out_images_are_localized(
    dataset: Path,
    small_town: SmallTown,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(eth3d_scenes, "_QUERIES", 2)
    program = _write_program(
        tmp_path / "evaluate",
        "Tolerances: 0.01 0.02 0.05\nCompletenesses: 0.1 0.2 0.3\n"
        "Accuracies: 0.7 0.8 0.9\nF1-scores: 0 0 0",
    )
    (dataset / "square/dslr_scan_eval").mkdir(exist_ok=True)
    (dataset / "square/dslr_scan_eval/scan_alignment.mlp").write_text("<MeshLab/>")
    given = [str(dataset), "--output", str(tmp_path / "out"), *CPU]
    given += ["--evaluator", str(program), "--max-keypoints", "1024"]
    assert eth3d.main(given) == 0
    scene, total, *_ = read_rows(tmp_path / "out", "eth3d")
    assert (scene["queries"], scene["localized"]) == (2, 2)
    # Photographs of 480 px in a square of 26 m: centimetres are what can be had.
    assert scene["AUC@10cm"] == total["AUC@10cm"] > 0.5
    points = read_rows(tmp_path / "out", "eth3d-points")[0]
    assert points["points"] > 200 and points["reprojection error, px"] < 1
    assert (points["accuracy@2cm"], points["completeness@5cm"]) == (0.8, 0.3)
    # The points are where the town is, in front of the cameras that see them.
    ply = (tmp_path / "out/square/points.ply").read_bytes()
    xyz = np.frombuffer(ply.split(b"end_header\n", 1)[1], "<f4").reshape(-1, 3)
    assert len(xyz) == points["points"]
    seen = small_town.day[0].cam_from_world
    assert np.median((xyz @ seen.rotation.T + seen.translation)[:, 2]) > 3
    ledger = tmp_path / "out/square/localized.jsonl"
    before = ledger.stat().st_mtime_ns
    assert eth3d.main(given) == 0
    assert read_rows(tmp_path / "out", "eth3d")[0] == scene
    assert len(ledger.read_text().splitlines()) == 3 and before > 0


def test_the_model_is_read_as_it_is_meant(dataset: Path, small_town: SmallTown) -> None:
    scene = list_scenes(dataset, None)["square"]
    assert sorted(scene.model.images) == [name_image(i) for i in STATIONS]
    for i in STATIONS:
        pose = scene.model.images[name_image(i)].cam_from_world
        assert_close(pose, small_town.day[i].cam_from_world, 1e-9, 1e-6)
    shared = covisible_counts(scene.model)
    beside = list_beside(name_image(0), shared)
    assert beside[0] == name_image(1) and len(beside) == 2
    assert list_beside(name_image(8), shared) == []  # has no points of its own


def test_what_is_missing_is_named(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {len(set(numbers)) for numbers in HELD_OUT.values()} == {10}
    assert len(HELD_OUT) == 13
    given = ["--output", str(tmp_path / "out"), *CPU]
    assert eth3d.main([str(dataset), *given, "--scenes", "pipes"]) == 2
    assert "has no scene pipes" in capsys.readouterr().err
    (tmp_path / "pipes").symlink_to(dataset / "square")
    assert eth3d.main([str(tmp_path), *given, "--max-keypoints", "256"]) == 2
    assert "lacks DSC_0643" in capsys.readouterr().err
    silent = _write_program(tmp_path / "broken", "no scan", code=1)
    scene = list_scenes(dataset, None)["square"]
    assert len(choose_held_out(scene)) == len(STATIONS)
    (tmp_path / "p.ply").write_bytes(b"ply\n")
    with pytest.raises(InputError, match="did not measure"):
        evaluate(silent, tmp_path / "p.ply", silent)


def test_errors_below_a_millimetre_are_alike() -> None:
    inf = float("inf")
    areas = eth3d.find_areas([0.0002, 0.0009, 0.004, inf])
    assert areas["AUC@1mm"] == pytest.approx(0.5)
    # Flat to 1 mm, a ramp to 4 mm, flat to 1 cm.
    expected = (0.5 * 1 + 0.625 * 3 + 0.75 * 6) / 10
    assert areas["AUC@1cm"] == pytest.approx(expected)
