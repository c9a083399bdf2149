"""The labels of a stage, computed in shards that survive a stop."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from tqdm import tqdm

from sfm_features.nets.dense import DenseNet
from sfm_features.training.labels import LabelKind, LabelOptions, label_photo
from sfm_features.training.photos import REPLAY_FOLDER, Photo, PhotoSet
from sfm_features.types import F32

logger = logging.getLogger(__name__)

_SHARD = 32
_LEAST_SHARE = 0.25


def choose_photos(
    photos: PhotoSet,
    count: int,
    seed: int,
    stage: int,
    held_back: Collection[int] = (),
) -> list[int]:
    """Choose which photos a stage labels: `count` single ones (0 = all), and one of
    each view of which there are several.

    Each stage takes others, so that in the end all of them were labelled afresh; and
    one's own before those that are replayed.
    """
    views = list(photos.views(held_back).values())
    several = {i for members in views for i in members}
    loose = [i for i in range(len(photos)) if i not in several]
    if 0 < count < len(loose):
        order = np.random.default_rng([seed, 303]).permutation(loose)
        turned = np.roll(order, -stage * count).tolist()
        replayed = [photos.photos[i].folder == REPLAY_FOLDER for i in turned]
        first = sorted(range(len(turned)), key=replayed.__getitem__)[:count]
        loose = sorted(turned[k] for k in first)
    chosen = loose + [members[0] for members in views]
    return [i for i in chosen if i not in held_back]


def choose_frames(
    view: Sequence[Photo], most: int, rng: np.random.Generator
) -> list[Photo]:
    """Choose some of a view's pictures, by day and by night in turn while both last."""
    drawn = [view[i] for i in rng.permutation(len(view))]
    sides = [[photo for photo in drawn if photo.by_night is n] for n in (False, True)]
    turns = [photo for pair in zip_longest(*sides) for photo in pair if photo]
    return turns[:most]


def compute_labels(
    photos: PhotoSet,
    chosen: Sequence[int],
    kind: LabelKind,
    options: LabelOptions,
    folder: Path,
    seed: Sequence[int],
    net: DenseNet | None = None,
    device: torch.device = torch.device("cpu"),
    key: str = "",
    held_back: Collection[int] = (),
) -> dict[int, F32]:
    """Label photos, keeping what a stopped run with the same key has already done.

    The labels of a photo depend on nothing but the network, the seed and the photo.
    """
    members = {view[0]: view for view in photos.views(held_back).values()}
    folder.mkdir(parents=True, exist_ok=True)

    def work(index: int) -> F32:
        rng = np.random.default_rng([*seed, index])
        view = [photos.photos[i] for i in members.get(index, [index])]
        frames = choose_frames(view, options.frames, rng)
        return label_photo(frames, kind, options, rng, net, device).xy

    labels: dict[int, F32] = {}
    # Networks use all cores by themselves; corners are found one photo per thread.
    workers = 1 if net is not None else min(4, os.cpu_count() or 1)
    with (
        ThreadPoolExecutor(workers, thread_name_prefix="labels") as pool,
        tqdm(total=len(chosen), desc=f"labels ({kind})", unit="photo") as bar,
    ):
        for start in range(0, len(chosen), _SHARD):
            part = list(chosen[start : start + _SHARD])
            path = folder / f"{start // _SHARD:05d}.npz"
            found = read_labels(path, key)
            if list(found) != part:
                found = dict(zip(part, pool.map(work, part), strict=True))
                write_labels(path, found, key)
            for index, xy in found.items():
                labels.update(dict.fromkeys(members.get(index, [index]), xy))
            bar.update(len(part))
    kept = {index: xy for index, xy in sorted(labels.items()) if len(xy)}
    mean = np.mean([len(xy) for xy in labels.values()]) if labels else 0
    logger.info("labels (%s): %d photos, %.0f keypoints each", kind, len(kept), mean)
    return kept


def merge_labels(older: Mapping[int, F32], newer: Mapping[int, F32]) -> dict[int, F32]:
    """Replace labels by newer ones, unless hardly any keypoint is left of a photo.

    A network that has learned little finds little, and would unlearn even that.
    """
    kept = {
        index: xy
        for index, xy in newer.items()
        if len(xy) >= _LEAST_SHARE * len(older.get(index, ()))
    }
    return {**older, **kept}


def write_labels(path: Path, labels: Mapping[int, F32], key: str = "") -> None:
    """Write labels into one compact file, whole or not at all."""
    save_whole(path, lambda temporary: _save(temporary, labels, key))


def _save(path: Path, labels: Mapping[int, F32], key: str) -> None:
    nothing = np.zeros((0, 2), np.float32)
    with path.open("wb") as file:
        np.savez(
            file,
            key=np.array(key),
            photos=np.array(list(labels), np.int64),
            counts=np.array([len(xy) for xy in labels.values()], np.int64),
            xy=np.concatenate([nothing, *labels.values()]).astype(np.float32),
        )


def read_labels(path: Path, key: str = "") -> dict[int, F32]:
    """Read labels; none if there is no such file, or one of another network."""
    try:
        # NumPy would leave the file open where it turns out to be damaged.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as saved:
            if str(saved["key"]) != key:
                return {}
            parts = np.split(saved["xy"], np.cumsum(saved["counts"])[:-1])
            photos = saved["photos"].tolist()
            return dict(zip(photos, parts, strict=True)) if photos else {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        logger.warning("%s: damaged, its photos are labelled again", path)
        return {}


def save_whole(path: Path, save: Callable[[Path], None]) -> None:
    """Write a file so that it is there in full or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.part")
    save(temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
