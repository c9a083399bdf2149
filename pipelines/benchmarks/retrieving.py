"""How many of the images that show the same are found among the first ten.

Our descriptor of whole images beside the plainest one that can be made of the same
features: the mean of their descriptors. Also, for comparison, that mean less the mean
of the whole collection, which must be known beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np
from tqdm import tqdm

from pipelines.benchmarks.results import Cell, Check, Result, Row
from sfm_features.ranking import rank_images
from sfm_features.retrieve import describe
from sfm_features.store import FeatureStore, GlobalStore

COUNT = 10
MISSES_LIMIT = 2 / 3
"""A clear margin: at most two misses where the mean of the descriptors has three."""
OURS, PLAIN, CENTRED = "ours", "mean", "mean, centred"

Covisible = Mapping[str, Set[str]]
"""By query, the images of the database that show the same as it."""


@dataclass(frozen=True)
class Recall:
    """Of one query: the share of the first ten that could be found and were, and
    whether the very first one is right."""

    share: float
    first: bool


def describe_all(
    sources: Mapping[str, Path], output: Path
) -> tuple[dict[str, Path], list[str]]:
    """Describe the images of feature files, each way; names get their key before them.

    Returns the files of descriptors by way, and all names.
    """
    made = {way: output / f"global-{way.split()[-1]}.h5" for way in (OURS, PLAIN)}
    made[CENTRED] = output / "global-mean-centred.h5"
    ours: dict[str, np.ndarray] = {}
    means: dict[str, np.ndarray] = {}
    for key, features in sources.items():
        one = output / "ours" / f"{key}.h5"
        one.parent.mkdir(parents=True, exist_ok=True)
        describe(features, one)
        with FeatureStore.open(features) as found, GlobalStore.open(one) as store:
            names = store.names()
            ours |= _prefix(key, names, store.read_many(names))
            bar = tqdm(names, desc=f"mean of {key}", unit="image", leave=False)
            rows = [found.read(name).descriptors.sum(axis=0) for name in bar]
            means |= _prefix(key, names, np.array(rows))
    middle = np.mean([_to_unit(row) for row in means.values()], axis=0)
    _write(made[OURS], ours)
    _write(made[PLAIN], means)
    _write(made[CENTRED], {n: _to_unit(row) - middle for n, row in means.items()})
    return made, sorted(ours)


def _prefix(key: str, names: Sequence[str], rows: np.ndarray) -> dict[str, np.ndarray]:
    return {f"{key}/{name}": row for name, row in zip(names, rows, strict=True)}


def _write(path: Path, rows: Mapping[str, np.ndarray]) -> None:
    path.unlink(missing_ok=True)
    with GlobalStore.append(path, {}) as store:
        for name, row in rows.items():
            store.write(name, _to_unit(row.astype(np.float32)))


def _to_unit(row: np.ndarray) -> np.ndarray:
    return row / max(float(np.linalg.norm(row)), 1e-12)


def measure_recall(
    descriptors: Path, database: Sequence[str], covisible: Covisible
) -> list[Recall]:
    """Rank the database for each query that has anything to find in it."""
    queries = [name for name in sorted(covisible) if covisible[name]]
    found = []
    for ranking in rank_images(descriptors, queries, database, COUNT):
        right = covisible[ranking.query]
        hits = [name in right for name in ranking.names]
        share = sum(hits) / min(COUNT, len(right))
        found.append(Recall(share, bool(hits and hits[0])))
    return found


def compare_descriptors(
    title: str,
    descriptors: Mapping[str, Path],
    database: Sequence[str],
    groups: Mapping[str, Covisible],
) -> Result:
    """Make a row for each group of queries; all of them together decide."""
    rows: list[Row] = []
    shares: dict[str, list[float]] = {way: [] for way in descriptors}
    for group, covisible in groups.items():
        wanted = [right for right in covisible.values() if right]
        row: dict[str, Cell] = {"queries": f"{len(wanted)} {group}"}
        row["covisible"] = mean(map(len, wanted)) if wanted else None
        row["recall by chance"] = _expect_by_chance(wanted, len(database))
        for way, path in descriptors.items():
            recalls = measure_recall(path, database, covisible)
            shares[way] += [recall.share for recall in recalls]
            row |= _sum_up(way, recalls)
        rows.append(row)
    total = {f"recall@{COUNT}, {way}": mean(found) for way, found in shares.items()}
    rows.append({"queries": f"all {len(shares[OURS])}", **total})
    misses = (1 - mean(shares[OURS])) / max(1 - mean(shares[PLAIN]), 1e-9)
    check = Check("misses over those of the mean", misses, MISSES_LIMIT)
    return Result(f"{title}: {len(database)} images in the database", rows, [check])


def _expect_by_chance(wanted: Sequence[Set[str]], database: int) -> Cell:
    """Return the recall of ten images drawn at random."""
    if not wanted:
        return None
    return mean(COUNT * len(w) / database / min(COUNT, len(w)) for w in wanted)


def _sum_up(way: str, recalls: Sequence[Recall]) -> dict[str, Cell]:
    if not recalls:
        return {}
    return {
        f"recall@{COUNT}, {way}": mean(recall.share for recall in recalls),
        f"first right, {way}": mean(recall.first for recall in recalls),
    }
