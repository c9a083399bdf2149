"""A thing that turns before a room that stands still: what a reconstruction locks onto.

Poses are compared in the frame that turns with the thing. A model of the room has all
views in one place, and that is what its figures show.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import cv2
import numpy as np

from pipelines.benchmarks.results import Cell, Check, Result, Row
from sfm_features.colmap import list_models, read_model
from sfm_features.errors import ReconstructionError
from sfm_features.extract import ExtractOptions
from sfm_features.images import decode
from sfm_features.masks import keep_inside, read_mask
from sfm_features.match import MatchOptions
from sfm_features.metrics import model_errors
from sfm_features.reconstruct import ReconstructOptions, reconstruct
from sfm_features.scenes import read_truth
from sfm_features.scenes.turntable import Thing, render_turntable
from sfm_features.store import FeatureStore
from sfm_features.types import F32, U8, RunOptions
from sfm_features.workspace import Workspace

VIEWS, LEAST_VIEWS = 36, 34
RIGHT_DEG = 5.0
OBJECT_EXTRACTOR = "evo-object"
_MOST_DEG = 1.0
_DRAWN_PX = 480
_RIGHT, _ERROR = f"right within {RIGHT_DEG:g} deg", "rotation error, deg"


def measure_turntable(
    output: Path,
    extractors: Sequence[str] = ("evo", OBJECT_EXTRACTOR, "sift"),
    weights: Path | None = None,
    seed: int = 0,
    thing: Thing = "crate",
    mappings: int = 5,
) -> Result:
    """Reconstruct the turn with each extractor, without masks and with true ones.

    `weights` are those of a network trained for objects, in place of `evo-object`'s.
    Verification and mapping are done with so many seeds each, as chance decides much.
    """
    scene = _place_scene(output, seed, thing)
    render_turntable(scene, VIEWS, seed, thing=thing)
    runs = [
        _Run(name, None, *how)
        for name in extractors
        for how in ((False, True), (False, False), (True, True))
    ]
    if weights is not None:
        runs += [_Run(OBJECT_EXTRACTOR, weights, False, how) for how in (True, False)]
    seeds = range(seed, seed + mappings)
    rows = [_measure(scene, run, seeds) for run in runs]
    checks = [
        check
        for row, run in zip(rows, runs, strict=True)
        if not run.masked and not run.keeps_still
        for check in _check(row)
    ]
    place = f"{'scene' if thing == 'crate' else thing} {seed}"
    return Result(f"A turntable, {VIEWS} views, {place}", rows, checks)


def draw_turntable(
    output: Path, extractors: Sequence[str], seed: int = 0, thing: Thing = "crate"
) -> bytes:
    """Draw what each extractor found without masks in a view, as a JPEG, in a row."""
    scene = _place_scene(output, seed, thing)
    tiles = []
    for extractor in extractors:
        made = Workspace(_Run(extractor, None, False, True).place(scene))
        with FeatureStore.open(made.features) as store:
            name = min(store.names())
            tiles.append(_draw_view(scene, name, store.read_keypoints(name)))
    jpeg = [cv2.IMWRITE_JPEG_QUALITY, 80]
    done, data = cv2.imencode(".jpg", np.concatenate(tiles, axis=1), jpeg)
    assert done
    return data.tobytes()


def _draw_view(scene: Path, name: str, xy: F32) -> U8:
    """Draw keypoints on the thing in green, others in red."""
    mask = read_mask(scene / "masks", name)
    assert mask is not None
    rgb = decode(scene / "images" / name).rgb
    scale = _DRAWN_PX / rgb.shape[1]
    shape = (_DRAWN_PX, round(rgb.shape[0] * scale))
    canvas = cv2.resize(rgb[..., ::-1], shape, interpolation=cv2.INTER_AREA)
    kept = keep_inside(mask, xy, mask.shape[::-1])
    for (x, y), on_thing in zip((xy * scale).tolist(), kept, strict=True):
        colour = (80, 220, 60) if on_thing else (40, 40, 230)
        cv2.circle(canvas, (round(x), round(y)), 2, colour, -1, cv2.LINE_AA)
    return np.asarray(canvas, np.uint8)


def _place_scene(output: Path, seed: int, thing: Thing) -> Path:
    return output / f"{'scene' if thing == 'crate' else thing}{seed}"


@dataclass(frozen=True)
class _Run:
    """What is reconstructed with."""

    extractor: str
    weights: Path | None
    masked: bool
    keeps_still: bool

    @property
    def name(self) -> str:
        return f"{self.extractor}{' (given weights)' if self.weights else ''}"

    def place(self, scene: Path) -> Path:
        """Return the folder of its reconstruction, beside that of the scene."""
        suffix = f"{'-masked' * self.masked}{'-turntable' * (not self.keeps_still)}"
        number = scene.name.removeprefix("scene")
        return scene.with_name(f"{self.name.replace(' ', '-')}{suffix}-{number}")


def _check(row: Row) -> list[Check]:
    """Say what must be reached without masks: `evo-object` as it comes, for one."""
    what = str(row["features"])
    least = min(map(int, str(row[_RIGHT]).split()))
    error = float(row.get(_ERROR) or 180)
    return [
        Check(f"{what}: views missing at worst", VIEWS - least, VIEWS - LEAST_VIEWS),
        Check(f"{what}: median rotation error, deg", error, _MOST_DEG),
    ]


def _measure(scene: Path, run: _Run, seeds: Sequence[int]) -> Row:
    """Reconstruct with each seed; return a row of the table."""
    folder = run.place(scene)
    extraction = ExtractOptions(
        extractor=run.extractor,
        weights=run.weights,
        masks=scene / "masks" if run.masked else None,
    )
    matching = MatchOptions(turntable=not run.keeps_still, keep_still=run.keeps_still)
    made, models = Workspace(folder), []
    for seed in seeds:
        first = seed == seeds[0]  # the others take its features and matches
        output = folder if first else folder.with_name(f"{folder.name}-mapping{seed}")
        options = ReconstructOptions(
            features=None if first else made.features,
            matches=None if first else made.matches,
            report=False,
        )
        with suppress(ReconstructionError):  # the table says that there is no model
            reconstruct(
                scene / "images",
                output,
                options,
                extraction if first else ExtractOptions(),
                matching if first else MatchOptions(),
                run=RunOptions(seed=seed),
            )
        models.append(_measure_model(scene, output))
    row: dict[str, Cell] = {
        "features": run.name,
        "masks": "true ones" if run.masked else "-",
        "matches that stand still": "kept" if run.keeps_still else "left out",
        "keypoints on the thing": f"{_count_on_thing(scene, folder):.0%}",
    }
    return row | _summarise(models)


def _count_on_thing(scene: Path, folder: Path) -> float:
    """Return the share of keypoints that lie on the thing, the median of the views."""
    shares = []
    with FeatureStore.open(Workspace(folder).features) as store:
        for name in store.names():
            xy, mask = store.read_keypoints(name), read_mask(scene / "masks", name)
            if mask is not None and len(xy):
                shares.append(keep_inside(mask, xy, mask.shape[::-1]).mean())
    return float(median(shares)) if shares else 0.0


@dataclass(frozen=True)
class _Found:
    """What one run registered, and how well."""

    registered: int = 0
    right: int = 0
    error_deg: float | None = None
    points: int | None = None
    track_length: float | None = None


def _measure_model(scene: Path, folder: Path) -> _Found:
    models = list_models(folder / "sparse")
    if not models:
        return _Found()
    model, truth = read_model(models[0]), read_truth(scene)
    poses = {name: image.cam_from_world for name, image in model.images.items()}
    errors = model_errors(poses, truth.poses)
    right = sum(e < RIGHT_DEG for e in errors.rotation_errors_deg.values())
    return _Found(
        *(len(model.images), right, errors.median_rotation_error_deg),
        *(len(model.points), model.mean_track_length),
    )


def _summarise(found: Sequence[_Found]) -> dict[str, Cell]:
    """Return views registered and right in each run, and the rest's medians."""

    def middle(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return median(known) if known else None

    return {
        "registered": " ".join(str(f.registered) for f in found),
        _RIGHT: " ".join(str(f.right) for f in found),
        _ERROR: middle([f.error_deg for f in found]),
        "points": middle([f.points for f in found]),
        "track length": middle([f.track_length for f in found]),
    }
