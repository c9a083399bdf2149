"""The HDF5 layout: ours read by hloc's rules, hloc's read by ours, damage named."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from samples import make_features

from sfm_features.errors import (
    DamagedStore,
    InputError,
    NameCollision,
    SfmError,
    StaleStore,
    StoreError,
)
from sfm_features.store import FeatureStore, MatchStore, read_arrays, refuse_collisions
from sfm_features.types import Matches

NAMES = ["a.jpg", "day/b c.png", "day/ü/ж.jpg", "night/b_c.png"]


# ---- hloc's way of reading, written from its format description


def hloc_names(path: Path) -> list[str]:
    found: list[str] = []
    with h5py.File(path) as file:
        file.visititems(
            lambda _, item: (
                found.append(item.parent.name.strip("/"))
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
    return sorted(set(found))


def hloc_matches(path: Path, a: str, b: str) -> tuple[np.ndarray, np.ndarray]:
    with h5py.File(path) as file:
        for first, second, is_back in ((a, b, False), (b, a, True)):
            key = first.replace("/", "-") + "/" + second.replace("/", "-")
            if key in file:
                vector = file[key]["matches0"][()]
                scores = file[key]["matching_scores0"][()]
                at = np.where(vector != -1)[0]
                pairs = np.stack([at, vector[at]], -1)
                return (pairs[:, ::-1] if is_back else pairs), scores[at]
    raise KeyError((a, b))


def test_a_database_of_colmap_is_told_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "database.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE images (name TEXT)")
    before = path.read_bytes()
    for kind in (FeatureStore, MatchStore):
        for call in (
            lambda kind=kind: kind.open(path),
            lambda kind=kind: kind.append(path, {}),
            lambda kind=kind: kind.append(path, {}, anew=True),
        ):
            with pytest.raises(SfmError, match="is a COLMAP database") as caught:
                call()
            assert "delete" not in str(caught.value)
    assert path.read_bytes() == before


def test_hloc_reads_our_features(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    features = {name: make_features(seed=i) for i, name in enumerate(NAMES)}
    with FeatureStore.append(path, {}) as store:
        for name, value in features.items():
            store.write(name, value)
    assert hloc_names(path) == sorted(NAMES)
    with h5py.File(path) as file:
        for name, value in features.items():
            group = file[name]
            assert group["keypoints"].dtype == np.float32
            np.testing.assert_array_equal(group["keypoints"][()], value.keypoints)
            assert group["keypoints"].attrs["uncertainty"] == 1.5
            assert group["descriptors"].shape == (32, 50)
            assert group["descriptors"].dtype == np.float16
            assert group["image_size"][()].tolist() == [4000, 3000]
            assert group["image_size"].dtype == np.int64


def test_we_read_hloc_features(tmp_path: Path) -> None:
    path = tmp_path / "hloc.h5"
    value = make_features()
    for name, score_key in (("db/1.jpg", "scores"), ("q/2.jpg", "keypoint_scores")):
        with h5py.File(path, "a", libver="latest") as file:
            group = file.create_group(name)
            group["keypoints"] = value.keypoints.astype(np.float16)
            group["keypoints"].attrs["uncertainty"] = 2.0
            group["descriptors"] = value.descriptors.T.astype(np.float16)
            group[score_key] = value.scores.astype(np.float16)
            group["image_size"] = np.array([4000, 3000])
    with h5py.File(path, "a") as file:
        file.create_group("half.jpg")["keypoints"] = value.keypoints
    with FeatureStore.open(path) as store:
        assert store.names() == ["db/1.jpg", "q/2.jpg"]
        assert "half.jpg" not in store
        read = store.read("q/2.jpg")
    assert read.keypoints.dtype == np.float32
    np.testing.assert_allclose(read.keypoints, value.keypoints, atol=1.0)
    np.testing.assert_allclose(read.descriptors, value.descriptors, atol=1e-3)
    assert read.uncertainty_px == 2.0
    assert read.image_size == (4000, 3000)


def test_our_matches_are_read_both_ways_by_both(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    indices = np.array([[0, 40_000], [7, 3], [9, 0]], np.int32)
    matches = Matches(indices, np.array([0.5, 0.25, 1], np.float32))
    with MatchStore.append(path, {}) as store:
        store.write(("day/b c.png", "a.jpg"), matches, 10)
        assert ("a.jpg", "day/b c.png") in store
        back = store.read(("a.jpg", "day/b c.png"))
    np.testing.assert_array_equal(back.indices, indices[:, ::-1])
    pairs, scores = hloc_matches(path, "day/b c.png", "a.jpg")
    np.testing.assert_array_equal(pairs, indices)
    np.testing.assert_allclose(scores, matches.scores)
    assert scores.dtype == np.float16
    with MatchStore.open(path) as store:
        assert store.pairs(NAMES) == [("day/b c.png", "a.jpg")]
        assert store.pairs(["a.jpg"]) == []


def test_matches_know_the_features_that_they_are_of(tmp_path: Path) -> None:
    nothing = Matches(np.zeros((0, 2), np.int32), np.zeros(0, np.float32))
    with MatchStore.append(tmp_path / "m.h5", {}) as store:
        store.write(("a.jpg", "b.jpg"), nothing, 3, (5, 9))
        assert store.has_of(("a.jpg", "b.jpg"), (5, 9))
        assert store.has_of(("b.jpg", "a.jpg"), (9, 5))
        # Two photos that swapped names, and one that was replaced.
        assert not store.has_of(("a.jpg", "b.jpg"), (9, 5))
        assert not store.has_of(("a.jpg", "b.jpg"), (5, 8))


def test_a_fingerprint_is_of_every_keypoint(tmp_path: Path) -> None:
    one = make_features()
    moved = one.keypoints.copy()
    moved[-1, 1] += 1
    with FeatureStore.append(tmp_path / "f.h5", {}) as store:
        store.write("a.jpg", one)
        store.write("b.jpg", replace(one, keypoints=moved))
        assert store.fingerprint("a.jpg") != store.fingerprint("b.jpg")


def test_we_read_hloc_matches_old_and_new(tmp_path: Path) -> None:
    path = tmp_path / "hloc.h5"
    vector = np.array([-1, 2, -1, 0], np.int16)
    with h5py.File(path, "w", libver="latest") as file:
        for key in ("day-b c.png/a.jpg", "night-b_c.png_a.jpg"):
            group = file.create_group(key)
            group["matches0"] = vector
            group["matching_scores0"] = np.array([0, 0.5, 0, 1], np.float16)
        file.create_group("a.jpg/day-ü-ж.jpg")["matches0"] = vector.astype(np.float32)
    with MatchStore.open(path) as store:
        assert store.pairs(NAMES) == [
            ("a.jpg", "day/ü/ж.jpg"),
            ("day/b c.png", "a.jpg"),
            ("night/b_c.png", "a.jpg"),
        ]
        for name in ("day/b c.png", "night/b_c.png"):
            forward = store.read((name, "a.jpg"))
            assert forward.indices.tolist() == [[1, 2], [3, 0]]
            assert forward.scores.tolist() == [0.5, 1]
            assert store.read(("a.jpg", name)).indices.tolist() == [[2, 1], [0, 3]]
        assert store.read(("a.jpg", "day/ü/ж.jpg")).scores.tolist() == [1, 1]


def test_a_pair_that_is_stored_both_ways_is_listed_once(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        for key in ("b/a", "a/b", "a_b", "c/b"):
            file[f"{key}/matches0"] = np.array([1, -1] if key == "a/b" else [-1, 0])
    with MatchStore.open(tmp_path / "m.h5") as store:
        assert store.pairs("abc") == [("a", "b"), ("c", "b")]
        assert store.read(("a", "b")).indices.tolist() == [[0, 1]]


def test_overflown_16_bit_matches_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    with h5py.File(path, "w") as file:
        vector = np.array([40_000, -1]).astype(np.int16)
        file.create_group("a.jpg/b.jpg")["matches0"] = vector
    with MatchStore.open(path) as store, pytest.raises(StoreError, match="16 bits"):
        store.read(("a.jpg", "b.jpg"))


def test_features_without_keypoints_survive(tmp_path: Path) -> None:
    with FeatureStore.append(tmp_path / "f.h5", {}) as store:
        store.write("empty.jpg", make_features(0))
        read = store.read("empty.jpg")
    assert len(read) == 0
    assert read.descriptors.shape == (0, 32)


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    FeatureStore.append(path, {"max_size": 1024, "extractor": "sift"}).close()
    FeatureStore.append(path, {"extractor": "sift", "max_size": 1024}).close()
    with pytest.raises(StaleStore, match="max_size = 1024, now asked for 1600"):
        FeatureStore.append(path, {"max_size": 1600, "extractor": "sift"})
    with pytest.raises(StaleStore, match="max_size = 1024, now asked for None"):
        FeatureStore.append(path, {"extractor": "sift"})
    more = {"max_size": 1024, "extractor": "sift", "seed": 1}
    with pytest.raises(StaleStore, match="seed = None, now asked for 1"):
        FeatureStore.append(path, more)
    with pytest.raises(StoreError, match="holds features, not matches"):
        MatchStore.open(path)


def test_reopening_leaves_the_file_alone(tmp_path: Path) -> None:
    """Its time of change tells later stages whether they are out of date."""
    path = tmp_path / "f.h5"
    with FeatureStore.append(path, {}) as store:
        store.write("a.jpg", make_features())
    before = path.stat()
    with FeatureStore.append(path, {}) as store:
        assert store.names() == ["a.jpg"]
    with FeatureStore.open(path) as store:
        store.read("a.jpg")
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert path.stat().st_size == before.st_size


def test_a_half_written_group_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    with FeatureStore.append(path, {}) as store:
        store.write("done.jpg", make_features())
    with h5py.File(path, "a") as file:
        file.copy(file["done.jpg"], "half.jpg")
        del file["half.jpg"].attrs["complete"]
    with FeatureStore.append(path, {}) as store:
        assert store.names() == ["done.jpg"]
        store.write("half.jpg", make_features())
        assert store.names() == ["done.jpg", "half.jpg"]


def test_groups_are_committed_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FeatureStore, "_groups_per_commit", 2)
    path, left = tmp_path / "f.h5", tmp_path / "killed.h5"
    store = FeatureStore.append(path, {})
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        store.write(name, make_features())
    left.write_bytes(path.read_bytes())  # as a kill would leave it
    store.close()
    with FeatureStore.open(left) as store:
        assert store.names() == ["a.jpg", "b.jpg"]


def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    FeatureStore.append(path, {}).close()
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 2
    for call in (FeatureStore.open, lambda path: FeatureStore.append(path, {})):
        with pytest.raises(StoreError, match=r"newer version \(format 2\); upgrade"):
            call(path)


@pytest.mark.parametrize("keep", [7, 100, 2_000, 20_000])
def test_a_cut_file_is_named_with_a_remedy(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "f.h5"
    with FeatureStore.append(path, {}) as store:
        for i in range(4):
            store.write(f"{i}.jpg", make_features(200, seed=i))
    content = path.read_bytes()
    assert len(content) > keep
    path.write_bytes(content[:keep])
    with pytest.raises(DamagedStore, match=r"f\.h5.*run the same command again"):
        FeatureStore.open(path)
    with pytest.raises(DamagedStore, match="run the same command again"):
        FeatureStore.append(path, {})
    assert path.stat().st_size == keep


def test_an_empty_file_is_one_that_was_killed_early(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    path.touch()
    with pytest.raises(InputError, match="make it again"):
        FeatureStore.open(path)
    with FeatureStore.append(path, {}) as store:
        store.write("a.jpg", make_features())
    with FeatureStore.open(path) as store:
        assert store.names() == ["a.jpg"]


def test_flipped_bytes_never_crash(tmp_path: Path) -> None:
    """Whatever a bad disk does, the answer is data or our error, not a traceback."""
    path = tmp_path / "f.h5"
    with FeatureStore.append(path, {}) as store:
        for i in range(3):
            store.write(f"{i}.jpg", make_features(20, seed=i))
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(content)
        damaged[int(rng.integers(len(content)))] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            with FeatureStore.open(path) as store:
                for name in store.names():
                    store.read(name)
        except StoreError as error:
            assert "f.h5" in str(error)


def test_senseless_attributes_and_sizes_are_damage(tmp_path: Path) -> None:
    def make(name: str, **attributes: object) -> Path:
        path = tmp_path / name
        with FeatureStore.append(path, {"extractor": "sift"}) as store:
            store.write("a.jpg", make_features())
        with h5py.File(path, "r+") as file:
            file.attrs.update(attributes)
        return path

    for config in ("{cut", "[1]", 7):
        with (
            FeatureStore.open(make(f"{config}.h5", config=config)) as store,
            pytest.raises(DamagedStore, match=r"h5: part of it .*; delete it"),
        ):
            _ = store.config
    for version in ("one", np.array([1, 2])):
        path = make(f"v{version}.h5", format_version=version)
        for call in (FeatureStore.open, lambda path: FeatureStore.append(path, {})):
            with pytest.raises(DamagedStore, match=r"v.*\.h5: .*format_version"):
                call(path)
    # What another tool may call so is not ours to read.
    with FeatureStore.open(make("foreign.h5", format="x", config="{cut")) as store:
        assert store.config == {}
    path = make("size.h5")
    with h5py.File(path, "r+") as file:
        file["a.jpg/image_size"][...] = 0
    with FeatureStore.open(path) as store:
        for read in (store.read, store.read_size):
            with pytest.raises(DamagedStore, match=r"size\.h5.*image_size is 0 x 0"):
                read("a.jpg")


def test_a_folder_may_be_called_like_a_part_of_the_layout(tmp_path: Path) -> None:
    names = ["a.jpg", "image_size/c.jpg", "keypoints/b.jpg"]
    with FeatureStore.append(tmp_path / "f.h5", {}) as store:
        for name in names:
            store.write(name, make_features())
        assert store.names() == names
        assert all(name in store for name in names)


def test_the_file_of_another_tool_is_not_to_be_deleted(tmp_path: Path) -> None:
    """Descriptors N x D, as other tools have them, are no damage."""
    path, features = tmp_path / "f.h5", make_features()
    with h5py.File(path, "w") as file:
        group = file.create_group("a.jpg")
        group["keypoints"] = features.keypoints
        group["descriptors"] = features.descriptors
        group["image_size"] = features.image_size
    with FeatureStore.open(path) as store, pytest.raises(DamagedStore) as caught:
        store.read("a.jpg")
    assert "delete" not in str(caught.value) and "layout" in str(caught.value)


@pytest.mark.parametrize(
    ("part", "value", "cause"),
    [
        ("keypoints", np.zeros(0), r"keypoints is of shape \(0,\)"),
        ("keypoints", np.zeros((3, 1)), r"keypoints are of shape \(3, 1\)"),
        ("descriptors", np.zeros(3), r"descriptors is of shape \(3,\)"),
        ("scores", np.zeros(2), "keypoints and scores differ in number"),
        ("image_size", 9, r"image_size is of shape \(\)"),
    ],
)
def test_shapes_that_do_not_fit_are_named(
    tmp_path: Path, part: str, value: object, cause: str
) -> None:
    path, parts = tmp_path / "f.h5", dict[str, object]()
    parts["keypoints"], parts["descriptors"] = np.zeros((3, 2)), np.zeros((8, 3))
    parts["scores"], parts["image_size"] = np.zeros(3), [9, 9]
    with h5py.File(path, "w") as file:
        for key, each in {**parts, part: value}.items():
            file[f"day/a.jpg/{key}"] = each
    with (
        FeatureStore.open(path) as store,
        pytest.raises(DamagedStore, match=rf"f\.h5.*day/a\.jpg: {cause}.*layout"),
    ):
        store.read("day/a.jpg")


def test_keypoints_alone_are_checked_too(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["a.jpg/keypoints"] = np.zeros(0)
    with (
        FeatureStore.open(tmp_path / "f.h5") as store,
        pytest.raises(DamagedStore, match=r"a\.jpg: keypoints is of shape"),
    ):
        store.read_keypoints("a.jpg")


def test_we_read_deep_image_matching(tmp_path: Path) -> None:
    """It lists matches at the pair's name, and has the height of an image first."""
    listed = np.array([[0, 3], [2, 1]])
    with h5py.File(tmp_path / "m.h5", "w", libver="latest") as file:
        file["a.jpg/b.jpg"] = listed
        file["a.jpg/c.jpg"] = np.zeros((0, 2), np.int64)
        file["notes"] = "of the tool"
    with MatchStore.open(tmp_path / "m.h5") as store:
        assert store.pairs(["a.jpg", "b.jpg"]) == [("a.jpg", "b.jpg")]
        assert store.keys() == ["a.jpg/b.jpg", "a.jpg/c.jpg"]
        assert ("b.jpg", "a.jpg") in store and ("b.jpg", "c.jpg") not in store
        assert store.has_of(("a.jpg", "b.jpg"), (1, 2))  # nothing tells
        assert store.read(("a.jpg", "b.jpg")).indices.tolist() == listed.tolist()
        turned = store.read(("b.jpg", "a.jpg"))
        assert turned.indices.tolist() == listed[:, ::-1].tolist()
        assert turned.scores.tolist() == [1, 1]
        assert len(store.read(("c.jpg", "a.jpg"))) == 0
    with h5py.File(tmp_path / "f.h5", "w", libver="latest") as file:
        for name, value in {
            "keypoints": np.ones((5, 2)),
            "descriptors": np.ones((8, 5)),
            "scores": np.ones(5),
            "tile_idx": np.zeros(5),
            "image_size": np.array([3000, 4000]),
        }.items():
            file.create_dataset(f"a.jpg/{name}", data=value.astype(np.float16))
    with FeatureStore.open(tmp_path / "f.h5") as features:
        assert features.read("a.jpg").image_size == (4000, 3000)


@pytest.mark.parametrize(
    ("listed", "kind", "cause"),
    [
        ([[0, -1]], StoreError, "negative indices"),
        (np.array([[0, 2**40]]), DamagedStore, "has an index of 1099511627776"),
        ([[0, 1, 2]], DamagedStore, r"a\.jpg/b\.jpg is neither a group .*layout"),
        ([[0.0, 1.0]], DamagedStore, r"a\.jpg/b\.jpg is neither a group .*layout"),
    ],
)
def test_lists_of_what_is_no_index_are_named(
    tmp_path: Path, listed: list[list[float]], kind: type[SfmError], cause: str
) -> None:
    pair = ("a.jpg", "b.jpg")
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["a.jpg/b.jpg"] = listed
    with MatchStore.open(tmp_path / "m.h5") as store:
        with pytest.raises(kind, match=rf"m\.h5.*{cause}"):
            store.read(pair)
        assert store.pairs(["a.jpg", "c.jpg"]) == []
        if "neither" in cause:
            for ask in (
                lambda: store.pairs(pair),
                lambda: pair in store,
                lambda: store.has_of(pair, (1, 2)),
            ):
                with pytest.raises(kind, match=cause):
                    ask()


@pytest.mark.parametrize(
    ("vector", "scores", "cause"),
    [
        (np.zeros((1, 4)), np.zeros(4), r"matches0 is of shape \(1, 4\)"),
        (np.zeros(4), np.zeros(3), "matches and scores differ in number"),
    ],
)
def test_shapes_of_matches_are_named(
    tmp_path: Path, vector: np.ndarray, scores: np.ndarray, cause: str
) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["a.jpg/b.jpg/matches0"] = vector
        file["a.jpg/b.jpg/matching_scores0"] = scores
    with (
        MatchStore.open(tmp_path / "m.h5") as store,
        pytest.raises(DamagedStore, match=f"m.h5.*{cause}.*layout"),
    ):
        store.read(("a.jpg", "b.jpg"))


def test_the_file_of_another_tool_is_not_added_to(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        file.create_group("a.jpg")["keypoints"] = make_features().keypoints
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"f\.h5: was made by another tool.*--output"):
        FeatureStore.append(path, {})
    assert path.read_bytes() == before
    with FeatureStore.append(path, {}, anew=True) as store:
        assert store.names() == []


def test_names_that_collide_are_refused() -> None:
    refuse_collisions(["a/b.jpg", "a_b.jpg", "a/b.jpg"])
    with pytest.raises(NameCollision, match=r"'a/b.jpg' and 'a-b.jpg'"):
        refuse_collisions(["a/b.jpg", "a-b.jpg"])


def test_absent_entries_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.h5: no such file"):
        FeatureStore.open(tmp_path / "no.h5")
    with pytest.raises(InputError, match="is a folder; give a file of matches"):
        MatchStore.open(tmp_path)
    with (
        FeatureStore.append(tmp_path / "f.h5", {}) as store,
        pytest.raises(InputError, match=r"no complete features of 'x\.jpg'"),
    ):
        store.read("x.jpg")


def test_arrays_of_others_or_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "camera.h5"
    with h5py.File(path, "w") as file:
        file["K"] = np.eye(3, dtype=np.float32)
    (k,) = read_arrays(path, ["K"])
    assert k.dtype == np.float64 and (k == np.eye(3)).all()
    for names, broken in ((["K", "R"], path), (["K"], tmp_path / "none.h5")):
        with pytest.raises(InputError, match=f"{broken.name}: cannot be read.* K"):
            read_arrays(broken, names)
