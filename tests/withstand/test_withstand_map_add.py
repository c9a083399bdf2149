"""Adding to a map, killed in every stage: the map stays, and the next run goes on."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

from withstand_files import read_files, read_tables
from withstand_scene import write_photos
from withstand_shell import leftovers, open_shell

SIFT = ("--extractor", "sift", "--max-keypoints", "400")
CPU = ("--device", "cpu")
STAGES = (
    *("extract", "match", "import matches", "verify pairs", "add images"),
    *("align keypoints", "report"),
)
PRODUCTS = [
    *("features.h5", "pairs.txt", "matches.h5", "database.db", "sparse", "sparse/0"),
    *(f"sparse/0/{n}.bin" for n in ("cameras", "frames", "images", "points3D", "rigs")),
    *("summary.txt", "summary.json", "report.html"),
]


def test_killed_in_every_stage(tmp_path: Path) -> None:
    shell = open_shell()
    photos = write_photos(tmp_path / "photos", 9)
    new, old = tmp_path / "new", tmp_path / "old"
    for folder in (new, old):
        folder.mkdir()
    for i, path in enumerate(sorted(photos.iterdir())):
        shutil.copy(path, new if i in (2, 5, 7) else old)
    made = tmp_path / "map"
    shell.run(
        *("reconstruct", old, "--output", made, "--no-report", *SIFT, *CPU)
    ).succeed()
    before = read_files(made)
    whole, out = tmp_path / "whole", tmp_path / "out"
    shell.run("map-add", made, new, "--output", whole, *CPU).succeed()
    killed = 0
    for stage in STAGES:
        running = shell.start("map-add", made, new, "--output", out, *CPU)
        while running.is_running() and f"{stage}:" not in running.text:
            pass
        running.signal(signal.SIGKILL)
        killed += running.wait().code == -signal.SIGKILL
        assert read_files(made) == before
    assert killed >= 3
    text = shell.run("map-add", made, new, "--output", out, *CPU).succeed().text
    assert "3 of 3 new images added" in text and read_files(made) == before
    for name in (name for name in PRODUCTS if name.startswith("sparse/0/")):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    assert read_tables(out / "database.db") == read_tables(whole / "database.db")
    assert leftovers(out, PRODUCTS) == []
