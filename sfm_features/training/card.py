"""The card that goes with trained weights: what from, how, and how good."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import fields
from importlib.metadata import version
from typing import Any

from sfm_features.nets.weights import Card
from sfm_features.training.photos import TOWN_FOLDER, PhotoSet
from sfm_features.training.settings import Outcome, Settings
from sfm_features.training.turntables import TURNTABLE_FOLDER
from sfm_features.training.validate import Scores
from sfm_features.types import RunOptions

_RENDERED = (TOWN_FOLDER, TURNTABLE_FOLDER)
SCORES = tuple(field.name for field in fields(Scores))


def describe_run(
    photos: PhotoSet,
    held_back: list[int],
    settings: Settings,
    run: RunOptions,
    outcome: Outcome,
) -> Card:
    """Describe a run; data are named by their folders, not by where those lie."""
    measured = [r for r in outcome.log.records if "validation" in r]
    chosen = max(measured, key=_rank) if settings.keep_best else measured[-1]
    if outcome.kept_start:
        chosen = measured[0]
    return Card(
        architecture="",
        data=f"{len(photos)} unlabelled photos, {len(held_back)} of them held back, "
        f"{len(photos.groups())} fixed cameras: {_list_folders(photos)}",
        recipe=settings.describe()
        | {
            "steps_done": outcome.steps,
            "seconds": round(outcome.seconds),
            "torch": version("torch"),
        },
        seeds=[run.seed],
        metrics={"on": "held-back photos, random warps and light, 3 px"}
        | {key: round(chosen[key], 4) for key in SCORES if key in chosen},
    )


def _list_folders(photos: PhotoSet) -> str:
    """Name the subfolders that photos came from, and what was rendered."""
    rendered = Counter(photo.folder in _RENDERED for photo in photos.photos)[True]
    tops = Counter(
        photo.name.split("/")[0]
        for photo in photos.photos
        if "/" in photo.name and photo.folder not in _RENDERED
    )
    parts = [f"{top} ({count})" for top, count in sorted(tops.items())]
    parts += [f"rendered ({rendered})"] if rendered else []
    return ", ".join(parts) or "no subfolders"


def _rank(record: Mapping[str, Any]) -> float:
    """Rank as the weights were that are kept."""
    return Scores(**{key: record[key] for key in SCORES if key in record}).overall
