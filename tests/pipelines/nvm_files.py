"""NVM_V3 files as COLMAP and VisualSfM write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from miniature import show_centre

from sfm_features.types import Model

SECOND_MODEL = "2\nx.jpg 1 1 0 0 0 0 0 0 0 0\ny.jpg 1 1 0 0 0 0 0 0 0 0\n\n0\n\n"


def write_nvm(
    path: Path,
    model: Model,
    gap: str = " ",
    centred: bool = False,
    tail: str = "0\n",
    focal_factor: float = 1.3,
) -> None:
    """Write a model; the first image is twice in each track.

    gap is what follows a name, `tail` what follows the model; `centred`: measurements
    are relative to the image's middle, as VisualSfM has them. Focal lengths are wrong
    by a factor, for most data sets tell the true ones elsewhere.
    """
    names = list(model.images)
    lines = ["NVM_V3 ", "", str(len(names))]
    viewers: dict[int, list[str]] = {}
    for index, name in enumerate(names):
        image = model.images[name]
        focal, *rest = image.camera.params
        bend = rest[2] if len(rest) > 2 else 0.0
        numbers = [focal_factor * focal, *show_centre(image.cam_from_world), -bend, 0]
        lines.append(gap.join([name, " ".join(map(str, numbers))]))
        middle = np.array([image.camera.width, image.camera.height]) / 2 * centred
        for feature, row in enumerate(image.point_ids.tolist()):
            # Features between those of points leave holes in their numbering.
            x, y = image.keypoints[feature] - middle
            seen = viewers.setdefault(row, [])
            seen.append(f"{index} {3 * feature + 1} {x} {y}")
            if index == 0:
                seen.append(f"0 {3 * feature + 2} {x + 1} {y}")
    lines += ["", str(len(viewers))]
    for row, seen in viewers.items():
        xyz = " ".join(map(str, model.points[row]))
        lines.append(f"{xyz} 128 128 128 {len(seen)} {' '.join(seen)} ")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, "", "", tail]), encoding="utf-8")
