"""Copies of a data set's images at the size that a protocol asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from sfm_features.images import decode
from sfm_features.journal import explain_os_errors
from sfm_features.types import F64, PIXEL_CENTRE, U8


@dataclass(frozen=True)
class Copy:
    """A resized copy: its name and size, and its pixels from the original's (3, 3)."""

    name: str
    size: tuple[int, int]
    from_original: F64


def resize_shorter_side(
    images: Path, names: Sequence[str], output: Path, side: int
) -> dict[str, Copy]:
    """Write copies NAME.png whose shorter side is `side` px, be it more or less."""
    copies = {}
    for name in tqdm(names, desc=f"resize to {side} px", unit="image"):
        rgb = decode(images / name).rgb
        old = np.array(rgb.shape[1::-1])
        width, height = np.round(old * side / old.min()).astype(int).tolist()
        path = output / f"{name}.png"
        if not path.exists():
            smooth = cv2.INTER_AREA if side < old.min() else cv2.INTER_LINEAR
            small = cv2.resize(rgb, (width, height), interpolation=smooth)
            _write(path, np.asarray(small, np.uint8))
        scale = np.array([width, height]) / old
        matrix = np.diag([*scale, 1.0])
        matrix[:2, 2] = PIXEL_CENTRE * scale - PIXEL_CENTRE
        copies[name] = Copy(f"{name}.png", (width, height), matrix)
    return copies


def _write(path: Path, rgb: U8) -> None:
    """Write an image so that it is there whole or not at all."""
    done, content = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    assert done
    with explain_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        part.write_bytes(content.tobytes())
        part.replace(path)
