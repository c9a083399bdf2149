"""The figures of a run, one JSON object a line, and their curves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sfm_features.errors import MissingExtra
from sfm_features.training.label_store import save_whole

_LOG_STEPS = 20


def require_matplotlib() -> None:
    """Raise MissingExtra now rather than after an hour of training."""
    if find_spec("matplotlib") is None:
        raise MissingExtra(
            "training draws its curves with matplotlib, which is not installed: "
            "pip install 'sfm-features[train]'"
        )


class RunLog:
    """Figures by step; lines after `last_step` are of a future that did not happen."""

    def __init__(self, path: Path, last_step: int) -> None:
        self.path = path
        self.records = [r for r in _read(path) if r["step"] <= last_step]
        text = "".join(json.dumps(record) + "\n" for record in self.records)
        save_whole(path, lambda temporary: _write(temporary, text))

    def add(self, step: int, **figures: Any) -> None:
        """Append the figures of a step."""
        record = {"step": step, **figures}
        self.records.append(record)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def was_validated(self, step: int) -> bool:
        """Tell whether the weights of a step were measured."""
        return any(r["step"] == step and "validation" in r for r in self.records)

    def series(self, key: str) -> tuple[list[int], list[Any]]:
        """Return the steps at which a figure was taken, and the figure."""
        found = [(r["step"], r[key]) for r in self.records if key in r]
        return [step for step, _ in found], [value for _, value in found]


def make_bar(
    desc: str, steps: int, minutes: float, step: int, seconds: float
) -> tqdm[Any]:
    """Make the bar of a run of so many steps, or minutes; some of it may be done."""
    if steps:
        return tqdm(total=steps, initial=step, desc=desc, unit="step")
    total = 60 * minutes
    layout = "{l_bar}{bar}| {n:.0f}/{total:.0f} s{postfix}"
    done = min(seconds, total)
    return tqdm(total=total, initial=done, desc=desc, bar_format=layout)


class StepReport:
    """Tells how the steps of a stage go: each moves the bar, their means are logged."""

    def __init__(self, bar: tqdm[Any], log: RunLog, timed: bool) -> None:
        self.bar, self.log, self.timed = bar, log, timed
        self.recent: list[Mapping[str, float]] = []

    def add(
        self,
        step: int,
        seconds: float,
        figures: Mapping[str, float],
        score: float | None,
    ) -> None:
        """Take in the figures of a step; the latest score is shown beside them."""
        self.bar.update(seconds - self.bar.n if self.timed else 1)
        self.recent.append(figures)
        if step % _LOG_STEPS:
            return
        # Single steps jump about: webcams by night are harder than a crop by day.
        means = {
            key: sum(found) / len(found)
            for key in figures
            if (found := [r[key] for r in self.recent if key in r])
        }
        self.recent.clear()
        self.log.add(step, seconds=seconds, **means)
        shown = {k: f"{v:.3f}" for k, v in means.items()}
        if score is not None:
            shown["validation"] = f"{score:.3f}"
        self.bar.set_postfix(shown, refresh=False)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _read(path: Path) -> list[Mapping[str, Any]]:
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            break  # the line that a kill cut off
    return records


_PANELS = {
    "losses": ("loss", "detector", "descriptor", "repeat", "kept", "depth", "ensemble"),
    "matching accuracy of training points": ("accuracy",),
    "held-back photos": ("repeatability", "matching_score", "homography", "views"),
    "held-back photos against night": (
        "night_repeatability",
        "night_matching_score",
        "night_homography",
    ),
}


def draw_curves(log: RunLog, path: Path) -> None:
    """Draw the curves of a run into a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    axes = figure.subplots(2, 2)
    rounds, _ = log.series("stage")
    for axis, (title, keys) in zip(axes.flat, _PANELS.items(), strict=True):
        for key in keys:
            steps, values = log.series(key)
            if steps:
                axis.plot(steps, values, label=key.removeprefix("night_"), lw=1.2)
        for step in rounds:
            axis.axvline(step, color="0.85", lw=1, zorder=0)
        axis.set_title(title)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[0]:
            axis.legend()
    save_whole(path, lambda temporary: figure.savefig(temporary, format="png"))


def draw_difficulty(log: RunLog, path: Path) -> None:
    """Draw how hard samples were and what they weighed, where that was taken down."""
    from matplotlib.figure import Figure

    steps, spreads = log.series("difficulty")
    if not steps:
        return
    names = sorted(spreads[0])
    figure = Figure(figsize=(13, 3.4 * len(names)), layout="constrained")
    axes = figure.subplots(len(names), 3, squeeze=False)
    for (spread, weight, loss), name in zip(axes, names, strict=True):
        columns = [s[name]["shares"] for s in spreads]
        edges = [*steps, steps[-1] + max(1, steps[-1] // len(steps))]
        bins = [i / len(columns[0]) for i in range(len(columns[0]) + 1)]
        rows = list(zip(*columns, strict=True))
        image = spread.pcolormesh(edges, bins, rows, cmap="magma")
        figure.colorbar(image, ax=spread, label="share of samples")
        spread.set(title=f"{name}: gradients' norms", xlabel="step", ylabel="norm")
        for i in sorted({0, len(steps) // 4, len(steps) // 2, len(steps) - 1}):
            weights = spreads[i][name]["weights"]
            ranks = [k / (len(weights) - 1) for k in range(len(weights))]
            weight.plot(ranks, weights, label=f"step {steps[i]}")
        weight.set(title=f"{name}: weight by difficulty", xlabel="difficulty")
        for kind in ("easiest", "hardest"):
            at, values = log.series(f"{name} {kind}")
            loss.plot(at, values, label=f"{kind} fifth", lw=1.2)
        at, values = log.series(f"{name} hard share")
        loss.plot(at, values, label="gradient of the harder half", ls=":")
        loss.set(title=f"{name}: loss by difficulty", xlabel="step")
        for axis in (weight, loss):
            axis.grid(alpha=0.3)
            axis.legend()
    save_whole(path, lambda temporary: figure.savefig(temporary, format="png"))
