"""Which images show the same: by depth in the town, by shared points elsewhere."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import combinations
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sfm_features.colmap import covisible_counts, list_models, read_model
from sfm_features.scenes import build_town, correspond, render_depth, town_views
from sfm_features.scenes.correspond import Posed
from sfm_features.types import F32, F64, Pair

LEAST_SHARE = 0.1
LEAST_POINTS = 20
_DEPTH_SIZE = (256, 192)
_DOTS = 32
"""Pixels across an image that are looked at."""


def find_town_neighbours(views: int, seed: int) -> dict[str, set[str]]:
    """Find which views of a walk through the town show the same."""
    town = build_town(seed)
    walk = {view.name: view for view in town_views(views, seed, _DEPTH_SIZE)}
    depths = {
        name: render_depth(town, view.camera, view.cam_from_world)[0]
        for name, view in tqdm(walk.items(), desc="depth", unit="view")
    }
    return find_neighbours(walk, depths)


def find_neighbours(
    views: Mapping[str, Posed], depths: Mapping[str, F32]
) -> dict[str, set[str]]:
    """Find the views of which each sees a tenth of what the other one shows."""
    found = []
    for a, b in tqdm(list(combinations(views, 2)), desc="covisibility", unit="pair"):
        one, other = (depths[a], views[a]), (depths[b], views[b])
        if min(_share_seen(one, other), _share_seen(other, one)) >= LEAST_SHARE:
            found.append((a, b))
    return _to_sets(views, found)


def _share_seen(a: tuple[F32, Posed], b: tuple[F32, Posed]) -> float:
    """Return the share of what `a` shows, the sky left out, that `b` sees."""
    height, width = a[0].shape
    step = width / _DOTS
    dots = np.meshgrid(*(np.arange(step / 2, side, step) for side in (width, height)))
    grid: F64 = np.stack(dots, axis=-1).reshape(-1, 2).round()
    _, visible = correspond(*a, *b, grid)
    column, row = grid.astype(int).T
    solid = np.isfinite(a[0][row, column])
    return float(visible.sum() / max(solid.sum(), 1))


def find_model_neighbours(sparse: Path) -> dict[str, set[str]]:
    """Find the images of a folder of models that share points; others are left out."""
    shared: dict[Pair, int] = defaultdict(int)
    names: set[str] = set()
    for path in list_models(sparse):
        model = read_model(path)
        names |= model.images.keys()
        for pair, count in covisible_counts(model).items():
            shared[pair] = max(shared[pair], count)
    pairs = (pair for pair, count in shared.items() if count >= LEAST_POINTS)
    return _to_sets(sorted(names), pairs)


def _to_sets(names: Iterable[str], pairs: Iterable[Pair]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {name: set() for name in names}
    for a, b in pairs:
        found[a].add(b)
        found[b].add(a)
    return found
