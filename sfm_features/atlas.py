"""A map, loaded once: poses, points, features, and what each image looks like."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sfm_features import colmap
from sfm_features.errors import InputError
from sfm_features.extract import ExtractOptions
from sfm_features.nets.vlad import Vlad, load_vlad
from sfm_features.nets.weights import Card
from sfm_features.ranking import find_nearest
from sfm_features.recent import Recent
from sfm_features.registry import EXTRACTORS, hash_weights
from sfm_features.retrieve import (
    BUNDLED_CODEBOOK,
    describe_settings,
    fits,
    is_described,
)
from sfm_features.store import FeatureStore, GlobalStore
from sfm_features.types import F32, F64, I64, Features, Model, Pose
from sfm_features.workspace import Workspace, has_used

logger = logging.getLogger(__name__)

_CACHE_BYTES = 1 << 30
_MOST_WITHOUT_CODEBOOK = 300
"""Images that are all matched where no codebook fits the features."""
_LEAST_SHARED = 5
"""Points that images of one place share; a wrong one or two link any."""


class Atlas:
    """What a folder that `reconstruct` or `triangulate` made knows; never written to.

    Its images may be gone: features and the model suffice.
    """

    def __init__(self, folder: Path, codebook: Path | None = None) -> None:
        self.folder = folder
        workspace = Workspace(folder)
        self.model: Model = colmap.read_model(_find_model(workspace))
        self._store = FeatureStore.open(workspace.features)
        self.config: Mapping[str, Any] = dict(self._store.config)
        self._recent = Recent(
            self._store.read, lambda features: features.descriptors.nbytes, _CACHE_BYTES
        )
        known = set(self._store.names())
        self.names = [name for name in sorted(self.model.images) if name in known]
        self._check()
        self.vlad, card = self._load_codebook(codebook)
        self.descriptors = self._describe(workspace.descriptors, card)
        self.centres: F64 = np.array(
            [self.model.images[name].cam_from_world.centre for name in self.names]
        )

    def close(self) -> None:
        """Close the file of features."""
        self._store.close()

    def read(self, name: str) -> Features:
        """Return the features of an image; those used of late are kept in memory."""
        return self._recent(name)

    def point_rows(self, name: str) -> I64:
        """Return the row of `model.points` of each keypoint of an image, or -1."""
        return self.model.images[name].point_ids

    def choose(
        self,
        features: Features,
        count: int,
        near: Pose | None = None,
        max_distance: float = np.inf,
    ) -> list[str]:
        """Choose the images that look most like a query, best first.

        `near` is about where it was taken: what lies far from there is left out, by the
        distance or, if that is not given, all but the nearest.
        """
        rows = np.arange(len(self.names))
        if near is not None:
            distances = np.linalg.norm(self.centres - near.centre, axis=1)
            rows = np.argsort(distances, kind="stable")
            is_near = distances[rows] <= max_distance
            rows = rows[is_near] if np.isfinite(max_distance) else rows[:count]
        if self.vlad is None or not len(features):
            return [self.names[i] for i in rows] if self.vlad is None else []
        with torch.inference_mode():
            wanted = self.vlad(torch.from_numpy(features.descriptors)).numpy()[None]
        index, cosines = find_nearest(wanted, self.descriptors[rows], count)
        return [self.names[rows[i]] for i in index[0][np.isfinite(cosines[0])]]

    def collect_points(self, names: Sequence[str], most: int) -> tuple[I64, F32]:
        """Collect points that images see: rows (P,) and descriptors (P, L).

        A point that several see is described by the first of them.
        """
        taken = np.zeros(len(self.model.points), np.bool_)
        rows, described = [np.zeros(0, np.int64)], []
        for name in names:
            seen, keypoints = np.unique(self.point_rows(name), return_index=True)
            new = (seen >= 0) & ~taken[seen]
            taken[seen[new]] = True
            rows.append(seen[new])
            described.append(self.read(name).descriptors[keypoints[new]])
            if taken.sum() >= most:
                break
        return np.concatenate(rows)[:most], np.concatenate(described)[:most].astype(
            np.float32
        )

    def group(self, names: Sequence[str]) -> list[list[int]]:
        """Split images into groups that share points: rows, the first ones first."""
        left = list(range(len(names)))
        seen = [np.unique(self.point_rows(name)) for name in names]
        groups = []
        while left:
            group = [left.pop(0)]
            for row in group:  # which grows meanwhile
                near = [i for i in left if _share(seen[row], seen[i]) >= _LEAST_SHARED]
                group += near
                left = [i for i in left if i not in near]
            groups.append(sorted(group))
        return groups

    def recall_extraction(self, weights: Path | None) -> ExtractOptions:
        """Return the settings that the features were made with."""
        if "extractor" not in self.config:
            raise InputError(
                f"{self.folder}: its features are of another tool, so queries cannot "
                "be treated alike; make the map with `sfm-features`"
            )
        extractor = str(self.config["extractor"])
        if extractor not in EXTRACTORS:
            raise InputError(
                f"{self.folder}: its features are {extractor}'s, which cannot be made "
                "of queries here; make the map with `sfm-features`"
            )
        if hash_weights(extractor, weights) != self.config.get("weights_sha256", ""):
            raise InputError(
                f"{self.folder}: its features were made with other weights of "
                f"{extractor}; give them with --weights"
            )
        return ExtractOptions(
            extractor=extractor,
            max_keypoints=int(self.config["max_keypoints"]),
            max_size=int(self.config["max_size"]),
            scales=tuple(self.config.get("scales", ())),
            weights=weights,
        )

    def _check(self) -> None:
        """Refuse a model whose keypoints are not those of the features."""
        if not self.names:
            raise InputError(
                f"{self.folder}: features.h5 has none of the model's images; put back "
                "the file that the model was made from"
            )
        if not has_used(Workspace(self.folder), self._store, self.names):
            raise InputError(
                f"{self.folder}: features.h5 was changed since the model was made of "
                "it; run the command that made the model again"
            )
        for name in (self.names[0], self.names[-1]):
            count = len(self._store.read_keypoints(name))
            if count != len(self.point_rows(name)):
                raise InputError(
                    f"{self.folder}: {name!r} has {count} keypoints in features.h5, "
                    f"but {len(self.point_rows(name))} in the model; put back the "
                    "file that the model was made from"
                )

    def _load_codebook(self, path: Path | None) -> tuple[Vlad | None, Card]:
        """Load the codebook that fits the features, if there is one."""
        vlad, card = load_vlad(path or BUNDLED_CODEBOOK)
        if fits(self._store, vlad, card):
            return vlad, card
        if path is None and len(self.names) <= _MOST_WITHOUT_CODEBOOK:
            return None, card
        raise InputError(
            f"{self.folder}: no codebook for features of "
            f"{self.config.get('extractor', 'another tool')!r}; make one with `python "
            "-m pipelines.codebook` and give it with --codebook"
        )

    def _describe(self, path: Path, card: Card) -> NDArray[np.floating]:
        """Make the descriptors (N, D) of the images, or read them if they fit."""
        if self.vlad is None:
            return np.zeros((len(self.names), 0), np.float32)
        if path.is_file():
            with GlobalStore.open(path) as store:
                wanted = describe_settings(self._store, card)
                if dict(store.config) == wanted and all(
                    is_described(store, self._store, name) for name in self.names
                ):
                    return store.read_many(self.names)
        with torch.inference_mode():
            rows = [
                self.vlad(torch.from_numpy(self._store.read(name).descriptors)).numpy()
                for name in self.names
            ]
        return np.stack(rows).astype(np.float16)


def _find_model(workspace: Workspace) -> Path:
    """Return the largest model of a map."""
    folder = workspace.root
    models = colmap.list_models(workspace.sparse)
    if not models:
        above = [*folder.parents, *folder.absolute().parents]
        around = [path for path in above if Workspace(path).features.is_file()]
        remedy = "a folder that `sfm-features reconstruct` or `triangulate` wrote"
        if around and colmap.find_models(folder):
            remedy = f"{around[0]}, which it is a part of"
        raise InputError(f"{folder}: has no model in sparse/0; give {remedy}")
    if len(models) > 1:
        logger.info(
            "%s: has %d models; only the largest, %s, is used",
            *(folder, len(models), models[0].relative_to(folder)),
        )
    return models[0]


def _share(a: I64, b: I64) -> int:
    """Count the points in both, which are sorted; -1 is none."""
    return int((np.intersect1d(a, b, assume_unique=True) >= 0).sum())
