"""Made-up feature files that match as those of a real scene do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tqdm import tqdm

from sfm_features.store import FeatureStore
from sfm_features.types import Features

SIZE = (1600, 1200)
_NOISE = 0.3  # of a descriptor's length: some matches pass the ratio test, some fail


def write_features(
    path: Path, images: int, keypoints: int, dimension: int = 128, seed: int = 0
) -> list[str]:
    """Write images that see random parts of one world; return their names."""
    rng = np.random.default_rng(seed)
    world = rng.normal(size=(3 * keypoints, dimension)).astype(np.float32)
    names = [f"{i:04d}.jpg" for i in range(images)]
    with FeatureStore.append(path, {"extractor": "sift", "seed": seed}) as store:
        for name in tqdm(names, desc="make up features", unit="image"):
            seen = rng.choice(len(world), keypoints, replace=False)
            noise = rng.standard_normal((keypoints, dimension), np.float32)
            rows = world[seen] + np.float32(_NOISE) * noise
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            xy = rng.random((keypoints, 2), np.float32) * np.float32(SIZE[1])
            scores = np.ones(keypoints, np.float32)
            store.write(name, Features(xy, rows, scores, SIZE))
    return names
