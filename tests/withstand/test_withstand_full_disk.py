"""A disk that is full or not writable: one line, nothing lost, and it continues."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from withstand_files import check_store, read_files, read_hdf5, read_tables
from withstand_scene import write_photos
from withstand_shell import Result, Shell, leftovers, open_shell

from sfm_features.store import FeatureStore, MatchStore

FEW = ("--max-keypoints", 500)
# Up to less than the largest file, the report (5 MB). The limit holds for what the
# command says, too, which is a file of 3 kB here.
LIMITS = (5_000, 60_000, 420_000, 2_000_000)


@pytest.fixture
def shell() -> Shell:
    return open_shell()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("full") / "photos", 8)


@pytest.fixture(scope="module")
def whole(photos: Path) -> Path:
    """Return the folder of a reconstruction with enough space."""
    how = ("reconstruct", photos, *FEW, "--output")
    open_shell().run(*how, photos.parent / "whole").succeed()
    return photos.parent / "whole"


def _check_full(result: Result, folder: Path) -> str:
    """Assert one line that names a file of the folder and what to do."""
    error = result.fail(str(folder))
    assert any(word in error for word in ("space", "room", "full", "cannot be written"))
    return error


@pytest.mark.parametrize("limit", LIMITS)
def test_no_space(
    tmp_path: Path, shell: Shell, photos: Path, whole: Path, limit: int
) -> None:
    """The same file-size limit meets a different file each time."""
    out = tmp_path / "out"
    how = ("reconstruct", photos, *FEW, "--output", out)
    _check_full(shell.run(*how, max_file_bytes=limit), out)
    for name, kind in (("features.h5", FeatureStore), ("matches.h5", MatchStore)):
        if (out / name).exists():
            check_store(out / name, kind, read_hdf5(whole / name), tmp_path / "s")
    if (out / "sparse").exists():
        assert read_files(out / "sparse") == read_files(whole / "sparse")
    assert not (out / "report.html").exists()
    shell.run(*how).succeed()
    for name in ("features.h5", "matches.h5"):
        assert read_hdf5(out / name) == read_hdf5(whole / name)
    assert read_tables(out / "database.db") == read_tables(whole / "database.db")
    assert read_files(out / "sparse") == read_files(whole / "sparse")
    known = [path.relative_to(whole).as_posix() for path in whole.rglob("*")]
    assert leftovers(out, known) == []


@pytest.mark.parametrize(
    "name", ["features.h5", "matches.h5", "database.db", "images.bin", "report.html"]
)
def test_each_file_meets_the_end_of_the_disk(
    tmp_path: Path, shell: Shell, whole: Path, photos: Path, name: str
) -> None:
    """Files that are larger are there already, so that the disk ends at this one."""
    out = shutil.copytree(whole, tmp_path / "out")
    # Elsewhere features count as others, and the database is made again.
    shell.run("reconstruct", photos, *FEW, "--output", out).succeed()
    (path,) = out.rglob(name)
    limit = path.stat().st_size * 2 // 3
    remove = out / "sparse" if name == "images.bin" else path
    shutil.rmtree(remove) if remove.is_dir() else remove.unlink()
    how = ("reconstruct", photos, *FEW, "--output", out)
    error = _check_full(shell.run(*how, max_file_bytes=limit), out)
    named = "unpolished" if name == "images.bin" else name
    assert named in error
    shell.run(*how).succeed()
    assert read_hdf5(out / "features.h5") == read_hdf5(whole / "features.h5")
    assert read_files(out / "sparse") == read_files(whole / "sparse")


@pytest.mark.parametrize("command", ["extract", "match"])
@pytest.mark.parametrize("limit", [4_000, 10_000])
def test_no_space_for_one_file(
    tmp_path: Path, shell: Shell, photos: Path, whole: Path, command: str, limit: int
) -> None:
    out = tmp_path / "file"
    features, pairs = whole / "features.h5", whole / "pairs.txt"
    how = {
        "extract": ("extract", photos, *FEW),
        "match": ("match", features, "--pairs", pairs),
    }[command]
    result = shell.run(*how, "--output", out, max_file_bytes=limit)
    _check_full(result, out)
    shell.run(*how, "--output", out).succeed()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_of_many_commits_keeps_them(
    tmp_path: Path, shell: Shell, photos: Path, whole: Path
) -> None:
    out, content = tmp_path / "f.h5", read_hdf5(whole / "features.h5")
    counts = []
    size = (whole / "features.h5").stat().st_size
    for limit in (int(share * size) for share in (0.35, 0.6, 0.85)):
        running = shell.start(
            *("extract", photos, *FEW, "--output", out),
            max_file_bytes=limit,
            commit_often=True,
        )
        _check_full(running.wait(), out)
        counts.append(check_store(out, FeatureStore, content, tmp_path / "scratch"))
    assert counts == sorted(counts) and 0 < counts[0] < counts[-1] < 8, counts
    text = shell.run("extract", photos, *FEW, "--output", out).succeed().text
    assert f"{8 - counts[-1]} images written, {counts[-1]} kept" in text
    assert read_hdf5(out) == content


def _below_a_file(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "out"


def _in_proc(tmp_path: Path) -> Path:
    if not Path("/proc/self").exists():
        pytest.skip("no /proc on this system")
    return Path("/proc/out")


def _read_only(tmp_path: Path) -> Path:
    if os.geteuid() == 0:
        pytest.skip("permissions do not bind root")
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    return folder / "out"


def _dangling(tmp_path: Path) -> Path:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere" / "at all")
    return tmp_path / "link"


PLACES = {
    "below a file": _below_a_file,
    "in /proc": _in_proc,
    "read-only": _read_only,
    "dangling link": _dangling,
}


@pytest.mark.parametrize("place", sorted(PLACES))
@pytest.mark.parametrize("command", ["extract", "match", "pairs", "reconstruct"])
def test_places_that_cannot_be_written(
    tmp_path: Path, shell: Shell, photos: Path, whole: Path, command: str, place: str
) -> None:
    out = PLACES[place](tmp_path)
    features = whole / "features.h5"
    how = {
        "extract": ("extract", photos, *FEW),
        "match": ("match", features, "--pairs", whole / "pairs.txt"),
        "pairs": ("pairs", "--method", "exhaustive", "--features", features),
        "reconstruct": ("reconstruct", photos, "--features", features),
    }[command]
    result = shell.run(*how, "--output", out)
    if place == "dangling link" and result.code == 0:
        return  # a file may replace the link
    result.fail(str(out), "--output")
