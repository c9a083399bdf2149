"""Pictures of a training: skeletons on held-back images, what was painted, curves."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from sfm_features.nets.autolink import AutoLink
from sfm_features.objects import draw_keypoints
from sfm_features.training.label_store import save_whole
from sfm_features.training.runlog import RunLog
from sfm_features.types import U8

_SIDE_PX = 192
_SHOWN_LINK = 0.25
"""Links weaker than this share of the strongest are not drawn."""


@torch.no_grad()
def draw_skeletons(
    path: Path, model: AutoLink, rgb: Tensor, generator: torch.Generator
) -> None:
    """Draw images (B, 3, S, S), their skeletons, and what was painted from links."""
    painted, _, xy = model(rgb, generator)
    weights = model.link_weights.double().cpu().numpy()
    ends = torch.stack([model.first, model.second], 1).cpu().numpy()
    links = ends[weights >= _SHOWN_LINK * weights.max()]
    columns = []
    for image, copy, points in zip(rgb, painted.float(), xy, strict=True):
        seen = _enlarge(image)
        marked = draw_keypoints(seen, points.double().cpu().numpy(), links)
        columns.append(np.concatenate([seen, marked, _enlarge(copy)]))
    done, data = cv2.imencode(".jpg", np.concatenate(columns, axis=1)[..., ::-1])
    assert done
    save_whole(path, lambda temporary: _write(temporary, data.tobytes()))


def draw_losses(log: RunLog, path: Path) -> None:
    """Draw the losses of teacher and student into a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, stage in zip(axes, ("teacher", "student"), strict=True):
        for key in ("perceptual", "pixels", "distillation", "held back"):
            steps, values = log.series(f"{stage} {key}")
            if steps:
                axis.plot(steps, values, label=key, lw=1.2)
        axis.set(title=stage, xlabel="step")
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[0]:
            axis.legend()
    save_whole(path, lambda temporary: figure.savefig(temporary, format="png"))


def _enlarge(image: Tensor) -> U8:
    picture = ((image.float().clamp(-1, 1) + 1) * 127.5).byte().permute(1, 2, 0)
    return np.asarray(cv2.resize(picture.cpu().numpy(), (_SIDE_PX, _SIDE_PX)), np.uint8)


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
