"""The nearest of many images for each query, by descriptors of whole images: exact."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sfm_features.errors import OptionError
from sfm_features.store import GlobalStore
from sfm_features.types import F32, I64

Barred: TypeAlias = Callable[[Sequence[str]], Callable[[str], ArrayLike]]
"""Given the names of a part of the database, returns what tells the rows in it that
may not stand for a query. Asked pair by pair, many images would take minutes."""

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
    barred: Barred | None = None,
) -> list[Ranking]:
    """Rank a database for each query; never an image for itself.

    `barred(names)(query)` tells which images may not stand for a query at all. The
    database is read once, in parts, so that it may be larger than the memory.
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
            list_barred = barred(part) if barred is not None else lambda _: ()
            for block in _walk_blocks(len(queries)):
                asked = queries[block]
                out = [_list_out(query, places, list_barred) for query in asked]
                best.add(block, wanted[block], rows, start, out)
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


def _list_out(
    query: str, places: Mapping[str, int], list_barred: Callable[[str], ArrayLike]
) -> I64:
    """List the rows of a part of the database that may not stand for a query."""
    itself = [places[query]] if query in places else []
    return np.append(itself, list_barred(query)).astype(np.int64)


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
        out: Sequence[I64] = (),
    ) -> None:
        """Compare a block of queries with rows of the database from `start` on.

        Those that are `out` for a query are passed over.
        """
        products = queries.astype(np.float32) @ rows.T
        for i, columns in enumerate(out):
            products[i, columns] = -np.inf
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
