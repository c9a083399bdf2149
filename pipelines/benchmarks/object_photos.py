"""Photographs of real things: which features stay on them, and what that reconstructs.

There are no masks. Where the thing is, and where its background, is told for all
features alike by the points of the reconstruction with `evo`, near ones and far ones,
by the rules of `training/sparse_depth.py`. So it is known only where `evo` has points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pipelines.benchmarks.results import Cell, Result, Row
from sfm_features.colmap import list_models, read_model
from sfm_features.errors import ImageError, InputError, ReconstructionError
from sfm_features.extract import ExtractOptions
from sfm_features.images import decode
from sfm_features.journal import replace_text
from sfm_features.masks import keep_inside
from sfm_features.photo_files import list_images
from sfm_features.reconstruct import ReconstructOptions, reconstruct
from sfm_features.store import FeatureStore
from sfm_features.training.sparse_depth import find_aim, render_depth, split_depth
from sfm_features.types import F32, U8, Bool, RunOptions

REFERENCE, EXTRACTORS = "evo", ("evo", "evo-object", "sift")
_DRAWN_PX = 480
_OBJECT, _BACKGROUND, _ELSEWHERE = (60, 220, 60), (40, 40, 230), (0, 200, 255)


@dataclass(frozen=True)
class Area:
    """What is known of a photo: where points are, and which are of the background.

    Masks of any size; `behind` is None if near and far do not part.
    """

    known: Bool
    behind: Bool | None

    def sort(self, xy: F32, size: tuple[int, int]) -> tuple[Bool, Bool]:
        """Tell which pixels (N, 2) are on the object, and which on the background."""
        known = keep_inside(self.known, xy, size)
        if self.behind is None:
            return known, np.zeros_like(known)
        behind = keep_inside(self.behind, xy, size)
        return known & ~behind, known & behind


def measure_object_photos(
    folders: Sequence[Path],
    output: Path,
    extractors: Sequence[str] = EXTRACTORS,
    limit: int = 0,
    seed: int = 0,
    picture: Path | None = None,
) -> Result:
    """Reconstruct each folder with each extractor, and sort its keypoints.

    With a limit, so many photos of each, evenly spaced by name. `picture` gets what is
    drawn of the first folder.
    """
    names = [folder.name for folder in folders]
    if len(set(names)) < len(names):
        raise InputError(f"{', '.join(names)}: two folders have one name; rename one")
    rows: list[Row] = []
    for folder in folders:
        chosen = _choose(folder, limit)
        place = output / f"{folder.name}-{len(chosen)}"
        wanted = place / "images.txt"
        place.mkdir(parents=True, exist_ok=True)
        replace_text(wanted, "".join(f"{name}\n" for name in chosen))
        for extractor in dict.fromkeys([REFERENCE, *extractors]):
            _reconstruct(folder, place / extractor, extractor, wanted, seed)
        areas = find_areas(place / REFERENCE)
        for extractor in extractors:
            found = _describe(place / extractor, len(chosen), areas)
            rows.append({"photos": folder.name, "features": extractor} | found)
        drawn = _draw(folder, place, extractors, areas)
        if drawn is not None:
            (output / f"{folder.name}.jpg").write_bytes(drawn)
            if picture is not None and folder == folders[0]:
                picture.write_bytes(drawn)
    most = f", at most {limit} of each" if limit else ""
    return Result(f"Photographs of objects{most}", rows)


def find_areas(place: Path) -> dict[str, Area]:
    """Tell object from background in the photos of a reconstruction, by their names."""
    areas: dict[str, Area] = {}
    for path in list_models(place / "sparse"):
        model = read_model(path)
        aim = find_aim(model) if model.images else None
        for name, image in model.images.items():
            if name in areas:
                continue
            with suppress(ImageError):  # it sees too few points
                depth = render_depth(image, model, aim)
                behind = None
                with suppress(ImageError):  # near and far do not part
                    behind = split_depth(depth)
                areas[name] = Area(depth.known, behind)
    return areas


def _choose(folder: Path, limit: int) -> list[str]:
    names = list_images(folder)
    if not 0 < limit < len(names):
        return names
    return [names[i * len(names) // limit] for i in range(limit)]


def _reconstruct(
    folder: Path, place: Path, extractor: str, wanted: Path, seed: int
) -> None:
    extraction = ExtractOptions(extractor=extractor, image_list=wanted)
    options, run = ReconstructOptions(report=False), RunOptions(seed=seed)
    with suppress(ReconstructionError):  # then the table says that there is no model
        reconstruct(folder, place, options, extraction, run=run)


def _describe(place: Path, count: int, areas: Mapping[str, Area]) -> dict[str, Cell]:
    """Tell of the largest model, and where keypoints are."""
    models = list_models(place / "sparse")
    model = read_model(models[0]) if models else None
    return {
        "registered": f"{len(model.images) if model else 0} of {count}",
        "points": len(model.points) if model else None,
        "track length": model.mean_track_length if model else None,
        **_count_keypoints(place, areas),
    }


def _count_keypoints(place: Path, areas: Mapping[str, Area]) -> dict[str, Cell]:
    """Return shares of the keypoints, in photos with a background if there are any."""
    parted = {name: area for name, area in areas.items() if area.behind is not None}
    counted = parted or areas
    photos = total = on_object = on_background = 0
    with FeatureStore.open(place / "features.h5") as store:
        for name in sorted(set(store.names()) & set(counted)):
            xy = store.read_keypoints(name)
            near, far = areas[name].sort(xy, store.read_size(name))
            photos, total = photos + 1, total + len(xy)
            on_object += int(near.sum())
            on_background += int(far.sum())
    if not total:
        return {}
    return {
        "counted in": f"{photos} photos{'' if parted else ', none with background'}",
        "keypoints a photo": round(total / photos),
        "on the object": f"{on_object / total:.1%}",
        "on the background": f"{on_background / total:.1%}" if parted else None,
        "elsewhere": f"{1 - (on_object + on_background) / total:.1%}",
    }


def _draw(
    folder: Path, place: Path, extractors: Sequence[str], areas: Mapping[str, Area]
) -> bytes | None:
    """Draw the keypoints of the first two extractors on a photo, side by side."""
    parted = [name for name, area in areas.items() if area.behind is not None]
    shown = sorted(parted or areas)
    if not shown:
        return None
    name = shown[len(shown) // 2]
    rgb = decode(folder / name).rgb
    tiles = []
    for extractor in extractors[:2]:
        with FeatureStore.open(place / extractor / "features.h5") as store:
            if name in store:
                tiles.append(_draw_tile(rgb, store.read_keypoints(name), areas[name]))
    if not tiles:
        return None
    done, data = cv2.imencode(
        ".jpg", np.concatenate(tiles, axis=1), [cv2.IMWRITE_JPEG_QUALITY, 80]
    )
    assert done
    return data.tobytes()


def _draw_tile(rgb: U8, xy: F32, area: Area) -> U8:
    size = rgb.shape[1], rgb.shape[0]
    scale = _DRAWN_PX / size[0]
    shape = (_DRAWN_PX, round(size[1] * scale))
    canvas = cv2.resize(rgb[..., ::-1], shape, interpolation=cv2.INTER_AREA)
    near, far = area.sort(xy, size)
    for (x, y), on_object, behind in zip((xy * scale).tolist(), near, far, strict=True):
        colour = _OBJECT if on_object else _BACKGROUND if behind else _ELSEWHERE
        cv2.circle(canvas, (round(x), round(y)), 2, colour, -1, cv2.LINE_AA)
    return np.asarray(canvas, np.uint8)
