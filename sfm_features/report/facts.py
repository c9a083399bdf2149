"""The numbers of a reconstruction, and its failures in plain words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from functools import cached_property
from importlib import metadata
from typing import Any

import numpy as np

from sfm_features.report.data import ReportData
from sfm_features.summary import START_MATCHES, explain_unregistered
from sfm_features.types import F64, I64, Pair

PACKAGES = ("sfm-features", "pycolmap", "torch", "kornia", "opencv-python-headless")
_LONGEST_TRACK = 25
_ERROR_BINS = 40


@dataclass(frozen=True)
class ViewGraph:
    """Verified matches as a graph: how many each pair of images has, never 0."""

    counts: Mapping[Pair, int]

    @cached_property
    def neighbours(self) -> dict[str, dict[str, int]]:
        """Map each image to those it is verified with, and the number of matches."""
        found: dict[str, dict[str, int]] = defaultdict(dict)
        for (a, b), count in self.counts.items():
            found[a][b] = found[b][a] = count
        return dict(found)

    @cached_property
    def strongest_first(self) -> list[Pair]:
        """Pairs by falling number of matches, then by name."""
        return sorted(self.counts, key=lambda pair: (-self.counts[pair], pair))

    @cached_property
    def groups(self) -> list[set[str]]:
        """Connected groups of two images or more, the largest first."""
        groups, unseen = [], set(self.neighbours)
        while unseen:
            reached, group = [unseen.pop()], set()
            while reached:
                name = reached.pop()
                group.add(name)
                fresh = unseen & self.neighbours[name].keys()
                unseen -= fresh
                reached += fresh
            groups.append(group)
        return sorted(groups, key=lambda group: (-len(group), min(group)))


def build_view_graph(data: ReportData) -> ViewGraph:
    """Count the verified matches of every pair that has some."""
    counts = {pair: len(data.verified[pair]) for pair in data.verified}
    return ViewGraph({pair: count for pair, count in counts.items() if count})


def explain_absences(data: ReportData, graph: ViewGraph) -> dict[str, str]:
    """Say for each image outside the model why it is not in, unless it was skipped."""
    models = [data.registered, *data.other_models]
    found = explain_unregistered(
        {name: len(xy) for name, xy in data.keypoints.items()},
        {*data.matches, *data.verified},
        graph.counts,
        models,
    )
    return {
        name: data.unregistered.get(name, reason)
        for name, reason in sorted(found.items())
        if name not in data.skipped
    }


def explain_failure(data: ReportData, graph: ViewGraph) -> list[str]:
    """List the likely reasons why no model came out, or a poor one.

    What is known for sure stands alone.
    """
    if data.hint or data.model:
        return [f"{data.hint[0].upper()}{data.hint[1:]}."] if data.hint else []
    with_keypoints = sum(len(xy) > 0 for xy in data.keypoints.values())
    if with_keypoints < 2:
        return [
            f"Only {_count(with_keypoints, 'image')} of {len(data.names):,} has "
            "keypoints. A model needs two images that overlap and have texture."
        ]
    if not graph.counts:
        tried = f"None of {len(data.matches):,} pairs" if data.matches else "No pair"
        return [
            f"{tried} passed the geometric verification. The photographs may not "
            "overlap, or differ too much in viewpoint, light or season; closer steps "
            "between them, more keypoints or another extractor can help."
        ]
    reasons = []
    best = graph.counts[graph.strongest_first[0]]
    if best < START_MATCHES:
        reasons.append(
            f"Too few matches: the strongest pair has {best:,} verified ones, and a "
            f"model usually starts from a pair with {START_MATCHES} or more."
        )
    if len(graph.groups) > 1:
        reasons.append(
            f"Disconnected groups: the verified pairs fall into {len(graph.groups):,} "
            f"groups that share nothing; the largest has {len(graph.groups[0]):,} "
            f"of {len(data.names):,} images. Photographs between them would help."
        )
    return reasons or [
        "The pairs have enough matches, so depth may be what is missing: photographs "
        "turned on one spot, or of one flat surface, do not show any. Step sideways."
    ]


def count_track_lengths(lengths: I64) -> dict[str, Any]:
    """Count points by track length; the last bar holds all longer tracks."""
    last = min(int(lengths.max(initial=2)), _LONGEST_TRACK)
    counts = np.bincount(np.minimum(lengths, last), minlength=last + 1)[2:]
    labels = [str(length) for length in range(2, last + 1)]
    if lengths.max(initial=0) > last:
        labels[-1] += "+"
    return {"labels": labels, "counts": counts.tolist()}


def count_errors(errors_px: F64) -> dict[str, Any]:
    """Count points by reprojection error, the last 1 % left out and told.

    Those of which it is not known, which COLMAP marks by -1, are told apart.
    """
    known = errors_px[errors_px >= 0]
    unknown = len(errors_px) - len(known)
    if not len(known):
        none = {"edges": [0.0, 1.0], "counts": [0], "beyond": 0, "median": None}
        return {**none, "unknown": unknown}
    limit = max(float(np.percentile(known, 99)), 1e-6)
    counts, edges = np.histogram(known, bins=_ERROR_BINS, range=(0, limit))
    return {
        "edges": edges.round(6).tolist(),
        "counts": counts.tolist(),
        "beyond": len(known) - int(counts.sum()),
        "median": float(np.median(known)),
        "unknown": unknown,
    }


def group_options(options: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Sort options into groups of text; those outside any group come first, as ''."""
    groups: dict[str, dict[str, str]] = {"": {}}
    for key, value in options.items():
        if is_dataclass(value) and not isinstance(value, type):
            value = asdict(value)
        if isinstance(value, Mapping):
            groups[key] = {str(k): _write_option(v) for k, v in value.items()}
        else:
            groups[""][key] = _write_option(value)
    return {key: group for key, group in groups.items() if group}


def list_versions() -> dict[str, str]:
    """Look up the versions of the packages that matter, without importing them."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def _write_option(value: Any) -> str:
    if value is None or value == "":
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(getattr(value, "value", value))


def _count(number: int, singular: str, plural: str = "") -> str:
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"
