"""Tile views of the town by day and by night into one picture.

Run as `python -m sfm_features.scenes.contact_sheet OUT.jpg [SEED]`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from sfm_features.errors import OptionError
from sfm_features.scenes.render import render_view
from sfm_features.scenes.town import build_town
from sfm_features.scenes.views import STEPS, town_views

COLUMNS, ROWS = 3, 2
TILE = (400, 300)
GAP = 6


def make_contact_sheet(output: Path, seed: int = 0) -> None:
    """Render two rows of day and two of night, the same views, as one JPEG."""
    town = build_town(seed)
    count = COLUMNS * ROWS
    chosen = town_views(STEPS, seed, TILE)[:: STEPS // count][:count]
    tiles = []
    for lighting in ("day", "night"):
        for view in tqdm(chosen, f"rendering {lighting}", unit="view"):
            rgb = render_view(town, view.camera, view.cam_from_world, lighting, 1).rgb
            tiles.append(cv2.copyMakeBorder(rgb, 0, GAP, 0, GAP, cv2.BORDER_CONSTANT))
    rows = [np.hstack(tiles[i : i + COLUMNS]) for i in range(0, 2 * count, COLUMNS)]
    sheet = np.vstack(rows)[:-GAP, :-GAP]
    bgr = cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)
    output.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(output), bgr, [cv2.IMWRITE_JPEG_QUALITY, 76]):
        raise OptionError(f"{output}: cannot be written as a picture; use a .jpg name")


if __name__ == "__main__":
    make_contact_sheet(Path(sys.argv[1]), *map(int, sys.argv[2:3]))
