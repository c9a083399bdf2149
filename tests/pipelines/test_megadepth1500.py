"""MegaDepth-1500's pipeline on a miniature; its index never runs anything."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from miniature import CPU, assert_close, read_rows
from miniature_megadepth import name_image, write_index, write_lists
from small_town import SmallTown

from pipelines import megadepth1500
from pipelines.protocols.megadepth import read_tasks

PAIRS = [(0, 1), (1, 3), (4, 2), (3, 4)]


@pytest.fixture(scope="module")
def indexed(small_town: SmallTown, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("megadepth")
    write_index(root, {i: small_town.day[i] for i in range(5)}, PAIRS)
    return root


@pytest.mark.parametrize("estimator", ["colmap", "opencv"])
def test_poses_are_found(indexed: Path, tmp_path: Path, estimator: str) -> None:
    given = [str(indexed), "--output", str(tmp_path), "--max-keypoints", "1024", *CPU]
    assert megadepth1500.main([*given, "--estimator", estimator]) == 0
    ours, *published = read_rows(tmp_path, "megadepth1500")
    assert ours["AUC@5"] < ours["AUC@10"] < ours["AUC@20"]
    assert ours["AUC@20"] > 0.8 and 500 < ours["features"] <= 1024
    assert published and all("PoseLib" not in row["source"] for row in published)


def test_both_layouts_tell_the_same(
    indexed: Path, small_town: SmallTown, tmp_path: Path
) -> None:
    write_lists(tmp_path, {i: small_town.day[i] for i in range(5)}, PAIRS)
    (images, tasks), (listed, others) = map(read_tasks, (indexed, tmp_path))
    assert (images, listed) == (indexed, tmp_path / "images")
    for task, other, (i, j) in zip(tasks, others, PAIRS, strict=True):
        assert task.names == other.names == (name_image(i), name_image(j))
        assert task.cameras == other.cameras
        a, b = (small_town.day[k].cam_from_world for k in (i, j))
        # In the frame of the first camera the second one's centre is where it is seen.
        centre = a.rotation @ b.centre + a.translation
        for found in (task, other):
            np.testing.assert_allclose(found.b_from_a.centre, centre, atol=1e-9)
            assert_close(found.b_from_a, task.b_from_a, 1e-9, 1e-6)


class _Exploit:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.target}",)


def test_a_hostile_index_stops_the_pipeline_and_does_nothing(
    indexed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = next(indexed.glob("*/*.npz")).read_bytes()
    evil, target = tmp_path / "0015_0.1_0.3.npz", tmp_path / "pwned"
    evil.write_bytes(pickle.dumps(pickle.loads(whole) | {"extra": _Exploit(target)}))
    given = [str(tmp_path), "--output", str(tmp_path / "out"), *CPU]
    assert megadepth1500.main(given) == 2
    assert "holds more than arrays" in capsys.readouterr().err
    assert not target.exists()
    evil.write_bytes(pickle.dumps({"image_paths": np.zeros(3)}))
    assert megadepth1500.main(given) == 2
    assert "is no index of pairs" in capsys.readouterr().err
    evil.unlink()
    assert megadepth1500.main(given) == 2
    assert "neither views.txt nor" in capsys.readouterr().err
