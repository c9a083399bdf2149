"""What polishing brings: models before and after it, with known poses.

In the rendered town, and in a scene of Strecha's benchmark with its true camera: what
is found when the camera is unknown depends on that more than on keypoints.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.benchmarks.results import Cell, Check, Result
from pipelines.benchmarks.strecha import read_scene
from sfm_features.colmap import CameraOptions, MapperOptions
from sfm_features.extract import ExtractOptions
from sfm_features.reconstruct import ReconstructOptions, reconstruct
from sfm_features.scenes import read_truth, render_town
from sfm_features.summary import Summary
from sfm_features.types import Pose, RunOptions

VIEWS = 30
_EXTRACTORS = ("evo", "sift")


@dataclass(frozen=True)
class _Scene:
    """Images whose poses are known, and perhaps their camera."""

    name: str
    images: Path
    poses: Mapping[str, Pose]
    cameras: CameraOptions = CameraOptions()
    mapping: MapperOptions = MapperOptions()


def measure_polishing(
    output: Path, strecha: Path | None = None, views: int = VIEWS, seed: int = 0
) -> Result:
    """Reconstruct each scene, measure, polish, measure again."""
    rows, checks = [], []
    for scene in _list_scenes(output, strecha, views, seed):
        for extractor in _EXTRACTORS:
            before, after = _reconstruct(scene, output, extractor, seed)
            for what, found in (("mapper", before), ("polished", after)):
                rows.append(_make_row(scene, extractor, what, found))
            off, exact = (_median_deg(found) for found in (before, after))
            what = f"{scene.name}, {extractor}: rotation error, polished over mapper's"
            checks.append(Check(what, exact / off, 1.0))
    return Result("Polishing", rows, checks)


def _list_scenes(
    output: Path, strecha: Path | None, views: int, seed: int
) -> Sequence[_Scene]:
    town = output / f"town-{views}"
    render_town(town, views, seed=seed)
    scenes = [_Scene("town", town / "images", read_truth(town).poses)]
    if strecha is not None:
        cameras, poses = read_scene(strecha)
        camera = next(iter(cameras.values()))
        given = CameraOptions(
            camera.model, ",".join(map(str, camera.params)), camera_sharing="single"
        )
        fixed = MapperOptions(refine_focal_length=False, refine_extra_params=False)
        scenes.append(_Scene(strecha.name, strecha / "images", poses, given, fixed))
    return scenes


def _reconstruct(
    scene: _Scene, output: Path, extractor: str, seed: int
) -> tuple[Summary, Summary]:
    """Reconstruct from nothing, and go on with polishing alone."""
    folder = output / "polishing" / f"{scene.name}-{extractor}"
    shutil.rmtree(folder, ignore_errors=True)
    before, after = (
        reconstruct(
            scene.images,
            folder,
            ReconstructOptions(polish=polishes, report=False),
            ExtractOptions(extractor),
            cameras=scene.cameras,
            mapping=scene.mapping,
            run=RunOptions(seed=seed),
            truth=scene.poses,
        )
        for polishes in (False, True)
    )
    return before, after


def _median_deg(found: Summary) -> float:
    assert found.errors is not None
    return found.errors.median_rotation_error_deg


def _make_row(
    scene: _Scene, extractor: str, what: str, found: Summary
) -> dict[str, Cell]:
    model, errors = found.models[0], found.errors
    assert errors is not None
    return {
        "scene": scene.name,
        "features": extractor,
        "model": what,
        "registered": f"{model.registered} of {found.images}",
        "rotation error, deg": errors.median_rotation_error_deg,
        "centre error, % of diameter": 100 * errors.median_centre_share,
        "points": model.points,
        "track length": model.mean_track_length,
        "reprojection error, px": model.mean_error_px,
        "seconds to map": found.seconds.get("map") if what == "mapper" else None,
        "to polish": found.seconds.get("polish"),
    }
