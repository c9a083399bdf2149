"""Ctrl-C and SIGTERM in any stage: a clean message, and the next run continues."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest
from withstand_files import read_files, read_hdf5, read_tables
from withstand_scene import write_photos
from withstand_shell import Result, Shell, leftovers, open_shell

from sfm_features.colmap import read_model
from sfm_features.metrics import model_errors
from sfm_features.types import Model

FEW = ("--max-keypoints", 400)
SIGNALS = {"Ctrl-C": signal.SIGINT, "SIGTERM": signal.SIGTERM}


@pytest.fixture
def shell() -> Shell:
    return open_shell()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("stops") / "photos", 12)


@pytest.fixture(scope="module")
def whole(photos: Path) -> Path:
    """Return the folder of an uninterrupted reconstruction."""
    how = ("reconstruct", photos, *FEW, "--no-report", "--output")
    open_shell().run(*how, photos.parent / "whole").succeed()
    return photos.parent / "whole"


def _check_stopped(result: Result) -> None:
    assert result.code == 130, f"{result.code}\n{result.text}"
    assert "Traceback" not in result.text and "Exception" not in result.text
    last = result.text.replace("\r", "\n").strip().split("\n")[-1]
    assert "run the same command again to continue" in last


def _check_whole(out: Path, whole: Path, same_model: bool = True) -> None:
    for name in ("features.h5", "matches.h5"):
        assert read_hdf5(out / name) == read_hdf5(whole / name)
    assert read_tables(out / "database.db") == read_tables(whole / "database.db")
    if same_model:
        assert read_files(out / "sparse") == read_files(whole / "sparse")
    else:
        _check_alike(read_model(out / "sparse/0"), read_model(whole / "sparse/0"))
    known = [path.relative_to(whole).as_posix() for path in whole.rglob("*")]
    assert leftovers(out, known) == []


def _check_alike(one: Model, other: Model) -> None:
    """A mapping that went on from half a model is as good, not the same bytes."""
    poses, expected = (
        {name: image.cam_from_world for name, image in model.images.items()}
        for model in (one, other)
    )
    errors = model_errors(poses, expected)
    assert errors.registered == len(poses) == len(expected)
    assert errors.median_centre_share < 0.01
    assert abs(len(one.points) / len(other.points) - 1) < 0.05
    assert abs(one.mean_error_px - other.mean_error_px) < 0.05


@pytest.mark.parametrize("name", sorted(SIGNALS))
@pytest.mark.parametrize("stage", ["extract", "match", "verify pairs", "map images"])
def test_a_stop_in_each_stage(
    tmp_path: Path, shell: Shell, photos: Path, whole: Path, stage: str, name: str
) -> None:
    out = tmp_path / "out"
    how = ("reconstruct", photos, *FEW, "--no-report", "--output", out)
    running = shell.start(*how)
    running.wait_for(f"{stage}:")
    running.signal(SIGNALS[name])
    _check_stopped(running.wait())
    assert not (out / "summary.txt").exists()
    text = shell.run(*how).succeed().text
    if stage != "extract":
        assert "0 images written, 12 kept" in text
    if stage in ("verify pairs", "map images"):
        assert "0 pairs written, 66 kept" in text
    _check_whole(out, whole, same_model=stage != "map images")


@pytest.mark.parametrize("command", ["extract", "match"])
def test_stops_at_any_moment_lose_nothing(
    tmp_path: Path, shell: Shell, photos: Path, whole: Path, command: str
) -> None:
    """Python may run a signal's handler inside HDF5's calls back into our file."""
    out = tmp_path / "out.h5"
    pairs = ("--pairs", whole / "pairs.txt")
    how, last, name = {
        "extract": (("extract", photos, *FEW), "features: ", "features.h5"),
        "match": (("match", whole / "features.h5", *pairs), "matches: ", "matches.h5"),
    }[command]
    arguments = (*how, "--output", out)
    start = time.perf_counter()
    running = shell.start(*arguments, commit_often=True)
    running.wait_for(last)
    seconds = time.perf_counter() - start
    running.wait().succeed()
    content = read_hdf5(whole / name)
    assert read_hdf5(out) == content
    out.unlink()
    rng, stopped = random.Random(7), 0
    for index in range(20):
        running = shell.start(*arguments, commit_often=True)
        running.wait_for_words()
        time.sleep(rng.uniform(0, seconds / 4))
        running.signal(list(SIGNALS.values())[index % 2])
        result = running.wait()
        assert "Traceback" not in result.text, result.text
        assert "Exception ignored" not in result.text, result.text
        if last in result.text or result.code == 0:
            assert read_hdf5(out) == content
            out.unlink()
        else:
            _check_stopped(result)
            stopped += 1
    assert stopped >= 5
    shell.run(*arguments).succeed()
    assert read_hdf5(out) == content
    assert leftovers(tmp_path, ["out.h5"]) == []


def test_a_second_stop_ends_at_once(tmp_path: Path, shell: Shell, photos: Path) -> None:
    out = tmp_path / "out"
    how = ("reconstruct", photos, *FEW, "--no-report", "--output", out)
    running = shell.start(*how)
    running.wait_for("verify pairs:")
    running.signal(signal.SIGINT)
    running.wait_for("once more")
    running.signal(signal.SIGINT)
    result = running.wait(seconds=20)
    assert result.code == 130 and "Traceback" not in result.text, result.text
    shell.run(*how).succeed()
