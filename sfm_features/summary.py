"""What came out of a reconstruction, for people and for programs."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from sfm_features.journal import replace_text
from sfm_features.metrics import ModelErrors
from sfm_features.types import Model, Pair

START_MATCHES = 100
"""Verified matches of a pair with which COLMAP usually starts a model."""


@dataclass(frozen=True)
class ModelSummary:
    """A model in numbers."""

    folder: str
    registered: int
    points: int
    mean_track_length: float
    mean_error_px: float


@dataclass(frozen=True)
class Summary:
    """Models (largest first), what was left out and why, seconds by stage.

    `skipped` are images that could not be decoded, `unregistered` those that are not
    in the largest model, `errors` its distance from true poses where they are known,
    `image_folders` where the photographs are, `hint` what to try if it went wrong.
    """

    images: int
    models: Sequence[ModelSummary]
    skipped: Mapping[str, str] = field(default_factory=dict)
    unregistered: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    errors: ModelErrors | None = None
    image_folders: Sequence[str] = ()
    hint: str = ""

    def to_text(self) -> str:
        """Say it in lines."""
        lines = [_describe_model(self.models[0], self.images)] if self.models else []
        lines += [
            f"also {m.folder}: {m.registered} images, {m.points} points"
            for m in self.models[1:]
        ]
        if self.errors is not None:
            lines.append(_describe_errors(self.errors))
        lines += _list_reasons(self.skipped, self.unregistered)
        lines += [f"hint: {self.hint}"] if self.hint else []
        return "\n".join([*lines, _describe_seconds(self.seconds)])

    def write(self, folder: Path) -> None:
        """Write summary.txt and summary.json."""
        _write(folder, self.to_text(), asdict(self))


@dataclass(frozen=True)
class AddSummary:
    """What became of images that were to be added to a map.

    `added` tells how many points each sees, `known` how many were in the map before;
    the rest is as above.
    """

    images: int
    added: Mapping[str, int]
    before: ModelSummary
    after: ModelSummary
    known: int = 0
    skipped: Mapping[str, str] = field(default_factory=dict)
    unregistered: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    image_folders: Sequence[str] = ()

    def for_report(self) -> Summary:
        """Return what is said of the larger map, as of one that was made at once."""
        return Summary(
            self.before.registered + self.images,
            [self.after],
            self.skipped,
            self.unregistered,
            self.seconds,
        )

    def to_text(self) -> str:
        """Say it in lines."""
        before, after = self.before, self.after
        lines = [
            f"{len(self.added)} of {self.images} new images added; the map had "
            f"{before.registered} images and {before.points} points, and has "
            f"{after.registered} and {after.points}, mean reprojection error "
            f"{after.mean_error_px:.2f} px"
        ]
        if self.known:
            lines.append(f"{self.known} images were in it already")
        lines += _list_reasons(self.skipped, self.unregistered)
        return "\n".join([*lines, _describe_seconds(self.seconds)])

    def write(self, folder: Path) -> None:
        """Write summary.txt and summary.json."""
        _write(folder, self.to_text(), asdict(self))


def read_image_folders(folder: Path) -> list[Path]:
    """Read where the photographs of an output folder are; none if it does not tell."""
    try:
        content = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        return [Path(each) for each in content["image_folders"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def summarize_model(model: Model, folder: str) -> ModelSummary:
    """Put a model in numbers."""
    return ModelSummary(
        folder,
        len(model.images),
        len(model.points),
        round(model.mean_track_length, 3),
        round(model.mean_error_px, 4),
    )


def explain_unregistered(
    keypoint_counts: Mapping[str, int],
    paired: Collection[Pair],
    verified: Mapping[Pair, int],
    models: Sequence[Collection[str]],
) -> dict[str, str]:
    """Say why each image that is not in the largest model is not.

    verified counts the matches of a pair that passed verification, models are the
    names of their images.
    """
    home: dict[str, int] = {}
    for rank, names in enumerate(models):
        for name in names:
            home.setdefault(name, rank)
    partnered = {name for pair in paired for name in pair}
    partners: dict[str, dict[str, int]] = defaultdict(dict)
    for (a, b), matches in verified.items():
        if matches:
            partners[a][b] = partners[b][a] = matches
    return {
        name: _explain(name, count, name in partnered, partners.get(name, {}), home)
        for name, count in keypoint_counts.items()
        if home.get(name) != 0
    }


def _explain(
    name: str,
    count: int,
    is_paired: bool,
    partners: Mapping[str, int],
    home: Mapping[str, int],
) -> str:
    if name in home:
        return f"is in another model, sparse/{home[name]}; it shares too little with it"
    if count == 0:
        return "has no keypoints; is it blank, or covered by its mask?"
    if not is_paired:
        return "was not paired with any image; give it pairs"
    if not partners:
        return (
            f"has {count} keypoints but no verified pair; it shows something else, or "
            "from too far apart"
        )
    if not home:
        best = max(partners.values())
        return f"no model came out; its best pair has {best} verified matches"
    inside = [n for other, n in partners.items() if home.get(other) == 0]
    if not inside:
        return f"has {len(partners)} verified pairs, none with an image of the model"
    best = max(inside)
    if best < START_MATCHES:
        return (
            f"shares only {best} verified matches with the model; take another picture "
            "between it and its neighbours"
        )
    return (
        f"was not placed despite {sum(inside)} verified matches with the model, {best} "
        "in the best pair; too few of them may be of its points, or of another place "
        "that looks alike"
    )


def _write(folder: Path, text: str, content: Mapping[str, Any]) -> None:
    replace_text(folder / "summary.txt", text + "\n")
    known = _empty_unknown(content)
    written = json.dumps(known, indent=2, ensure_ascii=False, allow_nan=False)
    replace_text(folder / "summary.json", written + "\n")


def _empty_unknown(value: Any) -> Any:
    """Put None, which JSON has, in the place of nan and inf, which it has not."""
    if isinstance(value, Mapping):
        return {key: _empty_unknown(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_empty_unknown(each) for each in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _list_reasons(
    skipped: Mapping[str, str], unregistered: Mapping[str, str]
) -> list[str]:
    lines = []
    for title, reasons in (
        ("could not be read", skipped),
        ("not registered", unregistered),
    ):
        if reasons:
            lines.append(f"{len(reasons)} images {title}:")
            lines += [f"  {name}: {reason}" for name, reason in reasons.items()]
    return lines


def _describe_seconds(seconds: Mapping[str, float]) -> str:
    stages = ", ".join(f"{stage} {s:.1f}" for stage, s in seconds.items())
    return f"seconds: {stages}, in all {sum(seconds.values()):.1f}"


def _describe_errors(errors: ModelErrors) -> str:
    """Tell what is known; too few cameras cannot be aligned."""
    text = f"against the truth: {errors.registered} of {errors.expected} registered"
    if isfinite(errors.median_centre_share):
        share = 100 * errors.median_centre_share
        text += f", median camera-centre error {share:.4f} % of the diameter"
    if isfinite(errors.median_rotation_error_deg):
        angle_deg = errors.median_rotation_error_deg
        return f"{text}, median rotation error {angle_deg:.4f} deg"
    return f"{text}, too few cameras to align"


def _describe_model(model: ModelSummary, images: int) -> str:
    return (
        f"{model.folder}: {model.registered} of {images} images registered, "
        f"{model.points} points, mean track length {model.mean_track_length:.2f}, "
        f"mean reprojection error {model.mean_error_px:.2f} px"
    )
