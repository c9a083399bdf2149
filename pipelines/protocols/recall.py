"""How many queries were localized how well, and tables that say so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from statistics import median

import numpy as np

from pipelines.benchmarks.results import Row
from pipelines.protocols.chain import Located
from sfm_features.errors import OptionError
from sfm_features.geometry import rotation_angle_deg
from sfm_features.types import Pose


@dataclass(frozen=True)
class Threshold:
    """A pose counts if its centre and its rotation both miss by less than this.

    `is_share`: the distance is a share of the scene's diameter, not metres.
    """

    distance: float
    degrees: float
    is_share: bool = False

    def to_text(self) -> str:
        """Say it for a column's head."""
        distance = f"{100 * self.distance:g} %" if self.is_share else _metres(self)
        return f"{distance}, {self.degrees:g} deg"


@dataclass(frozen=True)
class PoseError:
    """How far a pose is from the truth; both are inf if there is none."""

    metres: float
    degrees: float


OUTDOORS = (Threshold(0.25, 2), Threshold(0.5, 5), Threshold(5, 10))
"""Of the long-term visual localization benchmark."""


def parse_threshold(text: str) -> Threshold:
    """Parse `0.25:2` (metres and degrees) or `1%:2` (of the scene's diameter)."""
    distance, colon, degrees = text.partition(":")
    is_share = distance.endswith("%")
    try:
        values = float(distance.removesuffix("%")), float(degrees)
    except ValueError:
        values = (0.0, 0.0)
    if not colon or min(values) <= 0:
        raise OptionError(
            f"threshold {text!r}: write METRES:DEGREES, for example 0.25:2, or a share "
            "of the scene's diameter, 0.5%:2"
        )
    return Threshold(values[0] / (100 if is_share else 1), values[1], is_share)


def measure_errors(
    found: Mapping[str, Located], truth: Mapping[str, Pose]
) -> dict[str, PoseError]:
    """Compare poses with the truth, for every image that has a truth."""
    return {
        name: _measure(found[name].pose if name in found else None, true)
        for name, true in truth.items()
    }


def share_within(
    errors: Iterable[PoseError], threshold: Threshold, diameter: float = 1.0
) -> float:
    """Return the share of queries within a threshold, from 0 to 1."""
    farthest = threshold.distance * (diameter if threshold.is_share else 1)
    good = [e.metres < farthest and e.degrees < threshold.degrees for e in errors]
    return sum(good) / len(good) if good else float("nan")


def measure_diameter(poses: Iterable[Pose]) -> float:
    """Return the largest distance between two camera centres."""
    centres = np.array([pose.centre for pose in poses])
    return float(max(np.linalg.norm(centres - c, axis=1).max() for c in centres))


def make_row(
    first: Row,
    errors: Mapping[str, PoseError],
    thresholds: Sequence[Threshold],
    found: Mapping[str, Located],
    diameter: float = 1.0,
) -> Row:
    """Put errors in a row: counts, percentages within thresholds, medians."""
    measured = list(errors.values())
    localized = [n for n in errors if n in found and found[n].status == "localized"]
    within = {
        f"% in {t.to_text()}": 100 * share_within(measured, t, diameter)
        for t in thresholds
    }
    return {
        **first,
        "queries": len(measured),
        "localized": len(localized),
        **within,
        "median cm": 100 * median_or_inf(e.metres for e in measured),
        "median deg": median_or_inf(e.degrees for e in measured),
    }


def median_or_inf(values: Iterable[float]) -> float:
    """Return the median; inf if most failed, or there are none."""
    return median(list(values) or [inf])


def count_failures(found: Mapping[str, Located]) -> dict[str, int]:
    """Count the queries without a pose by status, the most frequent first."""
    statuses = (f.status for f in found.values() if f.status != "localized")
    return dict(Counter(statuses).most_common())


def list_queries(
    found: Mapping[str, Located], errors: Mapping[str, PoseError]
) -> dict[str, dict[str, object]]:
    """List every query with its status and errors, for results.json."""
    listed: dict[str, dict[str, object]] = {}
    for name, located in found.items():
        entry = {"status": located.status, "reason": located.reason}
        listed[name] = {**entry, "inliers": located.inliers}
        if name in errors:
            error = errors[name]
            listed[name] |= {"metres": error.metres, "degrees": error.degrees}
    return listed


def _measure(pose: Pose | None, true: Pose) -> PoseError:
    if pose is None:
        return PoseError(inf, inf)
    apart = float(np.linalg.norm(pose.centre - true.centre))
    return PoseError(apart, rotation_angle_deg(pose.rotation @ true.rotation.T))


def _metres(threshold: Threshold) -> str:
    if threshold.distance < 0.1:
        return f"{100 * threshold.distance:g} cm"
    return f"{threshold.distance:g} m"
