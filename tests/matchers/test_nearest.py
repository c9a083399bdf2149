"""Nearest neighbours against the plain definition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import make_features
from torch.utils._python_dispatch import TorchDispatchMode

from sfm_features.errors import OptionError
from sfm_features.matchers import nearest
from sfm_features.matchers.nearest import Nearest
from sfm_features.types import Features

settings.register_profile("offline", deadline=None, database=None, derandomize=True)
settings.load_profile("offline")


def match_by_definition(
    a: Features, b: Features, ratio: float = 1.0, least: float = -1.0
) -> set[tuple[int, int]]:
    """Loop over everything, as one would explain it."""
    similarity = (a.descriptors.astype(np.float64) @ b.descriptors.T).tolist()
    found = set()
    for i, row in enumerate(similarity):
        j = max(range(len(row)), key=row.__getitem__)
        column = [similarity[k][j] for k in range(len(a))]
        second = max((s for k, s in enumerate(row) if k != j), default=None)
        if row[j] < max(column) or row[j] < least:
            continue
        if ratio < 1 and second is not None:
            distances = [np.sqrt(max(0, 2 - 2 * s)) for s in (row[j], second)]
            if distances[0] >= ratio * distances[1]:
                continue
        found.add((i, j))
    return found


@given(
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(0, 999),
    st.sampled_from([1.0, 0.9, 0.7]),
    st.sampled_from([-1.0, 0.2]),
)
@settings(max_examples=60)
def test_equals_the_definition(
    count_a: int, count_b: int, seed: int, ratio: float, least: float
) -> None:
    a = make_features(count_a, 16, seed)
    b = make_features(count_b, 16, seed + 1)
    matches = Nearest(ratio=ratio, min_similarity=least).match(a, b)
    found = set(map(tuple, matches.indices.tolist()))
    assert found == match_by_definition(a, b, ratio, least)
    expected = (a.descriptors @ b.descriptors.T)[tuple(matches.indices.T)]
    np.testing.assert_allclose(matches.scores, expected, atol=1e-6)
    forward = Nearest().match(a, b).indices
    back = Nearest().match(b, a).indices
    assert set(map(tuple, forward.tolist())) == {(i, j) for j, i in back.tolist()}


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = make_features(300, 32, 1), make_features(250, 32, 2)
    whole = Nearest().match(a, b)
    for elements in (1, 999, 10_000):
        monkeypatch.setattr(nearest, "_CHUNK_ELEMENTS", elements)
        parts = Nearest().match(a, b)
        np.testing.assert_array_equal(whole.indices, parts.indices)


def test_identical_rows_stay_one_to_one() -> None:
    one = make_features(4, 8)
    twice = Features(
        np.repeat(one.keypoints, 2, 0),
        np.repeat(one.descriptors, 2, 0),
        np.repeat(one.scores, 2),
        one.image_size,
    )
    for a, b in ((twice, one), (one, twice), (twice, twice)):
        indices = Nearest().match(a, b).indices
        assert len(indices) == 4
        assert len(set(indices[:, 0])) == len(set(indices[:, 1])) == 4


def test_the_ratio_test_refuses_exact_twins() -> None:
    """Corners of the basis, so that their products are exact."""
    features = make_features(5, 8)
    a = replace(features, descriptors=np.eye(5, 8, dtype=np.float32))
    b = replace(a, descriptors=a.descriptors[[0, 0, 1, 2, 3]])
    indices = Nearest(ratio=0.8).match(a, b).indices.tolist()
    assert indices == [[1, 2], [2, 3], [3, 4]]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("ratio", [1.0, 0.9])
def test_one_damaged_descriptor_costs_no_other(value: float, ratio: float) -> None:
    whole = make_features(50, 16)
    descriptors = whole.descriptors.copy()
    descriptors[7, 3:] = value
    damaged = replace(whole, descriptors=descriptors)
    for a, b in ((whole, damaged), (damaged, whole), (damaged, damaged)):
        matches = Nearest(ratio=ratio).match(a, b)
        assert matches.indices.tolist() == [[i, i] for i in range(50) if i != 7]
        assert np.isfinite(matches.scores).all()


class _Watch(TorchDispatchMode):
    """Notes the largest tensor that any operation returns, and the products."""

    def __init__(self) -> None:
        super().__init__()
        self.largest, self.products = 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, tuple) else (result,):
            self.largest = max(self.largest, getattr(part, "nbytes", 0))
        if func.overloadpacket is torch.ops.aten.mm:
            self.products.add(result.data_ptr())
        return result


def test_memory_stays_bounded() -> None:
    """10,000 x 10,000 similarities would take 400 MB at once."""
    a, b = make_features(10_000, 8, 1), make_features(10_000, 8, 2)
    matcher = Nearest()
    with _Watch() as watch:
        assert len(matcher.match(a, b)) > 500
        assert len(matcher.match(b, a)) > 500
    assert 0 < watch.largest <= 8 << 20
    assert len(watch.products) == 1  # all in the same memory, as the heap suffers else


def test_empty_and_mixed_features() -> None:
    some, none = make_features(5, 8), make_features(0, 8)
    for a, b in ((some, none), (none, some), (none, none)):
        assert Nearest().match(a, b).indices.shape == (0, 2)
    with pytest.raises(OptionError, match="8 and 16 dimensions"):
        Nearest().match(some, make_features(5, 16))
    with pytest.raises(OptionError, match="--ratio 0"):
        Nearest(ratio=0)
