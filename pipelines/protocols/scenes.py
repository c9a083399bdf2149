"""Data sets of several scenes, each with a map, queries and their true poses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.benchmarks.results import Result, Row
from pipelines.protocols import recall
from pipelines.protocols.chain import Settings, Task, locate
from sfm_features.errors import InputError
from sfm_features.types import Pose


@dataclass(frozen=True)
class Scene:
    """What to localize, and the truth."""

    task: Task
    truth: Mapping[str, Pose]


def choose_scenes(
    dataset: Path, wanted: Sequence[str], known: Sequence[str]
) -> list[str]:
    """Return the scenes asked for, or all known ones that are there."""
    found = [name for name in wanted or known if (dataset / name).is_dir()]
    missing = sorted(set(wanted) - set(found))
    if missing or not found:
        lacking = missing[0] if missing else " or ".join(known)
        raise InputError(
            f"{dataset}: has no folder {lacking}; unpack the scenes there, or name "
            "others with --scenes"
        )
    return found


def measure_scenes(
    title: str,
    read: Callable[[str], Scene],
    names: Sequence[str],
    output: Path,
    settings: Settings,
    thresholds: Sequence[recall.Threshold],
    published: Mapping[str, Row],
) -> Result:
    """Localize scene by scene, and put each in a row beside what others published."""
    rows: list[Row] = []
    details = {}
    for name in names:
        scene = read(name)
        found = locate(scene.task, output / name, settings)
        errors = recall.measure_errors(found, scene.truth)
        row = recall.make_row({"scene": name}, errors, thresholds, found)
        rows.append({**row, **published.get(name, {})})
        details[name] = {
            "failed": recall.count_failures(found),
            "queries": recall.list_queries(found, errors),
        }
    return Result(title, rows, details=details)
