"""Pairs of views of things that turn before rooms that stand still, by exact depth.

What moves with the thing corresponds; the room, which looks the same in all views,
corresponds to nothing and is background.
"""

from __future__ import annotations

import copy
from collections.abc import Container
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sfm_features.depths import read_depth
from sfm_features.masks import read_mask
from sfm_features.scenes import View, correspond
from sfm_features.scenes.turntable import Thing, render_turntable
from sfm_features.training.nearness import draw_distance
from sfm_features.training.photos import Photo, PhotoSet, load_photos
from sfm_features.types import F32, F64, Bool

_SIZE = (480, 360)
_VIEWS = 12
"""Views of a turn: neighbours are 30 degrees apart."""
_TRIES = 20
_FIRST_SEED = 1000
"""Scenes count from here, so that those that are measured on stay unseen."""
TURNTABLE_FOLDER = 1_000_002
"""The folder number of rendered photos."""


class TurntablePairs:
    """Turns of several piles of things, and of the crate, in several rooms."""

    def __init__(self, folder: Path, scenes: int, seed: int, first: int) -> None:
        """Render into a folder what is not there yet; photos count from `first`."""
        self.first = first
        self.photos: list[Photo] = []
        self.views: list[View] = []
        self.depths: list[F32] = []
        for scene in tqdm(range(scenes), "turntables", unit="scene"):
            number = _FIRST_SEED * (seed + 1) + scene
            self._add(folder / f"scene{number}", number, _choose_thing(scene))
        self.usable = list(range(len(self.photos)))

    def _add(self, place: Path, seed: int, thing: Thing) -> None:
        views = render_turntable(place, _VIEWS, seed, _SIZE, thing)
        for photo in load_photos([place / "images"], max_side=0).photos:
            mask = read_mask(place / "masks", photo.name)
            assert mask is not None
            depth = read_depth(place / "depth" / f"{photo.name}.png")
            self.photos.append(
                replace(
                    photo,
                    name=f"{place.name}/{photo.name}",
                    folder=TURNTABLE_FOLDER,
                    background=~mask,
                    nearness=draw_distance(depth, photo.size),
                )
            )
            self.depths.append(np.float32(depth.values / 1000))
        self.views += views

    def extend(self, photos: PhotoSet) -> PhotoSet:
        """Return the photos with those of the turntables behind them."""
        assert len(photos) == self.first
        return PhotoSet([*photos.photos, *self.photos], photos.skipped)

    def among(self, photos: Container[int]) -> TurntablePairs:
        """Return the pairs whose photos are both among these."""
        chosen = copy.copy(self)
        numbers = range(len(self.photos))
        chosen.usable = [i for i in numbers if i + self.first in photos]
        return chosen

    def choose(self, rng: np.random.Generator) -> tuple[int, int, F64, F64]:
        """Choose two photos and a place of the thing, as pixels (2,) of either."""
        for _ in range(_TRIES):
            one = self.usable[rng.integers(len(self.usable))]
            turn = one + int(rng.integers(-1, 2))
            other = one // _VIEWS * _VIEWS + turn % _VIEWS
            if other not in self.usable:
                other = one
            centre = self._choose_place(one, rng)
            landed, known = self._map(one, other, centre[None])
            if known[0]:
                break
        else:
            other, landed = one, centre[None]
        return one + self.first, other + self.first, centre, landed[0]

    def relate(self, first: int, second: int, candidates: F64) -> tuple[F64, F64]:
        """Return the pixels (N, 2) of the thing in both photos, where both show it."""
        one, other = first - self.first, second - self.first
        landed, known = self._map(one, other, candidates)
        return candidates[known], landed[known]

    def _choose_place(self, one: int, rng: np.random.Generator) -> F64:
        background = self.photos[one].background
        assert background is not None
        rows, columns = np.nonzero(~background)
        k = rng.integers(len(rows))
        return np.array([columns[k], rows[k]], np.float64)

    def _map(self, one: int, other: int, xy: F64) -> tuple[F64, Bool]:
        inside = ((xy >= 0) & (xy <= np.array(_SIZE) - 1)).all(axis=1)
        known = np.zeros(len(xy), bool)
        known[inside] = self.photos[one].keeps(xy[inside])
        if one == other:
            return xy, known
        landed, seen = correspond(
            self.depths[one], self.views[one], self.depths[other], self.views[other], xy
        )
        known &= seen
        known[known] &= self.photos[other].keeps(landed[known])
        return landed, known


def _choose_thing(scene: int) -> Thing:
    """Take a pile twice, then the crate: its labels are the finest texture of all."""
    return "crate" if scene % 3 == 2 else "pile"
