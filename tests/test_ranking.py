"""The nearest of many: exact, bounded, and never oneself."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from sfm_features import ranking
from sfm_features.errors import OptionError
from sfm_features.ranking import find_nearest, rank_images
from sfm_features.similar import close_loops, pair_similar
from sfm_features.store import GlobalStore


def _make_rows(count: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, 16))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _write(path: Path, rows: dict[str, np.ndarray]) -> Path:
    with GlobalStore.append(path, {}) as store:
        for name, row in rows.items():
            store.write(name, row)
    return path


@pytest.mark.parametrize("chunk", [1, 7, 100, 1000])
def test_chunks_change_nothing(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "_CHUNK_ROWS", chunk)
    queries, rows = _make_rows(9, 1), _make_rows(100)
    products = queries @ rows.T
    index, best = find_nearest(queries, rows, 5)
    expected = np.argsort(-products, axis=1)[:, :5]
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_allclose(best, np.take_along_axis(products, expected, 1), 1e-5)


@pytest.mark.parametrize("chunk", [3, 100])
def test_what_is_banned_is_not_found(
    chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "_CHUNK_ROWS", chunk)
    monkeypatch.setattr(ranking, "_QUERY_ROWS", 2)
    names = [f"{i:02d}" for i in range(20)]
    path = _write(tmp_path / "global.h5", dict(zip(names, _make_rows(20), strict=True)))
    queries = names[4:9]
    every = {r.query: r.names for r in rank_images(path, queries, names, 20)}
    banned = {query: set(every[query][:2]) for query in queries}
    asked = []

    def bar(part: Sequence[str]) -> Callable[[str], list[int]]:
        asked.append(part)
        return lambda query: [i for i, n in enumerate(part) if n in banned[query]]

    found = rank_images(path, queries, names, 20, bar)
    assert [len(part) for part in asked] == ([3] * 6 + [2] if chunk == 3 else [20])
    assert [r.query for r in found] == queries
    for one in found:
        assert one.names == every[one.query][2:] and len(one.names) == 17


def test_memory_does_not_grow_with_the_database() -> None:
    """Beside the database itself, which is in half precision."""
    queries = np.zeros((50, 256), np.float32)
    peaks = []
    for count in (20_000, 80_000):
        database = np.zeros((count, 256), np.float16)
        tracemalloc.start()
        find_nearest(queries, database, 10)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] < 60e6


def test_no_image_stands_for_itself(tmp_path: Path) -> None:
    rows = dict(zip("abcdef", _make_rows(6), strict=True))
    path = _write(tmp_path / "global.h5", rows)
    names = list(rows)
    found = rank_images(path, names, names, 5)
    assert [r.query for r in found] == names
    for ranking_ in found:
        assert ranking_.query not in ranking_.names and len(ranking_.names) == 5
        assert list(ranking_.similarities) == sorted(ranking_.similarities)[::-1]
    near = rank_images(path, ["a"], names, 5, lambda _: lambda _: [3, 4, 5])
    assert set(near[0].names) == {"b", "c"}
    assert rank_images(path, ["a"], [], 5)[0].names == ()
    with pytest.raises(OptionError, match="at least 1"):
        rank_images(path, names, names, 0)


@pytest.mark.parametrize("chunk", [5, 100])
def test_loops_are_closed_with_what_is_not_paired_yet(
    chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A walk around a block: the last images look like the first ones."""
    monkeypatch.setattr(ranking, "_CHUNK_ROWS", chunk)
    angles = np.linspace(0, 2 * np.pi, 12)[:, None] + np.array([0, np.pi / 2])
    rows = np.pad(np.cos(angles), ((0, 0), (0, 2))).astype(np.float32)
    names = [f"{i:02d}" for i in range(12)]
    path = _write(tmp_path / "global.h5", dict(zip(names, rows, strict=True)))
    following = list(zip(names, names[1:], strict=False))
    assert ("00", "11") not in following
    closed = close_loops(path, names, following, 1)
    assert ("00", "11") in closed and set(following) < set(closed)
    assert pair_similar(path, ["00"], names, 1) == [("00", "11")]


def test_a_file_is_ranked_without_reading_all_of_it_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory is that of a part of the database, whatever its length."""
    monkeypatch.setattr(ranking, "_CHUNK_ROWS", 64)
    rows = np.random.default_rng(0).normal(size=(1024, 2048)).astype(np.float32)
    names = [f"{i:04d}" for i in range(len(rows))]
    path = _write(tmp_path / "global.h5", dict(zip(names, rows, strict=True)))
    peaks = []
    for count in (128, 1024):
        tracemalloc.start()
        (found,) = rank_images(path, [names[0]], names[:count], 3)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        expected = np.argsort(-rows[:count].astype(np.float16) @ rows[0])[1:4]
        assert found.names == tuple(names[i] for i in expected)
    assert peaks[1] < 1.5 * peaks[0] < rows.nbytes / 2
