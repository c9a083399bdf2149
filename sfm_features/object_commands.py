"""The commands about keypoints of objects: `train-object` and `detect-object`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sfm_features.shell import Positional
from sfm_features.training.objects.options import ObjectOptions
from sfm_features.types import RunOptions

logger = logging.getLogger("sfm_features")


def run_train_object(
    images: Positional, output: Path, options: ObjectOptions, run: RunOptions
) -> None:
    """Train keypoints of a kind of object on unlabelled images, taught by depth.

    $ sfm-features train-object images --depth depths --keypoints 16 --output run

    Stop it at any time and run the same command again: it continues.

    Args:
        images: Folder of images of one kind of object; subfolders are searched.
        output: Folder to write: weights, their card, curves, skeletons.
    """
    from sfm_features.training.objects.train import train_object

    for line in train_object(images, output, options, run).to_text().splitlines():
        logger.info("%s", line)


def run_detect_object(
    images: Positional,
    output: Path,
    weights: Path,
    run: RunOptions,
    pictures: bool = True,
) -> None:
    """Detect an object's keypoints on images, by weights that train-object wrote.

    $ sfm-features detect-object images --weights run/weights.safetensors --output found

    Args:
        images: Folder of images; subfolders are searched.
        output: Folder to write: keypoints.json, pictures.
        weights: The weights.safetensors of a training.
        pictures: Draw the keypoints on each image.
    """
    from sfm_features.objects import detect_object

    detect_object(images, output, weights, run, pictures)


COMMANDS: dict[str, Callable[..., Any]] = {
    "train-object": run_train_object,
    "detect-object": run_detect_object,
}
