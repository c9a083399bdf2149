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

    `allowed(query, name)` tells which images may stand for a query at all.
    """
    if count < 1:
        raise OptionError(f"--neighbours {count}: must be at least 1")
    if not queries or not database:
        return [Ranking(query, (), ()) for query in queries]
    places = {name: i for i, name in enumerate(database)}
    found: list[Ranking] = []
    with GlobalStore.open(descriptors) as store:
        rows = store.read_many(database)
        for start in range(0, len(queries), _QUERY_ROWS):
            part = queries[start : start + _QUERY_ROWS]
            banned = [_list_banned(query, places, allowed) for query in part]
            index, cosines = find_nearest(store.read_many(part), rows, count, banned)
            for query, i, cosine in zip(part, index, cosines, strict=True):
                known = np.isfinite(cosine)
                names = tuple(database[k] for k in i[known].tolist())
                found.append(Ranking(query, names, tuple(cosine[known].tolist())))
    return found


def _list_banned(
    query: str, places: Mapping[str, int], allowed: Allowed | None
) -> list[int]:
    """List the rows of the database that may not stand for a query."""
    if allowed is None:
        return [places[query]] if query in places else []
    return [
        i for name, i in places.items() if name == query or not allowed(query, name)
    ]


def find_nearest(
    queries: NDArray[np.floating],
    database: NDArray[np.floating],
    count: int,
    banned: Sequence[Sequence[int]] = (),
) -> tuple[I64, F32]:
    """Find the nearest rows (Q, K) of a database by dot product, and the products.

    Exact, and chunk by chunk, so that what it needs beside the database does not grow
    with it. Where there are fewer than K, products are -inf.
    """
    wanted = queries.astype(np.float32)
    best = np.full((len(wanted), count), -np.inf, np.float32)
    where = np.zeros((len(wanted), count), np.int64)
    for start, rows in _walk_chunks(database):
        products = wanted @ rows.T
        for i, out in enumerate(banned):
            inside = [j - start for j in out if start <= j < start + len(rows)]
            products[i, inside] = -np.inf
        index = _find_largest(products, count)
        both = np.concatenate([best, np.take_along_axis(products, index, 1)], 1)
        places = np.concatenate([where, index + start], 1)
        order = np.argsort(-both, axis=1, kind="stable")[:, :count]
        best = np.take_along_axis(both, order, 1)
        where = np.take_along_axis(places, order, 1)
    return where, best


def _find_largest(products: F32, count: int) -> I64:
    """Return the columns of the largest products of each row, in rising order."""
    if products.shape[1] <= count:
        return np.tile(np.arange(products.shape[1]), (len(products), 1))
    largest = np.argpartition(products, -count, axis=1)[:, -count:]
    largest.sort(axis=1)
    return largest


def _walk_chunks(database: NDArray[np.floating]) -> Iterator[tuple[int, F32]]:
    for start in range(0, len(database), _CHUNK_ROWS):
        yield start, database[start : start + _CHUNK_ROWS].astype(np.float32)
