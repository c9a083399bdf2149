"""HPatches in small: one picture under changing light, one from changing views."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from samples import write_image


def view_homography(k: int) -> np.ndarray:
    """Return k_from_1 of the sequence of views: turned, shrunk, moved and tilted."""
    angle, scale = 0.12 * (k - 1), 1 - 0.04 * (k - 1)
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[c, -s, 14 + 9 * k], [s, c, -20 - 2 * k], [1e-5 * k, -2e-5, 1]])


def write_hpatches(root: Path, picture: np.ndarray) -> None:
    """Write i_light, i_dc (one of those usually left out) and v_view, in its layout."""
    size = (picture.shape[1], picture.shape[0])
    for k in range(1, 7):
        gamma = 1 + 0.25 * (k - 1)
        dark = (255 * (picture / 255.0) ** gamma).astype(np.uint8)
        warp = view_homography(k) if k > 1 else np.eye(3)
        turned = np.asarray(cv2.warpPerspective(picture, warp, size), np.uint8)
        for sequence, image, truth in (
            ("i_light", dark, np.eye(3)),
            ("i_dc", dark[::-1].copy(), np.eye(3)),
            ("v_view", turned, warp),
        ):
            write_image(root / sequence / f"{k}.ppm", image)
            if k > 1:
                lines = ["   ".join(f"{x:.9g}" for x in row) + " " for row in truth]
                text = "\n".join([*lines, ""])
                (root / sequence / f"H_1_{k}").write_text(text, encoding="utf-8")
