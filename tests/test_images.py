"""Decoding everything that people call an image, and undoing what we did to it."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pycolmap
import pytest
from PIL import Image, ImageOps
from samples import make_texture, write_image

from sfm_features import images, masks, photo_files
from sfm_features.errors import ImageError, InputError
from sfm_features.journal import claim
from sfm_features.orientation import (
    read_orientation,
    turn_back,
    turn_points,
    turn_stored,
    turn_upright,
)
from sfm_features.types import undo_resize


def test_lists_nested_names_in_order(tmp_path: Path) -> None:
    for name in ("b.JPG", "a/ä ö.png", "a/x.TIF", ".hidden/c.png", "notes.txt"):
        write_image(tmp_path / "t.png", make_texture((8, 8)))
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / "t.png").rename(tmp_path / name)
    assert photo_files.list_images(tmp_path) == ["a/x.TIF", "a/ä ö.png", "b.JPG"]


def test_empty_and_absent_folders_say_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no images; give a folder .*\.jpg"):
        photo_files.list_images(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        photo_files.list_images(tmp_path / "no")
    write_image(tmp_path / "a.png", make_texture((8, 8)))
    with pytest.raises(InputError, match=r"a\.png: is a file, not a folder; give the"):
        photo_files.list_images(tmp_path / "a.png")


def test_videos_are_told_to_be_cut_into_frames(tmp_path: Path) -> None:
    for name in ("b.MOV", "a.mp4", "a.txt"):
        (tmp_path / name).touch()
    words = r"has no images but 2 videos; .*ffmpeg -i '.*/a\.mp4' -vf fps=2 frames/%05d"
    with pytest.raises(InputError, match=words):
        photo_files.list_images(tmp_path)
    write_image(tmp_path / "one.png", make_texture((8, 8)))
    assert photo_files.list_images(tmp_path) == ["one.png"]


def test_image_list_selects_and_suggests(tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        write_image(tmp_path / name, make_texture((8, 8)))
    wanted = tmp_path / "list.txt"
    wanted.write_text("# mine\n\ntwo.png\n")
    assert photo_files.list_images(tmp_path, wanted) == ["two.png"]
    wanted.write_text("tow.png\n")
    with pytest.raises(InputError, match=r"'tow.png'.*there is 'two.png'"):
        photo_files.list_images(tmp_path, wanted)


def test_image_list_may_be_made_by_find(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("i/one.png", "i/a/two.png", "out.png"):
        write_image(tmp_path / name, make_texture((8, 8)))
    folder, wanted = tmp_path / "i", tmp_path / "list.txt"
    (tmp_path / "link").symlink_to(folder)
    wanted.write_text(f"./one.png\none.png\n{folder}/a/two.png\na//../a/./two.png\n")
    assert photo_files.list_images(folder, wanted) == ["a/two.png", "one.png"]
    assert photo_files.list_images(tmp_path / "link", wanted) == [
        "a/two.png",
        "one.png",
    ]
    monkeypatch.chdir(tmp_path)
    assert photo_files.list_images(Path("i"), wanted) == ["a/two.png", "one.png"]
    for name in ("../out.png", "a/../../out.png", f"{tmp_path}/out.png"):
        wanted.write_text(f"{name}\n")
        with pytest.raises(InputError, match=r"list\.txt.*out\.png', which lies out"):
            photo_files.list_images(folder, wanted)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_reported_and_undone(tmp_path: Path, orientation: int) -> None:
    picture = make_texture((40, 30))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "x.png"
    Image.fromarray(picture).save(path, exif=exif)
    decoded = images.decode(path)
    assert decoded.orientation == orientation
    np.testing.assert_array_equal(decoded.rgb, picture)
    upright = turn_upright(decoded.rgb, orientation)
    shown = ImageOps.exif_transpose(Image.open(path))
    np.testing.assert_array_equal(upright, np.asarray(shown))
    height, width = upright.shape[:2]
    xy = np.argwhere(np.ones((height, width)))[:, ::-1].astype(np.float32)
    column, row = turn_back(xy, orientation, (width, height)).astype(int).T
    at = xy.astype(int)
    np.testing.assert_array_equal(picture[row, column], upright[at[:, 1], at[:, 0]])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_points_are_turned_there_and_back(orientation: int) -> None:
    size = (30, 40) if orientation > 4 else (40, 30)  # upright, of 40 x 30 stored
    xy = np.array([[0, 0], [39, 29], [7.25, 21.5]], np.float32)
    there = turn_points(xy, orientation, size)
    assert (there >= 0).all() and (there <= np.array(size) - 1).all()
    np.testing.assert_allclose(turn_back(there, orientation, size), xy)


def test_exif_of_jpeg_with_senseless_values(tmp_path: Path) -> None:
    for value, expected in ((6, 6), (0, 1), (77, 1)):
        exif = Image.Exif()
        exif[0x0112] = value
        Image.fromarray(make_texture((16, 16))).save(tmp_path / "x.jpg", exif=exif)
        assert images.decode(tmp_path / "x.jpg").orientation == expected


def test_every_kind_of_pixel_becomes_8_bit_rgb(tmp_path: Path) -> None:
    picture = make_texture((64, 48))
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    Image.fromarray(picture).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    Image.fromarray(np.dstack([picture, grey])).save(tmp_path / "rgba.png")
    Image.fromarray(grey).save(tmp_path / "grey.png")
    cv2.imwrite(str(tmp_path / "deep.png"), picture[..., ::-1].astype(np.uint16) * 257)
    Image.fromarray(picture).convert("P").save(tmp_path / "palette.png")
    Image.fromarray(picture).save(tmp_path / "x.tif")
    Image.fromarray(picture).save(tmp_path / "x.webp", lossless=True)
    tolerance = {"cmyk.jpg": 8, "palette.png": 30, "grey.png": 0}
    for path in sorted(tmp_path.iterdir()):
        rgb = images.decode(path).rgb
        assert rgb.shape == (48, 64, 3) and rgb.dtype == np.uint8, path.name
        truth = np.dstack([grey] * 3) if path.name == "grey.png" else picture
        error = np.abs(rgb.astype(int) - truth).mean()
        assert error <= tolerance.get(path.name, 0), (path.name, error)


def test_bits_that_a_camera_does_not_use_are_not_kept(tmp_path: Path) -> None:
    """12 bits in 16, as thermal cameras write them, would be black."""
    grey = make_texture((64, 48))[..., 0]
    for bits in (8, 10, 12, 16):
        deep = grey.astype(np.uint16) << (bits - 8)
        cv2.imwrite(str(tmp_path / "deep.png"), deep)
        np.testing.assert_array_equal(
            images.decode(tmp_path / "deep.png").rgb[..., 0], grey
        )
    reals = np.dstack([grey] * 3).astype(np.float32)
    cv2.imwrite(str(tmp_path / "float.tif"), reals)
    with pytest.raises(ImageError, match="float32; convert"):
        images.decode(tmp_path / "float.tif")


def test_opencv_adds_nothing_to_our_errors(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    grey = make_texture((64, 48))[..., 0]
    cv2.imwrite(str(tmp_path / "double.tif"), grey.astype(np.float64))
    whole = (tmp_path / "double.tif").read_bytes()
    (tmp_path / "half.tif").write_bytes(whole[: len(whole) // 2])
    level = cv2.utils.logging.getLogLevel()
    for name in ("double.tif", "half.tif"):
        with pytest.raises(ImageError, match=name):
            images.decode(tmp_path / name)
    with pytest.raises(ImageError, match=r"half\.tif"):
        images.decode_values(tmp_path / "half.tif")
    assert capfd.readouterr().err == ""
    assert cv2.utils.logging.getLogLevel() == level


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_as_it_is_stored(tmp_path: Path, orientation: int) -> None:
    """OpenCV turns TIFFs upright whatever it is told; COLMAP reads them as stored."""
    picture, path = make_texture((64, 48)), tmp_path / "x.tif"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture).save(path, exif=exif)
    decoded = images.decode(path)
    assert decoded.orientation == orientation
    np.testing.assert_array_equal(decoded.rgb, picture)
    np.testing.assert_array_equal(images.decode_values(path)[..., ::-1], picture)
    stored = pycolmap.Bitmap.read(path, as_rgb=True).to_array()
    np.testing.assert_array_equal(stored, picture)
    upright = turn_upright(picture, orientation)
    np.testing.assert_array_equal(turn_stored(upright, orientation), picture)


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_orientation_of_a_large_tiff_is_read(order: str) -> None:
    """BigTIFF: offsets of 64 bits, entries of 20 bytes."""
    start = b"II+\0" if order == "<" else b"MM\0+"
    head = struct.pack(order + "HHQ", 8, 0, 16)
    entries = [(0x0100, 4, 1, 9), (0x0112, 3, 1, 6)]
    packed = b"".join(
        struct.pack(order + "HHQ", tag, kind, count)
        + struct.pack(order + ("H6x" if kind == 3 else "I4x"), value)
        for tag, kind, count, value in entries
    )
    block = start + head + struct.pack(order + "Q", len(entries)) + packed
    assert read_orientation(block) == 6
    assert read_orientation(block[:-20]) == 1  # cut off before it


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    photos, elsewhere = tmp_path / "photos", tmp_path / "elsewhere"
    write_image(photos / "a.png", make_texture((16, 16)))
    write_image(elsewhere / "deep" / "b.png", make_texture((16, 16)))
    write_image(photos / ".hidden" / "c.png", make_texture((16, 16)))
    (photos / "cam").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(photos)
    (photos / "gone.png").symlink_to(tmp_path / "nothing")
    (photos / "self.png").symlink_to(photos / "self.png")
    (photos / "again").symlink_to(elsewhere / "deep")  # it is there already
    (photos / "as").symlink_to(photos / "z")  # what it links to has its own name
    write_image(photos / "z" / "d.png", make_texture((16, 16)))
    assert photo_files.list_images(photos) == ["a.png", "again/b.png", "z/d.png"]


def test_what_a_run_wrote_among_photographs_is_none_of_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.png", "b/c.png", "out/curves.png", "out/rounds/00.png"):
        write_image(tmp_path / name, make_texture((16, 16)))
    everything = ["a.png", "b/c.png", "out/curves.png", "out/rounds/00.png"]
    assert photo_files.list_images(tmp_path) == everything
    with claim(tmp_path / "out"):
        assert photo_files.list_images(tmp_path) == ["a.png", "b/c.png"]
    assert photo_files.list_images(tmp_path) == ["a.png", "b/c.png"]
    assert f"{tmp_path / 'out'}: left out, as a run of sfm-features" in caplog.text
    assert photo_files.list_images(tmp_path / "out") == ["curves.png", "rounds/00.png"]


def test_photographs_that_cannot_be_decoded_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.HEIC", "b.heic", "c.dng", "notes.txt"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"there are 1 \.dng, 2 \.heic: convert them"):
        photo_files.list_images(tmp_path)
    write_image(tmp_path / "d.png", make_texture((16, 16)))
    assert photo_files.list_images(tmp_path) == ["d.png"]
    assert "left out 1 .dng, 2 .heic" in caplog.text and "txt" not in caplog.text


def test_bad_files_are_named_with_the_cause(tmp_path: Path) -> None:
    write_image(tmp_path / "good.jpg", make_texture((64, 48)))
    write_image(tmp_path / "good.png", make_texture((64, 48)))
    jpeg = (tmp_path / "good.jpg").read_bytes()
    png = (tmp_path / "good.png").read_bytes()
    bad = {
        "cut.jpg": (jpeg[: len(jpeg) // 2], "cut off"),
        "cut.png": (png[: len(png) // 2], "cut off"),
        "head.jpg": (jpeg[:30], "cut off"),
        "empty.jpg": (b"", "0 bytes"),
        "text.jpg": (b"hello, I am a text", "not an image"),
        "noise.png": (png[:40] + bytes(200) + png[-12:], "decode"),
    }
    for name, (content, cause) in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match=cause) as caught:
            images.decode(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
    (tmp_path / "tail.jpg").write_bytes(jpeg + b"trailing bytes of a phone")
    (tmp_path / "tail.png").write_bytes(png + b"what an editor left there" * 9)
    for name in ("tail.jpg", "tail.png"):
        assert images.decode(tmp_path / name).size == (64, 48)


def test_resizing_is_undone_exactly() -> None:
    """The corners of the pixel grid map onto the corners of the original's."""
    small = images.resize_to(make_texture((1000, 400)), 250)
    assert small.shape == (100, 250, 3)
    outer = np.array([[0, 0], [250, 100]], np.float32) - 0.5
    back = undo_resize(outer, (1000, 400), (250, 100))
    np.testing.assert_allclose(back + 0.5, [[0, 0], [1000, 400]], atol=1e-4)
    assert images.resize_to(small, 0) is small
    assert images.resize_to(np.zeros((200, 20_000, 3), np.uint8), 1600).shape[0] == 16
    assert images.resize_to(np.zeros((2, 20_000, 3), np.uint8), 1600).shape[0] == 1


def test_masks_keep_what_is_not_zero(tmp_path: Path) -> None:
    mask = np.zeros((30, 40, 3), np.uint8)
    mask[:, 20:] = 1
    write_image(tmp_path / "a" / "x.jpg.png", mask)
    read = masks.read_mask(tmp_path, "a/x.jpg")
    assert read is not None and masks.read_mask(tmp_path, "b.jpg") is None
    np.testing.assert_array_equal(read, mask[..., 0] > 0)
    green = np.dstack([np.zeros_like(mask[..., 0]), mask[..., 0], mask[..., 0] * 0])
    opaque = np.full((30, 40), 255, np.uint8)
    write_image(tmp_path / "a" / "y.png", green)  # not y.jpg.png
    Image.fromarray(np.dstack([green, opaque])).save(tmp_path / "a" / "z.png")
    for name in ("a/y.jpg", "a/z.jpg"):
        other = masks.read_mask(tmp_path, name)
        np.testing.assert_array_equal(other, read)
    xy = np.array([[19, 5], [20, 5], [39.4, 29.4], [-0.4, 0]], np.float32)
    assert masks.keep_inside(read, xy, (40, 30)).tolist() == [False, True, True, False]
    doubled = masks.keep_inside(read, 2 * xy, (80, 60))
    assert doubled.tolist() == [False, True, True, False]


def test_a_mask_is_asked_at_the_nearest_pixel() -> None:
    mask = np.zeros((30, 40), np.bool_)
    mask[:, 20:] = True
    xy = np.array([[19.4, 5], [19.6, 5]], np.float32)
    assert masks.keep_inside(mask, xy, (40, 30)).tolist() == [False, True]
