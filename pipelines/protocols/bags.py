"""Reconstructs bags of a few images each and judges how all their pairs stand."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from math import inf
from pathlib import Path
from statistics import mean

from tqdm import tqdm

from pipelines.benchmarks.results import Cell
from pipelines.protocols.ledger import Figures, Ledger
from pipelines.protocols.pairwise import Setup, describe_setup
from pipelines.protocols.phototourism import Scene
from pipelines.protocols.two_view import mean_accuracy, relate
from sfm_features import metrics
from sfm_features.colmap import CameraOptions, list_models, read_model
from sfm_features.errors import InputError, ReconstructionError
from sfm_features.extract import extract
from sfm_features.pair_files import write_pairs
from sfm_features.pairs import pair_exhaustively
from sfm_features.reconstruct import ReconstructOptions, reconstruct
from sfm_features.types import Pose


def measure_bags(scene: Scene, setup: Setup) -> dict[str, Cell]:
    """Reconstruct every bag; return mAA by size, and how many images registered."""
    if not any(scene.bags.values()):
        raise InputError(
            f"{scene.images.parent}: has no bags in sub_set; unpack the data set "
            "again, or leave --bags out"
        )
    features = setup.output / "features.h5"
    names = sorted(
        {name for bags in scene.bags.values() for bag in bags for name in bag}
    )
    extract(scene.images, features, setup.extraction, setup.run, names=names)
    ledger = Ledger(setup.output / "bags.jsonl", describe_setup("COLMAP", setup))
    keys = {
        f"{size} {i}": bag
        for size, bags in scene.bags.items()
        for i, bag in enumerate(bags)
    }
    missing = {key: bag for key, bag in keys.items() if key not in ledger}
    for key, bag in tqdm(missing.items(), desc="reconstruct bags", unit="bag"):
        ledger.add(key, _measure_bag(scene, bag, features, setup))
    return _sum_up(
        {s: [ledger[f"{s} {i}"] for i in range(len(b))] for s, b in scene.bags.items()}
    )


def _sum_up(found: Mapping[int, Sequence[Figures]]) -> dict[str, Cell]:
    by_size = {s: mean(f["mAA@10"] for f in bags) for s, bags in found.items() if bags}
    registered = [f["registered"] for bags in found.values() for f in bags]
    return {
        **{f"mAA@10, {size}": value for size, value in by_size.items()},
        "mAA@10": mean(by_size.values()),
        "registered": mean(registered),
    }


def _measure_bag(
    scene: Scene, bag: Sequence[str], features: Path, setup: Setup
) -> Figures:
    folder = setup.output / "bag"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_pairs(folder / "bag-pairs.txt", pair_exhaustively(bag))
    options = ReconstructOptions(
        features=features, pairs=folder / "bag-pairs.txt", report=False
    )
    cameras = CameraOptions(camera_sharing="image")
    poses: dict[str, Pose] = {}
    try:
        reconstruct(
            scene.images, folder, options, matching=setup.matching, cameras=cameras,
            run=replace(setup.run, strict=False),
        )  # fmt: skip
        model = read_model(list_models(folder / "sparse")[0])
        poses = {name: image.cam_from_world for name, image in model.images.items()}
    except ReconstructionError:
        pass  # a bag of which nothing came counts as it is: no image registered
    errors = [_compare(pair, poses, scene.poses) for pair in combinations(bag, 2)]
    shutil.rmtree(folder)
    return {"mAA@10": mean_accuracy(errors), "registered": len(poses) / len(bag)}


def _compare(
    pair: tuple[str, str], poses: Mapping[str, Pose], truth: Mapping[str, Pose]
) -> float:
    if not poses.keys() >= set(pair):
        return inf
    found, true = (relate(*(known[name] for name in pair)) for known in (poses, truth))
    return max(metrics.relative_pose_error_deg(found, true))
