"""A database of COLMAP taken over, beside what COLMAP and the pictures say."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pycolmap
import pytest
from samples import HELD_OUT, make_features, note_calls

from sfm_features.cli import main
from sfm_features.convert import ConvertOptions, convert
from sfm_features.errors import InputError, NameCollision, OptionError, StaleStore
from sfm_features.localize import localize
from sfm_features.match import match
from sfm_features.reconstruct import ReconstructOptions, reconstruct
from sfm_features.store import FeatureStore, MatchStore
from sfm_features.types import RunOptions

# As COLMAP made it until version 3.11, and other tools still do.
SCHEMA = """
CREATE TABLE cameras (camera_id INTEGER PRIMARY KEY, model, width, height, params,
    prior_focal_length);
CREATE TABLE images (image_id INTEGER PRIMARY KEY, name TEXT, camera_id);
CREATE TABLE keypoints (image_id INTEGER PRIMARY KEY, rows, cols, data BLOB);
CREATE TABLE descriptors (image_id INTEGER PRIMARY KEY, rows, cols, data BLOB);
CREATE TABLE matches (pair_id INTEGER PRIMARY KEY, rows, cols, data BLOB);
CREATE TABLE two_view_geometries (pair_id INTEGER PRIMARY KEY, rows, cols, data BLOB,
    config);
"""
IDS_OF_A_PAIR = 2147483647
XY = np.array([[0.5, 0.5], [10.25, 7.5], [99.5, 30], [4, 4]], np.float32)
BOTH = ConvertOptions(Path("m.h5"))
CPU = RunOptions(device="cpu")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _run(path: Path, *statements: tuple[str, Iterable[Any]]) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        for statement, values in statements:
            database.execute(statement, tuple(values))


def _put(path: Path, table: str, row: int, array: Any) -> None:
    rows, cols = array.shape
    extra = ", 2" if table == "two_view_geometries" else ""
    statement = f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?, ?{extra})"
    _run(path, (statement, (row, rows, cols, array.tobytes())))


def _make(
    path: Path = Path("x.db"),
    names: tuple[str, ...] = ("d/a.jpg", "b.jpg"),
    length: int = 128,
) -> Path:
    """Write a database of the older kind: every image has the same keypoints."""
    with closing(sqlite3.connect(path)) as database:
        database.executescript(SCHEMA)
    _run(path, ("INSERT INTO cameras VALUES (7, 0, 100, 64, NULL, 0)", ()))
    for i, name in enumerate(names, start=1):
        _run(path, ("INSERT INTO images VALUES (?, ?, 7)", (i, name)))
        _put(path, "keypoints", i, np.hstack([XY, XY]))
        rng = np.random.default_rng(i)
        described = rng.integers(0, 255, (4, length)).astype(np.uint8)
        described[3] = 0
        _put(path, "descriptors", i, described)
    if len(names) > 1:
        pair = IDS_OF_A_PAIR + 2
        _put(path, "matches", pair, np.array([[3, 1], [0, 2]], np.uint32))
        _put(path, "two_view_geometries", pair, np.array([[3, 1]], np.uint32))
    return path


def test_pixels_descriptors_and_matches() -> None:
    path = _make()
    before = path.read_bytes()
    summary = convert(path, Path("f.h5"), BOTH)
    assert summary.to_text() == "2 images, 1 pairs"
    with FeatureStore.open(Path("f.h5")) as store:
        assert store.names() == ["b.jpg", "d/a.jpg"]
        found = store.read("d/a.jpg")
        assert found.image_size == (100, 64)
        # The centre of the top-left pixel is (0.5, 0.5) in COLMAP and (0, 0) here.
        assert np.array_equal(found.keypoints, XY - 0.5)
        stored = np.random.default_rng(1).integers(0, 255, (4, 128)).astype(float)[:3]
        stored /= np.linalg.norm(stored, axis=1, keepdims=True)
        assert np.abs(found.descriptors[:3] - stored).max() < 2e-4
        assert (found.descriptors[3] == 0).all() and (found.scores == 1).all()
        assert store.config["extractor"] == "sift"
        assert store.config["source"] == "COLMAP database"
        prints = store.fingerprint("b.jpg"), store.fingerprint("d/a.jpg")
    with MatchStore.open(Path("m.h5")) as matches:
        assert matches.pairs(["b.jpg", "d/a.jpg"]) == [("d/a.jpg", "b.jpg")]
        assert matches.has_of(("b.jpg", "d/a.jpg"), prints)
        turned = matches.read(("b.jpg", "d/a.jpg")).indices
        assert sorted(turned.tolist()) == [[1, 3], [2, 0]]
        assert matches.config["features.extractor"] == "sift"
    convert(path, Path("f.h5"), ConvertOptions(Path("v.h5"), verified=True))
    with MatchStore.open(Path("v.h5")) as matches:
        assert matches.read(("d/a.jpg", "b.jpg")).indices.tolist() == [[3, 1]]
    assert path.read_bytes() == before
    beside = {p.name for p in Path().iterdir()}
    assert beside == {"x.db", "f.h5", "m.h5", "v.h5"}


def test_again_only_what_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    path = _make()
    convert(path, Path("f.h5"), BOTH)
    before = [Path(name).stat().st_mtime_ns for name in ("f.h5", "m.h5")]
    convert(path, Path("f.h5"), BOTH)
    assert [Path(n).stat().st_mtime_ns for n in ("f.h5", "m.h5")] == before
    writes = note_calls(monkeypatch, FeatureStore, "write")
    writes_of_matches = note_calls(monkeypatch, MatchStore, "write")
    _put(path, "matches", IDS_OF_A_PAIR + 2, np.array([[1, 1]], np.uint32))
    convert(path, Path("f.h5"), BOTH)
    assert (len(writes), len(writes_of_matches)) == (0, 1)
    _put(path, "descriptors", 2, np.ones((4, 128), np.uint8))
    convert(path, Path("f.h5"), BOTH)
    assert (len(writes), len(writes_of_matches)) == (1, 1)
    _put(path, "keypoints", 1, XY + 1)  # and its matches are of these now
    convert(path, Path("f.h5"), BOTH)
    assert (len(writes), len(writes_of_matches)) == (2, 2)
    with pytest.raises(StaleStore, match="verified = False, now asked for True"):
        convert(path, Path("f.h5"), ConvertOptions(Path("m.h5"), verified=True))
    new = ConvertOptions(Path("m.h5"), verified=True, overwrite=True)
    assert convert(path, Path("f.h5"), new).pairs == 1


def test_images_without_features_are_told(caplog: pytest.LogCaptureFixture) -> None:
    path = _make(names=("a", "b", "c", "d"))
    _run(
        path,
        ("DELETE FROM keypoints WHERE image_id = 2", ()),
        ("DELETE FROM descriptors WHERE image_id IN (2, 3)", ()),
        ("INSERT INTO images VALUES (9, 'e', 7)", ()),
    )
    one = np.array([[0, 0]], np.uint32)
    for ids in ((1, 3), (1, 4), (1, 8), (4, 4)):
        _put(path, "matches", IDS_OF_A_PAIR * ids[0] + ids[1], one)
    summary = convert(path, Path("f.h5"), BOTH)
    assert "left out 2 of 5 images that have no keypoints, 'b' first" in caplog.text
    assert "left out 1 of 3 images that have no descriptors, 'c' first" in caplog.text
    assert "left out 4 pairs of images without features" in caplog.text
    assert summary.left_out == ["b", "c", "e"] and summary.pairs == 1
    assert summary.to_text() == "2 images, 1 pairs, 3 images left out"


def test_a_database_without_descriptors_serves_with_its_matches(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As hloc, and we, write them."""
    path = _make()
    _run(path, ("DELETE FROM descriptors", ()))
    with pytest.raises(InputError, match="no descriptors.*with --matches"):
        convert(path, Path("f.h5"))
    for _ in range(2):
        assert convert(path, Path("f.h5"), BOTH).images == 2
    assert "has no descriptors" in caplog.text
    with FeatureStore.open(Path("f.h5")) as store:
        assert len(store.read_keypoints("b.jpg")) == 4
    with pytest.raises(
        InputError, match=r"f\.h5: has keypoints of 'b\.jpg' but no des"
    ):
        match(Path("f.h5"), [("b.jpg", "d/a.jpg")], Path("again.h5"), run=CPU)


def test_a_keypoint_has_one_match(caplog: pytest.LogCaptureFixture) -> None:
    path = _make()
    many = np.array([[0, 2], [1, 1], [0, 3], [2, 1]], np.uint32)
    _put(path, "matches", IDS_OF_A_PAIR + 2, many)
    convert(path, Path("f.h5"), BOTH)
    assert "left out 1 matches of keypoints that have another one" in caplog.text
    with MatchStore.open(Path("m.h5")) as matches:
        found = matches.read(("d/a.jpg", "b.jpg")).indices
    assert found.tolist() == [[0, 2], [1, 1], [2, 1]]


def _spoil(statement: str, *values: Any) -> Callable[[Path], None]:
    return lambda path: _run(path, (statement, values))


def _replace(table: str, row: int, array: Any) -> Callable[[Path], None]:
    return lambda path: _put(path, table, row, np.asarray(array))


def _set_name(name: Any) -> Callable[[Path], None]:
    return _spoil("UPDATE images SET name = ? WHERE image_id = 2", name)


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (Path.unlink, "no such database"),
        (lambda path: path.write_bytes(b"no"), "damaged|not a COLMAP database"),
        (lambda path: path.write_bytes(b""), "is not a COLMAP database"),
        (lambda path: path.write_bytes(path.read_bytes()[:9000]), "damaged"),
        (lambda path: (path.unlink(), path.mkdir()), "is a folder"),
        (_spoil("DROP TABLE keypoints"), "has no keypoints"),
        (_spoil("DELETE FROM keypoints"), "none of its 2 images has keypoints"),
        (_spoil("DELETE FROM cameras"), "'d/a.jpg' has no camera with a size"),
        (_spoil("UPDATE cameras SET width = 0"), "no camera with a size"),
        (_spoil("UPDATE cameras SET width = 'wide'"), "cannot be read"),
        (_spoil("UPDATE keypoints SET rows = 3"), "3 keypoints but 4 descriptors"),
        (_spoil("UPDATE keypoints SET cols = 3"), "bytes are stored of an array of 4"),
        (_spoil("UPDATE keypoints SET data = 'text'"), "bytes are stored of an array"),
        (_spoil("UPDATE keypoints SET data = NULL"), "0 bytes are stored of an array"),
        (_spoil("UPDATE keypoints SET cols = -4"), "bytes are stored of an array"),
        (_spoil("UPDATE descriptors SET data = x'00'"), "1 bytes are stored of"),
        (_replace("keypoints", 1, np.full((4, 2), np.nan, "f4")), "are no positions"),
        (_replace("keypoints", 1, np.ones((4, 1), "f4")), "are no positions"),
        (_replace("matches", IDS_OF_A_PAIR + 2, np.array([[0, 4]], "u4")), "outside"),
        (_replace("matches", IDS_OF_A_PAIR + 2, np.array([[0, -1]], "i4")), "no indic"),
        (_replace("matches", IDS_OF_A_PAIR + 2, np.array([[0]], "u4")), "no indices"),
        (_set_name("d-a.jpg"), "share the key"),
        (_set_name("d"), "is the folder of"),
        (_set_name("/b.jpg"), "cannot be used"),
        (_set_name("../b.jpg"), "cannot be used"),
        (_set_name(""), "cannot be used"),
        (_set_name("b\0.jpg"), "cannot be used"),
        (_spoil("UPDATE images SET name = CAST(x'ff' AS TEXT)"), "cannot be used"),
        (_spoil("UPDATE images SET name = NULL"), "image 1 has no name"),
    ],
)
def test_bad_databases_are_named(spoil: Callable[[Path], Any], cause: str) -> None:
    path = _make()
    spoil(path)
    with pytest.raises(InputError, match=cause) as caught:
        convert(path, Path("f.h5"), BOTH)
    assert isinstance(caught.value, NameCollision) or "x.db" in str(caught.value)


def test_matches_that_are_not_there() -> None:
    path = _make()
    verified = ConvertOptions(Path("m.h5"), verified=True)
    _run(path, ("DELETE FROM matches", ()))  # as some tools leave them
    with pytest.raises(InputError, match="has verified matches only; add --verified"):
        convert(path, Path("f.h5"), BOTH)
    assert convert(path, Path("f.h5"), verified).pairs == 1
    _run(path, ("DROP TABLE two_view_geometries", ()))
    for options in (BOTH, verified):
        with pytest.raises(InputError, match="has no matches; leave out --matches"):
            convert(path, Path("g.h5"), options)
    _put(path, "matches", IDS_OF_A_PAIR + 2, np.array([[0, 0]], np.uint32))
    with pytest.raises(InputError, match="no verified matches; leave out --verified"):
        convert(path, Path("g.h5"), verified)
    assert not Path("g.h5").exists()


def test_a_database_that_is_open_elsewhere() -> None:
    """What was committed there counts, though it is not in the file itself yet."""
    path = _make()
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("UPDATE images SET name = 'c.jpg' WHERE image_id = 2")
        other.commit()
        other.execute("UPDATE images SET name = 'no.jpg' WHERE image_id = 1")
        assert Path("x.db-wal").stat().st_size
        convert(path, Path("f.h5"))
    with FeatureStore.open(Path("f.h5")) as store:
        assert store.names() == ["c.jpg", "d/a.jpg"]


def test_files_are_not_mixed_up(capsys: pytest.CaptureFixture[str]) -> None:
    path = _make()
    before = path.read_bytes()
    for features, options in (
        (path, ConvertOptions(overwrite=True)),
        (Path("f.h5"), ConvertOptions(path, overwrite=True)),
        (Path("f.h5"), ConvertOptions(Path("./f.h5"))),
    ):
        with pytest.raises(OptionError, match="choose another"):
            convert(path, features, options)
    assert path.read_bytes() == before and not Path("f.h5").exists()
    assert main(["convert", "x.db", "--features", "f.h5", "--verified"]) == 2
    assert "give --matches" in capsys.readouterr().err
    assert main(["convert", "x.db", "--features", "f.h5", "--matches", "m.h5"]) == 0
    assert "2 images, 1 pairs" in capsys.readouterr().err


def test_learned_features_of_colmap() -> None:
    """They are numbers of 4 bytes each, and not taken for SIFT by their 128 bytes."""
    path, given = Path("x.db"), make_features(5, 32)
    kind = pycolmap.FeatureExtractorType
    with pycolmap.Database.open(path) as database:
        camera = pycolmap.Camera(model="PINHOLE", width=90, height=60, params=[1] * 4)
        camera_id = database.write_camera(camera)
        image = pycolmap.Image(name="a.jpg", camera_id=camera_id)
        image_id = database.write_image(image)
        database.write_keypoints(image_id, given.keypoints)
        floats = pycolmap.FeatureDescriptorsFloat(kind.ALIKED_N16ROT, given.descriptors)
        stored = pycolmap.FeatureDescriptors.from_float(floats)
        database.write_descriptors(image_id, stored)
    convert(path, Path("f.h5"))
    with FeatureStore.open(Path("f.h5")) as store:
        assert np.abs(store.read("a.jpg").descriptors - given.descriptors).max() < 3e-4
        assert store.config["extractor"] == "colmap-aliked_n16rot"
    _run(path, ("UPDATE descriptors SET type = 99", ()))
    with pytest.raises(InputError, match=r"a kind \(99\) that is not known"):
        convert(path, Path("g.h5"))
    _run(
        path,
        ("INSERT INTO descriptors VALUES (77, 0, 0, 128, NULL)", ()),
    )
    with pytest.raises(InputError, match="features of 2 kinds"):
        convert(path, Path("g.h5"))


def test_from_colmaps_sift_to_poses(town_photos: Path, tmp_path: Path) -> None:
    """COLMAP finds and matches, we reconstruct, and localize by SIFT of our own."""
    photos = sorted((town_photos / "images").iterdir())
    (tmp_path / "photos").mkdir()
    (tmp_path / "new").mkdir()
    for i, photo in enumerate(photos):
        shutil.copy(photo, tmp_path / ("new" if i in HELD_OUT else "photos"))
    pycolmap.logging.minloglevel = 2
    path = tmp_path / "database.db"
    options = pycolmap.FeatureExtractionOptions(use_gpu=False, num_threads=1)
    pycolmap.extract_features(path, tmp_path / "photos", extraction_options=options)
    matching = pycolmap.FeatureMatchingOptions(use_gpu=False, num_threads=1)
    pycolmap.match_exhaustive(path, matching_options=matching)
    made = ConvertOptions(tmp_path / "m.h5")
    assert convert(path, tmp_path / "f.h5", made).images == 10
    with MatchStore.open(tmp_path / "m.h5") as store:
        names = sorted(p.name for p in (tmp_path / "photos").iterdir())
        pairs = store.pairs(names)[:3]
    match(tmp_path / "f.h5", pairs, tmp_path / "ours.h5", run=CPU)
    with (
        MatchStore.open(tmp_path / "ours.h5") as ours,
        MatchStore.open(tmp_path / "m.h5") as theirs,
    ):
        # As SIFT should be matched, and as COLMAP matched it.
        assert (ours.config["name"], ours.config["ratio"]) == ("nearest", 0.8)
        for pair in pairs:
            a, b = ({*map(tuple, s.read(pair).indices)} for s in (ours, theirs))
            # COLMAP also bounds the distance, and its ratio is of angles.
            assert len(a & b) > 0.95 * len(b) and len(a) < 1.25 * len(b)
    given = ReconstructOptions(
        features=tmp_path / "f.h5", matches=tmp_path / "m.h5", report=False
    )
    summary = reconstruct(tmp_path / "photos", tmp_path / "map", given, run=CPU)
    assert "10 of 10" in summary.to_text()
    shutil.copy(tmp_path / "f.h5", tmp_path / "map" / "features.h5")
    found = localize(tmp_path / "map", tmp_path / "new", tmp_path / "poses", run=CPU)
    assert "2 of 2" in found.to_text()
    with h5py.File(tmp_path / "map" / "features.h5", "r+") as file:
        file.attrs["config"] = '{"extractor": "colmap-aliked_n16rot"}'
    with pytest.raises(InputError, match="features are colmap-aliked_n16rot's, which"):
        localize(tmp_path / "map", tmp_path / "new", tmp_path / "poses2", run=CPU)


def test_what_is_made_is_hlocs_layout() -> None:
    convert(_make(), Path("f.h5"), BOTH)
    with h5py.File("f.h5") as file:
        assert file["d/a.jpg/descriptors"].shape == (128, 4)
        assert file["d/a.jpg/keypoints"].shape == (4, 2)
    with h5py.File("m.h5") as file:
        assert file["d-a.jpg/b.jpg/matches0"][()].tolist() == [2, -1, -1, 1]
