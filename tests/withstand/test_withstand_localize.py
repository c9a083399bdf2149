"""Localization in bad conditions: kills, maps without photos, files that attack."""

from __future__ import annotations

import json
import pickle
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest
from withstand_shell import Shell, open_shell

from sfm_features.colmap import read_model, write_model
from sfm_features.training.checkpoints import load_checkpoint
from sfm_features.training.label_store import read_labels
from sfm_features.types import Model

QUERIES = 8


@pytest.fixture
def shell() -> Shell:
    return open_shell()


def _read_records(output: Path) -> dict[str, dict[str, object]]:
    return {r["name"]: r for r in json.loads((output / "poses.json").read_text())}


def test_killed_after_each_query(
    town_map: tuple[Path, list[Path]], tmp_path: Path, shell: Shell
) -> None:
    """kill -9 in a loop: each run does more, and no query is done twice."""
    queries, output = tmp_path / "queries", tmp_path / "out"
    queries.mkdir()
    for i in range(QUERIES):
        shutil.copy(town_map[1][i % 2], queries / f"{i:02d}.jpg")
    how = ("localize", town_map[0], queries, "--device", "cpu", "--output")
    journal = output / "queries.jsonl"

    def count() -> int:
        return journal.read_bytes().count(b"\n") - 1 if journal.is_file() else 0

    kills = 0
    while not (output / "poses.txt").exists():
        running, before = shell.start(*how, output), max(count(), 0)
        while running.is_running() and count() <= before:
            pass
        running.signal(signal.SIGKILL)
        kills += running.wait().code == -signal.SIGKILL
        assert count() > before or (output / "poses.txt").exists()
    assert kills >= 3
    shell.run(*how, output).succeed()
    lines = [json.loads(line) for line in journal.read_text().splitlines()[1:]]
    assert set(Counter(line["name"] for line in lines).values()) == {1}
    shell.run(*how, tmp_path / "whole").succeed()
    poses = [(out / "poses.txt").read_bytes() for out in (output, tmp_path / "whole")]
    assert poses[0] == poses[1] and poses[0].count(b"\n") == QUERIES


def test_a_map_that_has_moved_without_its_photos(
    town_map: tuple[Path, list[Path]], tmp_path: Path, shell: Shell
) -> None:
    """Nor need the model have all images of the feature file."""
    folder, output = tmp_path / "moved", tmp_path / "out"
    folder.mkdir()
    shutil.copy(town_map[0] / "features.h5", folder)
    model = read_model(town_map[0] / "sparse/0")
    left_out = sorted(model.images)[0]
    images = {n: image for n, image in model.images.items() if n != left_out}
    fewer = Model(
        images, model.points, model.colours, model.errors_px, model.track_lengths
    )
    write_model(fewer, folder / "sparse/0")
    queries = tmp_path / "queries"
    queries.mkdir()
    shutil.copy(town_map[1][0], queries)
    shell.run("localize", folder, queries, "--output", output).succeed()
    (record,) = _read_records(output).values()
    assert record["status"] == "localized"
    assert set(record["retrieved"]) == set(images)  # type: ignore[call-overload]


class Trap:
    """Whoever unpickles it makes a file."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.sign,)


def test_pickles_are_not_run(
    town_map: tuple[Path, list[Path]], tmp_path: Path, shell: Shell
) -> None:
    """In every place where a file of features, weights, labels or poses is read."""
    sign, folder = tmp_path / "executed", tmp_path / "map"
    attack = pickle.dumps(Trap(sign), protocol=2)  # as torch writes it
    pickle.loads(attack)
    assert sign.exists(), "the attack does not work"
    sign.unlink()
    shutil.copytree(town_map[0], folder)
    queries = town_map[1][0].parent
    evil = tmp_path / "evil"
    for suffix in ("npz", "npy", "pt", "safetensors", "h5", "txt"):
        evil.with_suffix(f".{suffix}").write_bytes(attack)
    how = ("localize", folder, queries, "--output", tmp_path / "out")
    shell.run(*how, "--codebook", evil.with_suffix(".safetensors")).fail()
    shell.run(*how, "--priors", evil.with_suffix(".txt")).fail("evil.txt")
    listed = ("localize", folder, evil.with_suffix(".txt"), "--output")
    shell.run(*listed, tmp_path / "out").fail("evil.txt")
    for method, suffix in (("evo", "safetensors"), ("evo", "pt"), ("aliked", "pt")):
        weights = evil.with_suffix(f".{suffix}")
        extract = ("extract", queries, "--output", tmp_path / f"{method}-{suffix}.h5")
        shell.run(*extract, "--extractor", method, "--weights", weights).fail("evil")
    (folder / "features.h5").write_bytes(attack)
    shell.run(*how).fail("features.h5")
    assert read_labels(evil.with_suffix(".npz")) == {}
    run = tmp_path / "run"
    run.mkdir()
    (run / "00000001-00.pt").write_bytes(attack)
    assert load_checkpoint(run, {}) is None
    assert not sign.exists()
