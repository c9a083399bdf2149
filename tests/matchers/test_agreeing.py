"""Matches that move as those around them, against made-up motions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sfm_features.matchers import agreeing
from sfm_features.matchers.agreeing import Agreeing, find_agreeing
from sfm_features.matchers.nearest import Nearest
from sfm_features.types import F32, Bool, Features

RIGHT = 300


def _scatter(count: int, seed: int = 0) -> F32:
    return np.random.default_rng(seed).uniform(0, 1, (count, 2)).astype(np.float32)


def _move(places: F32, turn_deg: float = 0, zoom: float = 1, bend: float = 0) -> F32:
    """Turn, zoom, and bend as the relief of a scene does."""
    turn = np.deg2rad(turn_deg)
    matrix = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    moved = (places - 0.5) @ np.transpose(matrix) * zoom + 0.5
    moved += bend * np.sin(5 * places[:, ::-1])
    return moved.astype(np.float32)


def _find(here: F32, there: F32) -> Bool:
    """As if wrong ones were as alike as right ones."""
    return find_agreeing(here, there, _scatter(len(here), 7)[:, 0])


def _mix(there: F32, wrong: int, noise: float = 0.001) -> tuple[F32, F32]:
    """Add wrong matches, and noise; the right ones come first."""
    here = np.concatenate([_scatter(len(there)), _scatter(wrong, 1)])
    noisy = there + np.random.default_rng(3).normal(0, noise, there.shape)
    return here, np.concatenate([noisy.astype(np.float32), _scatter(wrong, 2)])


@pytest.mark.parametrize(
    "motion",
    [{}, {"turn_deg": 180}, {"turn_deg": 40, "zoom": 0.5}, {"zoom": 3}, {"bend": 0.05}],
)
def test_right_matches_stay_and_wrong_ones_go(motion: dict[str, float]) -> None:
    kept = _find(*_mix(_move(_scatter(RIGHT), **motion), wrong=700))
    assert kept[:RIGHT].mean() > 0.97
    assert kept[RIGHT:].mean() < 0.02


def test_hardly_any_are_left_of_two_places() -> None:
    assert _find(_scatter(1000, 1), _scatter(1000, 2)).mean() < 0.005


def test_things_may_move_in_several_ways() -> None:
    here = _scatter(RIGHT)
    left = here[:, 0] < 0.5
    there = np.where(left[:, None], _move(here, 30), _move(here, -50) + 0.1)
    kept = _find(*_mix(there.astype(np.float32), wrong=300))
    assert kept[:RIGHT][left].mean() > 0.9 and kept[:RIGHT][~left].mean() > 0.9
    assert kept[RIGHT:].mean() < 0.03


def test_wrong_ones_that_agree_with_one_another_only_from_afar_go() -> None:
    """Two seeds side by side fit any match far away; those around it are asked."""
    here, there = _mix(_move(_scatter(RIGHT), 10), wrong=0)
    corner = (here < 0.4).all(1)
    here, there = here[corner], there[corner]
    wrong_here, wrong_there = _scatter(400, 5), _scatter(400, 6)
    kept = _find(
        np.concatenate([here, wrong_here]), np.concatenate([there, wrong_there])
    )
    assert kept[: len(here)].mean() > 0.9
    assert kept[len(here) :].mean() < 0.03


def test_it_depends_neither_on_the_order_nor_on_the_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here, there = _mix(_move(_scatter(RIGHT), 20, 1.3), wrong=500)
    likeness = _scatter(len(here), 8)[:, 0]
    kept = find_agreeing(here, there, likeness)
    order = np.random.default_rng(0).permutation(len(here))
    shuffled = find_agreeing(here[order], there[order], likeness[order])
    assert (shuffled == kept[order]).all()
    monkeypatch.setattr(agreeing, "_CHUNK_ELEMENTS", 3000)
    assert (find_agreeing(here, there, likeness) == kept).all()


@pytest.mark.parametrize("count", [0, 1, 2, 4, 5, 6, 40])
def test_few_matches(count: int) -> None:
    here = _scatter(count)
    kept = _find(here, _move(here, 15))
    assert kept.shape == (count,) and kept.dtype == np.bool_
    assert kept.all() if count > 5 else True


def test_matches_at_one_place_say_nothing() -> None:
    same = np.full((50, 2), 0.5, np.float32)
    assert not _find(same, same).any()
    assert not _find(same, _scatter(50)).any()
    assert not _find(_scatter(50), same).any()
    # Nor do they keep others from agreeing.
    here, there = _mix(_move(_scatter(RIGHT), 15), wrong=0)
    many = np.concatenate([here, here[:20], here[:20]])
    kept = _find(many, np.concatenate([there, there[:20], there[:20]]))
    assert kept.mean() > 0.97


def _features(places: F32, descriptors: F32, size: tuple[int, int]) -> Features:
    scores = np.ones(len(places), np.float32)
    return Features(places * max(size), descriptors, scores, size)


def test_it_is_nearest_without_some_whatever_the_sizes() -> None:
    rng = np.random.default_rng(0)
    descriptors = rng.normal(size=(400, 32)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    here, there = _mix(_move(_scatter(300), 10), wrong=100)
    a = _features(here, descriptors, (640, 480))
    b = _features(there, descriptors, (3000, 4000))
    every = Nearest().match(a, b)
    some, again = Agreeing().match_many(a, [b, b])
    assert len(every.indices) == 400
    rows = some.indices[:, 0]
    assert (rows < 300).sum() > 290 and (rows >= 300).sum() < 5
    assert (every.scores[rows] == some.scores).all()
    assert (some.indices == again.indices).all()
    assert (Agreeing().match(a, b).indices == some.indices).all()
    none = _features(here[:0], descriptors[:0], (10, 10))
    assert not len(Agreeing(min_similarity=0.9, ratio=0.5).match(a, none).indices)


def test_it_runs_where_it_is_told_to() -> None:
    here, there = _mix(_move(_scatter(50)), wrong=0)
    with pytest.raises(NotImplementedError):  # nothing is computed on this one
        find_agreeing(here, there, here[:, 0], torch.device("meta"))
