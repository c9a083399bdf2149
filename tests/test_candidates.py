"""Matches of a query with points: which are the likeliest, and which are near."""

from __future__ import annotations

import numpy as np
from samples import make_features

from sfm_features.candidates import Candidates, match_near, merge
from sfm_features.types import Features


def _make(features: Features, name: str, *rows: tuple[int, int, float]) -> Candidates:
    points, keypoints, similarities = (np.array(c) for c in zip(*rows, strict=True))
    return Candidates(
        features, (name,), points, keypoints, similarities.astype(np.float32)
    )


def test_pairs_stay_once_and_the_likeliest_come_first() -> None:
    features = make_features(9)
    a = _make(features, "a", (7, 1, 0.5), (8, 2, 0.7), (9, 3, 0.1))
    b = _make(features, "b", (7, 1, 0.9), (6, 1, 0.8), (5, 2, 0.6))
    both = merge([a, b])
    found = zip(both.points, both.keypoints, both.similarities, strict=True)
    assert {(p, k): round(float(s), 3) for p, k, s in found} == {
        (7, 1): 0.9, (8, 2): 0.7, (9, 3): 0.1, (6, 1): 0.8, (5, 2): 0.6,
    }  # fmt: skip
    assert both.names == ("a", "b")
    assert both.points[both.choose_best()].tolist() == [7, 8, 9]
    among = both.points != 7
    assert both.points[both.choose_best(among)].tolist() == [6, 8, 9]


def test_near_matches_are_those_of_a_full_search() -> None:
    rng = np.random.default_rng(0)
    features = make_features(700, seed=1)
    count, reach = 900, 150.0  # several chunks
    origin = rng.integers(0, 700, count)
    seen = features.keypoints[origin] + rng.normal(0, 60, (count, 2))
    described = features.descriptors[origin] + rng.normal(0, 0.1, (count, 32))
    described = described.astype(np.float32)
    points, keypoints, similarities = match_near(features, seen, described, reach)
    apart = np.abs(seen[:, None] - features.keypoints).max(axis=2)
    products = np.where(apart <= reach, described @ features.descriptors.T, -np.inf)
    best, back = products.argmax(axis=1), products.argmax(axis=0)
    rows = np.flatnonzero(
        (back[best] == np.arange(count)) & np.isfinite(products.max(axis=1))
    )
    assert len(rows) > 100
    assert set(zip(points, keypoints, strict=True)) == set(
        zip(rows, best[rows], strict=True)
    )
    np.testing.assert_allclose(similarities, products[points, keypoints], rtol=1e-5)
    far = match_near(features, seen + 1e5, described, reach)
    assert [len(part) for part in far] == [0, 0, 0]
