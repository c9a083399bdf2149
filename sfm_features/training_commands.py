"""The commands that train local features: `train` and `adapt`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import tyro

from sfm_features.shell import Positional, say
from sfm_features.training.options import AdaptOptions, DepthOptions, TrainOptions
from sfm_features.types import RunOptions


def run_train(
    photos: Positional,
    output: Path,
    options: TrainOptions,
    depth: DepthOptions,
    run: RunOptions,
    start: Annotated[str, tyro.conf.arg(name="from")] = "",
) -> None:
    """Train a detector and descriptor on a folder of unlabelled photographs.

    $ sfm-features train photos --output run --minutes 60

    Stop it at any time and run the same command again: it continues.

    Args:
        photos: Folder of photographs; subfolders are searched.
        output: Folder to write: weights, their card, curves, pictures.
        start: Weights to go on from, a file or the name of a bundled network, whatever
            --net; empty = start from nothing.
    """
    from sfm_features.training.train import train

    say(train(photos, output, options, run, start=start, depth=depth).to_text())


def run_adapt(
    photos: Positional,
    output: Path,
    start: Annotated[str, tyro.conf.arg(name="from")],
    options: AdaptOptions,
    depth: DepthOptions,
    run: RunOptions,
) -> None:
    """Go on from trained weights on your own photographs.

    $ sfm-features adapt photos --from run/weights.safetensors --output adapted

    If the figures on held-back photographs get worse, the start is kept.

    Args:
        photos: Folder of photographs; subfolders are searched.
        output: Folder to write: weights, their card, curves, pictures.
        start: Weights to start from: a file, or the name of a bundled network.
    """
    from sfm_features.training.train import adapt

    say(adapt(photos, output, start, options, run, depth).to_text())


COMMANDS: dict[str, Callable[..., Any]] = {
    "train": run_train,
    "adapt": run_adapt,
}
