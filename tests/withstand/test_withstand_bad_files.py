"""Files that are absent, foreign, damaged, stale or in use: a line says what to do."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import h5py
import numpy as np
import pytest
from withstand_files import read_hdf5
from withstand_scene import write_photos
from withstand_shell import Shell, open_shell

from sfm_features.store import FeatureStore, MatchStore

FEW = ("--max-keypoints", 200)


@pytest.fixture
def shell() -> Shell:
    return open_shell()


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shell, folder = open_shell(), tmp_path_factory.mktemp("made")
    photos = write_photos(folder / "photos", 3)
    shell.run("extract", photos, *FEW, "--output", folder / "f.h5").succeed()
    (folder / "pairs.txt").write_text(
        "view00.png view01.png\nview00.png view02.png\nview01.png view02.png\n"
    )
    _match(folder, shell)
    return folder


@pytest.fixture
def made(tmp_path: Path, made_once: Path) -> Path:
    """Return a folder with photos, pairs.txt, f.h5 and m.h5 of three images."""
    return shutil.copytree(made_once, tmp_path / "made")


def _match(folder: Path, shell: Shell) -> None:
    pairs = ("--pairs", folder / "pairs.txt")
    shell.run("match", folder / "f.h5", *pairs, "--output", folder / "m.h5").succeed()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _overwrite_middle(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 10 :] = bytes(len(content) - len(content) // 10)
    path.write_bytes(content)


def _write_text(path: Path) -> None:
    path.write_text("not HDF5 at all\n" * 50)


DAMAGES = {"cut": _cut, "zeroed": _overwrite_middle, "text": _write_text}


@pytest.mark.parametrize("damage", sorted(DAMAGES))
def test_damaged_features(made: Path, shell: Shell, damage: str) -> None:
    features = made / "f.h5"
    DAMAGES[damage](features)
    broken = features.read_bytes()
    how = ("extract", made / "photos", *FEW, "--output", features)
    shell.run(*how).fail("f.h5", "delete it")
    pairs = ("--pairs", made / "pairs.txt", "--output", made / "new.h5")
    shell.run("match", features, *pairs).fail("f.h5", "delete it")
    assert features.read_bytes() == broken, "it may yet be repaired: leave it alone"
    if damage == "text":  # whose it is nobody knows
        shell.run(*how, "--overwrite").fail("f.h5", "delete it")
        assert features.read_bytes() == broken
        features.unlink()
    shell.run(*how, "--overwrite").succeed()
    assert read_hdf5(features)


@pytest.mark.parametrize("damage", sorted(DAMAGES))
def test_damaged_matches(made: Path, shell: Shell, damage: str) -> None:
    matches = made / "m.h5"
    whole = read_hdf5(matches)
    DAMAGES[damage](matches)
    how = ("match", made / "f.h5", "--pairs", made / "pairs.txt", "--output", matches)
    shell.run(*how).fail("m.h5", "delete it")
    out = ("--features", made / "f.h5", "--matches", matches, "--output", made / "out")
    shell.run("reconstruct", made / "photos", *out).fail("m.h5", "delete it")
    if damage == "text":
        shell.run(*how, "--overwrite").fail("m.h5", "delete it")
        matches.unlink()
    shell.run(*how, "--overwrite").succeed()
    assert read_hdf5(matches) == whole


def test_a_directory_in_place_of_a_file(made: Path, shell: Shell) -> None:
    (made / "d.h5").mkdir()
    shell.run("extract", made / "photos", "--output", made / "d.h5").fail("d.h5")
    shell.run(
        "extract", made / "photos", "--output", made / "d.h5", "--overwrite"
    ).fail("d.h5")
    pairs = ("--pairs", made / "pairs.txt", "--output", made / "d.h5")
    shell.run("match", made / "f.h5", *pairs).fail("d.h5")
    shell.run("match", made / "d.h5", *pairs).fail("d.h5")
    method = ("--method", "exhaustive", "--features", made / "f.h5")
    shell.run("pairs", *method, "--output", made / "d.h5").fail("d.h5")
    shell.run("reconstruct", made / "photos", "--output", made / "f.h5").fail("f.h5")


@pytest.mark.parametrize("option", ["--max-keypoints", "--max-size", "--seed"])
def test_features_made_with_other_settings(
    made: Path, shell: Shell, option: str
) -> None:
    before = (made / "f.h5").read_bytes()
    how = ("extract", made / "photos", "--output", made / "f.h5")
    error = shell.run(*how, *FEW, option, 150).fail("f.h5", "--overwrite", "150")
    assert option.strip("-").replace("-", "_") in error
    assert (made / "f.h5").read_bytes() == before


def test_matches_of_other_features(made: Path, shell: Shell) -> None:
    before = (made / "m.h5").read_bytes()
    how = ("extract", made / "photos", "--max-keypoints", 100)
    shell.run(*how, "--output", made / "f.h5", "--overwrite").succeed()
    pairs = ("--pairs", made / "pairs.txt", "--output", made / "m.h5")
    shell.run("match", made / "f.h5", *pairs).fail("m.h5", "features.max_keypoints")
    assert (made / "m.h5").read_bytes() == before
    # The matches point beyond the features: never into the model, silently.
    out = ("--features", made / "f.h5", "--matches", made / "m.h5")
    result = shell.run("reconstruct", made / "photos", *out, "--output", made / "out")
    result.fail("other features")


def test_features_and_matches_mixed_up(made: Path, shell: Shell) -> None:
    pairs = ("--pairs", made / "pairs.txt", "--output")
    shell.run("match", made / "m.h5", *pairs, made / "new.h5").fail("m.h5", "matches")
    shell.run("match", made / "f.h5", *pairs, made / "f.h5").fail("f.h5")
    shell.run("extract", made / "photos", *FEW, "--output", made / "m.h5").fail("m.h5")
    out = ("--features", made / "m.h5", "--matches", made / "f.h5")
    shell.run("reconstruct", made / "photos", *out, "--output", made / "o").fail("m.h5")


def test_an_image_without_keypoints_and_a_pair_without_matches(
    made: Path, shell: Shell
) -> None:
    with h5py.File(made / "f.h5", "r+") as file:
        for name in ("keypoints", "scores", "descriptors"):
            old = file["view02.png"][name]
            empty = np.zeros([0 if n > 128 else n for n in old.shape], old.dtype)
            del file["view02.png"][name]
            file["view02.png"][name] = empty
    (made / "m.h5").unlink()
    _match(made, shell)
    with MatchStore.open(made / "m.h5") as store:
        assert len(store.read(("view00.png", "view01.png"))) > 20
        assert len(store.read(("view02.png", "view01.png"))) == 0
    out = ("--features", made / "f.h5", "--matches", made / "m.h5")
    result = shell.run("reconstruct", made / "photos", *out, "--output", made / "out")
    assert "Traceback" not in result.text
    text = (made / "out" / "summary.txt").read_text()
    assert "view02.png: has no keypoints" in text


PAIRS = {
    "absent": "view00.png view01.png\nview00.png nowhere.png\n",
    "repeated": "view00.png view01.png\n" * 3,
    "reversed": "view00.png view01.png\nview01.png view00.png\n",
    "comments": "# pairs\n\nview00.png view01.png\n",
    "windows": "view00.png view01.png\r\n",
    "tabs": "view00.png\tview01.png\n",
    "no newline": "view00.png view01.png",
}


@pytest.mark.parametrize("kind", sorted(PAIRS))
def test_odd_pairs(made: Path, shell: Shell, kind: str) -> None:
    (made / "pairs.txt").write_bytes(PAIRS[kind].encode())
    (made / "m.h5").unlink()
    pairs = ("--pairs", made / "pairs.txt", "--output", made / "m.h5")
    result = shell.run("match", made / "f.h5", *pairs).succeed()
    assert "matches: 1 pairs written" in result.text
    assert ("1 skipped" in result.text) == (kind == "absent")
    with MatchStore.open(made / "m.h5") as store:
        names = ["view00.png", "view01.png", "view02.png"]
        assert store.pairs(names) == [("view00.png", "view01.png")]
    strict = shell.run("match", made / "f.h5", *pairs, "--strict")
    if kind == "absent":
        strict.fail("nowhere.png", "--strict")
    else:
        strict.succeed()


BAD_PAIRS = {
    "one name": b"view00.png\n",
    "three names": b"view00.png view01.png view02.png\n",
    "with itself": b"view00.png view00.png\n",
    "nothing": b"",
    "an image": b"\x89PNG\r\n\x1a\n\xff\xfe\x00",
}


@pytest.mark.parametrize("kind", sorted(BAD_PAIRS))
def test_bad_pairs(made: Path, shell: Shell, kind: str) -> None:
    (made / "pairs.txt").write_bytes(BAD_PAIRS[kind])
    pairs = ("--pairs", made / "pairs.txt", "--output", made / "m.h5")
    shell.run("match", made / "f.h5", *pairs).fail("pairs.txt")
    options = ("--pairs", made / "pairs.txt", "--output", made / "out")
    shell.run("reconstruct", made / "photos", *FEW, *options).fail("pairs.txt")


def test_pairs_of_absent_images_only(made: Path, shell: Shell) -> None:
    (made / "pairs.txt").write_text("nobody.png nowhere.png\n")
    options = ("--pairs", made / "pairs.txt", "--output", made / "out")
    result = shell.run("reconstruct", made / "photos", *FEW, *options)
    result.fail("0 of 1 pairs", "'nobody.png'")


def test_absent_files(made: Path, shell: Shell) -> None:
    pairs, new = ("--pairs", made / "pairs.txt"), ("--output", made / "new.h5")
    shell.run("match", made / "no.h5", *pairs, *new).fail("no.h5", "no such file")
    no_pairs = ("--pairs", made / "no.txt")
    shell.run("match", made / "f.h5", *no_pairs, *new).fail("no.txt")
    assert not (made / "new.h5").exists(), "an error must not leave an empty file"
    model = ("triangulate", made / "no-model", made / "photos")
    shell.run(*model, "--output", made / "out").fail("no-model")


@pytest.mark.parametrize("command", ["extract", "match"])
def test_a_file_in_use(made: Path, shell: Shell, command: str) -> None:
    name, kind = {"extract": ("f.h5", FeatureStore), "match": ("m.h5", MatchStore)}[
        command
    ]
    before = read_hdf5(made / name)
    hows = {
        "extract": ("extract", made / "photos", *FEW),
        "match": ("match", made / "f.h5", "--pairs", made / "pairs.txt"),
    }
    with kind.open(made / name) as reader:
        config = reader.config
    with kind.append(made / name, config):
        shell.run(*hows[command], "--output", made / name).fail(name, "another process")
        reconstruct = ("reconstruct", made / "photos", "--features", made / "f.h5")
        options = ("--matches", made / "m.h5", "--output", made / "out")
        shell.run(*reconstruct, *options).fail(name, "another process")
    shell.run(*hows[command], "--output", made / name).succeed()
    assert read_hdf5(made / name) == before


def test_two_reconstructions_into_one_folder(tmp_path: Path, shell: Shell) -> None:
    photos = write_photos(tmp_path / "photos", 10)
    out = tmp_path / "out"
    how = ("reconstruct", photos, "--no-report", "--output", out)
    first = shell.start(*how)
    first.wait_for("extract")
    first.signal(signal.SIGSTOP)
    second = shell.run(*how)
    first.signal(signal.SIGCONT)
    second.fail(f"{out}: another process")
    first.wait().succeed()


def test_a_database_that_is_none(tmp_path: Path, shell: Shell) -> None:
    photos = write_photos(tmp_path / "photos", 5)
    out = tmp_path / "out"
    how = ("reconstruct", photos, *FEW, "--no-report", "--output", out)
    shell.run(*how).succeed()
    model = (out / "sparse/0/points3D.bin").read_bytes()
    (out / "database.db").write_text("not SQLite\n" * 500)
    result = shell.run(*how)
    assert "Traceback" not in result.text
    if result.code:
        result.fail("database.db")
        (out / "database.db").unlink()
        shell.run(*how).succeed()
    assert (out / "sparse/0/points3D.bin").read_bytes() == model


def test_a_deleted_product_is_made_again(tmp_path: Path, shell: Shell) -> None:
    photos = write_photos(tmp_path / "photos", 5)
    out = tmp_path / "out"
    how = ("reconstruct", photos, *FEW, "--no-report", "--output", out)
    shell.run(*how).succeed()
    model = (out / "sparse/0/points3D.bin").read_bytes()
    for name in ("database.db", "matches.h5", "features.h5", "sparse"):
        path = out / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        shell.run(*how).succeed()
        assert (out / "sparse/0/points3D.bin").read_bytes() == model, name


@pytest.mark.parametrize("folder", ["sparse", "unpolished"])
def test_a_folder_that_holds_something_else(
    tmp_path: Path, shell: Shell, folder: str
) -> None:
    photos = write_photos(tmp_path / "photos", 5)
    diary = tmp_path / "out" / folder / "diary.txt"
    diary.parent.mkdir(parents=True)
    diary.write_text("dear diary")
    how = ("reconstruct", photos, *FEW, "--no-report", "--output", tmp_path / "out")
    if folder == "sparse":
        shell.run(*how).fail("sparse: is not of an earlier run")
    (tmp_path / "out/.lock").touch()  # as an earlier run leaves it
    shell.run(*how).fail("diary.txt")
    assert not (tmp_path / "out/features.h5").exists()  # told before any work
    assert diary.read_text() == "dear diary"
