"""kill -9 at any moment: nothing is lost, nothing half-done is taken for done."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from withstand_files import (
    check_store,
    copy_with_companions,
    read_files,
    read_hdf5,
    read_tables,
)
from withstand_scene import write_photos
from withstand_shell import Running, Shell, leftovers, open_shell

from sfm_features import colmap
from sfm_features.colmap.files import is_whole
from sfm_features.store import FeatureStore, MatchStore

KILLS = 20
_CALIBRATED = 2  # a geometry of COLMAP
FEW = ("--max-keypoints", 300)
PRODUCTS = (
    *("features.h5", "pairs.txt", "matches.h5", "database.db", "sparse", "sparse/0"),
    *(f"sparse/0/{n}.bin" for n in ("cameras", "frames", "images", "points3D", "rigs")),
    *("summary.json", "summary.txt"),
)


@pytest.fixture
def shell() -> Shell:
    return open_shell()


class Killer:
    """Runs one command again and again, killing it at random moments.

    `last` is what it says at its end, so that only kills before it count.
    """

    def __init__(self, shell: Shell, last: str, *arguments: object) -> None:
        self._shell = shell
        self._last = last
        self._arguments = arguments
        self.stages: Counter[str] = Counter()

    def run_whole(self) -> float:
        """Run to the end, committing at every write; return the seconds."""
        start = time.perf_counter()
        running = self._start()
        running.wait_for(self._last)
        seconds = time.perf_counter() - start
        running.wait().succeed()
        return seconds

    def _start(self) -> Running:
        return self._shell.start(*self._arguments, commit_often=True)

    def kill(
        self,
        seconds: float,
        seed: int,
        check: Callable[[], object],
        finish: Callable[[], object],
    ) -> None:
        """Kill KILLS runs in the middle; `check` after each, `finish` what was done."""
        rng = random.Random(seed)
        for _ in range(5 * KILLS):
            running = self._start()
            time.sleep(rng.uniform(0, seconds))
            running.signal(signal.SIGKILL)
            result = running.wait()
            assert result.code in (0, -signal.SIGKILL), result.text
            if self._last in result.text:
                finish()
                seconds *= 0.9  # the machine was busier when they were measured
                continue
            self.stages[running.bar] += 1
            check()
            if self.stages.total() == KILLS:
                return
        raise AssertionError(f"too few kills landed: {self.stages}")


def test_extract(tmp_path: Path, shell: Shell) -> None:
    photos = write_photos(tmp_path / "photos", 16)
    out, whole = tmp_path / "out" / "f.h5", tmp_path / "whole.h5"
    out.parent.mkdir()
    how = ("features: ", "extract", photos, *FEW, "--output")
    seconds = Killer(shell, *how, whole).run_whole()
    content = read_hdf5(whole)
    killer = Killer(shell, *how, out)
    counts = []

    def check() -> None:
        if out.exists():
            scratch = tmp_path / "scratch"
            counts.append(check_store(out, FeatureStore, content, scratch))

    def start_over() -> None:
        assert read_hdf5(out) == content
        assert leftovers(out.parent, [out.name]) == []
        out.unlink()

    killer.kill(seconds, 1, check, start_over)
    killer.run_whole()
    start_over()
    assert len({count for count in counts if 0 < count < 16}) >= 3, counts


def test_match(tmp_path: Path, shell: Shell) -> None:
    photos = write_photos(tmp_path / "photos", 9)
    features, pairs = tmp_path / "f.h5", tmp_path / "pairs.txt"
    shell.run("extract", photos, "--output", features, *FEW).succeed()
    made = ("--method", "exhaustive", "--features", features, "--output", pairs)
    shell.run("pairs", *made).succeed()
    out, whole = tmp_path / "out" / "m.h5", tmp_path / "whole.h5"
    out.parent.mkdir()
    how = ("matches: ", "match", features, "--pairs", pairs, "--output")
    seconds = Killer(shell, *how, whole).run_whole()
    content = read_hdf5(whole)
    killer = Killer(shell, *how, out)
    counts = []

    def check() -> None:
        if out.exists():
            counts.append(check_store(out, MatchStore, content, tmp_path / "scratch"))

    def start_over() -> None:
        assert read_hdf5(out) == content
        assert leftovers(out.parent, [out.name]) == []
        out.unlink()

    killer.kill(seconds, 2, check, start_over)
    killer.run_whole()
    start_over()
    assert len({count for count in counts if 0 < count < 36}) >= 3, counts


class Reference:
    """The uninterrupted result of a command, to compare with.

    `models` is the folder that appears whole or not at all.
    """

    def __init__(self, root: Path, models: str = "sparse") -> None:
        self._place = models
        self.features = read_hdf5(root / "features.h5")
        self.matches = read_hdf5(root / "matches.h5")
        self.tables = read_tables(root / "database.db")
        self.models = read_files(root / models)
        self.summary = self._read_summary(root)

    @staticmethod
    def _read_summary(root: Path) -> dict[str, object]:
        summary = json.loads((root / "summary.json").read_text())
        assert (root / "summary.txt").read_text().count("\n") >= 2
        return {key: value for key, value in summary.items() if key != "seconds"}

    def check_partial(self, root: Path, scratch: Path) -> None:
        """Assert that whatever is there is a part of the whole."""
        for name, kind, content in (
            ("features.h5", FeatureStore, self.features),
            ("matches.h5", MatchStore, self.matches),
        ):
            if (root / name).exists():
                check_store(root / name, kind, content, scratch)
        if (root / "database.db").exists():
            tables = read_tables(copy_with_companions(root / "database.db", scratch))
            for table, rows in tables.items():
                if table == "two_view_geometries":
                    # Before it verifies by poses, COLMAP writes them without matches.
                    done = {row for row in rows if (row[1], row[4]) != (0, _CALIBRATED)}
                    assert done <= set(self.tables[table])
                else:
                    assert rows == self.tables[table], table
        if (root / self._place).exists():
            assert read_files(root / self._place) == self.models
        if (root / "summary.json").exists():
            assert self._read_summary(root) == self.summary

    def check_whole(self, root: Path) -> None:
        """Assert that everything is there, and nothing else."""
        assert read_hdf5(root / "features.h5") == self.features
        assert read_hdf5(root / "matches.h5") == self.matches
        assert read_tables(root / "database.db") == self.tables
        assert read_files(root / self._place) == self.models
        assert self._read_summary(root) == self.summary
        assert leftovers(root, PRODUCTS) == []


def test_reconstruct(tmp_path: Path, shell: Shell) -> None:
    photos = write_photos(tmp_path / "photos", 6)
    out, whole = tmp_path / "out", tmp_path / "whole"
    how = ("seconds: ", "reconstruct", photos, *FEW, "--no-report", "--output")
    seconds = Killer(shell, *how, whole).run_whole()
    reference = Reference(whole)
    assert reference.summary["models"][0]["registered"] == 6  # type: ignore[index]
    killer = Killer(shell, *how, out)

    def start_over() -> None:
        reference.check_whole(out)
        shutil.rmtree(out)

    def check() -> None:
        reference.check_partial(out, tmp_path / "scratch")

    killer.kill(seconds, 3, check, start_over)
    killer.run_whole()
    reference.check_whole(out)
    assert len(set(killer.stages) - {""}) >= 3, killer.stages


def test_triangulate(tmp_path: Path, shell: Shell) -> None:
    photos = write_photos(tmp_path / "photos", 6)
    posed, out, whole = (tmp_path / name for name in ("posed", "out", "whole"))
    shell.run("reconstruct", photos, *FEW, "--no-report", "--output", posed).succeed()
    how = ("triangulate", posed / "sparse/0", photos, *FEW, "--no-report", "--output")
    shell.run(*how, whole).succeed()
    reference = Reference(whole, "sparse/0")
    assert reference.summary["models"][0]["registered"] == 6  # type: ignore[index]
    for number, stage in enumerate(("extract", "match", "verify pairs", "triangulate")):
        running = shell.start(*how, out, commit_often=True)
        running.wait_for(stage)
        time.sleep(0.02 * number)
        running.signal(signal.SIGKILL)
        running.wait()
        reference.check_partial(out, tmp_path / "scratch")
    shell.run(*how, out).succeed()
    reference.check_whole(out)


def test_mapping_resumes_from_snapshots(tmp_path: Path, shell: Shell) -> None:
    photos = write_photos(tmp_path / "photos", 14)
    out, whole = tmp_path / "out", tmp_path / "whole"
    unpolished = out / "unpolished"
    how = ("reconstruct", photos, *FEW, "--no-report", "--snapshot-images", 1)
    shell.run(*how, "--output", whole).succeed()
    reference = colmap.read_model(whole / "sparse/0")
    resumed = 0
    for attempt in range(8):
        running = shell.start(*how, "--output", out)
        running.wait_for("map images")
        # However slow the machine: there is something to resume from when it is killed.
        while running.is_running() and colmap.find_snapshot(unpolished) is None:
            time.sleep(0.01)
        time.sleep(0.02 * attempt)
        running.signal(signal.SIGKILL)
        resumed += "resuming from" in running.wait().text
        if (out / "sparse").exists():
            assert is_whole(out / "sparse/0")
            break
    shell.run(*how, "--output", out).succeed()
    assert resumed
    model = colmap.read_model(out / "sparse/0")
    assert set(model.images) == set(reference.images)
    assert leftovers(out, PRODUCTS) == []
    assert _shape_difference(model, reference) < 0.01


def _shape_difference(model: colmap.Model, reference: colmap.Model) -> float:
    """Compare the distances between camera centres, each in units of their mean."""
    shapes = []
    for found in (model, reference):
        poses = [found.images[name].cam_from_world for name in sorted(found.images)]
        centres = np.array([pose.centre for pose in poses])
        distances = np.linalg.norm(centres[:, None] - centres, axis=-1)
        shapes.append(distances / distances.mean())
    return float(np.abs(shapes[0] - shapes[1]).max())


def test_report(tmp_path: Path, shell: Shell) -> None:
    pytest.importorskip("plotly")
    photos = write_photos(tmp_path / "photos", 6)
    out = tmp_path / "out"
    how = ("reconstruct", photos, *FEW, "--output", out)
    shell.run(*how, "--no-report").succeed()
    start = time.perf_counter()
    shell.run(*how).succeed()
    seconds = time.perf_counter() - start
    rng = random.Random(4)
    (out / "report.html").unlink()
    for _ in range(4):
        running = shell.start(*how)
        time.sleep(rng.uniform(0.3, 0.95) * seconds)
        running.signal(signal.SIGKILL)
        running.wait()
        report = out / "report.html"
        assert not report.exists() or "</html>" in report.read_text()[-200:]
    shell.run(*how).succeed()
    assert leftovers(out, [*PRODUCTS, "report.html"]) == []
