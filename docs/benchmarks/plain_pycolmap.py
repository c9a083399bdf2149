"""The baseline: a folder of images through pycolmap alone, everything at its defaults.

$ python docs/benchmarks/plain_pycolmap.py photos out

Prints the seconds of each step and the folder of the largest model as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pycolmap


def reconstruct_plainly(images: Path, output: Path) -> dict[str, object]:
    """Extract, match exhaustively and map; return seconds by step and the model."""
    output.mkdir(parents=True)
    database = output / "database.db"
    times = [time.perf_counter()]
    pycolmap.extract_features(database, images)
    times.append(time.perf_counter())
    pycolmap.match_exhaustive(database)
    times.append(time.perf_counter())
    models = pycolmap.incremental_mapping(database, images, output)
    times.append(time.perf_counter())
    seconds = [round(b - a, 3) for a, b in zip(times, times[1:], strict=False)]
    largest = max(models, key=lambda i: models[i].num_reg_images(), default=None)
    return {
        "seconds": dict(zip(("extract", "match", "map"), seconds, strict=True)),
        "model": None if largest is None else str(output / str(largest)),
    }


if __name__ == "__main__":
    found = reconstruct_plainly(Path(sys.argv[1]), Path(sys.argv[2]))
    sys.stdout.write(json.dumps(found) + "\n")
