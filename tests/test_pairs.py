"""Pairing rules on cases whose answer is known, and the text file's hard names."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exif_photos import write_photo

from sfm_features import pairs
from sfm_features.errors import InputError, OptionError, PairsError
from sfm_features.pair_files import read_pairs, write_pairs
from sfm_features.store import FeatureStore
from sfm_features.types import Camera, Model, Pose, RegisteredImage


def test_exhaustive_is_every_pair_once() -> None:
    assert pairs.pair_exhaustively("cab") == [("a", "b"), ("a", "c"), ("b", "c")]


def test_sequential_steps() -> None:
    names = [f"{i:03d}" for i in range(40)]
    steps = {
        int(b) - int(a) for a, b in pairs.pair_sequentially(names, 4, quadratic=True)
    }
    assert steps == {1, 2, 3, 4, 8}
    linear = pairs.pair_sequentially(names, 4, quadratic=False)
    assert len(linear) == 39 + 38 + 37 + 36
    # The order given counts, not the alphabet.
    assert pairs.pair_sequentially(["b", "a", "c"], 1) == [("a", "b"), ("a", "c")]
    with pytest.raises(OptionError, match="--overlap 0"):
        pairs.pair_sequentially(names, 0)
    everything = pairs.pair_sequentially(names, 10**11)  # and not for ever
    assert everything == pairs.pair_exhaustively(names)
    for last in (31, 32, 33):  # the steps 16 and 32 are the last that fit
        steps = {int(b) - int(a) for a, b in pairs.pair_sequentially(names[:last], 6)}
        assert steps == {*range(1, 7), 8, 16} | ({32} if last > 32 else set())


@pytest.mark.parametrize("value", [float("nan"), -1.0, -5.0])
@pytest.mark.parametrize("option", ["max_distance", "max_angle_deg"])
def test_bounds_without_sense_are_refused(option: str, value: float) -> None:
    with pytest.raises(OptionError, match=option.replace("_", "-")):
        pairs.PairOptions(**{option: value})


def test_by_distance_and_poses() -> None:
    centres = {
        name: np.array([x, 0.0, 0])
        for name, x in zip("abcd", (0, 1, 3, 9), strict=True)
    }
    assert pairs.pair_by_distance(centres, 1) == [("a", "b"), ("b", "c"), ("c", "d")]
    assert pairs.pair_by_distance(centres, 3, max_distance=2.5) == [
        ("a", "b"),
        ("b", "c"),
    ]
    back = np.diag([-1.0, 1, -1])
    poses = {
        name: Pose(turn, -turn @ centres[name])
        for name, turn in zip("abcd", [np.eye(3), back] * 2, strict=True)
    }
    assert pairs.pair_by_poses(poses, 2) == [("a", "c"), ("b", "d")]


def test_images_without_gps_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "abc":
        write_photo(tmp_path / f"{name}.jpg", (64, 48))
    options = pairs.PairOptions(images=tmp_path)
    with pytest.raises(InputError, match="no image has a GPS position"):
        pairs.choose_pairs("gps", options)
    for name, latitude in (("d", 47.0), ("e", 47.001)):
        write_photo(tmp_path / f"{name}.jpg", (64, 48), gps=(latitude, 8.0, 500.0))
    assert pairs.choose_pairs("gps", options) == [("d.jpg", "e.jpg")]
    assert "3 of 5 images have no GPS position and get no pairs" in caplog.text
    assert "first is 'a.jpg'" in caplog.text
    with pytest.raises(InputError, match="no pair; check --max-distance"):
        pairs.choose_pairs("gps", replace(options, max_distance=50.0))


def test_no_pair_is_an_error(tmp_path: Path) -> None:
    write_photo(tmp_path / "a.jpg", (64, 48))
    for method in ("exhaustive", "sequential"):
        with pytest.raises(
            InputError, match=f"{method}: finds no pair; an image alone"
        ):
            pairs.choose_pairs(method, pairs.PairOptions(images=tmp_path))


def test_a_portrait_looks_where_the_landscape_beside_it_does() -> None:
    upright = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    poses = {
        "landscape": Pose(np.eye(3), np.zeros(3)),
        "portrait": Pose(upright, np.array([0.1, 0, 0])),
    }
    assert pairs.pair_by_poses(poses) == [("landscape", "portrait")]


def _make_image(name: str, ids: list[int]) -> RegisteredImage:
    count = len(ids)
    return RegisteredImage(
        name,
        Camera("PINHOLE", 10, 10, (1, 1, 5, 5)),
        Pose(np.eye(3), np.zeros(3)),
        np.zeros((count, 2), np.float32),
        np.array(ids),
    )


def _make_model(images: dict[str, list[int]], points: int) -> Model:
    return Model(
        {name: _make_image(name, ids) for name, ids in images.items()},
        np.zeros((points, 3)),
        np.zeros((points, 3), np.uint8),
        np.zeros(points),
        np.full(points, 2),
    )


def test_by_covisibility() -> None:
    seen = {"a": [0, 1, 2, 3, -1], "b": [1, 2, 3], "c": [3, 4, -1], "d": [-1]}
    model = _make_model(seen, 5)
    assert pairs.pair_by_covisibility(model, 1) == [("a", "b"), ("a", "c")]
    assert pairs.pair_by_covisibility(model, 9, min_shared=2) == [("a", "b")]
    assert pairs.pair_by_covisibility(_make_model({}, 0)) == []


def test_memory_does_not_grow_with_the_square_of_the_images() -> None:
    """A table of 1,200 times 1,200 numbers would take 11.5 MB."""
    names = [f"{i:04d}" for i in range(1200)]
    centres = {name: np.array([i, 0.0, 0]) for i, name in enumerate(names)}
    poses = {name: Pose(np.eye(3), -centre) for name, centre in centres.items()}
    model = _make_model({name: [i, i + 1] for i, name in enumerate(names)}, 1201)
    following = list(zip(names, names[1:], strict=False))
    for choose in (
        lambda: pairs.pair_by_poses(poses, 2),
        lambda: pairs.pair_by_distance(centres, 2),
        lambda: pairs.pair_by_covisibility(model, 2),
    ):
        tracemalloc.start()
        chosen = choose()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert set(following) <= set(chosen)
        assert peak < 4e6


def test_file_keeps_every_name(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    wanted = [("a.jpg", "ü/b.jpg"), ("my photo.jpg", "b.jpg"), ("x y", "z w")]
    write_pairs(path, wanted)
    assert read_pairs(path) == wanted
    assert path.read_text(encoding="utf-8").startswith("a.jpg ü/b.jpg\n")
    assert [p.name for p in tmp_path.iterdir()] == ["pairs.txt"]


def test_a_name_is_no_comment(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    wanted = [("#1.jpg", "#2.jpg"), ("#1.jpg", "a.jpg"), ("# 3.jpg", "a.jpg")]
    write_pairs(path, wanted)
    assert read_pairs(path) == wanted
    # As hloc reads it: two words on each line.
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [tuple(line.split()) for line in lines[:2]] == wanted[:2]


def test_file_of_another_tool(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text("# by hand\n\na b\r\nb a\na b\nmy photo.jpg b\n")
    known = ["a", "b", "my photo.jpg"]
    assert read_pairs(path, known) == [("a", "b"), ("my photo.jpg", "b")]


def test_a_mark_of_the_editor_and_wide_spaces_are_no_part_of_a_name(
    tmp_path: Path,
) -> None:
    path = tmp_path / "pairs.txt"
    lines = ["a  b", "a   c ", " a\t\tmy  photo.jpg", "my  photo.jpg  b", "b \t c"]
    path.write_text("\n".join(lines), encoding="utf-8-sig")
    assert read_pairs(path, ["a", "b", "my  photo.jpg"]) == [
        *(("a", "b"), ("a", "c"), ("a", "my  photo.jpg"), ("my  photo.jpg", "b")),
        ("b", "c"),
    ]
    path.write_text("my  photo.jpg  b\n")
    with pytest.raises(PairsError, match="line 1"):  # nothing tells where to part it
        read_pairs(path)


@pytest.mark.parametrize("line", ["alone", "a a", "three words here"])
def test_bad_lines_are_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text(f"a b\n{line}\n")
    with pytest.raises(PairsError, match=r"pairs\.txt, line 2"):
        read_pairs(path)


def test_absent_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_pairs(tmp_path / "no.txt")
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(PairsError, match="lists no pair"):
        read_pairs(tmp_path / "empty.txt")


def test_what_is_no_pairs_file_is_not_overwritten(tmp_path: Path) -> None:
    features, listed, photo = (tmp_path / n for n in ("f.h5", "q.txt", "a.jpg"))
    FeatureStore.append(features, {}).close()
    listed.write_text("a.jpg\n")
    photo.write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF")
    options = pairs.PairOptions(features=features, queries=str(listed))
    for path in (features, listed, photo):
        with pytest.raises(OptionError, match=f"{path.name}: is .* another --output"):
            pairs.refuse_loss(path, options)
    write_pairs(tmp_path / "pairs.txt", [("a", "b")])
    for name in ("pairs.txt", "new.txt"):
        pairs.refuse_loss(tmp_path / name, options)


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        ("sequential", {"queries": "abc"}, "--queries: --method sequential does not"),
        ("exhaustive", {"overlap": 3}, "--overlap: --method exhaustive does not"),
        ("covisibility", {"max_distance": 3}, "--max-distance: --method covisib"),
        ("retrieval", {"max_distance": 3}, "--max-distance: needs --images or --model"),
        ("sequential", {"features": Path("f"), "images": Path("i")}, "one of the two"),
    ],
)
def test_what_would_have_no_effect_is_refused(
    method: pairs.PairMethod, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(OptionError, match=words):
        pairs.choose_pairs(method, pairs.PairOptions(**options))
