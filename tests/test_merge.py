"""Files of parts joined: the same, to the bit, as if one machine had made them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from samples import make_features

from sfm_features.cli import main
from sfm_features.errors import (
    BusyStore,
    DamagedStore,
    InputError,
    NameCollision,
    OptionError,
    StaleStore,
    StoreError,
)
from sfm_features.extract import ExtractOptions, extract
from sfm_features.merge import merge
from sfm_features.store import FeatureStore, GlobalStore, MatchStore, Origin
from sfm_features.types import Matches, RunOptions

CONFIG = {"extractor": "sift", "max_keypoints": 50}


def _features(path: Path, *names: str, **config: Any) -> Path:
    """Write features; those of a name are always the same."""
    with FeatureStore.append(path, {**CONFIG, **config}) as store:
        for name in names:
            seed = sum(name.encode())
            store.write(name, make_features(seed=seed), Origin(seed, seed + 1))
    return path


def _pair_matches(*rows: tuple[int, int]) -> Matches:
    indices = np.array(rows, np.int32).reshape(-1, 2)
    return Matches(indices, np.linspace(0.5, 1, len(rows)).astype(np.float32))


def _matches(path: Path, *pairs: tuple[str, str], shift: int = 0) -> Path:
    with MatchStore.append(path, {"name": "nearest"}) as store:
        for pair in pairs:
            found = _pair_matches((0, 3 + shift), (2, 1))
            store.write(pair, found, 4, (7, 2**32 - 1))
    return path


def _dump(path: Path) -> dict[str, Any]:
    """Read all that a file holds, with types, but for its own attributes."""
    found: dict[str, Any] = {}

    def note(name: str, item: Any) -> None:
        for key, value in item.attrs.items():
            found[f"{name}@{key}"] = (
                item.attrs.get_id(key).dtype,
                np.asarray(value).tobytes(),
            )
        if isinstance(item, h5py.Dataset):
            found[name] = (item.dtype, item.shape, item[()].tobytes())

    with h5py.File(path) as file:
        file.visititems(note)
    return found


def test_parts_make_the_whole(tmp_path: Path, photos: Path) -> None:
    options = ExtractOptions(extractor="sift", max_keypoints=60)
    run = RunOptions(device="cpu")
    whole = extract(photos, tmp_path / "whole.h5", options, run)
    parts = []
    for i in range(3):
        names = tmp_path / f"names{i}.txt"
        names.write_text("\n".join(whole.names[2 * i : 2 * i + 2 + (i == 0)]))
        parts.append(tmp_path / f"part{i}.h5")
        extract(photos, parts[-1], replace(options, image_list=names), run)
    before = [path.read_bytes() for path in parts]
    summary = merge(parts, tmp_path / "all.h5")
    assert (summary.written, summary.reused) == (6, 1)  # one image is in two parts
    assert _dump(tmp_path / "all.h5") == _dump(tmp_path / "whole.h5")
    assert [path.read_bytes() for path in parts] == before
    again = extract(photos, tmp_path / "all.h5", options, run)  # it goes on from there
    assert (again.written, again.reused) == (0, 6)


def test_matches_and_descriptors_keep_what_they_were_made_of(tmp_path: Path) -> None:
    a = _matches(tmp_path / "a.h5", ("a.jpg", "d/b.jpg"), ("a.jpg", "c.jpg"))
    b = _matches(tmp_path / "b.h5", ("c.jpg", "d/b.jpg"), ("a.jpg", "c.jpg"))
    merge([a, b], tmp_path / "m.h5")
    assert _dump(tmp_path / "m.h5") == {**_dump(a), **_dump(b)}
    with MatchStore.open(tmp_path / "m.h5") as store:
        assert len(store.pairs(["a.jpg", "d/b.jpg", "c.jpg"])) == 3
        assert store.has_of(("c.jpg", "a.jpg"), (2**32 - 1, 7))
        assert not store.has_of(("c.jpg", "a.jpg"), (2**32 - 2, 7))
    paths = [tmp_path / "ga.h5", tmp_path / "gb.h5"]
    for i, path in enumerate(paths):
        with GlobalStore.append(path, {"features": CONFIG}) as described:
            described.write(f"{i}.jpg", np.eye(3, dtype=np.float32)[i], 12 + i)
    merge(paths, tmp_path / "g.h5")
    with GlobalStore.open(tmp_path / "g.h5") as described:
        assert (
            described.read_many(["0.jpg", "1.jpg"]).tolist() == np.eye(3)[:2].tolist()
        )
        assert described.fingerprint("1.jpg") == 13
        assert described.config == {"features": CONFIG}


def test_a_pair_may_be_the_other_way_round(tmp_path: Path) -> None:
    a = _matches(tmp_path / "a.h5", ("a", "b"))
    for name, rows, made_of in (
        ("same", [(1, 2), (3, 0)], (2**32 - 1, 7)),
        ("other", [(1, 2), (0, 0)], (2**32 - 1, 7)),
        ("older", [(1, 2), (3, 0)], (2**32 - 1, 8)),
    ):
        turned = tmp_path / f"{name}.h5"
        with MatchStore.append(turned, {"name": "nearest"}) as store:
            found = _pair_matches(*rows)
            store.write(
                ("b", "a"), replace(found, scores=found.scores[::-1]), 4, made_of
            )
        if name == "same":
            assert merge([a, turned], tmp_path / "m.h5").reused == 1
            continue
        with pytest.raises(StoreError, match=rf"{name}\.h5.*pair 'b/a'.*a\.h5"):
            merge([a, turned], tmp_path / f"not-{name}.h5")


def test_what_differs_is_named(tmp_path: Path) -> None:
    a = _features(tmp_path / "a.h5", "x.jpg", "y.jpg")
    b = _features(tmp_path / "b.h5", "y.jpg")
    more = _features(tmp_path / "more.h5", "z.jpg", max_keypoints=60, seed=1)
    with pytest.raises(
        StaleStore, match=r"more\.h5: made with max_keypoints = 60.* 50"
    ):
        merge([a, more], tmp_path / "all.h5")
    with pytest.raises(
        StoreError, match=r"m\.h5: holds matches, but .*a\.h5 holds feat"
    ):
        merge([a, _matches(tmp_path / "m.h5", ("a", "b"))], tmp_path / "all.h5")
    with h5py.File(b, "r+") as file:
        file["y.jpg"].attrs["mask_crc"] = 0
    with pytest.raises(StoreError, match=r"b\.h5.*image 'y\.jpg' are not .*a\.h5"):
        merge([a, b], tmp_path / "all.h5")
    with h5py.File(b, "r+") as file:
        del file["y.jpg/scores"]
    with pytest.raises(
        StoreError, match=r"of an earlier run; start anew with --overwr"
    ):
        merge([b], tmp_path / "all.h5")
    assert merge([b], tmp_path / "all.h5", overwrite=True).written == 1
    with FeatureStore.open(tmp_path / "all.h5") as store:
        assert store.names() == ["y.jpg"]


@pytest.mark.parametrize("other", ["a-b.jpg", "a/b.jpg/c.jpg", "a"])
def test_names_that_do_not_go_together(tmp_path: Path, other: str) -> None:
    a = _features(tmp_path / "a.h5", "a/b.jpg")
    b = _features(tmp_path / "b.h5", other)
    with pytest.raises(NameCollision, match="rename one"):
        merge([a, b], tmp_path / "all.h5")
    assert not (tmp_path / "all.h5").exists()
    merge([a], tmp_path / "all.h5")
    with pytest.raises(NameCollision, match="rename one"):
        merge([b], tmp_path / "all.h5")
    with FeatureStore.open(tmp_path / "all.h5") as store:
        assert store.names() == ["a/b.jpg"]


def test_killed_and_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FeatureStore, "_groups_per_commit", 2)
    names = [f"{i}.jpg" for i in range(6)]
    parts = [
        _features(tmp_path / "a.h5", *names[:3]),
        _features(tmp_path / "b.h5", *names[2:]),
    ]
    whole = _features(tmp_path / "whole.h5", *names)
    output, left = tmp_path / "all.h5", tmp_path / "left.h5"
    copy = FeatureStore.copy

    def copy_and_look(store: FeatureStore, other: FeatureStore, key: str) -> None:
        copy(store, other, key)
        if key == "4.jpg":
            left.write_bytes(output.read_bytes())  # as a kill would leave it

    monkeypatch.setattr(FeatureStore, "copy", copy_and_look)
    merge(parts, output)
    with FeatureStore.open(left) as store:
        assert store.names() == names[:4]
    summary = merge(parts, left)
    assert (summary.written, summary.reused) == (2, 5)
    assert _dump(left) == _dump(output) == _dump(whole)
    before = left.stat()
    merge(parts, left)  # nothing to do: its time of change tells later stages
    assert left.stat().st_mtime_ns == before.st_mtime_ns


def test_half_written_groups_are_left_out(tmp_path: Path) -> None:
    a = _features(tmp_path / "a.h5", "x.jpg", "y.jpg")
    with h5py.File(a, "r+") as file:
        del file["y.jpg"].attrs["complete"]
    merge([a], tmp_path / "all.h5")
    with FeatureStore.open(tmp_path / "all.h5") as store:
        assert store.names() == ["x.jpg"]
    with h5py.File(a, "r+") as file:
        del file["x.jpg"].attrs["complete"]
    with pytest.raises(InputError, match="nothing that is complete"):
        merge([a], tmp_path / "none.h5")
    assert not (tmp_path / "none.h5").exists()


def test_files_of_hloc_are_merged_among_themselves(tmp_path: Path) -> None:
    paths = [tmp_path / "h1.h5", tmp_path / "h2.h5"]
    for i, path in enumerate(paths):
        with h5py.File(path, "w", libver="latest") as file:
            group = file.create_group(f"db/{i}.jpg")
            group["keypoints"] = np.full((3, 2), i, np.float16)
            group["keypoints"].attrs["uncertainty"] = 2.0
            group.create_dataset(
                "descriptors", data=np.eye(3, dtype=np.float16), compression="gzip"
            )
            group["keypoint_scores"] = np.ones(3, np.float16)
            group["image_size"] = [640, 480]
    merge(paths, tmp_path / "all.h5")
    with FeatureStore.open(tmp_path / "all.h5") as store:
        assert store.names() == ["db/0.jpg", "db/1.jpg"]
        read = store.read("db/1.jpg")
        assert read.uncertainty_px == 2 and read.image_size == (640, 480)
        assert (read.keypoints == 1).all() and store.config == {}
    assert merge([tmp_path / "all.h5", *paths], tmp_path / "more.h5").reused == 2
    ours = _features(tmp_path / "ours.h5", "x.jpg")
    for files in ([ours, paths[0]], [paths[0], ours]):
        with pytest.raises(StaleStore, match=r"h1\.h5: does not say how it was made"):
            merge(files, tmp_path / "mixed.h5")
    with pytest.raises(StoreError, match=r"h1\.h5: was made by another tool"):
        merge([paths[1]], paths[0])


def test_matches_of_hloc_old_and_new(tmp_path: Path) -> None:
    paths = [tmp_path / "h1.h5", tmp_path / "h2.h5"]
    for path, key in zip(paths, ("a.jpg_b.jpg", "a.jpg/c.jpg"), strict=True):
        with h5py.File(path, "w", libver="latest") as file:
            file[f"{key}/matches0"] = np.array([-1, 1], np.int16)
    merge(paths, tmp_path / "all.h5")
    with MatchStore.open(tmp_path / "all.h5") as store:
        assert store.pairs(["a.jpg", "b.jpg", "c.jpg"]) == [
            ("a.jpg", "b.jpg"),
            ("a.jpg", "c.jpg"),
        ]
        assert store.read(("c.jpg", "a.jpg")).indices.tolist() == [[1, 1]]


def test_an_input_is_never_written(tmp_path: Path) -> None:
    a = _features(tmp_path / "a.h5", "x.jpg")
    before = a.read_bytes()
    (tmp_path / "link.h5").symlink_to(a)
    for output in (a, tmp_path / "link.h5"):
        for overwrite in (False, True):
            with pytest.raises(OptionError, match="is read and would be overwritten"):
                merge([a], output, overwrite)
    assert a.read_bytes() == before
    foreign = tmp_path / "notes.txt"
    foreign.write_text("mine")
    for overwrite in (False, True):
        with pytest.raises((StoreError, DamagedStore)):
            merge([a], foreign, overwrite)
    with pytest.raises(StoreError, match="holds matches, so no features are written"):
        merge([a], _matches(tmp_path / "m.h5", ("a", "b")), overwrite=True)
    assert foreign.read_text() == "mine"


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3000])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _text(path: Path) -> None:
    path.write_text("x.jpg y.jpg\n")


def _of_nobody(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["lengths"] = np.arange(3.0)


def _of_the_future(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 99


def _of_labels(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["kind"] = "labels"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_cut, "not a readable HDF5 file"),
        (_empty, "is empty"),
        (_text, "not a readable HDF5 file"),
        (Path.unlink, "no such file"),
        (_of_nobody, "holds nothing that is known, not features, matches or global"),
        (_of_the_future, "newer version"),
        (_of_labels, "holds labels, not features"),
    ],
)
def test_bad_files_are_told_before_anything_is_made(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], None],
    message: str,
) -> None:
    a, bad = _features(tmp_path / "a.h5", "x"), _features(tmp_path / "bad.h5", "y")
    spoil(bad)
    output = tmp_path / "all.h5"
    assert main(["merge", str(a), str(bad), "--output", str(output)]) == 2
    told = capsys.readouterr().err
    assert f"error: {bad}" in told and message in told
    assert not output.exists()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = [str(_features(tmp_path / f"{n}.h5", n)) for n in "abc"]
    output = tmp_path / "all.h5"
    assert main(["merge", *parts, "--output", str(output)]) == 0
    with FeatureStore.open(output) as store:
        assert store.names() == ["a", "b", "c"] and store.config == CONFIG
    assert main(["merge", parts[0], "--output", str(output), "--overwrite"]) == 0
    with FeatureStore.open(output) as store:
        assert store.names() == ["a"]
    with FeatureStore.append(output, CONFIG), pytest.raises(BusyStore):
        merge([Path(parts[0])], output)
    assert main(["merge", "--output", str(output)]) == 2
    assert "no files to merge" in capsys.readouterr().err
