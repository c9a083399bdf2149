"""Writing features and matches into a database."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pycolmap
import pytest
from colmap_scenes import Scene, make_scene
from samples import note_calls

from sfm_features.colmap import (
    CameraOptions,
    import_features_and_matches,
    read_verified,
    verify_pairs,
)
from sfm_features.colmap import database as database_module
from sfm_features.errors import InputError, OutputError
from sfm_features.types import PIXEL_CENTRE, Matches, Pair

T = TypeVar("T")


def _matches(*rows: tuple[int, int]) -> Matches:
    indices = np.array(rows, np.int32).reshape(-1, 2)
    return Matches(indices, np.ones(len(rows), np.float32))


def _import(scene: Scene, database: Path, pairs: list[tuple[Pair, Matches]]) -> None:
    import_features_and_matches(
        *(database, None, scene.names, CameraOptions(), scene.features(), pairs)
    )


def test_everything_comes_back(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    database = scene.import_into(tmp_path / "new" / "database.db")
    assert [path.name for path in database.parent.iterdir()] == ["database.db"]
    with pycolmap.Database.open(database) as handle:
        ids = {image.name: image.image_id for image in handle.read_all_images()}
        assert list(ids) == sorted(scene.names)
        assert sorted(ids.values()) == list(range(1, 11))
        assert handle.num_cameras() == 1
        assert handle.read_all_cameras()[0].has_prior_focal_length
        for name, xy in scene.keypoints.items():
            stored = handle.read_keypoints(ids[name])
            assert np.array_equal(stored, xy + np.float32(PIXEL_CENTRE))
        for (one, other), found in scene.matches.items():
            stored = handle.read_matches(ids[one], ids[other])
            assert np.array_equal(stored, found.indices)


def test_the_bar_of_matches_has_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = make_scene(tmp_path, images=3)
    totals = {}

    def show(rows: Iterable[T], desc: str, total: int, unit: str) -> Iterable[T]:
        totals[desc] = total
        return rows

    monkeypatch.setattr(database_module, "tqdm", show)
    pairs = list(scene.matches.items())
    import_features_and_matches(
        *(tmp_path / "d.db", None, scene.names, CameraOptions(), scene.features()),
        *(iter(pairs), None, False, len(pairs)),
    )
    assert totals == {"import features": 3, "import matches": len(pairs)}


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    one, other = (scene.import_into(tmp_path / name) for name in ("1.db", "2.db"))
    assert one.read_bytes() == other.read_bytes()


def test_patterns_that_match_no_image_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scene = make_scene(tmp_path)
    globs = (f"{min(scene.names)}=OPENCV", "dron/*=OPENCV")
    cameras = CameraOptions(camera_globs=globs)
    import_features_and_matches(
        *(tmp_path / "d.db", None, scene.names, cameras, scene.features(), [])
    )
    assert caplog.text.count("--camera-globs") == 1
    assert (
        f"no image is called like 'dron/*', {min(scene.names)!r} is one" in caplog.text
    )


def test_the_order_of_a_pair_does_not_matter(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, images=2)
    first, second = sorted(scene.names)
    database = tmp_path / "database.db"
    _import(scene, database, [((second, first), _matches((3, 8), (4, 9), (3, 8)))])
    with pycolmap.Database.open(database) as handle:
        assert handle.read_matches(1, 2).tolist() == [[8, 3], [9, 4]]


def test_empty_images_and_pairs_are_no_trouble(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, images=2)
    first, second = scene.names
    empty = {**scene.keypoints, first: np.zeros((0, 2), np.float32)}
    scene = replace(scene, keypoints=empty)
    _import(scene, tmp_path / "database.db", [((first, second), _matches())])
    with pycolmap.Database.open(tmp_path / "database.db") as handle:
        assert handle.num_images() == 2 and handle.num_matches() == 0


@pytest.mark.parametrize(
    ("rows", "reason"),
    [([(0, 10**6)], "other features"), ([(-1, 0)], "other features")],
)
def test_matches_of_other_features_are_refused(
    tmp_path: Path, rows: list[tuple[int, int]], reason: str
) -> None:
    scene = make_scene(tmp_path, images=2)
    first, second = scene.names
    with pytest.raises(InputError, match=f"{first} - {second}.*{reason}"):
        _import(scene, tmp_path / "new.db", [((first, second), _matches(*rows))])
    assert not (tmp_path / "new.db").exists()


def test_an_index_is_of_its_own_image(tmp_path: Path) -> None:
    """Each side has its own number of keypoints, and the last one counts."""
    scene = make_scene(tmp_path, images=2)
    a, b = scene.names
    fewer = scene.keypoints[b][:5]
    scene = replace(scene, keypoints={**scene.keypoints, b: fewer})
    last = len(scene.keypoints[a]) - 1
    _import(scene, tmp_path / "new.db", [((a, b), _matches((last, 4)))])
    for row in ((last + 1, 0), (0, 5)):
        with pytest.raises(InputError, match="other features"):
            _import(scene, tmp_path / "bad.db", [((a, b), _matches(row))])


def test_wrong_pairs_are_refused(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, images=2)
    a, b = scene.names
    one = _matches((0, 0))
    for pairs, reason in (
        ([((a, a), one)], "itself"),
        ([((a, b), one), ((b, a), one)], "twice"),
        ([((a, "absent.png"), one)], "absent.png is not among"),
    ):
        with pytest.raises(InputError, match=reason):
            _import(scene, tmp_path / "new.db", pairs)


def test_features_must_cover_the_names(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, images=2)
    options = CameraOptions()
    for names, reason in (
        ([*scene.names, "absent.png"], "absent.png: has no features"),
        (scene.names[:1], "were not asked for"),
        ([*scene.names, scene.names[0]], "names one twice"),
    ):
        with pytest.raises(InputError, match=reason):
            import_features_and_matches(
                *(tmp_path / "new.db", None, names, options, scene.features(), [])
            )


def test_a_failure_leaves_the_old_database(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, images=2)
    database = scene.import_into(tmp_path / "database.db")
    before = database.read_bytes()
    with pytest.raises(InputError):
        _import(scene, database, [((scene.names[0], "absent.png"), _matches())])
    assert database.read_bytes() == before


def test_an_import_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = note_calls(monkeypatch, os, "fsync", "replace")
    make_scene(tmp_path / "scene").import_into(tmp_path / "database.db")
    assert calls == ["fsync", "replace"]


def test_a_stale_journal_does_not_reach_the_new_database(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    database = scene.import_into(tmp_path / "database.db")
    before = database.read_bytes()
    for suffix in ("-wal", "-shm"):
        database.with_name(database.name + suffix).write_bytes(b"stale" * 1000)
    scene.import_into(database)
    assert database.read_bytes() == before
    with pycolmap.Database.open(database) as handle:
        assert handle.num_matched_image_pairs() == len(scene.matches)


def test_what_cannot_be_written_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = make_scene(tmp_path / "scene", images=2)
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(InputError, match=r"file/database.db: .*no folder .*check the"):
        scene.import_into(tmp_path / "file" / "database.db")
    with pytest.raises(InputError, match=r"folder\.db: .*is a folder; move it away"):
        scene.import_into(tmp_path / "folder.db")
    # As the superuser nothing is read-only, so the system's answers are made up.
    monkeypatch.setattr(pycolmap.Database, "open", _fail)
    monkeypatch.setattr(os, "access", lambda place, _: place != tmp_path)
    with pytest.raises(OutputError, match=r"new\.db: .*read-only.*permissions"):
        scene.import_into(tmp_path / "new.db")


def test_what_cannot_be_opened_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = make_scene(tmp_path / "s", 3).import_into(tmp_path / "database.db")
    (tmp_path / "text.db").write_text("This is not a database. " * 100)
    cut = tmp_path / "cut.db"
    cut.write_bytes(database.read_bytes()[: database.stat().st_size // 2])
    cases = {"text.db": "not a COLMAP database; give", "cut.db": "damaged, or another"}
    for name, words in cases.items():
        for use in (read_verified, verify_pairs):
            with pytest.raises(InputError, match=rf"{name}: .*{words}"):
                use(tmp_path / name)
    monkeypatch.setattr(pycolmap.Database, "open", _fail)
    usage = shutil.disk_usage(tmp_path)._replace(free=5_000)
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda _: usage)
        with pytest.raises(OutputError, match=r"database\.db: .*full; make room"):
            read_verified(database)
    monkeypatch.setattr(os, "access", lambda place, _: place != database)
    with pytest.raises(OutputError, match=r"database\.db is read-only"):
        read_verified(database)


def _fail(_: Path) -> None:
    raise RuntimeError("No registered database factory succeeded.")


def test_a_reference_keeps_its_ids_and_cameras(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene")
    reference = scene.write_truth(tmp_path / "reference")
    extra = {**scene.keypoints, "a new one.png": np.zeros((0, 2), np.float32)}
    scene = replace(scene, keypoints=extra)
    database = scene.import_into(tmp_path / "database.db", reference)
    with pycolmap.Database.open(database) as handle:
        images = {image.image_id: image for image in handle.read_all_images()}
        for image_id, image in scene.truth.images.items():
            assert images[image_id].name == image.name
            assert images[image_id].camera_id == image.camera_id
        new = handle.read_image_with_name("a new one.png")
        assert new.image_id > max(scene.truth.images)
        assert new.camera_id not in scene.truth.cameras
    smaller = replace(scene, size=(512, 384))
    with pytest.raises(InputError, match="512 x 384 pixels"):
        smaller.import_into(tmp_path / "smaller.db", reference)
