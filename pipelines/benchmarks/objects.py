"""What depth teaches a keypoint detector that sees colours only: runs on the mannequin.

Every run has the same figures; the seed draws the first weights and all batches. The
students of a seed share one teacher. Finished runs are kept and not repeated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import cv2
import numpy as np
import torch

from pipelines.benchmarks.results import Cell, Check, Result, Row
from sfm_features.images import decode
from sfm_features.masks import read_mask
from sfm_features.nets.autolink import TAPS, KeypointNet, load_keypoint_net
from sfm_features.nets.links import locate
from sfm_features.objects import draw_keypoints
from sfm_features.regression import Sample, share_on_background, swapped_error
from sfm_features.scenes.backdrops import Backdrop
from sfm_features.scenes.figures import Figures, render_figures
from sfm_features.scenes.mannequin import MIRRORED
from sfm_features.training.objects.data import ObjectImages, load_images, make_views
from sfm_features.training.objects.options import ObjectOptions
from sfm_features.training.objects.train import train_object
from sfm_features.types import F64, RunOptions

RGB, DEPTH, MEAN = "RGB only", "depth only (the teacher)", "no keypoints (mean pose)"
LEAST_GAIN, LEAST_CLEARED = 0.75, 0.5
_SLACK_PX = 2
_SHOWN = 6


@dataclass(frozen=True)
class Scale:
    """How large the runs are: about five minutes on one core each."""

    images: int = 1500
    tested: int = 300
    render_px: int = 128
    size_px: int = 64
    width: int = 16
    batch: int = 16
    steps: int = 2000
    keypoints: int = 16
    thickness: float = 4e-3
    levels: int = 2
    distillation: float = 1.0
    backdrop: Backdrop = "busy"

    def make_options(self) -> ObjectOptions:
        """Return the options that all runs have in common."""
        return ObjectOptions(
            keypoints=self.keypoints, steps=self.steps, batch=self.batch,
            size_px=self.size_px, width=self.width, thickness=self.thickness,
            levels=self.levels, distillation=self.distillation, validations=4,
        )  # fmt: skip


@dataclass(frozen=True)
class Part:
    """Figures, and the same as training sees them."""

    figures: Figures
    images: ObjectImages


def measure_objects(
    output: Path,
    scale: Scale = Scale(),
    seeds: Sequence[int] = (0, 1),
    variants: Sequence[tuple[str, ...]] = tuple((tap,) for tap in TAPS),
    only: Sequence[str] = (RGB, DEPTH),
) -> dict[str, Result]:
    """Train and measure RGB only, depth only, and Distill-DKP at sets of taps."""
    fitted = _render(output / "figures", scale, 0, scale.images)
    tested = _render(output / "tested", scale, scale.images, scale.tested)
    found: dict[str, list[dict[str, float]]] = {}
    for seed in seeds:
        folder = output / f"seed{seed}"
        for name in [*only, *("Distill-DKP at " + "+".join(t) for t in variants)]:
            figures = _train(name, folder, scale, seed, fitted, tested)
            found.setdefault(name, []).append(figures)
    late = "Distill-DKP at up2"
    shown = {name: _path(output / f"seed{seeds[0]}", name) for name in (RGB, late)}
    _draw(output / "skeletons.jpg", tested, shown)
    name = "mannequin" if scale.backdrop == "busy" else "mannequin-plain"
    return {name: _tabulate(scale, seeds, found, late, _measure_mean(fitted, tested))}


def _render(folder: Path, scale: Scale, first: int, count: int) -> Part:
    figures = render_figures(folder, count, scale.backdrop, 0, scale.render_px, first)
    loaded = load_images(figures.images, figures.depths, scale.size_px, "distance")
    assert loaded.names == figures.names
    return Part(figures, loaded)


def _train(
    name: str, folder: Path, scale: Scale, seed: int, fitted: Part, tested: Part
) -> dict[str, float]:
    """Train one variant unless it is done; return what was measured."""
    path = _path(folder, name)
    result = path.with_name("measured.json")
    if result.exists():
        kept: dict[str, float] = json.loads(result.read_text(encoding="utf-8"))
        return kept
    options = vars(scale.make_options())
    images, run = fitted.figures.images, RunOptions(seed=seed)
    if name != RGB:
        teacher = _path(folder, DEPTH)
        options |= {"depth": fitted.figures.depths, "depth_kind": "distance"}
        if name == DEPTH:
            # Its student is not used, so it is trained as little as can be.
            options |= {"teacher_steps": scale.steps, "steps": 1}
        else:
            taps = tuple(name.rpartition(" ")[2].split("+"))
            options |= {"teacher": teacher, "taps": taps}
    train_object(images, path.parent, ObjectOptions(**options), run)
    figures = _measure(path, fitted, tested, by_depth=name == DEPTH)
    result.write_text(json.dumps(figures), encoding="utf-8")
    return figures


def _path(folder: Path, name: str) -> Path:
    """Return where a variant's weights are written."""
    short = {RGB: "rgb", DEPTH: "teacher"}.get(name, name.rpartition(" ")[2])
    file = "teacher" if name == DEPTH else "weights"
    return folder / short / f"{file}.safetensors"


def _measure(
    weights: Path, fitted: Part, tested: Part, by_depth: bool
) -> dict[str, float]:
    net, _ = load_keypoint_net(weights)
    samples = [
        Sample(detect(net, part, by_depth), _share(part.figures))
        for part in (fitted, tested)
    ]
    return {
        "error": 100 * swapped_error(samples[0], samples[1], MIRRORED),
        "background": 100
        * share_on_background(
            samples[1].keypoints, _read_masks(tested.figures), _SLACK_PX
        ),
    }


def _measure_mean(fitted: Part, tested: Part) -> float:
    """Return the error of always saying the mean pose."""
    samples = [
        Sample(np.ones((len(part.images), 1, 2)), _share(part.figures))
        for part in (fitted, tested)
    ]
    return 100 * swapped_error(samples[0], samples[1], MIRRORED)


@torch.no_grad()
def detect(net: KeypointNet, part: Part, by_depth: bool = False) -> F64:
    """Return keypoints (N, K, 2) of all images as shares of the image."""
    found = []
    for rows in torch.arange(len(part.images)).split(100):
        views = make_views(part.images, rows)
        seen = views.depth if by_depth else views.rgb
        found.append((locate(net(seen).logits) + 1) / 2)
    return np.asarray(torch.cat(found).numpy(), np.float64)


def _share(figures: Figures) -> F64:
    """Return joints as shares of the image."""
    return np.asarray((figures.joints + 0.5) / figures.size, np.float64)


def _read_masks(figures: Figures) -> np.ndarray:
    masks = [read_mask(figures.masks, name) for name in figures.names]
    return np.stack([mask for mask in masks if mask is not None])


def _tabulate(
    scale: Scale,
    seeds: Sequence[int],
    found: Mapping[str, Sequence[Mapping[str, float]]],
    late: str,
    mean_pose: float,
) -> Result:
    rows: list[Row] = [{"variant": MEAN, "mean L2 error (%)": f"{mean_pose:.2f}"}]
    first = next(iter(found))
    base = {key: mean(r[key] for r in found[first]) for key in ("error", "background")}
    for name, runs in found.items():
        row: dict[str, Cell] = {"variant": name}
        for key, title in (
            ("error", "mean L2 error (%)"),
            ("background", "on background (%)"),
        ):
            values = [run[key] for run in runs]
            spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
            row[title] = f"{mean(values):.2f}{spread}"
            ratio = mean(values) / base[key] if base[key] else float("nan")
            row[f"{key} over RGB"] = f"{ratio:.2f}"
        rows.append(row)
    checks = []
    for key, limit in (("error", LEAST_GAIN), ("background", LEAST_CLEARED)):
        if late in found:
            ratio = mean(run[key] for run in found[late]) / max(base[key], 1e-9)
            checks.append(Check(f"{key} of {late} over RGB only", ratio, limit))
    note = f"{scale.steps} steps of {scale.batch} images of {scale.size_px} px"
    title = f"The mannequin before {scale.backdrop} rooms: {note}, {len(seeds)} seeds"
    return Result(
        title, rows, checks, {name: list(runs) for name, runs in found.items()}
    )


def _draw(path: Path, tested: Part, weights: Mapping[str, Path]) -> None:
    """Draw the keypoints of several runs on the same tested images, a row each."""
    rows = []
    for file in weights.values():
        if not file.exists():
            continue
        net, _ = load_keypoint_net(file)
        xy = 2 * detect(net, tested)[:_SHOWN] - 1
        pictures = []
        for name, points in zip(tested.figures.names, xy, strict=False):
            rgb = decode(tested.figures.images / name).rgb
            large = cv2.resize(rgb, (192, 192), interpolation=cv2.INTER_CUBIC)
            pictures.append(draw_keypoints(np.asarray(large, np.uint8), points))
        rows.append(np.concatenate(pictures, axis=1))
    if rows:
        done, data = cv2.imencode(".jpg", np.concatenate(rows)[..., ::-1])
        assert done
        path.write_bytes(data.tobytes())
