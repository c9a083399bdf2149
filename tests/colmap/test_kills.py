"""SIGKILL at any moment leaves nothing that is taken for more than it is."""

from __future__ import annotations

import random
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pycolmap
from colmap_scenes import Scene, empty_dir, make_scene, verified_rows

from sfm_features.colmap import (
    MapperOptions,
    find_snapshot,
    list_models,
    read_model,
    run_mapper,
    verify_pairs,
)
from sfm_features.colmap.files import is_whole

SHAPE = {"images": 16, "points": 200, "inlier_ratio": 0.6}
CHILD = f"""
import sys
import tempfile
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from colmap_scenes import make_scene
from sfm_features import colmap
folder = Path(sys.argv[1])
database, sparse = folder / "database.db", folder / "sparse"
"""
IMPORT = f"""
scene = make_scene(Path(tempfile.mkdtemp(dir=folder)), **{SHAPE})
print("ready", flush=True)
while True:
    scene.import_into(database)
"""
VERIFY = """
colmap.verification._BATCH_PAIRS = 10
print("ready", flush=True)
colmap.verify_pairs(database)
"""
MAP = """
options = colmap.MapperOptions(snapshot_images=2, extract_colours=False)
start = colmap.find_snapshot(sparse)
print("ready", flush=True)
while True:
    colmap.run_mapper(database, folder, sparse, options, resume_from=start)
    start = None
"""


def _kill_after(
    code: str, folder: Path, seconds: float, expected: int | None = None
) -> None:
    """Run code in another process, and kill it some time after it says it is ready."""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD + code, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        with suppress(subprocess.TimeoutExpired):
            child.wait(seconds)
        child.kill()
    assert child.returncode in ((-9, 0) if expected is None else (expected,))


def _scene(tmp_path: Path) -> Scene:
    return make_scene(tmp_path / "scene", **SHAPE)


def test_an_import_is_whole_or_absent(tmp_path: Path) -> None:
    scene = _scene(tmp_path)
    whole = scene.import_into(tmp_path / "whole.db").read_bytes()
    database = tmp_path / "database.db"
    rng = random.Random(0)
    for _ in range(7):
        _kill_after(IMPORT, tmp_path, rng.uniform(0, 0.12))
        if database.exists():
            assert database.read_bytes() == whole
    scene.import_into(database)
    assert database.read_bytes() == whole


def test_verification_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    scene = _scene(tmp_path)
    whole = scene.import_into(tmp_path / "whole.db")
    verify_pairs(whole)
    database = scene.import_into(tmp_path / "database.db")
    rng = random.Random(1)
    counts = [0]
    for _ in range(5):
        _kill_after(VERIFY, tmp_path, rng.uniform(0.02, 0.15))
        with pycolmap.Database.open(database) as handle:
            counts.append(handle.num_verified_image_pairs())
    assert counts == sorted(counts) and counts[-1] > 0
    verify_pairs(database)
    assert verified_rows(database) == verified_rows(whole)


def test_mapping_is_published_whole_and_resumes(tmp_path: Path) -> None:
    scene = _scene(tmp_path)
    database = scene.import_into(tmp_path / "database.db")
    verify_pairs(database)
    output = tmp_path / "sparse"
    rng = random.Random(2)
    snapshots = 0
    for _ in range(8):
        _kill_after(MAP, tmp_path, rng.uniform(0.05, 0.4))
        assert not output.exists() or is_whole(output / "0")
        for path in list_models(output):
            assert len(read_model(path).images) == 16
        snapshot = find_snapshot(output)
        if snapshot is not None:
            snapshots += 1
            assert 2 <= len(read_model(snapshot).images) <= 16
    assert snapshots
    options = MapperOptions(extract_colours=False)
    images_dir = empty_dir(tmp_path / "images")
    start = find_snapshot(output)
    run_mapper(database, images_dir, output, options, resume_from=start)
    assert len(read_model(output / "0").images) == 16
    assert not list(tmp_path.glob(".sparse*"))


FULL = """
import resource, signal
from sfm_features.errors import OutputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing beyond the limit fails instead
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, resource.RLIM_INFINITY))
options = colmap.MapperOptions(extract_colours=False)
print("ready", flush=True)
try:
    colmap.run_mapper(database, folder, sparse, options)
except OutputError as error:
    assert "the disk is full" in str(error)
"""


def test_a_model_cut_off_by_a_full_disk_is_not_published(tmp_path: Path) -> None:
    database = _scene(tmp_path).import_into(tmp_path / "database.db")
    verify_pairs(database)
    _kill_after(FULL, tmp_path, 20, expected=0)
    assert not (tmp_path / "sparse").exists()
