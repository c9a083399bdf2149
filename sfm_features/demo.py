"""The demo: render a town, reconstruct it, and compare with the truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sfm_features.reconstruct import reconstruct
from sfm_features.scenes import read_truth, render_town
from sfm_features.summary import Summary
from sfm_features.types import RunOptions


@dataclass(frozen=True)
class DemoOptions:
    """What to render."""

    views: int = 30
    """Photographs of the town."""
    lighting: Literal["day", "night"] = "day"
    """When they are taken."""
    size: tuple[int, int] = (1024, 768)
    """Width and height of a photograph (px)."""


def run_demo(
    output: Path,
    options: DemoOptions = DemoOptions(),
    run: RunOptions = RunOptions(),
) -> Summary:
    """Render into OUTPUT/town, reconstruct into OUTPUT, compare with the truth."""
    town = output / "town"
    render_town(town, options.views, options.lighting, run.seed, options.size)
    truth = read_truth(town)
    return reconstruct(town / "images", output, run=run, truth=truth.poses)
