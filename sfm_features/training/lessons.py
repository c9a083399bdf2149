"""What a stage of training learns from: labels, and places seen from several sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from sfm_features.errors import InputError
from sfm_features.nets.dense import DenseNet
from sfm_features.training.averaging import hash_weights
from sfm_features.training.data import RelatedViews
from sfm_features.training.evolve import Stage
from sfm_features.training.label_store import (
    choose_photos,
    compute_labels,
    merge_labels,
    read_labels,
    write_labels,
)
from sfm_features.training.multiview import Collections
from sfm_features.training.photos import PhotoSet
from sfm_features.training.settings import Settings
from sfm_features.training.town import TownPairs
from sfm_features.training.turntables import TurntablePairs
from sfm_features.training.validate import ViewPair
from sfm_features.types import F32, RunOptions


class NoKeypoints(InputError):
    """No photo has a keypoint, so that a stage has nothing to learn from."""


@dataclass(frozen=True)
class Lessons:
    """Keypoints by photo, related views and their shares, and views to measure on."""

    labels: dict[int, F32]
    related: list[tuple[float, RelatedViews]]
    views: list[ViewPair]


@dataclass(frozen=True)
class Planner:
    """Prepares the lessons of every stage of a run in its folder."""

    photos: PhotoSet
    held_back: Sequence[int]
    folder: Path
    settings: Settings
    device: torch.device
    seed: int
    town: TownPairs | None = None
    collections: Collections | None = None
    turntables: TurntablePairs | None = None

    def prepare(self, stage: Stage, number: int, start: DenseNet) -> Lessons:
        """Prepare a stage; what was prepared before it was stopped is kept."""
        taught = stage.labels not in ("random", "corners")
        labels = self._label(stage, number, start, taught)
        if self.settings.sees_depth:
            labels = self._keep_with_depth(labels)
        related: list[tuple[float, RelatedViews]] = []
        views: list[ViewPair] = []
        if self.town is not None:
            town = self.town.among(labels)
            if town.usable:
                related.append((self.settings.data.town_share, town))
        if self.turntables is not None:
            turns = self.turntables.among(labels)
            if turns.usable:
                related.append((self.settings.data.turntable_share, turns))
        if self.collections is not None and taught:
            places = self.folder / "multiview"
            run = RunOptions(device=self.device.type, seed=self.seed)
            tracks = self.collections.reconstruct(
                self.photos, start, places / f"{number:02d}", run
            )
            # Always those of the first reconstruction, or figures would not compare.
            first = self.collections.collect(self.photos, min(places.iterdir()))
            views = first.held_back(self.photos, self.held_back, self.seed)
            # Points that survived triangulation are keypoints, too.
            labels = tracks.add_keypoints(labels)
            tracks = tracks.among(labels)
            if len(tracks):
                related.append((self.settings.data.track_share, tracks))
        return Lessons(labels, related, views)

    def _keep_with_depth(self, labels: dict[int, F32]) -> dict[int, F32]:
        seen = {*self.photos.list_with_depth()} - {*self.held_back}
        kept = {number: xy for number, xy in labels.items() if number in seen}
        if not kept:
            raise InputError(
                f"{self.folder}: none of the {len(labels)} photos that were labelled "
                "has a depth map; label all of them (--label-photos 0)"
            )
        return kept

    def _label(
        self, stage: Stage, number: int, start: DenseNet, taught: bool
    ) -> dict[int, F32]:
        """Label photos afresh, and keep the older labels of the others."""
        kept = self.folder / "labels"
        # Corners are cheap, so that every photo gets some.
        count = self.settings.label_photos if taught else 0
        held_back = set(self.held_back)
        labels = compute_labels(
            self.photos,
            choose_photos(self.photos, count, self.seed, number, held_back),
            stage.labels,
            self.settings.labels,
            kept / f"{number:02d}",
            (self.seed, 5, number),
            start if taught else None,
            self.device,
            hash_weights(start.state_dict()) if taught else "",
            held_back,
        )
        if stage.keep_older_labels and number > 0:
            older = read_labels(kept / f"{number - 1:02d}.npz")
            labels = merge_labels(older, labels)
        write_labels(kept / f"{number:02d}.npz", labels)
        if not labels:
            raise NoKeypoints(
                f"{self.folder}: no keypoints were found in any photo; the photos are "
                "empty, or the network has not learned anything yet"
            )
        return labels
