"""Batches: exact, deterministic, and unimpressed by hostile folders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from samples import make_texture, write_image
from training_kit import make_photo, write_photos

from sfm_features.errors import InputError
from sfm_features.geometry import warp_points
from sfm_features.images import decode
from sfm_features.nets.grey import grey_from_rgb
from sfm_features.training.crops import Surface, draw_crop
from sfm_features.training.data import DataOptions, PairSource
from sfm_features.training.label_store import choose_photos
from sfm_features.training.layers import LayerRanges
from sfm_features.training.photometric import LightRanges
from sfm_features.training.photos import Photo, PhotoSet, hold_back, load_photos
from sfm_features.training.stream import stream_batches
from sfm_features.training.targets import IGNORED, KEYPOINT
from sfm_features.training.warps import WarpRanges, sample_maps

PLAIN = LightRanges(0, 0, 0, 0, 0, 0, 0, 0, 0)
SMALL = DataOptions(
    batch=2, crop_px=96, points=64, light=PLAIN, layers=LayerRanges(share=0)
)


def make_source(options: DataOptions = SMALL, seed: int = 0) -> PairSource:
    photos = PhotoSet([make_photo(seed=i) for i in range(3)])
    rng = np.random.default_rng(0)
    labels = {
        i: rng.uniform(8, 140, (150, 2)).astype(np.float32) for i in range(len(photos))
    }
    return PairSource(photos, labels, options, seed)


def test_corresponding_points_show_the_same() -> None:
    batch = make_source().make_batch(0)
    images = batch.images.float()
    a, b = (
        sample_maps(part, xy)
        for part, xy in zip(images.chunk(2), batch.xy, strict=True)
    )
    difference = (a - b).abs()[batch.used]
    assert batch.used.sum() > 60
    assert difference.median() < 4
    shuffled = (a - b.roll(1, dims=1)).abs()[batch.used]
    assert shuffled.median() > 5 * difference.median()


def test_points_and_homography_agree() -> None:
    batch = make_source().make_batch(1)
    for i in range(2):
        used = batch.used[i]
        landed = warp_points(batch.b_from_a[i].numpy(), batch.xy[0, i, used].numpy())
        np.testing.assert_allclose(landed, batch.xy[1, i, used], atol=1e-2)


def test_labels_land_on_what_they_label() -> None:
    """Bright dots are the keypoints: each marked pixel of a crop must be one."""
    grey = np.full((150, 200), 30, np.uint8)
    y, x = np.mgrid[15:140:20, 15:190:20]
    xy = np.stack([x.ravel(), y.ravel()], 1)
    spots = np.zeros((150, 200))
    spots[y, x] = 1
    for _ in range(2):
        spots = sum(
            np.roll(spots, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)
        )
    grey = (30 + 200 * spots / spots.max()).astype(np.uint8)
    photo = Photo("dots", grey, np.full((75, 100, 2), 128, np.uint8))
    # Much smaller, a dot would be less than a pixel, and grey.
    options = replace(SMALL, warps=WarpRanges(scale=(0.8, 1.6)))
    source = PairSource(PhotoSet([photo]), {0: xy.astype(np.float32)}, options, 0)
    marked = []
    for k in range(5):
        batch = source.make_batch(k)
        marked.append(batch.images[:, 0][batch.targets == KEYPOINT])
    values = torch.cat(marked).float()
    assert len(values) > 100
    assert values.quantile(0.05) > 170


def test_nothing_is_said_outside_of_the_photo() -> None:
    options = replace(SMALL, crop_px=320)
    batch = make_source(options).make_batch(0)
    share = (batch.targets == IGNORED).float().mean()
    assert 0.3 < share < 0.98


def test_batches_depend_on_seed_and_step_alone() -> None:
    stream = stream_batches(make_source(), 4)
    first = [next(stream)[1] for _ in range(3)]
    stream.close()
    for workers in (1, 2):
        stream = stream_batches(make_source(), 5, workers)
        step, again = next(stream)
        stream.close()
        assert step == 5
        expected = first[1]
        for name in ("images", "targets", "heat", "xy", "used", "b_from_a"):
            assert torch.equal(getattr(expected, name), getattr(again, name)), name
    other = make_source(seed=1).make_batch(5)
    assert not torch.equal(other.images, first[1].images)


def test_frames_of_a_camera_are_paired(tmp_path: Path) -> None:
    photos = load_photos([write_photos(tmp_path, count=2, frames=4)])
    assert list(map(len, photos.groups().values())) == [4]
    labels = {
        i: np.random.default_rng(0).uniform(9, 130, (50, 2)).astype(np.float32)
        for i in range(len(photos))
    }
    source = PairSource(photos, labels, replace(SMALL, aligned_share=1.0))
    names = source.make_batch(0).names
    assert all("day_" in name or "night_" in name for name in names)
    assert all(" + " in name for name in names)


def test_day_is_paired_with_night(tmp_path: Path) -> None:
    photos = load_photos([write_photos(tmp_path, count=2, frames=6)])
    assert sum(photo.by_night for photo in photos.photos) == 3
    labels = {
        i: np.random.default_rng(0).uniform(9, 130, (50, 2)).astype(np.float32)
        for i in range(len(photos))
    }
    options = replace(SMALL, batch=8, aligned_share=1.0, day_to_night_share=1.0)
    names = PairSource(photos, labels, options).make_batch(0).names
    assert all("day_" in name and "night_" in name for name in names)


def test_pairs_of_one_place_have_one_number(tmp_path: Path) -> None:
    """Of a camera, of a photo that comes twice, of one's own photos if told so."""
    photos = load_photos([write_photos(tmp_path, count=3, frames=4)])
    labels = {i: np.full((40, 2), 50, np.float32) for i in range(len(photos))}
    options = replace(SMALL, batch=12, aligned_share=0.5)
    batch = PairSource(photos, labels, options).make_batch(0)
    places = ["camera" if " + " in name else name for name in batch.names]
    assert set(places) == {"camera", "0.png", "1.png", "2.png"}
    numbers = set(zip(places, batch.places.tolist(), strict=True))
    assert len(numbers) == 4 and len({number for _, number in numbers}) == 4
    one = PairSource(photos, labels, replace(options, one_place=True)).make_batch(0)
    assert one.names == batch.names and set(one.places.tolist()) == {0}


def test_hostile_folders(tmp_path: Path) -> None:
    write_photos(tmp_path, count=3)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 not a picture")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("hello")
    write_image(tmp_path / "tiny.png", make_texture((40, 40)))
    write_image(tmp_path / "strip.png", make_texture((3000, 100)))
    write_image(tmp_path / "cam/day_0.png", make_texture((160, 120)))
    write_image(tmp_path / "cam/day_1.png", make_texture((120, 160)))
    photos = load_photos([tmp_path])
    assert len(photos) == 4
    assert len(photos.skipped) == 6
    assert any("tiny.png" in key for key in photos.skipped)


def test_a_folder_without_usable_photos_is_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "tiny.png", make_texture((40, 40)))
    with pytest.raises(InputError, match="none of 1 images"):
        load_photos([tmp_path])


def test_photos_over_the_budget_are_mapped_from_disk(tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "photos", count=3)
    kept = load_photos([folder])
    mapped = load_photos([folder], budget_mib=0, cache=tmp_path / "cache.bin")
    assert isinstance(mapped.photos[0].grey, np.memmap)
    for one, other in zip(kept.photos, mapped.photos, strict=True):
        np.testing.assert_array_equal(one.grey, other.grey)
        np.testing.assert_array_equal(one.chroma, other.chroma)


def test_held_back_photos_are_not_trained_on() -> None:
    photos = PhotoSet([make_photo(seed=i) for i in range(10)])
    held = hold_back(photos, 0.3, 16, 0)
    assert len(held) == 3
    labels = {i: np.full((4, 2), 60, np.float32) for i in range(10)}
    source = PairSource(photos, labels, SMALL, excluded=held)
    assert not set(source.loose) & set(held)


def test_frames_that_are_held_back_are_not_trained_on() -> None:
    """Nor labelled, be they the first of their camera: there are no other photos."""
    frame = replace(make_photo(), group="camera", view="camera")
    photos = PhotoSet([replace(frame, name=f"{i}.png") for i in range(12)])
    for seed in range(6):
        held = hold_back(photos, 0.1, 16, seed)
        chosen = choose_photos(photos, 0, seed, 0, held)
        assert len(chosen) == 1 and not {*chosen} & {*held}
        labels = {i: np.full((4, 2), 60, np.float32) for i in range(12)}
        source = PairSource(photos, labels, SMALL, excluded=held)
        assert source.groups == [[i for i in range(12) if i not in held]]


def test_photos_are_as_grey_as_the_images_of_extract(tmp_path: Path) -> None:
    """What a network learned from must look like what it is shown later."""
    write_photos(tmp_path, count=4)
    for photo in load_photos([tmp_path], max_side=0).photos:
        shown = grey_from_rgb(decode(tmp_path / photo.name).rgb)
        difference = np.abs(photo.grey.astype(int) - shown.astype(int))
        assert difference.max() <= 1


def test_chroma_is_aligned_with_grey() -> None:
    photo = make_photo((200, 150))
    middle = (np.array(photo.chroma.shape[1::-1]) - 1) / 2
    landed = warp_points(photo.full_from_chroma, middle[None])
    np.testing.assert_allclose(landed[0], [99.5, 74.5])


@pytest.mark.parametrize("name", ["day_1.jpg", "night_1.jpg"])
def test_what_is_of_the_night_is_not_darkened(name: str) -> None:
    photo = replace(make_photo((256, 256)), name=name, view="square")
    light = LightRanges(night_share=1.0, contrast_sigma=0, brightness_sigma=0)
    xy = np.full((1, 2), 100, np.float32)
    labels, surface = {0: xy}, Surface(0, np.eye(3))
    rng = np.random.default_rng(0)
    photos = PhotoSet([photo])
    means = [
        float(draw_crop(photos, labels, [surface], 256, rng, light).image.mean())
        for _ in range(12)
    ]
    darker = np.median(means) / photo.grey.mean()
    assert darker > 0.8 if photo.by_night else darker < 0.7
