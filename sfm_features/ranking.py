"""The nearest of many images for each query, by descriptors of whole images: exact."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sfm_features.errors import OptionError
from sfm_features.store import GlobalStore
from sfm_features.types import F32, I64

Allowed = Callable[[str, str], bool]

_CHUNK_ROWS = 8192
_QUERY_ROWS = 1024


@dataclass(frozen=True)
class Ranking:
    """What is nearest to a query: names, best first, and the cosines of the angles."""

    query: str
    names: tuple[str, ...]
    similarities: tuple[float, ...]


def rank_images(
    descriptors: Path,
    queries: Sequence[str],
    database: Sequence[str],
    count: int,
    allowed: Allowed | None = None,
) -> list[Ranking]:
    """Rank a database for each query; never an image for itself.

    `allowed(query, name)` tells which images may stand for a query at all. The database
    is read once, in parts, so that it may be larger than the memory.
    """
    if count < 1:
        raise OptionError(f"--neighbours {count}: must be at least 1")
    if not queries or not database:
        return [Ranking(query, (), ()) for query in queries]
    best = _Best(len(queries), count)
    with GlobalStore.open(descriptors) as store:
        wanted = store.read_many(queries)
        for start in range(0, len(database), _CHUNK_ROWS):
            part = database[start : start + _CHUNK_ROWS]
            rows = store.read_many(part).astype(np.float32)
            places = {name: i for i, name in enumerate(part)}
            for block in _walk_blocks(len(queries)):
                asked = queries[block]
                banned = [_list_banned(query, places, allowed) for query in asked]
                best.add(block, wanted[block], rows, start, banned)
    return [
        _to_ranking(query, database, where, products)
        for query, where, products in zip(
            queries, best.where, best.products, strict=True
        )
    ]


def _to_ranking(
    query: str, database: Sequence[str], where: I64, products: F32
) -> Ranking:
    known = np.isfinite(products)
    names = tuple(database[i] for i in where[known].tolist())
    return Ranking(query, names, tuple(products[known].tolist()))


def _list_banned(
    query: str, places: Mapping[str, int], allowed: Allowed | None
) -> list[int]:
    """List the rows of a part of the database that may not stand for a query."""
    if allowed is None:
        return [places[query]] if query in places else []
    return [
        i for name, i in places.items() if name == query or not allowed(query, name)
    ]


def find_nearest(
    queries: NDArray[np.floating], database: NDArray[np.floating], count: int
) -> tuple[I64, F32]:
    """Find the nearest rows (Q, K) of a database by dot product, and the products.

    Exact, and chunk by chunk, so that what it needs beside the database does not grow
    with it. Where there are fewer than K, products are -inf.
    """
    best = _Best(len(queries), count)
    for start in range(0, len(database), _CHUNK_ROWS):
        rows = database[start : start + _CHUNK_ROWS].astype(np.float32)
        for block in _walk_blocks(len(queries)):
            best.add(block, queries[block], rows, start)
    return best.where, best.products


def _walk_blocks(queries: int) -> Iterator[slice]:
    for start in range(0, queries, _QUERY_ROWS):
        yield slice(start, start + _QUERY_ROWS)


class _Best:
    """The rows (Q, K) with the largest products so far, and these, in falling order."""

    def __init__(self, queries: int, count: int) -> None:
        self.products = np.full((queries, count), -np.inf, np.float32)
        self.where = np.zeros((queries, count), np.int64)

    def add(
        self,
        block: slice,
        queries: NDArray[np.floating],
        rows: F32,
        start: int,
        banned: Sequence[Sequence[int]] = (),
    ) -> None:
        """Compare a block of queries with rows of the database from `start` on."""
        products = queries.astype(np.float32) @ rows.T
        for i, out in enumerate(banned):
            products[i, list(out)] = -np.inf
        count = self.products.shape[1]
        index = _find_largest(products, count)
        both = np.concatenate(
            [self.products[block], np.take_along_axis(products, index, 1)], 1
        )
        places = np.concatenate([self.where[block], index + start], 1)
        order = np.argsort(-both, axis=1, kind="stable")[:, :count]
        self.products[block] = np.take_along_axis(both, order, 1)
        self.where[block] = np.take_along_axis(places, order, 1)


def _find_largest(products: F32, count: int) -> I64:
    """Return the columns of the largest products of each row, in rising order."""
    if products.shape[1] <= count:
        return np.tile(np.arange(products.shape[1]), (len(products), 1))
    largest = np.argpartition(products, -count, axis=1)[:, -count:]
    largest.sort(axis=1)
    return largest
