"""HPatches' pipeline on a miniature, from its files to its tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from miniature import CPU, read_rows
from miniature_hpatches import view_homography, write_hpatches
from small_town import SmallTown

from pipelines import hpatches
from pipelines.protocols.homography import shrink_tasks
from sfm_features.geometry import warp_points


@pytest.fixture(scope="module")
def dataset(small_town: SmallTown, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hpatches")
    write_hpatches(root, small_town.day[0].rgb)
    return root


def _run(dataset: Path, output: Path, *options: str) -> int:
    given = [str(dataset), "--output", str(output), "--max-keypoints", "1500", *CPU]
    return hpatches.main([*given, *options])


def test_homographies_are_found_and_work_goes_on(dataset: Path, tmp_path: Path) -> None:
    assert _run(dataset, tmp_path) == 0
    ours, *published = read_rows(tmp_path, "hpatches")
    assert ours["source"] == "this run" and len(published) > 5
    for what in ("", " light", " view"):
        assert ours[f"MHA@3{what}"] == 1
    assert 0.5 < ours["MMA@1"] <= ours["MMA@3"] <= ours["MMA@10"] <= 1
    small = read_rows(tmp_path, "hpatches-480")[0]
    assert 0.7 < small["AUC@3"] < small["AUC@5"] < small["AUC@10"] < 1
    # What is done stays as it is; what was cut off is done again, and comes out alike.
    ledger = tmp_path / "full/measured.jsonl"
    before, features = ledger.read_text(), tmp_path / "full/features.h5"
    ledger.write_text(before[: len(before) * 2 // 3])
    made = features.stat().st_mtime_ns
    assert _run(dataset, tmp_path) == 0
    assert ledger.read_text() == before and features.stat().st_mtime_ns == made
    assert read_rows(tmp_path, "hpatches")[0] == ours


def test_the_usual_sequences_are_left_out(dataset: Path) -> None:
    sequences = {task.names[0] for task in hpatches.list_tasks(dataset)}
    assert sequences == {"i_light/1.ppm", "v_view/1.ppm"}
    assert len(hpatches.list_tasks(dataset, everything=True)) == 15
    assert len(hpatches.LEFT_OUT) == 116 - 108


def test_a_homography_the_wrong_way_round_is_noticed(
    dataset: Path, tmp_path: Path
) -> None:
    """The direction of H decides: the measure is not content with anything."""
    wrong = tmp_path / "wrong/v_view"
    wrong.mkdir(parents=True)
    for path in (dataset / "v_view").iterdir():
        (wrong / path.name).write_bytes(path.read_bytes())
    for k in range(2, 7):
        np.savetxt(wrong / f"H_1_{k}", np.linalg.inv(view_homography(k)))
    assert _run(wrong.parent, tmp_path / "out") == 0
    ours = read_rows(tmp_path / "out", "hpatches")[0]
    assert ours["MHA@7"] == 0 and ours["MMA@10"] < 0.05


def test_small_copies_keep_their_homographies(dataset: Path, tmp_path: Path) -> None:
    """The corners of pixels map as before, in units of the new ones."""
    tasks = hpatches.list_tasks(dataset)
    small = shrink_tasks(dataset, tasks, tmp_path, 240)
    for task, less in zip(tasks, small, strict=True):
        assert less.size == (320, 240)
        scale = 240 / task.size[1]
        xy = np.array([[0.0, 0], [100, 50], [479, 359]])
        there = warp_points(task.b_from_a, xy)
        found = warp_points(less.b_from_a, (xy + 0.5) * scale - 0.5)
        np.testing.assert_allclose(found, (there + 0.5) * scale - 0.5, atol=1e-9)


def test_what_is_missing_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "v_empty").mkdir()
    (tmp_path / "v_empty/1.ppm").write_bytes(b"P6 1 1 255 abc")
    assert _run(tmp_path, tmp_path / "out") == 2
    assert "v_empty: lacks image 1, image 2 or H_1_2" in capsys.readouterr().err
