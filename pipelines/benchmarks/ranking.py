"""Exact ranking of a large collection on the disk: memory, time, and how both grow.

Descriptors are made up: queries are some of the database's own, blurred, so that it is
known what must come first.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pipelines.benchmarks.peak import read_peak
from pipelines.benchmarks.results import ROOT, Check, Result, Row
from sfm_features.ranking import rank_images
from sfm_features.store import GlobalStore

SIZES = (25_000, 50_000, 100_000)
LIMIT_GIB = 2.0
LINEAR_LIMIT = 1.25
_BLUR = 0.5  # of a descriptor's length
_COUNT = 50


def measure_ranking(
    output: Path,
    sizes: tuple[int, ...] = SIZES,
    dim: int = 2048,
    queries: int = 1000,
    seed: int = 0,
) -> Result:
    """Rank for all queries in growing parts of one file, each in its own process."""
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"ranking-{max(sizes)}-{dim}.h5"
    _write(path, max(sizes), min(sizes), dim, queries, seed)
    rows: list[Row] = []
    for size in sizes:
        command = [sys.executable, "-m", "pipelines.benchmarks.ranking", str(path)]
        child = subprocess.run(
            [*command, str(size), str(queries)],
            cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
        found = json.loads(child.stdout)
        cpu_ms = 1000 * found["cpu_seconds"] / queries
        rows.append(
            {
                "database": size,
                "GiB on the disk": size * dim * 2 / 2**30,
                "peak GiB": found["peak"] / 2**30,
                "ms per query": 1000 * found["seconds"] / queries,
                "CPU ms per query": cpu_ms,
                "CPU ns per query and image": 1e6 * cpu_ms / size,
                "first right": found["right"],
            }
        )
    path.unlink()
    per_image = [float(row["CPU ns per query and image"] or 0) for row in rows]
    checks = [
        Check("peak memory in GiB", float(rows[-1]["peak GiB"] or 0), LIMIT_GIB),
        Check("CPU time per image, largest over smallest database",
              per_image[-1] / per_image[0], LINEAR_LIMIT),
        Check("share of queries whose own image is not first",
              1 - min(float(row["first right"] or 0) for row in rows), 0),
    ]  # fmt: skip
    title = f"Ranking: {max(sizes):,} x {dim:,}, {queries:,} queries"
    return Result(title, rows, checks)


def name_image(i: int) -> str:
    """Name an image of the database."""
    return f"db/{i:06d}.jpg"


def name_query(i: int) -> str:
    """Name the query that shows the same as image i."""
    return f"query/{i:06d}.jpg"


def _write(
    path: Path, images: int, asked: int, dim: int, queries: int, seed: int
) -> None:
    """Write descriptors of images, and of queries for some of the first `asked`."""
    settings = {"images": images, "asked": asked, "queries": queries, "seed": seed}
    wanted = [(name_image(i), i, 0) for i in range(images)]
    wanted += [(name_query(i), i, 1) for i in _choose(asked, queries)]
    with GlobalStore.append(path, settings) as store:
        for name, i, is_query in tqdm(wanted, desc="make up descriptors", unit="image"):
            if name in store:
                continue
            row = np.random.default_rng([seed, i]).standard_normal(dim, np.float32)
            if is_query:
                noise = np.random.default_rng([seed, i, 1])
                row += _BLUR * noise.standard_normal(dim, np.float32)
            store.write(name, row / np.linalg.norm(row))


def _choose(images: int, queries: int) -> list[int]:
    return [int(i) for i in np.linspace(0, images - 1, queries)]


def _rank(path: Path, size: int, queries: int) -> dict[str, float]:
    with GlobalStore.open(path) as store:
        smallest = int(store.config["asked"])
    asked = [name_query(i) for i in _choose(smallest, queries)]
    database = [name_image(i) for i in range(size)]
    start, cpu_start = time.perf_counter(), time.process_time()
    found = rank_images(path, asked, database, _COUNT)
    # Of all threads: what else the machine does meanwhile hardly changes it.
    cpu_seconds = time.process_time() - cpu_start
    seconds = time.perf_counter() - start
    right = [r.names[0].removeprefix("db/") == r.query.removeprefix("query/")
             for r in found]  # fmt: skip
    share = sum(right) / len(right)
    times = {"seconds": seconds, "cpu_seconds": cpu_seconds}
    return {**times, "peak": read_peak(), "right": share}


if __name__ == "__main__":
    result = _rank(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    sys.stdout.write(json.dumps(result))
