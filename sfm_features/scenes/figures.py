"""A folder of photographs of the mannequin, with its depth, masks and joints."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from sfm_features.errors import InputError, OutputError, StaleStore
from sfm_features.scenes.backdrops import Backdrop
from sfm_features.scenes.mannequin import JOINTS, Figure, render_figure
from sfm_features.scenes.truth import write_whole
from sfm_features.types import F32, U8

logger = logging.getLogger(__name__)

FORMAT = 1
MILLIMETRES = 1000.0


@dataclass(frozen=True)
class Figures:
    """A folder of figures: joints (N, 15, 2) f32 in pixels, in the order of names."""

    folder: Path
    names: list[str]
    joints: F32
    size: int

    @property
    def images(self) -> Path:
        """The folder of photographs."""
        return self.folder / "images"

    @property
    def depths(self) -> Path:
        """The folder of depth maps, 16-bit PNG in millimetres."""
        return self.folder / "depth"

    @property
    def masks(self) -> Path:
        """The folder of masks, NAME.png for NAME."""
        return self.folder / "masks"


def render_figures(
    folder: Path,
    count: int,
    backdrop: Backdrop = "busy",
    seed: int = 0,
    size: int = 128,
    first: int = 0,
) -> Figures:
    """Render `count` photographs from the `first` on; what is there is kept.

    The same people in the same clothes: other numbers have other poses and rooms.
    """
    settings = {"format": FORMAT, "backdrop": backdrop, "seed": seed, "size": size}
    path = folder / "joints.json"
    known = _read_joints(path, settings)
    names = [f"{first + i:05d}.png" for i in range(count)]
    missing = [
        i
        for i, name in enumerate(names)
        if name not in known or not (folder / "images" / name).exists()
    ]
    try:
        # `disable` is not passed: it would override TQDM_DISABLE.
        for i in tqdm(missing, "rendering", unit="figure") if missing else []:
            figure = render_figure(seed, first + i, backdrop, size)
            _save(folder, names[i], figure)
            known[names[i]] = figure.joints.tolist()
            if i % 200 == 199 or i == missing[-1]:
                _write_joints(path, settings, known)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot write figures ({error}); free space or choose another "
            "folder"
        ) from error
    logger.info("%d figures in %s, %d of them new", count, folder, len(missing))
    joints = np.array([known[name] for name in names], np.float32)
    return Figures(folder, names, joints, size)


def _save(folder: Path, name: str, figure: Figure) -> None:
    far = np.where(np.isfinite(figure.depth), figure.depth * MILLIMETRES, 0)
    parts = {
        "depth": (name, far.clip(0, 65535).astype(np.uint16)),
        "masks": (f"{name}.png", figure.mask.astype(np.uint8) * np.uint8(255)),
        "images": (name, figure.rgb[..., ::-1]),
    }
    for part, (file, picture) in parts.items():
        write_whole(folder / part / file, encode_png(picture))


def encode_png(picture: U8 | np.ndarray[Any, Any]) -> bytes:
    """Encode a picture as PNG."""
    done, data = cv2.imencode(".png", picture)
    assert done
    return data.tobytes()


def _read_joints(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        before, joints = found["settings"], dict(found["joints"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: cannot be read ({error!r}); delete it and render again"
        ) from error
    if before != settings:
        raise StaleStore(
            f"{path.parent}: rendered with {before}, asked for {settings}; choose "
            "another folder or delete this one"
        )
    return joints


def _write_joints(
    path: Path, settings: Mapping[str, Any], joints: Mapping[str, Any]
) -> None:
    content = {"settings": settings, "order": JOINTS, "joints": joints}
    write_whole(path, json.dumps(content).encode())
