"""Human3.6M (simplified), Taichi and DeepFashion, laid out as AutoLink reads them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from tqdm import tqdm

from pipelines.benchmarks.matfile import read_matrix
from pipelines.benchmarks.results import Result
from sfm_features.errors import InputError
from sfm_features.images import decode
from sfm_features.objects import ObjectDetector
from sfm_features.orientation import turn_upright
from sfm_features.regression import (
    HUMAN36M_MIRRORED,
    Sample,
    share_correct,
    summed_error,
    swapped_error,
)
from sfm_features.types import F64, U8

Split: TypeAlias = Literal["train", "test"]

SUBJECTS: Mapping[Split, tuple[int, ...]] = {"train": (1, 5, 6, 7, 8, 9), "test": (11,)}
ACTIONS = ("Directions", "Discussion", "Posing", "Waiting", "Greeting", "Walking")
_TAICHI_JOINTS, _HUMAN_JOINTS = 18, 32


@dataclass(frozen=True)
class Labelled:
    """Images relative to a folder, their joints (N, J, 2), and masks to cut them by."""

    folder: Path
    names: Sequence[str]
    joints: F64
    masks: Sequence[str] = ()

    def __post_init__(self) -> None:
        if len(self.names) != len(self.joints):
            raise InputError(
                f"{self.folder}: lists {len(self.names)} images and joints of "
                f"{len(self.joints)}; fetch both files again"
            )


def read_human36m(root: Path, split: Split, background: bool = True) -> Labelled:
    """Read S*/WithBackground/ACTION*/FRAME.jpg and S*/Landmarks/ACTION*/FRAME.mat.

    Joints are shares of the image. Without background, S*/BackgroudMask (as it is
    spelt) cuts the person out.
    """
    names, joints = [], []
    for subject in SUBJECTS[split]:
        photos = root / f"S{subject}" / "WithBackground"
        _check_folder(photos, "Human3.6M (simplified)")
        for path in sorted(photos.glob("*/*.jpg")):
            if path.parent.name.startswith(ACTIONS):
                place = f"{path.parent.name}/{path.stem}.mat"
                names.append(path.relative_to(root).as_posix())
                mat = root / f"S{subject}" / "Landmarks" / place
                joints.append(_shape(mat, read_matrix(mat, "keypoints_2d")))
    if not names:
        raise InputError(f"{root}: has no images of {', '.join(ACTIONS)}; check it")
    masks = [
        n.replace("WithBackground", "BackgroudMask").replace(".jpg", ".png")
        for n in names
    ]
    return Labelled(root, names, np.stack(joints), () if background else masks)


def read_taichi(root: Path, split: Split) -> Labelled:
    """Read landmark/taichi_SPLIT_gt.json and eval_images/taichi-256/SPLIT.

    The data set has a pickle of pandas, which could run code and is not opened: turn it
    into JSON once, where you trust it.
    """
    path = root / "landmark" / f"taichi_{split}_gt.json"
    if not path.exists():
        pickle = path.with_suffix(".pkl")
        raise InputError(
            f'{path}: no such file; make it of the pickle beside it: python -c "import '
            f"pandas; pandas.read_pickle('{pickle.name}').to_json('{path.name}')\""
        )
    content = _read_json(path)
    try:
        keys = sorted(content["file_name"], key=int)
        names = [str(content["file_name"][key]) for key in keys]
        joints = np.array([content["value"][key] for key in keys], np.float64)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path}: has no columns file_name and value ({error!r}); make it again"
        ) from error
    if joints.shape != (len(names), _TAICHI_JOINTS, 2):
        raise InputError(f"{path}: has joints {joints.shape}; 18 x 2 are expected")
    return Labelled(root / "eval_images" / "taichi-256" / split, names, joints)


def read_deepfashion(root: Path, split: Split) -> Labelled:
    """Read data_SPLIT.csv, data_SPLIT.json and img/."""
    path = root / f"data_{split}.csv"
    _check_folder(root / "img", "DeepFashion")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            names = [row[1].strip() for row in csv.reader(file) if row][1:]
    except (OSError, IndexError) as error:
        raise InputError(f"{path}: cannot be read ({error}); fetch it again") from error
    beside = path.with_suffix(".json")
    try:
        joints = np.array([one["keypoints"] for one in _read_json(beside)], np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{beside}: has no keypoints ({error!r}); fetch it again"
        ) from error
    return Labelled(root / "img", names, joints)


@dataclass(frozen=True)
class KeypointSet:
    """How a data set is read, and what its figure is."""

    read: Callable[[Path, Split], Labelled]
    figure: str
    measure: Callable[[Sample, Sample], float]
    published: str


SETS: Mapping[str, KeypointSet] = {
    "human36m": KeypointSet(
        read_human36m,
        "mean L2 error (%)",
        lambda fitted, tested: 100 * swapped_error(fitted, tested, HUMAN36M_MIRRORED),
        "2.76",
    ),
    "human36m-cut-out": KeypointSet(
        lambda root, split: read_human36m(root, split, background=False),
        "mean L2 error (%)",
        lambda fitted, tested: 100 * swapped_error(fitted, tested, HUMAN36M_MIRRORED),
        "-",
    ),
    "taichi": KeypointSet(
        read_taichi, "summed absolute error (px)", summed_error, "316.10 (unverified)"
    ),
    "deepfashion": KeypointSet(
        read_deepfashion,
        "joints within 6 px (%)",
        lambda fitted, tested: 100 * share_correct(fitted, tested),
        "66",
    ),
}
"""Published figures are AutoLink's. Whether its 2.76 is with the background is not
known, and its Taichi figure is one that others quote."""


def measure_set(name: str, root: Path, weights: Path, device: str = "auto") -> Result:
    """Measure a trained detector by a data set's protocol."""
    chosen = SETS[name]
    detector = ObjectDetector(weights, device)
    parts = [chosen.read(root, split) for split in ("train", "test")]
    samples = [Sample(_detect(detector, part), part.joints) for part in parts]
    row = {
        "detector": "ours",
        "images": f"{len(parts[0].names)} + {len(parts[1].names)}",
        chosen.figure: chosen.measure(*samples),
    }
    published = {"detector": "AutoLink, published", chosen.figure: chosen.published}
    return Result(f"Keypoints on {name}", [row, published])


def _detect(detector: ObjectDetector, part: Labelled) -> F64:
    """Return keypoints (N, K, 2) as shares of the images."""
    found = []
    for k, name in enumerate(tqdm(part.names, "objects", unit="image")):
        rgb = _read_image(part, k, name)
        seen = detector.detect(rgb)
        found.append((seen.xy + 0.5) / seen.image_size)
    return np.asarray(found, np.float64)


def _read_image(part: Labelled, k: int, name: str) -> U8:
    decoded = decode(part.folder / name)
    upright = turn_upright(decoded.rgb, decoded.orientation)
    if not part.masks:
        return upright
    mask = decode(part.folder / part.masks[k]).rgb > 127
    if mask.shape != upright.shape:
        raise InputError(
            f"{part.folder / part.masks[k]}: is not of its image's size; fetch it again"
        )
    return np.asarray(upright * mask, np.uint8)


def _shape(path: Path, joints: F64) -> F64:
    if joints.size != 2 * _HUMAN_JOINTS:
        raise InputError(
            f"{path}: has {joints.shape} numbers; {_HUMAN_JOINTS} joints are expected"
        )
    across = joints.ndim == 2 and joints.shape[0] == 2
    return (joints.T if across else joints).reshape(_HUMAN_JOINTS, 2)


def _check_folder(folder: Path, name: str) -> None:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the root of {name}")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); fetch it again") from error
