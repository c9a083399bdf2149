"""Extraction over a folder: hostile files, resuming, orientation, masks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from samples import make_texture, note_calls, write_image

from sfm_features import extract as stage
from sfm_features import masks as mask_files
from sfm_features.errors import (
    ImageError,
    InputError,
    NameCollision,
    OptionError,
    StaleStore,
)
from sfm_features.extract import ExtractOptions, extract
from sfm_features.match import match
from sfm_features.nets.evo import EvoNet
from sfm_features.nets.weights import Card, save_weights
from sfm_features.orientation import turn_stored
from sfm_features.retrieve import describe
from sfm_features.store import FeatureStore, MatchStore
from sfm_features.types import Features, RunOptions


def read_all(path: Path) -> dict[str, Features]:
    with FeatureStore.open(path) as store:
        return {name: store.read(name) for name in store.names()}


def test_folder_to_features(photos: Path, tmp_path: Path) -> None:
    summary = extract(photos, tmp_path / "f.h5", ExtractOptions(max_keypoints=200))
    assert (summary.written, summary.reused, summary.skipped) == (6, 0, {})
    features = read_all(tmp_path / "f.h5")
    assert sorted(features) == [
        f"{'ab'[i % 2]}/view {i}.png" for i in (0, 2, 4, 1, 3, 5)
    ]
    for value in features.values():
        assert value.image_size == (240, 200)
        assert 20 < len(value) <= 200
        assert (value.keypoints >= 0).all()
        assert (value.keypoints <= [239, 199]).all()


def test_bad_images_are_skipped_counted_and_named(photos: Path, tmp_path: Path) -> None:
    jpeg = cv2.imencode(".jpg", make_texture((64, 48)))[1].tobytes()
    (photos / "text.jpg").write_text("not an image")
    (photos / "cut.jpg").write_bytes(jpeg[:200])
    (photos / "empty.png").write_bytes(b"")
    write_image(photos / "one.png", np.zeros((1, 1, 3), np.uint8))
    write_image(photos / "flat.png", np.full((80, 80, 3), 99, np.uint8))
    write_image(photos / "long.png", make_texture((20_000, 200)))
    summary = extract(photos, tmp_path / "f.h5")
    assert set(summary.skipped) == {"text.jpg", "cut.jpg", "empty.png"}
    assert "cut off" in summary.skipped["cut.jpg"]
    assert summary.written == 9
    features = read_all(tmp_path / "f.h5")
    assert len(features["one.png"]) == len(features["flat.png"]) == 0
    assert features["long.png"].image_size == (20_000, 200)
    assert features["long.png"].keypoints[:, 0].max() > 15_000
    with pytest.raises(ImageError, match="cut"):
        extract(photos, tmp_path / "strict.h5", run=RunOptions(strict=True))


def test_nothing_decodable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_text("no")
    with pytest.raises(InputError, match="none of its 1 images"):
        extract(tmp_path, tmp_path / "f.h5")


def test_colliding_names_are_refused_before_any_work(tmp_path: Path) -> None:
    for name in ("a/b.png", "a-b.png"):
        write_image(tmp_path / "i" / name, make_texture((32, 32)))
    with pytest.raises(NameCollision):
        extract(tmp_path / "i", tmp_path / "f.h5")
    assert not (tmp_path / "f.h5").exists()


def test_only_what_is_missing_is_extracted(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "f.h5"
    extract(photos, output)
    write_image(photos / "new.png", make_texture((100, 90)))
    summary = extract(photos, output)
    assert (summary.written, summary.reused) == (1, 6)
    # With nothing missing the method is not even built.
    monkeypatch.setattr(stage, "build_extractor", None)
    assert extract(photos, output).reused == 7
    with pytest.raises(StaleStore, match="max_keypoints = 2048, now asked for 100"):
        extract(photos, output, ExtractOptions(max_keypoints=100))


def test_each_setting_that_changes_features_makes_them_stale(tmp_path: Path) -> None:
    images, output = tmp_path / "i", tmp_path / "f.h5"
    write_image(images / "x.png", make_texture((64, 48)))
    write_image(tmp_path / "m/x.png.png", np.full((48, 64, 3), 255, np.uint8))
    save_weights(EvoNet(), tmp_path / "w.safetensors", Card("evo"))
    options = ExtractOptions(max_keypoints=50)
    extract(images, output, options)
    for field, other in (
        ("extractor", replace(options, extractor="sift")),
        ("max_size", replace(options, max_size=32)),
        ("masks", replace(options, masks=tmp_path / "m")),
        ("scales", replace(options, scales=(1.0,))),
        ("weights_sha256", replace(options, weights=tmp_path / "w.safetensors")),
    ):
        with pytest.raises(StaleStore, match=f"{field} = .*, now asked for"):
            extract(images, output, other)
    with pytest.raises(StaleStore, match="seed = 0, now asked for 1"):
        extract(images, output, options, RunOptions(seed=1))
    assert extract(images, output, options).reused == 1


@pytest.fixture
def one_thread() -> Iterator[None]:
    """With more of them each image is a batch of its own."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_same_seed_same_bytes_whatever_the_batch(photos: Path, tmp_path: Path) -> None:
    contents = set()
    for batch in (1, 4, 4):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.h5"
        extract(photos, path, ExtractOptions(batch=batch))
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_keypoints_are_in_the_frame_of_the_stored_file(tmp_path: Path) -> None:
    """The same pixels under all eight EXIF orientations give the same positions."""
    picture = make_texture((200, 150), seed=5)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        (tmp_path / "i").mkdir(exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "i" / f"{orientation}.png", exif=exif)
    # sift, because it finds the same in a picture that is turned.
    options = ExtractOptions(extractor="sift", max_size=120)
    extract(tmp_path / "i", tmp_path / "f.h5", options)
    features = read_all(tmp_path / "f.h5")
    plain = features["1.png"]
    for name, turned in features.items():
        assert turned.image_size == (200, 150), name
        gaps = np.linalg.norm(turned.keypoints[:, None] - plain.keypoints, axis=2)
        assert np.mean(gaps.min(1) < 0.5) > 0.9, name
        assert abs(np.median(turned.keypoints - plain.keypoints[gaps.argmin(1)])) < 0.05


def test_small_copies_give_original_pixels(tmp_path: Path) -> None:
    picture = make_texture((400, 300), seed=6)
    write_image(tmp_path / "i" / "x.png", picture)
    extract(tmp_path / "i", tmp_path / "full.h5", ExtractOptions(max_size=0))
    extract(tmp_path / "i", tmp_path / "half.h5", ExtractOptions(max_size=200))
    full = read_all(tmp_path / "full.h5")["x.png"]
    half = read_all(tmp_path / "half.h5")["x.png"]
    assert half.image_size == (400, 300)
    assert half.uncertainty_px == 2 * full.uncertainty_px
    gaps = np.linalg.norm(half.keypoints[:, None] - full.keypoints, axis=2)
    close = gaps.min(1) < 1
    assert close.sum() > 20
    shift = half.keypoints - full.keypoints[gaps.argmin(1)]
    assert np.abs(np.median(shift[close], 0)).max() < 0.1


@pytest.mark.parametrize("upright", [False, True])
def test_a_mask_may_be_made_on_the_upright_image(tmp_path: Path, upright: bool) -> None:
    """A portrait that lies in its file, and what is left of it as one sees it."""
    stored, exif = make_texture((400, 300)), Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "i").mkdir()
    Image.fromarray(stored).save(tmp_path / "i" / "x.jpg", exif=exif, quality=95)
    mask = np.zeros((400, 300, 3), np.uint8)
    mask[:, :150] = 255
    lying = turn_stored(mask, 6)
    write_image(tmp_path / "m" / "x.jpg.png", mask if upright else lying)
    options = ExtractOptions(max_keypoints=60, masks=tmp_path / "m")
    extract(tmp_path / "i", tmp_path / "f.h5", options)
    x, y = np.round(read_all(tmp_path / "f.h5")["x.jpg"].keypoints).astype(int).T
    assert len(x) == 60 and lying[y, x].all()


@pytest.mark.parametrize("extractor", ["sift", "evo"])
def test_all_keypoints_may_be_asked_for(tmp_path: Path, extractor: str) -> None:
    """With masks four times as many are asked for, which no C int would hold."""
    write_image(tmp_path / "i" / "x.png", make_texture((80, 60)))
    write_image(tmp_path / "m" / "x.png", np.full((60, 80, 3), 255, np.uint8))
    options = ExtractOptions(extractor, 2**31 - 1, masks=tmp_path / "m")
    assert extract(tmp_path / "i", tmp_path / "f.h5", options).written == 1


def test_masks_remove_keypoints_but_not_their_number(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_image(tmp_path / "i" / "s" / "x.png", make_texture((400, 300)))
    write_image(tmp_path / "i" / "y.png", make_texture((400, 300)))
    mask = np.zeros((300, 400, 3), np.uint8)
    mask[:, 200:] = 255
    write_image(tmp_path / "m" / "s" / "x.png.png", mask)
    options = ExtractOptions(max_keypoints=60, masks=tmp_path / "m")
    extract(tmp_path / "i", tmp_path / "f.h5", options)
    features = read_all(tmp_path / "f.h5")
    assert features["s/x.png"].keypoints[:, 0].min() > 199
    assert features["y.png"].keypoints[:, 0].min() < 199
    assert len(features["s/x.png"]) == len(features["y.png"]) == 60
    assert (np.diff(features["s/x.png"].scores) <= 0).all()
    assert (
        "1 of 2 images have no mask" in caplog.text and "'y.png' first" in caplog.text
    )
    (tmp_path / "m" / "s" / "x.png.png").unlink()
    with pytest.raises(InputError, match=r"has no mask of any.*s/x\.png\.png"):
        extract(tmp_path / "i", tmp_path / "h.h5", options)
    # Among the images a.png is no mask of a.png, nor of a.jpg.
    with pytest.raises(InputError, match="has no mask of any"):
        extract(
            tmp_path / "i", tmp_path / "h.h5", replace(options, masks=tmp_path / "i")
        )
    with pytest.raises(InputError, match="no such folder of masks"):
        extract(
            tmp_path / "i", tmp_path / "g.h5", ExtractOptions(masks=tmp_path / "no")
        )


def test_a_photo_that_was_replaced_is_extracted_and_matched_again(
    tmp_path: Path,
) -> None:
    photos, features = tmp_path / "i", tmp_path / "f.h5"
    matches, described = tmp_path / "m.h5", tmp_path / "g.h5"
    for i in range(3):
        write_image(photos / f"{i}.png", make_texture((200, 150), i))
    pairs = [("0.png", "1.png"), ("0.png", "2.png"), ("1.png", "2.png")]
    options = ExtractOptions(max_keypoints=100)

    def run() -> tuple[int, int, int]:
        return (
            extract(photos, features, options).written,
            match(features, pairs, matches).written,
            describe(features, described).written,
        )

    assert run() == (3, 3, 3)
    assert run() == (0, 0, 0)
    write_image(photos / "2.png", make_texture((240, 150), 7))
    assert run() == (1, 2, 1)
    assert run() == (0, 0, 0)
    # A file from before the change says nothing of its keypoints: they are read.
    with h5py.File(features, "r+") as file:
        for group in file.values():
            del group.attrs["fingerprint"]
    assert run() == (0, 0, 0)
    write_image(photos / "2.png", make_texture((180, 150), 8))  # a smaller file
    assert run() == (1, 2, 1)
    with FeatureStore.open(features) as store:
        assert store.read_size("2.png") == (180, 150)
        count = len(store.read_keypoints("2.png"))
    with MatchStore.open(matches) as store:
        assert (store.read(("1.png", "2.png")).indices[:, 1] < count).all()


def test_an_edited_mask_counts_as_another_photo(tmp_path: Path) -> None:
    photos, masks, output = tmp_path / "i", tmp_path / "m", tmp_path / "f.h5"
    for i in range(3):
        write_image(photos / f"{i}.png", make_texture((200, 150), i))
    left, right = np.zeros((2, 150, 200, 3), np.uint8)
    left[:, :100] = right[:, 100:] = 255
    write_image(masks / "0.png.png", left)
    write_image(masks / "1.png.png", left)
    options = ExtractOptions(max_keypoints=100, masks=masks)

    def run() -> tuple[int, str]:
        written = extract(photos, output, options).written
        with FeatureStore.open(output) as store:
            x = [store.read_keypoints(name)[:, 0] for name in store.names()]
        sides = [{"LR"[int(at > 99.5)] for at in of_image} for of_image in x]
        return written, " ".join("".join(sorted(side)) for side in sides)

    assert run() == (3, "L L LR")
    assert run() == (0, "L L LR")
    write_image(masks / "1.png.png", right)  # edited
    assert run() == (1, "L R LR")
    write_image(masks / "2.png.png", right)  # new
    assert run() == (1, "L R R")
    (masks / "0.png.png").unlink()  # gone
    assert run() == (1, "LR R R")
    assert run() == (0, "LR R R")
    with h5py.File(output, "r+") as file:  # a file from before the check sum
        for group in file.values():
            del group.attrs["mask_crc"]
    write_image(masks / "2.png.png", left)
    assert run() == (0, "LR R R")


def test_one_mask_may_serve_all_images(tmp_path: Path) -> None:
    """And is no photograph, should it lie among them; sizes need not be the same."""
    photos, output = tmp_path / "i", tmp_path / "f.h5"
    for name, size in (("a/0.png", (200, 150)), ("1.jpg", (300, 120))):
        write_image(photos / name, make_texture(size))
    left, right = np.zeros((2, 75, 100, 3), np.uint8)
    left[:, :50] = right[:, 50:] = 255
    mask = photos / "mask.PNG"
    write_image(mask, left)
    options = ExtractOptions(max_keypoints=60, masks=mask)

    def run(options: ExtractOptions) -> tuple[int, list[bool]]:
        written = extract(photos, output, options).written
        found = read_all(output)
        assert found.keys() == {"a/0.png", "1.jpg"}
        middles = {"a/0.png": 99.5, "1.jpg": 149.5}
        sides = [{*(f.keypoints[:, 0] < middles[n])} for n, f in found.items()]
        assert all(len(features) > 20 for features in found.values())
        return written, [only for (only,) in sides]

    assert run(options) == (2, [True, True])
    assert run(options) == (0, [True, True])
    write_image(mask, right)  # edited: it is that of each image
    assert run(options) == (2, [False, False])
    other = tmp_path / "m.png"
    other.write_bytes(mask.read_bytes())
    mask.unlink()
    assert run(replace(options, masks=other)) == (0, [False, False])  # only moved
    for name in ("a/0.png", "1.jpg"):
        (tmp_path / "m" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "m" / f"{name}.png").write_bytes(other.read_bytes())
    assert run(replace(options, masks=tmp_path / "m")) == (0, [False, False])


def test_one_mask_is_looked_at_before_any_work(tmp_path: Path) -> None:
    write_image(tmp_path / "i" / "x.png", make_texture((80, 60)))
    masks = {n: tmp_path / n for n in ("m.jpg", "zero.png", "bad.png", "cut.png")}
    for path in masks.values():
        write_image(path, np.zeros((60, 80, 3), np.uint8))
    masks["bad.png"].write_text("no image")
    masks["cut.png"].write_bytes(masks["zero.png"].read_bytes()[:40])
    for name, said in (
        ("m.jpg", "a mask is a PNG file"),
        ("zero.png", "zero all over"),
        ("bad.png", "not an image that can be decoded"),
        ("cut.png", "cut off"),
    ):
        options = ExtractOptions(masks=masks[name])
        with pytest.raises(InputError, match=rf"{name}: .*{said}"):
            extract(tmp_path / "i", tmp_path / "f.h5", options)
    assert not (tmp_path / "f.h5").exists()
    write_image(masks["zero.png"], np.full((60, 80, 3), 255, np.uint8))
    options = ExtractOptions(masks=masks["zero.png"])
    with pytest.raises(OptionError, match="would be overwritten"):
        extract(tmp_path / "i", masks["zero.png"], options, overwrite=True)
    assert masks["zero.png"].read_bytes().startswith(b"\x89PNG")


def test_one_mask_is_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(4):
        write_image(tmp_path / "i" / f"{i}.png", make_texture((80, 60), i))
    write_image(tmp_path / "m.png", np.full((60, 80, 3), 255, np.uint8))
    calls = note_calls(monkeypatch, mask_files, "decode_values")
    options = ExtractOptions(max_keypoints=60, masks=tmp_path / "m.png")
    extract(tmp_path / "i", tmp_path / "f.h5", options)
    assert len(calls) == 1


def test_nothing_is_left_of_a_photograph_that_became_unreadable(
    photos: Path, tmp_path: Path
) -> None:
    name, output = "a/view 0.png", tmp_path / "f.h5"
    extract(photos, output)
    (photos / name).write_text("junk")
    summary = extract(photos, output)
    assert (summary.written, summary.reused, list(summary.skipped)) == (0, 5, [name])
    assert len(read_all(output)) == 5 and name not in read_all(output)
    assert extract(photos, output).reused == 5
