"""What a report of a localization is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sfm_features.types import F32, I64, Bool, Camera, Model, Pose

WEAK_BELOW = 30
"""Inliers below which a pose should be looked at."""


@dataclass(frozen=True)
class QueryResult:
    """What came of a query. Without `fallback`, a pose is there only if it was found.

    `fallback` names the image of the map whose pose stands in for it.
    """

    name: str
    status: str
    reason: str
    inliers: int = 0
    matches: int = 0
    pose: Pose | None = None
    camera: Camera | None = None
    retrieved: tuple[str, ...] = ()
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    fallback: str = ""

    @property
    def is_localized(self) -> bool:
        """Whether its pose was found."""
        return self.status == "localized"

    @property
    def is_weak(self) -> bool:
        """Whether its pose was found, but by few inliers."""
        return self.is_localized and self.inliers < WEAK_BELOW


@dataclass(frozen=True)
class QueryMatches:
    """Matches of a query: pixels (M, 2), rows (M,) of points, whether they fit (M,).

    They may be a part of all; `shared` tells how many of all inliers each retrieved
    image sees, or of all matches where none fits, the most first.
    """

    xy: F32 = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    points: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    inliers: Bool = field(default_factory=lambda: np.zeros(0, np.bool_))
    shared: Sequence[tuple[str, int]] = ()


@dataclass(frozen=True)
class LocalizationData:
    """Queries that were localized in a map, or were not, in plain values."""

    images: Path
    """Folder that the queries' names are relative to."""
    map_images: Sequence[Path]
    """Folders that the names of the map's images are relative to; they may be gone."""
    model: Model
    """The map."""
    results: Sequence[QueryResult]
    """All queries."""
    read_matches: Callable[[Sequence[str]], Mapping[str, QueryMatches]]
    """Reads the matches of some of them."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options used; a mapping or a dataclass as a value becomes a group of its own."""
