"""Labels: registered, reliable where things are distinct, and resumable."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from samples import note_calls
from training_kit import TinyNet, make_photo, write_photos

from sfm_features.nets.dense import Dense
from sfm_features.training import label_store
from sfm_features.training import labels as made
from sfm_features.training.label_store import (
    choose_frames,
    choose_photos,
    compute_labels,
    merge_labels,
    write_labels,
)
from sfm_features.training.labels import PhotoLabels
from sfm_features.training.peaks import find_peaks
from sfm_features.training.photos import REPLAY_FOLDER, Photo, PhotoSet, load_photos

CPU = torch.device("cpu")


def draw_blocks() -> tuple[Photo, np.ndarray]:
    """Draw bright rectangles; their corners lie between pixels."""
    grey = np.full((192, 256), 40, np.uint8)
    corners = []
    for top in (30, 110):
        for left in (40, 150):
            grey[top : top + 50, left : left + 60] = 200
            for y in (top - 0.5, top + 49.5):
                corners += [(left - 0.5, y), (left + 59.5, y)]
    chroma = np.full((96, 128, 2), 128, np.uint8)
    return Photo("blocks", grey, chroma), np.array(corners)


def test_averaged_corners_are_registered() -> None:
    photo, corners = draw_blocks()
    rng = np.random.default_rng(0)
    options = made.LabelOptions(views=8, density=0.4)
    xy = made.label_photo([photo], "corners", options, rng).xy
    distance = np.linalg.norm(corners[:, None] - xy, axis=2)
    nearest = distance.min(axis=1)
    # The measure peaks a little inside of a corner, at every corner alike.
    assert nearest.max() < 3.0
    assert nearest.max() - nearest.min() < 1.0


class SpotNet(TinyNet):
    """A detector that answers the picture's brightness itself."""

    def forward(self, grey: torch.Tensor) -> Dense:
        return Dense(torch.logit(grey.clamp(0.01, 0.99)), grey[..., ::4, ::4], None)


def test_averaged_maps_stay_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """P of many affine views, averaged, peaks where the photo does, to 0.1 px."""
    monkeypatch.setattr(made, "relight", lambda image, rng, light: (image, None))
    x, y = np.meshgrid(np.arange(256), np.arange(192))
    spot = np.exp(-((x - 120.3) ** 2 + (y - 90.6) ** 2) / (2 * 4.0**2))
    photo = Photo("spot", (250 * spot).astype(np.uint8), np.zeros((96, 128, 2), "u1"))
    views = made.make_views([photo], 12, np.random.default_rng(1))
    p, _ = made.measure_detector(SpotNet("pixel"), views, CPU)
    xy, _ = find_peaks(p, 4, 0.3, 1)
    assert np.linalg.norm(xy[0].numpy() - (120.3, 90.6)) < 0.1


def test_the_rim_of_a_view_is_not_trusted() -> None:
    moved = torch.eye(3)
    moved[:2, 2] = torch.tensor([20.0, 10])
    images = torch.zeros(2, 1, 64, 96, dtype=torch.uint8)
    views = made.Views(images, torch.stack([torch.eye(3), moved]), (96, 64))
    maps = torch.zeros(2, 1, 64, 96)
    maps[1] = 1
    maps[1, 0, 8:-8, 8:-8] = 0
    assert not made.average_views(maps, views).any()


def test_peaks_are_found_between_pixels() -> None:
    x, y = np.meshgrid(np.arange(40), np.arange(30))
    hill = np.exp(-((x - 20.3) ** 2 + (y - 10.8) ** 2) / (2 * 1.5**2))
    xy, height = find_peaks(torch.from_numpy(hill).float(), 3, 0.1, 5)
    np.testing.assert_allclose(xy, [[20.3, 10.8]], atol=1e-3)
    assert height[0] > 0.9


def make_dense(views: made.Views, distinct_left: bool) -> Dense:
    """Describe places by where they are in the photo; alike on one half of it."""
    found = []
    for warp in views.view_from_photo:
        size = views.images.shape[2] // 4, views.images.shape[3] // 4
        grid = made.pixel_grid(size) * 4 + 1.5
        xy = made.transform(torch.linalg.inv(warp)[None], grid)[0]
        angle = xy / 25
        alike = xy[:, 0] > views.size[0] / 2
        if not distinct_left:
            alike = ~alike
        angle = torch.where(alike[:, None], 0, angle)
        parts = [angle.sin(), angle.cos(), (2.1 * angle).sin(), (2.1 * angle).cos()]
        found.append(torch.cat(parts, 1).T.reshape(8, *size))
    return Dense(views.images.float(), torch.stack(found), None)


@pytest.mark.parametrize("distinct_left", [True, False])
def test_distinct_places_are_reliable(distinct_left: bool) -> None:
    views = made.make_views([make_photo((256, 192))], 3, np.random.default_rng(0))
    r = made.map_reliability(make_dense(views, distinct_left), views, 4, 2)
    assert r.shape == (192, 256)
    left, right = r[60:130, 60:100].mean(), r[60:130, 156:196].mean()
    better, worse = (left, right) if distinct_left else (right, left)
    assert better > 2 * worse
    assert worse < 1


def test_a_map_of_reliability_says_what_its_points_say() -> None:
    """Without a warp the two neighbourhoods are the same."""
    views = made.make_views([make_photo((256, 192))] * 2, 1, np.random.default_rng(0))
    views = made.Views(
        views.images.repeat(2, 1, 1, 1),
        views.view_from_photo.repeat(2, 1, 1),
        (256, 192),
    )
    dense = make_dense(views, True)
    torch.manual_seed(0)
    noise = 0.3 * torch.randn(dense.descriptors.shape)
    dense = replace(dense, descriptors=dense.descriptors + noise)
    xy = torch.tensor([[40.0, 40.0], [90.0, 60.0], [128.0, 96.0], [200.0, 150.0]])
    points = made.measure_reliability(dense, views, xy, 4, 1)
    whole = made.map_reliability(dense, views, 4, 1)
    x, y = xy.long().T
    torch.testing.assert_close(whole[y, x], points, rtol=1e-3, atol=1e-3)


def test_of_equal_peaks_the_reliable_ones_are_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, y = np.meshgrid(np.arange(256), np.arange(128))
    grey = np.zeros((128, 256))
    for left in (40, 120, 200):
        grey += np.exp(-((x - left) ** 2 + (y - 60) ** 2) / (2 * 4.0**2))
    photo = Photo("spots", (250 * grey).astype(np.uint8), np.zeros((64, 128, 2), "u1"))

    def measure(
        dense: Dense, views: made.Views, xy: torch.Tensor, *_: object
    ) -> object:
        return torch.tensor([0.8, 1.0, 3.0])[(xy[:, 0] / 80).long()]

    monkeypatch.setattr(made, "measure_reliability", measure)
    options = made.LabelOptions(views=1)
    rng = np.random.default_rng(0)
    xy = made.label_photo([photo], "product", options, rng, SpotNet("pixel"), CPU).xy
    np.testing.assert_allclose(xy, [[200, 60], [120, 60]], atol=0.1)


@pytest.mark.parametrize(
    "kind", ["random", "corners", "detector", "reliability", "product"]
)
@pytest.mark.parametrize("head", ["cell", "pixel"])
def test_every_kind_labels_inside_of_the_photo(kind: made.LabelKind, head: str) -> None:
    net = TinyNet(head, fine=head == "pixel").eval()
    with torch.no_grad():
        net.detector.bias.fill_(2.0)
    options = made.LabelOptions(views=3, density=2.0)
    found = made.label_photo(
        [make_photo()], kind, options, np.random.default_rng(0), net, CPU
    )
    again = made.label_photo(
        [make_photo()], kind, options, np.random.default_rng(0), net, CPU
    )
    np.testing.assert_array_equal(found.xy, again.xy)
    assert found.xy.dtype == np.float32
    assert len(found.xy) <= 60
    assert ((found.xy >= 0) & (found.xy <= (199, 149))).all()
    if kind in ("random", "corners"):
        assert len(found.xy) > 10


def test_labels_are_kept_and_damaged_shards_made_again(tmp_path: Path) -> None:
    photos = load_photos([write_photos(tmp_path / "photos", 3, frames=3)])
    chosen = choose_photos(photos, 0, 0, 0)
    assert len(chosen) == 4
    options = made.LabelOptions(views=2)

    def compute(key: str = "") -> dict[int, np.ndarray]:
        place = tmp_path / "labels"
        return compute_labels(
            photos, chosen, "corners", options, place, (0, 1), key=key
        )

    first = compute()
    assert sorted(first) == list(range(len(photos)))
    view = next(iter(photos.views().values()))
    without = compute_labels(
        *(photos, choose_photos(photos, 0, 0, 0, view[:1]), "corners", options),
        *(tmp_path / "others", (0, 1)),
        held_back=view[:1],
    )
    assert sorted({*first} - {*without}) == view[:1]
    camera = next(iter(photos.groups().values()))
    np.testing.assert_array_equal(first[camera[0]], first[camera[2]])
    shard = tmp_path / "labels/00000.npz"
    changed = shard.stat().st_mtime_ns
    compute()
    assert shard.stat().st_mtime_ns == changed
    shard.write_bytes(shard.read_bytes()[:200])
    for labels in (compute(), compute("another network")):
        for index, xy in labels.items():
            np.testing.assert_array_equal(xy, first[index])


def test_labels_of_another_network_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def label(*_: object) -> PhotoLabels:
        nonlocal calls
        calls += 1
        return PhotoLabels(np.full((1, 2), calls, np.float32))

    monkeypatch.setattr(label_store, "label_photo", label)
    photos, options = PhotoSet([make_photo()]), made.LabelOptions()
    found = [
        compute_labels(photos, [0], "detector", options, tmp_path, (0,), key=key)
        for key in ("one", "one", "two", "one")
    ]
    assert [int(labels[0][0, 0]) for labels in found] == [1, 1, 2, 3]


def test_labels_are_on_the_disk_before_they_have_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = note_calls(monkeypatch, os, "fsync", "replace")
    write_labels(tmp_path / "0.npz", {0: np.zeros((3, 2), np.float32)})
    assert calls == ["fsync", "replace"]


def test_stages_take_photos_in_turn() -> None:
    photos = PhotoSet([make_photo(seed=i) for i in range(9)])
    parts = [choose_photos(photos, 3, 0, stage) for stage in range(3)]
    assert sorted(sum(parts, [])) == list(range(9))


def test_ones_own_photos_are_labelled_before_replayed_ones() -> None:
    others = [replace(make_photo(seed=i), folder=REPLAY_FOLDER) for i in range(6)]
    photos = PhotoSet([*others, *(make_photo(seed=i) for i in range(6, 9))])
    for stage in range(3):
        chosen = choose_photos(photos, 5, 0, stage)
        assert chosen == sorted(set(chosen)) and len(chosen) == 5
        assert {6, 7, 8} < set(chosen)
    assert len({i for s in range(3) for i in choose_photos(photos, 5, 0, s)}) > 5
    assert set(choose_photos(photos, 2, 0, 0)) < {6, 7, 8}


def test_a_network_that_finds_nothing_does_not_replace_labels() -> None:
    many, few, none = (np.zeros((n, 2), np.float32) for n in (40, 20, 2))
    merged = merge_labels({0: many, 1: many, 2: many}, {0: few, 1: none, 3: few})
    assert {i: len(xy) for i, xy in merged.items()} == {0: 20, 1: 40, 2: 40, 3: 20}


def test_keypoints_of_a_view_are_those_that_most_of_its_frames_show() -> None:
    """All of them count, however few affine views are asked for."""
    photo, corners = draw_blocks()
    both, left = photo.grey.copy(), photo.grey.copy()
    left[:, 128:] = 40
    frames = [Photo(f"{i}", both if i == 9 else left, photo.chroma) for i in range(10)]
    options = made.LabelOptions(views=1, density=0.4)
    for order in (frames, frames[::-1]):
        xy = made.label_photo(order, "corners", options, np.random.default_rng(0)).xy
        away = np.linalg.norm(corners[:, None] - xy, axis=2).min(axis=1)
        always = corners[:, 0] < 128
        assert away[always].max() < 3 and away[~always].min() > 10


def test_frames_are_chosen_by_day_and_by_night_in_turn() -> None:
    view = [
        replace(make_photo(), name=f"{kind}_{i}.jpg", view="square")
        for kind, count in (("day", 20), ("night", 3))
        for i in range(count)
    ]
    chosen = choose_frames(view, 8, np.random.default_rng(0))
    by_night = [photo.by_night for photo in chosen]
    assert by_night == [False, True] * 3 + [False] * 2
    assert len({photo.name for photo in chosen}) == 8
    assert len(choose_frames(view, 99, np.random.default_rng(0))) == 23
