"""Real changes of view: what a reconstruction says about pairs of photos."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from training_kit import TinyNet, make_photo

from sfm_features.geometry import look_at
from sfm_features.orientation import turn_back, turn_upright
from sfm_features.training.data import DataOptions, PairSource
from sfm_features.training.photometric import LightRanges
from sfm_features.training.photos import PhotoSet
from sfm_features.training.targets import KEYPOINT
from sfm_features.training.tracks import (
    TrackOptions,
    TrackPairs,
    _count_doublings,
    collect_tracks,
)
from sfm_features.training.validate import ViewPair, validate
from sfm_features.types import F64, Camera, Model, Pose, RegisteredImage

FOLDER = 3
FEW = TrackOptions(least_shared=10)


def project(points: F64, pose: Pose) -> F64:
    """Project into a camera of 400 x 300 px, in our pixel frame."""
    local = points @ pose.rotation.T + pose.translation
    return local[:, :2] / local[:, 2:] * 300 + [199.5, 149.5]


def make_model(count: int = 4, points: int = 60) -> Model:
    """Look at a cloud of points from several sides, ten degrees apart."""
    rng = np.random.default_rng(0)
    xyz = rng.uniform(-1, 1, (points, 3)) * [1.5, 1.0, 0.5]
    camera = Camera("SIMPLE_PINHOLE", 400, 300, (300.0, 200.0, 150.0))
    images = {}
    for i in range(count):
        angle = np.radians(10 * i)
        centre = 5 * np.array([np.sin(angle), 0.0, -np.cos(angle)])
        pose = look_at(centre, np.zeros(3))
        order = rng.permutation(points)
        ids = order.astype(np.int64)
        ids[:5] = -1
        xy = project(xyz[order], pose).astype(np.float32)
        images[f"{i}.png"] = RegisteredImage(f"{i}.png", camera, pose, xy, ids)
    lengths = np.full(points, count)
    errors = np.full(points, 0.5)
    lengths[0], errors[1] = 2, 9.0
    return Model(images, xyz, np.zeros((points, 3), np.uint8), errors, lengths)


def make_photos(count: int = 4) -> PhotoSet:
    """Make photos half as large as the model's images, after some of another folder."""
    others = [replace(make_photo(seed=9), name="place/0.png")]
    photos = [
        replace(make_photo((200, 150), i), name=f"place/{i}.png", folder=FOLDER)
        for i in range(count)
    ]
    return PhotoSet([*others, *photos])


def collect(model: Model, options: TrackOptions = FEW) -> TrackPairs:
    return collect_tracks(make_photos(), FOLDER, [("place/", model)], options)


def test_a_change_of_size_counts_as_a_change_of_view() -> None:
    xy = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    assert _count_doublings(xy, xy + 9) == pytest.approx(0, abs=1e-5)
    assert _count_doublings(4 * xy, xy) == pytest.approx(2, abs=1e-5)
    assert _count_doublings(xy, 2 * xy) == pytest.approx(1, abs=1e-5)
    assert _count_doublings(xy * [1, 0], xy) == 0


@pytest.mark.parametrize("orientation", range(2, 9))
def test_photos_that_were_turned_upright_are_seen_where_they_are(
    orientation: int,
) -> None:
    """Models are of photos as stored, training sees them upright."""
    model, photos = make_model(), make_photos()
    turned = [
        replace(
            photo,
            grey=turn_upright(photo.grey, orientation),
            orientation=orientation,
        )
        for photo in photos.photos
    ]
    plain = collect_tracks(photos, FOLDER, [("place/", model)], FEW)
    found = collect_tracks(PhotoSet(turned), FOLDER, [("place/", model)], FEW)
    assert len(found) == len(plain) > 0
    for number, seen in found.seen.items():
        size = turned[number].size
        np.testing.assert_array_equal(seen.ids, plain.seen[number].ids)
        stored = turn_back(seen.xy, orientation, size)
        np.testing.assert_allclose(stored, plain.seen[number].xy, atol=1e-4)


def test_observations_of_a_point_correspond() -> None:
    model = make_model()
    tracks = collect(model)
    assert set(tracks.seen) == {1, 2, 3, 4} and len(tracks) == 6
    first, second = tracks.relate(1, 3, np.zeros((0, 2)))
    assert len(first) == len(second) >= 40
    ids = np.intersect1d(tracks.seen[1].ids, tracks.seen[3].ids)
    for photo, xy in ((1, first), (3, second)):
        pose = model.images[f"{photo - 1}.png"].cam_from_world
        exact = (project(model.points[ids], pose) + 0.5) / 2 - 0.5
        np.testing.assert_allclose(xy, exact, atol=1e-4)
    assert not {0, 1} & set(ids.tolist())  # too short, too far off


def test_pairs_with_wide_angles_come_more_often() -> None:
    tracks = collect(make_model())
    angles = dict(
        zip(map(tuple, tracks.pairs.tolist()), tracks.changes_deg, strict=True)
    )
    assert angles[1, 2] == pytest.approx(10, abs=1.5)
    assert angles[1, 4] == pytest.approx(30, abs=4)
    rng = np.random.default_rng(1)
    counts: dict[tuple[int, ...], int] = {}
    for _ in range(600):
        first, second, xy, landed = tracks.choose(rng)
        a, b = tracks.relate(first, second, np.zeros((0, 2)))
        row = np.flatnonzero((a == xy).all(1))
        assert len(row) == 1 and (b[row[0]] == landed).all()
        pair = tuple(sorted((first, second)))
        counts[pair] = counts.get(pair, 0) + 1
    assert set(counts) == set(angles)
    assert 1.4 < (counts[1, 3] + counts[1, 4]) / (counts[1, 2] + counts[2, 3]) < 2.8
    narrow = collect(make_model(), replace(FEW, most_angle_deg=15.0))
    assert sorted(map(tuple, narrow.pairs.tolist())) == [(1, 2), (2, 3), (3, 4)]


def test_what_does_not_fit_is_left_out() -> None:
    model = make_model()
    turned = replace(model.images["0.png"], camera=Camera("PINHOLE", 300, 400, ()))
    images = {**model.images, "0.png": turned, "unknown.png": model.images["1.png"]}
    tracks = collect(replace(model, images=images))
    assert set(tracks.seen) == {2, 3, 4} and len(tracks) == 3
    assert len(collect(model, TrackOptions(least_shared=60))) == 0
    twice = collect_tracks(
        make_photos(), FOLDER, [("place/", model), ("place/", model)], FEW
    )
    assert len(twice) == 6 and twice.seen[1].ids.max() < len(model.points)
    assert len(collect_tracks(make_photos(), FOLDER, [], FEW)) == 0


def test_only_labelled_photos_are_learned_from() -> None:
    tracks = collect(make_model())
    xy = tracks.seen[2].xy
    labels = {0: xy[:3], 2: np.concatenate([xy[:4] + 1, [[3.0, 3.0]]]), 3: xy[:0]}
    known = tracks.among(labels)
    assert known.pairs.tolist() == [[2, 3]]
    merged = tracks.add_keypoints({k: v.astype(np.float32) for k, v in labels.items()})
    assert len(merged[0]) == 3 and len(merged[3]) == len(tracks.seen[3].xy)
    # Those a pixel off are the same keypoints, less exactly.
    assert len(merged[2]) == len(xy) + 1 and (merged[2][: len(xy)] == xy).all()


def test_a_batch_of_tracks_shows_the_same_points() -> None:
    """Both crops are cut around a point, and the correspondences land on labels."""
    photos, tracks = make_photos(), collect(make_model())
    labels = tracks.add_keypoints({i: np.zeros((0, 2), np.float32) for i in range(5)})
    plain = LightRanges(night_share=0, noise_share=0, blur_share=0, cast_share=0)
    options = DataOptions(batch=4, crop_px=128, points=64, light=plain)
    source = PairSource(photos, labels, options, 0, [(1.0, tracks)])
    batch = source.make_batch(0)
    assert not torch.isfinite(batch.b_from_a).any()
    assert batch.used.sum(1).min() >= 8
    assert all(" + place/" in name for name in batch.names)
    nearest = batch.xy.round().long()
    for side in range(2):
        for pair in range(4):
            x, y = nearest[side, pair][batch.used[pair]].T
            told = batch.targets[4 * side + pair][y, x] == KEYPOINT
            # Single precision may round to the pixel beside it.
            assert told.float().mean() > 0.95


def test_pairs_to_measure_on_have_a_photo_that_is_held_back() -> None:
    photos, tracks = make_photos(), collect(make_model())
    views = tracks.held_back(photos, [2], seed=0)
    assert len(views) == 3
    xy_a, xy_b = tracks.relate(1, 2, np.zeros((0, 2)))
    np.testing.assert_allclose(views[0].xy_a, xy_a, atol=1e-4)
    np.testing.assert_allclose(views[0].xy_b, xy_b, atol=1e-4)
    assert views[0].a is photos.photos[1].grey and views[0].b is photos.photos[2].grey
    assert tracks.held_back(photos, [], seed=0) == []


def test_views_of_the_same_picture_match() -> None:
    picture = make_photo((200, 150)).grey
    xy = np.random.default_rng(0).uniform(20, 130, (30, 2)).astype(np.float32)
    photos = PhotoSet([make_photo((200, 150))])
    device = torch.device("cpu")
    for there, low, high in ((xy, 0.9, 1.0), (xy[::-1].copy(), 0.0, 0.1)):
        views = [ViewPair(picture, picture, xy, there)]
        scores = validate(TinyNet(), photos, [0], device, views=views)
        assert scores.views is not None and low <= scores.views <= high
        assert min(scores.matching_score, scores.views) <= scores.overall <= 1
    assert validate(TinyNet(), photos, [0], device).views is None
