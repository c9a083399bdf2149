"""A folder or a list of queries: what is written, what is refused, and what goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from samples import make_texture, write_image

from sfm_features.cli import main
from sfm_features.errors import InputError, OptionError
from sfm_features.geometry import rotation_from_quaternion
from sfm_features.localize import _ask, _Journal, _stamp, _summarize, localize
from sfm_features.nets.vlad import save_vlad
from sfm_features.nets.weights import Card
from sfm_features.queries import (
    LocalizeOptions,
    Query,
    QueryOptions,
    add_priors,
    list_queries,
)
from sfm_features.scenes import read_truth
from sfm_features.store import FeatureStore
from sfm_features.training.codebook import fit_vlad
from sfm_features.types import Pose, RunOptions

CPU = RunOptions(device="cpu")


@pytest.fixture
def folder(town_map: tuple[Path, list[Path]], tmp_path: Path) -> Path:
    """Two queries of the town, one that is blank, one that is no image."""
    queries = tmp_path / "queries"
    (queries / "day").mkdir(parents=True)
    for path in town_map[1]:
        shutil.copy(path, queries / "day")
    write_image(queries / "blank.png", np.full((300, 400, 3), 128, np.uint8))
    (queries / "broken.jpg").write_bytes(b"\xff\xd8 not a picture")
    return queries


def _read_poses(path: Path) -> dict[str, np.ndarray]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return {line.split()[0]: np.array(line.split()[1:], float) for line in lines}


def test_poses_and_reasons_are_written(
    town_map: tuple[Path, list[Path]], folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    assert (
        main(["localize", str(town_map[0]), str(folder), "--output", str(output)]) == 0
    )
    poses = _read_poses(output / "poses.txt")
    assert set(poses) == {path.name for path in town_map[1]}
    for numbers in poses.values():
        assert np.linalg.norm(numbers[:4]) == pytest.approx(1)
    records = {r["name"]: r for r in json.loads((output / "poses.json").read_text())}
    assert records["blank.png"]["status"] == "no features"
    assert records["broken.jpg"]["status"] == "unreadable"
    for name, record in records.items():
        good = record["status"] == "localized"
        assert (record.get("pose") is not None) == good and record["reason"], name
        if good:
            numbers, pose = poses[Path(name).name], record["pose"]
            np.testing.assert_allclose(numbers[4:], pose["translation"])
            rotation = rotation_from_quaternion(numbers[:4])
            np.testing.assert_allclose(-rotation.T @ numbers[4:], pose["centre"])


def test_the_summary_tells_why_queries_failed() -> None:
    records = [
        {"name": f"{i:02d}.jpg", "status": status, "reason": "because"}
        for i, status in enumerate(["few inliers"] * 11 + ["localized", "unreadable"])
    ]
    summary = _summarize(records, 0)
    head, *lines, rest = summary.to_text().splitlines()
    assert head == "1 of 13 images localized, failed: 11 few inliers, 1 unreadable"
    assert head == summary.headline()
    assert lines == [f"  {i:02d}.jpg: few inliers (because)" for i in range(10)]
    assert rest == "  and 2 more; poses.json has all of them"
    assert _summarize(records[11:12], 0).to_text() == "1 of 1 images localized"


def test_a_list_gives_cameras_and_is_checked(
    town_photos: Path, town_map: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    name = town_map[1][0].name
    camera = read_truth(town_photos).cameras[name]
    numbers = " ".join(map(str, camera.params))
    good = f"{name} {camera.model} {camera.width} {camera.height} {numbers}"
    listed = tmp_path / "list.txt"
    text = f"\ufeff# queries\r\n\r\n{good}\r\n"  # as an editor on Windows writes it
    listed.write_text(text, encoding="utf-8", newline="")
    images = town_photos / "images"
    _, (query,) = list_queries(listed, images)
    assert query.name == name and query.camera == camera
    options = QueryOptions(images=images)
    summary = localize(town_map[0], listed, tmp_path / "out", options, run=CPU)
    assert (summary.localized, summary.total) == (1, 1)
    for text, message in (
        ("missing.jpg", "not in"),
        (f"{name}\n{name}", "twice"),
        (f"{name} PINHOLE 512", "MODEL"),
        (f"{name} PINHOLE 512 384 1.0", "MODEL"),
        (f"{name} NOTHING 512 384 1.0", "MODEL"),
        (f"{name} SIMPLE_PINHOLE 512 384 nan 256 192", "MODEL"),
        (f"{name} SIMPLE_PINHOLE 512 384 -9 256 192", "MODEL"),
        (f"{name} SIMPLE_PINHOLE 512 384", "missing"),
        ("# nothing", "names no image"),
    ):
        listed.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=message):
            list_queries(listed, images)
    other = town_map[1][1].name
    wrong = f"{name} SIMPLE_PINHOLE 99 99 90 49.5 49.5\n{other}\n"
    listed.write_text(wrong, encoding="utf-8")
    summary = localize(town_map[0], listed, tmp_path / "wrong", options, run=CPU)
    assert (summary.localized, summary.failed) == (1, {"wrong camera": 1})
    record, _ = json.loads((tmp_path / "wrong/poses.json").read_text())
    assert "99 x 99 px, the image of 512 x 384; correct the list" in record["reason"]
    listed.write_text(f"{good}\n{other}\n", encoding="utf-8")
    summary = localize(town_map[0], listed, tmp_path / "wrong", options, run=CPU)
    assert (summary.localized, summary.reused) == (2, 1)
    listed.write_text(wrong, encoding="utf-8")
    strict = RunOptions(device="cpu", strict=True)
    with pytest.raises(InputError, match="correct the list"):
        localize(town_map[0], listed, tmp_path / "strict", options, run=strict)


def test_a_list_may_name_files_with_spaces(tmp_path: Path) -> None:
    write_image(tmp_path / "my photo.png", make_texture((32, 24), 0))
    listed = tmp_path / "list.txt"
    listed.write_text("\ufeffmy photo.png\n", encoding="utf-8")
    assert list_queries(listed, None)[1] == [Query("my photo.png")]


def test_one_image_is_a_query(
    town_map: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    photo = town_map[1][0]
    assert list_queries(photo, None) == (photo.parent, [Query(photo.name)])
    summary = localize(town_map[0], photo, tmp_path / "out", run=CPU)
    assert (summary.localized, summary.total) == (1, 1)


def test_another_camera_is_another_question(
    town_map: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    """After a correction in the list, that query is not taken for finished."""
    images = town_map[1][0].parent
    names = [path.name for path in town_map[1]]
    listed, output = tmp_path / "list.txt", tmp_path / "out"
    centres, reused = [], []
    for focal in (900.0, 410.0):
        camera = f"SIMPLE_PINHOLE 512 384 {focal} 256 192"
        listed.write_text(f"{names[0]} {camera}\n{names[1]}\n", encoding="utf-8")
        options = QueryOptions(images=images)
        summary = localize(town_map[0], listed, output, options, run=CPU)
        reused.append(summary.reused)
        records = json.loads((output / "poses.json").read_text())
        centres.append([r["pose"]["centre"] for r in records if r["pose"]])
    assert reused == [0, 1]
    assert centres[0] != centres[1] and centres[0][-1] == centres[1][-1]


def test_another_prior_or_model_is_another_question(
    town_map: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    here, there = (Pose(np.eye(3), np.full(3, float(i))) for i in range(2))
    asked = {_ask(tmp_path, Query("a.jpg", None, p)) for p in (None, here, there)}
    assert len(asked) == 3
    shutil.copytree(town_map[0], tmp_path / "map")
    before = _stamp(tmp_path / "map", LocalizeOptions(), CPU)
    os.utime(tmp_path / "map/sparse/0/images.bin", (1, 1))
    assert _stamp(tmp_path / "map", LocalizeOptions(), CPU) != before


def test_priors_are_read_and_checked(
    town_map: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    queries = [Query("a.jpg"), Query("b c.jpg"), Query("d.jpg")]
    listed = tmp_path / "priors.txt"
    listed.write_text("# where\r\na.jpg 1 2 3\r\nd.jpg 1 0 0 0 1 2 3\r\n")
    a, b, d = (query.prior for query in add_priors(queries, listed))
    assert b is None and a is not None and d is not None
    np.testing.assert_allclose(a.centre, [1, 2, 3])
    np.testing.assert_allclose(d.centre, [-1, -2, -3])
    for text, message in (
        ("a.jpg 1 2", "neither"),
        ("a.jpg 1 2 x", "neither"),
        ("a.jpg 1 2 inf", "neither"),
        ("a.jpg 1 2 3 4", "neither"),
        ("a.jpg 1 0 0 0 1 2", "neither"),
        ("a.jpg 0 0 0 0 1 2 3", "neither"),
        ("e.jpg 1 2 3", "none of the queries"),
    ):
        listed.write_text(text)
        with pytest.raises(InputError, match=message):
            add_priors(queries, listed)
    name = town_map[1][0].name
    listed.write_text(f"{name} 1e6 0 0\n")
    given = ["--priors", str(listed), "--max-distance", "1", "--device", "cpu"]
    source, output = str(town_map[1][0].parent), tmp_path / "out"
    wanted = tmp_path / "wanted.txt"
    wanted.write_text(f"{name}\n{town_map[1][1].name}\n")
    command = ["localize", str(town_map[0]), str(wanted), "--images", source]
    assert main([*command, "--output", str(output), *given]) == 0
    records = json.loads((output / "poses.json").read_text())
    assert [r["status"] for r in records] == ["no candidates", "localized"]
    with pytest.raises(OptionError, match="--max-distance: needs --priors"):
        localize(*(Path(source),) * 3, options=LocalizeOptions(max_distance=1))


def test_priors_may_name_files_with_spaces(tmp_path: Path) -> None:
    """As poses.txt has them, and as lists of queries do, with a tab."""
    names = ["my photo.jpg", "day 2", "tab 1.jpg", "night 1 2 3 4"]
    listed = tmp_path / "priors.txt"
    listed.write_text(
        "my photo.jpg 1.0 0.0 0.0 0.0 1.0 2.0 3.0\nday 2 4 5 6\ntab 1.jpg\t7 8 9\n"
        "night 1 2 3 4 7 8 9\nnone of them.jpg 1 2 3\n"
    )
    found = add_priors([Query(name) for name in names], listed)
    centres = [query.prior.centre.tolist() for query in found if query.prior]
    assert centres == [[-1, -2, -3], [4, 5, 6], [7, 8, 9], [7, 8, 9]]


def test_equal_file_names_are_refused_or_kept_apart(
    town_map: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    queries = tmp_path / "queries"
    for part in "ab":
        (queries / part).mkdir(parents=True)
        shutil.copy(town_map[1][0], queries / part)
    with pytest.raises(InputError, match="--names path"):
        localize(town_map[0], queries, tmp_path / "out", run=CPU)
    options = QueryOptions(names="path")
    localize(town_map[0], queries, tmp_path / "out", options, run=CPU)
    poses = _read_poses(tmp_path / "out/poses.txt")
    assert set(poses) == {f"{part}/{town_map[1][0].name}" for part in "ab"}


def test_a_fallback_is_asked_for_and_marked(
    town_map: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    queries = tmp_path / "queries"
    write_image(queries / "other.png", make_texture((512, 384), 77))
    options = LocalizeOptions(codebook=_make_codebook(town_map[0], tmp_path))
    asked = QueryOptions(), QueryOptions(fallback="retrieval")
    for count, how in enumerate(asked):
        summary = localize(town_map[0], queries, tmp_path / "out", how, options, CPU)
        assert summary.localized == 0
        assert len(_read_poses(tmp_path / "out/poses.txt")) == count
    (record,) = json.loads((tmp_path / "out/poses.json").read_text())
    assert record["fallback"] == record["retrieved"][0]
    assert record["status"] != "localized"


def test_no_fallback_where_nothing_tells_what_looks_alike(
    town_map: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    """Without a codebook a query is matched with all images, in the order of names."""
    queries = tmp_path / "queries"
    write_image(queries / "other.png", make_texture((512, 384), 77))
    how = QueryOptions(fallback="retrieval")
    with pytest.raises(OptionError, match="--fallback retrieval: no codebook"):
        localize(town_map[0], queries, tmp_path / "out", how, run=CPU)
    assert not (tmp_path / "out").exists()


def _make_codebook(town_map: Path, folder: Path) -> Path:
    """Make a small codebook that fits the SIFT features of the town's map."""
    with FeatureStore.open(town_map / "features.h5") as store:
        local = [store.read(name).descriptors for name in store.names()]
    vlad = fit_vlad(local, 4, 6, np.random.default_rng(0))
    path = folder / "sift.safetensors"
    save_vlad(vlad, path, Card("vlad", recipe={"extractor": "sift"}))
    return path


def test_the_map_is_only_read(
    town_map: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    out, queries = town_map
    with pytest.raises(InputError, match="is the map itself"):
        localize(out, queries[0].parent, out)


def test_other_options_are_refused_and_cut_lines_forgotten(
    town_map: tuple[Path, list[Path]], folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    localize(town_map[0], folder, output, run=CPU)
    before = (output / "poses.txt").read_bytes()
    assert localize(town_map[0], folder, output, run=CPU).reused == 4
    few = LocalizeOptions(neighbours=3)
    with pytest.raises(InputError, match="made with neighbours = 20, now asked for 3;"):
        localize(town_map[0], folder, output, options=few, run=CPU)
    journal = output / "queries.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    assert localize(town_map[0], folder, output, run=CPU).reused == 3
    whole = journal.read_bytes()
    journal.write_bytes(b"{not json\n" + whole)
    with pytest.raises(InputError, match="cannot be read"):
        localize(town_map[0], folder, output, run=CPU)
    journal.write_bytes(whole)
    assert (output / "poses.txt").read_bytes() == before


def test_what_differs_from_the_poses_that_are_there_is_named(tmp_path: Path) -> None:
    path, known = (
        tmp_path / "queries.jsonl",
        {"map": "m", "seed": "0", "guided": "True"},
    )
    _Journal(path, "a", known)
    _Journal(path, "a", known)
    for other, words in (
        ({"map": "n", "seed": "1"}, "by another map, or by this one before"),
        ({"seed": "1"}, "made with seed = 0, now asked for 1"),
        ({"max_distance": "inf"}, "made with max_distance = None, now asked for inf"),
    ):
        with pytest.raises(InputError, match=f"holds poses {words}"):
            _Journal(path, "b", {**known, **other})
    path.write_text(json.dumps({"stamp": "a"}) + "\n")  # written before they were kept
    with pytest.raises(InputError, match="by another map or other options"):
        _Journal(path, "b", known)


def test_a_killed_run_goes_on(
    town_map: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    """Killed after its first query: what was done is not done again."""
    queries, output = tmp_path / "queries", tmp_path / "out"
    queries.mkdir()
    for i in range(12):
        shutil.copy(town_map[1][i % 2], queries / f"{i:02d}.jpg")
    script = str(Path(sys.executable).with_name("sfm-features"))
    command = [script, "localize", str(town_map[0]), str(queries)]
    command += ["--output", str(output), "--device", "cpu"]
    journal = output / "queries.jsonl"
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not (journal.is_file() and journal.read_bytes().count(b"\n") > 2):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    done = journal.read_bytes().count(b"\n") - 1
    assert not (output / "poses.txt").exists()
    assert not (output / "report.html").exists()
    summary = localize(town_map[0], queries, output, run=CPU)
    assert summary.localized == 12 and summary.reused == done >= 2
    assert len(_read_poses(output / "poses.txt")) == 12
    # The pictures need the matches of what was done before the kill, too.
    page = (output / "report.html").read_text(encoding="utf-8")
    assert page.count("beside <b>view") == 12
    for line in (output / "poses.json", journal):
        assert ('"matched"' in line.read_text()) == (line == journal)
