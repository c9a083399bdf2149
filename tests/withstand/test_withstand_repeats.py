"""Same seed twice: the same files, byte for byte, however the threads are scheduled."""

from __future__ import annotations

from pathlib import Path

import pytest
from withstand_files import read_files, read_tables
from withstand_scene import write_photos
from withstand_shell import Shell, open_shell

from sfm_features import colmap

FEW = ("--max-keypoints", 400)


@pytest.fixture
def shell() -> Shell:
    return open_shell()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("repeats") / "photos", 12)


def test_the_same_seed_gives_the_same_bytes(
    tmp_path: Path, shell: Shell, photos: Path
) -> None:
    how = ("reconstruct", photos, *FEW, "--no-report", "--seed", 5, "--output")
    outs = [tmp_path / "first", tmp_path / "second"]
    # At one time, so that they disturb each other's threads.
    for running in [shell.start(*how, out) for out in outs]:
        running.wait().succeed()
    first, second = outs
    for name in ("features.h5", "matches.h5", "pairs.txt"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    assert read_tables(first / "database.db") == read_tables(second / "database.db")
    assert read_files(first / "sparse") == read_files(second / "sparse")


def test_another_seed_is_another_sample(
    tmp_path: Path, shell: Shell, photos: Path
) -> None:
    how = ("reconstruct", photos, *FEW, "--no-report", "--output")
    for seed in (1, 2):
        shell.run(*how, tmp_path / str(seed), "--seed", seed).succeed()
    tables = [read_tables(tmp_path / f"{seed}/database.db") for seed in (1, 2)]
    assert tables[0]["matches"] == tables[1]["matches"]
    assert tables[0]["two_view_geometries"] != tables[1]["two_view_geometries"]


@pytest.mark.parametrize("mapper", ["incremental", "global"])
def test_mapping_does_not_depend_on_threads(
    tmp_path: Path, shell: Shell, photos: Path, mapper: colmap.MapperName
) -> None:
    """With 8 threads of its own, COLMAP made 7 different models in 25 runs."""
    how = ("reconstruct", photos, *FEW, "--no-report", "--output", tmp_path / "out")
    shell.run(*how).succeed()
    database = tmp_path / "out" / "database.db"
    models = []
    for run in range(4):
        output = tmp_path / f"sparse{run}"
        options = colmap.MapperOptions(mapper, num_threads=1 + 7 * (run % 2))
        colmap.run_mapper(database, photos, output, options)
        models.append(read_files(output))
    assert all(model == models[0] for model in models)
