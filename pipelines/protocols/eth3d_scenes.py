"""ETH3D's scenes, and localization of images that are held out of them one by one."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import inf
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pipelines.protocols.chain import PosedImages, Settings, Task, locate
from pipelines.protocols.ledger import Figures, Ledger
from sfm_features.colmap import covisible_counts, read_model
from sfm_features.errors import InputError
from sfm_features.extract import extract
from sfm_features.geometry import rotation_angle_deg
from sfm_features.match import match
from sfm_features.queries import Query
from sfm_features.store import FeatureStore
from sfm_features.types import Model, Pair

_MODEL = "dslr_calibration_undistorted"
_QUERIES = 10
_LEFT_OUT_BESIDE = 2
HELD_OUT: Mapping[str, Sequence[int]] = {
    "courtyard": (304, 287, 298, 308, 312, 302, 297, 313, 307, 321),
    "electro": (9301, 9289, 9298, 9274, 9268, 9296, 9299, 9267, 9287, 9302),
    "facade": (347, 330, 396, 345, 390, 392, 341, 333, 352, 412),
    "meadow": (6559, 6548, 6541, 6540, 6535, 6556, 6558, 6536, 6539, 6547),
    "playground": (585, 568, 579, 589, 593, 583, 578, 594, 588, 604),
    "terrace": (271, 284, 268, 260, 267, 272, 259, 269, 262, 279),
    "delivery_area": (717, 703, 714, 692, 686, 712, 715, 685, 702, 718),
    "kicker": (6518, 6496, 6506, 6503, 6494, 6492, 6489, 6504, 6510, 6490),
    "office": (253, 223, 237, 220, 239, 249, 229, 251, 221, 222),
    "pipes": (643, 645, 647, 640, 636, 638, 642, 635, 644, 641),
    "relief": (455, 435, 443, 440, 433, 431, 428, 441, 447, 429),
    "relief_2": (487, 466, 474, 471, 464, 462, 459, 472, 478, 460),
    "terrains": (626, 618, 649, 667, 661, 632, 650, 660, 619, 625),
}
"""The numbers NNNN of the images DSC_NNNN.JPG that Pixel-Perfect SfM localizes."""


@dataclass(frozen=True)
class Scene:
    """A scene: its folder, and its model with true poses."""

    folder: Path
    model: Model

    @property
    def images(self) -> Path:
        """The folder that names are relative to."""
        return self.folder / "images"

    @property
    def reference(self) -> Path:
        """The model's folder."""
        return self.folder / _MODEL


def list_scenes(dataset: Path, wanted: Sequence[str] | None) -> dict[str, Scene]:
    """Read the scenes of a folder, or only some, by name."""
    there = {path.parent.name: path.parent for path in dataset.glob(f"*/{_MODEL}")}
    missing = sorted(set(wanted or ()) - there.keys())
    if missing or not there:
        raise InputError(
            f"{dataset}: has no scene{' '.join(['', *missing])} with a folder "
            f"{_MODEL}; see --help for the layout"
        )
    return {
        name: Scene(there[name], read_model(there[name] / _MODEL))
        for name in wanted or sorted(there)
    }


def prepare(scene: Scene, output: Path, settings: Settings) -> None:
    """Extract the features of a scene, and match all images with all."""
    output.mkdir(parents=True, exist_ok=True)
    names = sorted(scene.model.images)
    run = replace(settings.run, strict=True)
    features = output / "features.h5"
    extract(scene.images, features, settings.extraction, run, names=names)
    match(features, combinations(names, 2), output / "matches.h5", run=run)


def localize_held_out(scene: Scene, output: Path, settings: Settings) -> list[Figures]:
    """Localize the held-out images, each in a map without it and what is beside it."""
    shared = covisible_counts(scene.model)
    rules = f"{settings.extraction}, {settings.localization}, {settings.run.seed}"
    ledger = Ledger(output / "localized.jsonl", rules)
    queries = choose_held_out(scene)
    missing = [name for name in queries if name not in ledger]
    for name in tqdm(missing, desc=f"localize in {scene.folder.name}", unit="image"):
        beside = list_beside(name, shared)
        ledger.add(name, _localize(scene, name, beside, output, settings))
    return [ledger[name] for name in queries]


def choose_held_out(scene: Scene) -> list[str]:
    """Choose the usual images of a known scene, of another one ten, evenly."""
    names = sorted(scene.model.images)
    numbers = HELD_OUT.get(scene.folder.name)
    if numbers is None:
        count = min(_QUERIES, len(names))
        middles = (np.arange(count) + 0.5) * len(names) / count
        return [names[i] for i in middles.astype(int).tolist()]
    by_stem = {Path(name).stem: name for name in names}
    stems = [f"DSC_{number:04d}" for number in numbers]
    missing = [stem for stem in stems if stem not in by_stem]
    if missing:
        raise InputError(
            f"{scene.reference}: lacks {missing[0]}, which is to be localized; unpack "
            "the data set again"
        )
    return [by_stem[stem] for stem in stems]


def list_beside(name: str, shared: Mapping[Pair, int]) -> list[str]:
    """List the two images that share the most points with one."""
    counts = {
        other: count
        for pair, count in shared.items()
        if name in pair
        for other in pair
        if other != name
    }
    return sorted(counts, key=lambda other: (-counts[other], other))[:_LEFT_OUT_BESIDE]


def _localize(
    scene: Scene, name: str, beside: Sequence[str], output: Path, settings: Settings
) -> Figures:
    images = scene.model.images
    known = sorted(images.keys() - {name, *beside})
    posed = PosedImages(
        {n: images[n].camera for n in known},
        {n: images[n].cam_from_world for n in known},
        list(combinations(known, 2)),
    )
    folder = output / "held-out"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "map").mkdir(parents=True)
    # What is there already is not made again.
    _copy_features(output / "features.h5", folder / "map/features.h5", known)
    shutil.copy(output / "matches.h5", folder / "map/matches.h5")
    query = Query(name, images[name].camera)
    pose = locate(Task(scene.images, posed, [query]), folder, settings)[name].pose
    shutil.rmtree(folder)
    if pose is None:
        return {"metres": inf, "degrees": inf}
    true = images[name].cam_from_world
    off = float(np.linalg.norm(pose.centre - true.centre))
    degrees = rotation_angle_deg(pose.rotation @ true.rotation.T)
    return {"metres": off, "degrees": degrees}


def _copy_features(source: Path, target: Path, names: Sequence[str]) -> None:
    with (
        FeatureStore.open(source) as given,
        FeatureStore.append(target, given.config) as copy,
    ):
        for name in names:
            copy.write(name, given.read(name))
