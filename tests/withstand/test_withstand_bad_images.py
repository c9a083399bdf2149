"""Whatever lies in the folder: bad images are named and left out, good ones used."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from withstand_files import read_hdf5
from withstand_scene import photograph, write_photos
from withstand_shell import Shell, open_shell

from sfm_features.store import FeatureStore

FEW = ("--max-keypoints", 400)


@pytest.fixture
def shell() -> Shell:
    return open_shell()


def _encode(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _photo() -> Image.Image:
    return Image.fromarray(photograph(0))


def _cut_jpeg() -> bytes:
    whole = _encode(_photo(), "JPEG", quality=95)
    return whole[: len(whole) // 2]


def _cut_png() -> bytes:
    whole = _encode(_photo(), "PNG")
    return whole[: len(whole) // 2]


def _sixteen_bit() -> bytes:
    grey = photograph(0)[..., 1].astype(np.uint16) * 257
    return _encode(Image.fromarray(grey), "PNG")


def _transparent() -> bytes:
    picture = _photo().convert("RGBA")
    picture.putalpha(Image.new("L", picture.size, 200))
    return _encode(picture, "PNG")


def _long() -> bytes:
    tile = photograph(0)[:192]
    wide = np.concatenate([tile] * 79, 1)[:, :20000]
    return _encode(Image.fromarray(np.pad(wide, ((0, 8), (0, 0), (0, 0)))), "JPEG")


BAD = {
    "text.jpg": lambda: b"this is a letter, not a photograph\n",
    "cut.jpg": _cut_jpeg,
    "cut.png": _cut_png,
    "empty.jpg": lambda: b"",
    "empty.png": lambda: b"",
    "page.png": lambda: b"<html><body>404</body></html>",
}
ODD = {
    "sixteen.png": _sixteen_bit,
    "grey.png": lambda: _encode(_photo().convert("L"), "PNG"),
    "grey.jpg": lambda: _encode(_photo().convert("L"), "JPEG"),
    "alpha.png": _transparent,
    "palette.png": lambda: _encode(_photo().convert("P"), "PNG"),
    "bits.png": lambda: _encode(_photo().convert("1"), "PNG"),
    "cmyk.jpg": lambda: _encode(_photo().convert("CMYK"), "JPEG", quality=95),
    "progressive.jpg": lambda: _encode(_photo(), "JPEG", progressive=True),
    "photo.webp": lambda: _encode(_photo(), "WEBP"),
    "photo.tiff": lambda: _encode(_photo(), "TIFF"),
    "long.jpg": _long,
    "UPPER.JPG": lambda: _encode(_photo(), "JPEG"),
}
TINY = {
    "dot.png": lambda: _encode(Image.new("RGB", (1, 1)), "PNG"),
    "line.png": lambda: _encode(Image.new("RGB", (300, 1)), "PNG"),
    "blank.png": lambda: _encode(Image.new("RGB", (256, 192), (90, 90, 90)), "PNG"),
}


def _write(folder: Path, files: dict[str, Callable[[], bytes]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(make())
    return folder


def test_bad_images_are_skipped_counted_and_named(tmp_path: Path, shell: Shell) -> None:
    photos = write_photos(tmp_path / "photos", 5)
    _write(photos, BAD)
    _write(photos, TINY)
    out = tmp_path / "out"
    how = ("reconstruct", photos, *FEW, "--no-report", "--output", out)
    result = shell.run(*how).succeed()
    assert "Traceback" not in result.text
    summary = json.loads((out / "summary.json").read_text())
    assert sorted(summary["skipped"]) == sorted(BAD)
    assert all(name in reason for name, reason in summary["skipped"].items())
    assert sorted(summary["unregistered"]) == sorted(TINY)
    assert "no keypoints" in summary["unregistered"]["blank.png"]
    assert summary["images"] == 5 + len(BAD) + len(TINY)
    text = (out / "summary.txt").read_text()
    assert f"{len(BAD)} images could not be read:" in text
    for name in (*BAD, *TINY):
        assert f"  {name}: " in text
    assert summary["models"][0]["registered"] == 5


@pytest.mark.parametrize("name", sorted(BAD))
def test_strict_stops_at_the_first_bad_image(
    tmp_path: Path, shell: Shell, name: str
) -> None:
    photos = write_photos(tmp_path / "photos", 2)
    _write(photos, {name: BAD[name]})
    out = tmp_path / "f.h5"
    shell.run("extract", photos, "--output", out, "--strict").fail(name)
    shell.run("extract", photos, "--output", out).succeed()
    with FeatureStore.open(out) as store:
        assert store.names() == ["view00.png", "view01.png"]


def test_only_bad_images(tmp_path: Path, shell: Shell) -> None:
    photos = _write(tmp_path / "photos", BAD)
    out = tmp_path / "out"
    out.mkdir()
    for command in ("extract", "reconstruct"):
        result = shell.run(command, photos, "--output", out / command)
        result.fail(str(photos), f"none of its {len(BAD)} images")


@pytest.mark.parametrize("name", sorted(ODD))
def test_odd_images_are_read(tmp_path: Path, shell: Shell, name: str) -> None:
    photos = _write(tmp_path / "photos", {name: ODD[name]})
    out = tmp_path / "f.h5"
    result = shell.run("extract", photos, "--output", out, "--strict").succeed()
    assert "Warning" not in result.text
    with FeatureStore.open(out) as store:
        features = store.read(name)
    assert len(features) > 50
    with Image.open(photos / name) as picture:
        assert features.image_size == picture.size
    assert (features.keypoints.max(0) < features.image_size).all()


def test_orientations_change_nothing_but_the_order(
    tmp_path: Path, shell: Shell
) -> None:
    """A viewer's rotation must not move keypoints in the stored frame."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        _photo().save(photos / f"{orientation}.png", exif=exif)
    out = tmp_path / "f.h5"
    # sift, because it finds the same in a picture that is turned.
    extract = ("extract", photos, "--output", out, "--extractor", "sift")
    shell.run(*extract).succeed()
    with FeatureStore.open(out) as store:
        plain = store.read("1.png")
        for orientation in range(2, 9):
            turned = store.read(f"{orientation}.png")
            assert turned.image_size == plain.image_size
            apart = plain.keypoints[:, None] - turned.keypoints
            nearest = np.linalg.norm(apart, axis=2).min(1)
            assert np.mean(nearest < 1) > 0.9, orientation


NAMES = ("with space.png", "süß ☃ 雪.png", "a/b/deep.png", "a b/c d.png", "-dash.png",
         "50%.png", "quote's \"q\".png", "#number.png")  # fmt: skip


def test_names_of_all_kinds(tmp_path: Path, shell: Shell) -> None:
    photos = tmp_path / "my photos é"
    write_photos(photos, len(NAMES))
    for index, name in enumerate(NAMES):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / f"view{index:02}.png").rename(photos / name)
    out = tmp_path / "out put"
    result = shell.run("reconstruct", photos, *FEW, "--output", out).succeed()
    assert f"{len(NAMES)} of {len(NAMES)} images registered" in result.text
    with FeatureStore.open(out / "features.h5") as store:
        assert store.names() == sorted(NAMES)


def test_names_that_are_not_text(tmp_path: Path, shell: Shell) -> None:
    photos = write_photos(tmp_path / "photos", 4)
    try:
        (photos / "view00.png").rename(photos / "caf\udce9.png")
    except OSError:
        pytest.skip("this file system takes only names that are valid text")
    out = tmp_path / "out"
    how = ("reconstruct", photos, *FEW, "--output", out)
    shell.run(*how, "--strict").fail("not text")
    shell.run(*how).succeed()
    summary = json.loads((out / "summary.json").read_text())
    assert summary["images"] == 4
    assert list(summary["skipped"]) == ["caf\\udce9.png"]


@pytest.mark.parametrize("command", ["extract", "reconstruct"])
def test_colliding_names(tmp_path: Path, shell: Shell, command: str) -> None:
    photos = write_photos(tmp_path / "photos", 3)
    (photos / "a").mkdir()
    (photos / "view00.png").rename(photos / "a/b.png")
    (photos / "view01.png").rename(photos / "a-b.png")
    result = shell.run(command, photos, "--output", tmp_path / "out")
    result.fail("a/b.png", "a-b.png", "rename one")


@pytest.mark.parametrize("command", ["extract", "reconstruct"])
@pytest.mark.parametrize("kind", ["absent", "empty", "no images", "a file"])
def test_no_images(tmp_path: Path, shell: Shell, command: str, kind: str) -> None:
    photos = tmp_path / "photos"
    if kind == "a file":
        photos.write_bytes(b"")
    elif kind != "absent":
        photos.mkdir()
    if kind == "no images":
        (photos / "letter.txt").write_text("hello")
    result = shell.run(command, photos, "--output", tmp_path / "out")
    result.fail(str(photos), "give ")


def test_an_image_that_vanishes_between_runs(tmp_path: Path, shell: Shell) -> None:
    photos = write_photos(tmp_path / "photos", 5)
    out = tmp_path / "out"
    how = ("reconstruct", photos, *FEW, "--no-report", "--output", out)
    shell.run(*how).succeed()
    (photos / "view04.png").unlink()
    result = shell.run(*how)
    assert "Traceback" not in result.text
    assert result.code in (0, 2), result.text


def test_an_image_list(tmp_path: Path, shell: Shell) -> None:
    photos = write_photos(tmp_path / "photos", 4)
    names, out = tmp_path / "names.txt", tmp_path / "f.h5"
    how = ("extract", photos, *FEW, "--image-list", names, "--output", out)
    shell.run(*how).fail(str(names), "no such file")
    names.write_text("view00.png\nview9.png\n")
    shell.run(*how).fail("view9.png", "view0")
    names.write_text("\n# nothing\n")
    shell.run(*how).fail(str(names), "names no image")
    names.write_bytes(b"\xff\xfe\x00view")
    shell.run(*how).fail(str(names))
    names.write_text("view02.png\n\nview00.png\nview02.png\n")
    shell.run(*how).succeed()
    found = {key.split("/")[0] for key in read_hdf5(out) if "/" in key}
    assert found == {"view00.png", "view02.png"}


def test_masks(tmp_path: Path, shell: Shell) -> None:
    photos = write_photos(tmp_path / "photos", 2)
    masks = tmp_path / "masks"
    how = ("extract", photos, *FEW, "--masks", masks, "--output", tmp_path / "f.h5")
    shell.run(*how).fail(str(masks), "--masks")
    masks.mkdir()
    (masks / "view00.png.png").write_bytes(b"no mask")
    black = Image.new("L", (256, 192))
    black.save(masks / "view01.png.png")
    result = shell.run(*how).succeed()
    assert "view00.png.png" in result.text
    with FeatureStore.open(tmp_path / "f.h5") as store:
        assert store.names() == ["view01.png"]
        assert len(store.read("view01.png")) == 0
