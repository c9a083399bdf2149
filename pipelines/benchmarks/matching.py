"""What matching costs over the bare matrix product, and how much memory it takes."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from tqdm import tqdm

from pipelines.benchmarks.made_up import write_features
from pipelines.benchmarks.results import ROOT, Check, Result, Row
from sfm_features.match import match
from sfm_features.pair_files import write_pairs
from sfm_features.pairs import pair_exhaustively, pair_sequentially
from sfm_features.store import FeatureStore
from sfm_features.types import Pair

LIMIT = 2.5
LIMIT_GIB = 1.0


def measure_match(
    images: int = 60,
    keypoints: int = 2048,
    pairs: int = 500,
    repeats: int = 3,
    seed: int = 0,
) -> Result:
    """Compare the stage, files included, with the products `a @ b.T`, in turns."""
    product, reused, stage = [], [], []
    with TemporaryDirectory() as folder:
        features = Path(folder) / "features.h5"
        names = write_features(features, images, keypoints, seed=seed)
        chosen = sorted(random.Random(seed).sample(pair_exhaustively(names), pairs))
        rows = _read_descriptors(features, names)
        match(features, chosen[:5], Path(folder) / "warm.h5")
        for i in range(repeats):
            product.append(_time_products(rows, chosen, reuse=False))
            reused.append(_time_products(rows, chosen, reuse=True))
            start = time.perf_counter()
            match(features, chosen, Path(folder) / f"{i}.h5")
            stage.append((time.perf_counter() - start) / pairs)
    bare = [min(both) for both in zip(product, reused, strict=True)]
    costs = {
        "product `a @ b.T`, new memory": product,
        "product `a @ b.T`, memory reused": reused,
        "stage match, files included": stage,
    }
    table: list[Row] = [
        {"what": what, "ratio": _median_ratio(x, bare), "ms per pair": 1e3 * median(x)}
        for what, x in costs.items()
    ]
    return Result(
        f"Matching: `nearest`, {keypoints} x {keypoints} x 128, {pairs} pairs",
        table,
        [Check("stage over bare product", _median_ratio(stage, bare), LIMIT)],
        {"threads": torch.get_num_threads(), "s_per_pair": costs},
    )


def measure_memory(
    images: int = 500, keypoints: int = 4096, pairs: int = 3000, seed: int = 0
) -> Result:
    """Measure the peak memory of matching in a process of its own."""
    with TemporaryDirectory() as folder:
        features = Path(folder) / "features.h5"
        names = write_features(features, images, keypoints, seed=seed)
        chosen = _choose_pairs(names, pairs, seed)
        write_pairs(Path(folder) / "pairs.txt", chosen)
        peaks = [_measure_peak_gib(folder, limit) for limit in (0, len(chosen))]
    rows: list[Row] = [
        {"what": "torch and the package loaded", "peak GiB": peaks[0]},
        {"what": f"stage match, {len(chosen)} pairs", "peak GiB": peaks[1]},
    ]
    return Result(
        f"Memory of matching {images} images of {keypoints} x 128",
        rows,
        [Check("peak memory in GiB", peaks[1], LIMIT_GIB)],
        {"pairs": len(chosen)},
    )


def _choose_pairs(names: Sequence[str], count: int, seed: int) -> list[Pair]:
    """Choose pairs of neighbours, which touch every image, and random ones."""
    near = pair_sequentially(names, max(1, count // (2 * len(names))), quadratic=False)
    others = sorted(set(pair_exhaustively(names)) - set(near))
    wanted = min(max(count - len(near), 0), len(others))
    return sorted(near + random.Random(seed).sample(others, wanted))


def _measure_peak_gib(folder: str, pairs: int) -> float:
    command = [sys.executable, "-m", "pipelines.benchmarks.peak", folder, str(pairs)]
    child = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    return int(child.stdout) / 2**30


def _read_descriptors(features: Path, names: Sequence[str]) -> dict[str, torch.Tensor]:
    with FeatureStore.open(features) as store:
        return {name: torch.from_numpy(store.read(name).descriptors) for name in names}


def _time_products(
    rows: dict[str, torch.Tensor], pairs: Sequence[Pair], reuse: bool
) -> float:
    """Return the median seconds of a product."""
    count = len(next(iter(rows.values())))
    memory = torch.empty(count, count)
    seconds = []
    for first, second in tqdm(pairs, desc="bare products", unit="pair"):
        start = time.perf_counter()
        if reuse:
            torch.mm(rows[first], rows[second].T, out=memory)
        else:
            rows[first] @ rows[second].T
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def _median_ratio(seconds: Sequence[float], bare: Sequence[float]) -> float:
    """Divide round by round: what else the machine does changes from one to another."""
    return median(s / b for s, b in zip(seconds, bare, strict=True))
