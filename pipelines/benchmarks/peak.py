"""Match in this process and print its peak memory in bytes."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from sfm_features.match import match
from sfm_features.pair_files import read_pairs
from sfm_features.store import FeatureStore


def measure_peak(folder: Path, count: int) -> int:
    """Match the first `count` pairs of a folder; return the peak memory in bytes."""
    features = folder / "features.h5"
    with FeatureStore.open(features) as store:
        pairs = read_pairs(folder / "pairs.txt", store.names())
    match(features, pairs[:count], folder / f"matches-{count}.h5")
    return read_peak()


def read_peak() -> int:
    """Return the most memory this process ever had.

    What getrusage says includes the parent process that started this one, on Linux.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    sys.stdout.write(f"{measure_peak(Path(sys.argv[1]), int(sys.argv[2]))}\n")
