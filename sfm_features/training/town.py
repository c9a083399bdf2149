"""Pairs of views of a rendered town, related by exact depth, by day and by night."""

from __future__ import annotations

import copy
from collections.abc import Container
from dataclasses import replace
from pathlib import Path

import numpy as np

from sfm_features.scenes import View, correspond, read_truth, render_town
from sfm_features.training.photos import TOWN_FOLDER, Photo, PhotoSet, load_photos
from sfm_features.types import F64, Bool

_SIZE = (512, 384)
_TRIES = 20


class TownPairs:
    """Views of one walk, rendered by day and by night, which share their geometry."""

    def __init__(self, folder: Path, views: int, seed: int, first: int) -> None:
        """Render into a folder what is not there yet; photos count from `first`."""
        self.photos: list[Photo] = []
        self.first = first
        for lighting in ("day", "night"):
            place = folder / lighting
            render_town(place, views, lighting, seed, _SIZE, depth=True)
            for photo in load_photos([place / "images"], max_side=0).photos:
                name, view = f"{lighting}_{photo.name}", f"town {photo.name}"
                self.photos.append(
                    replace(photo, name=name, view=view, folder=TOWN_FOLDER)
                )
        truth = read_truth(folder / "day")
        self.views = [
            View(name, truth.cameras[name], truth.poses[name])
            for name in sorted(truth.cameras)
        ]
        depths = (np.load(folder / f"day/depth/{v.name}.npy") for v in self.views)
        self.depths = [np.asarray(depth, np.float32) for depth in depths]
        self.usable = list(range(len(self.photos)))

    def extend(self, photos: PhotoSet) -> PhotoSet:
        """Return the photos with those of the town behind them."""
        assert len(photos) == self.first
        return PhotoSet([*photos.photos, *self.photos], photos.skipped)

    def among(self, photos: Container[int]) -> TownPairs:
        """Return the pairs whose photos are both among these."""
        chosen = copy.copy(self)
        numbers = range(len(self.photos))
        chosen.usable = [i for i in numbers if i + self.first in photos]
        return chosen

    def choose(self, rng: np.random.Generator) -> tuple[int, int, F64, F64]:
        """Choose two photos and a place that both show, as pixels (2,) of either."""
        count = len(self.views)
        centre = middle = (np.array(_SIZE) - 1) / 2
        one = self.usable[rng.integers(len(self.usable))]
        near = [i for i in self.usable if abs(i % count - one % count) <= 3]
        for _ in range(_TRIES):
            other = near[rng.integers(len(near))]
            centre = rng.uniform(0.2, 0.8, 2) * _SIZE
            landed, known = self._map(one % count, other % count, centre[None])
            if known[0]:
                break
        else:
            other, centre, landed = one, middle, middle[None]
        return one + self.first, other + self.first, centre, landed[0]

    def relate(self, first: int, second: int, candidates: F64) -> tuple[F64, F64]:
        """Return the pixels (N, 2) that both photos show, and where the other does."""
        count = len(self.views)
        landed, known = self._map(
            (first - self.first) % count, (second - self.first) % count, candidates
        )
        return candidates[known], landed[known]

    def _map(self, one: int, other: int, xy: F64) -> tuple[F64, Bool]:
        if one == other:
            inside = ((xy >= 0) & (xy <= np.array(_SIZE) - 1)).all(axis=1)
            return xy, np.asarray(inside)
        return correspond(
            self.depths[one],
            self.views[one],
            self.depths[other],
            self.views[other],
            xy,
        )
