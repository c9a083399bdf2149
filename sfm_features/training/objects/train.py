"""Train keypoints of a kind of object on a folder of images, with or without depth."""

from __future__ import annotations

import logging
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch

from sfm_features.errors import InputError, OptionError
from sfm_features.journal import claim
from sfm_features.nets.autolink import (
    ARCHITECTURE,
    KeypointNet,
    load_keypoint_net,
    save_keypoint_net,
)
from sfm_features.nets.weights import Card
from sfm_features.training.device import choose_device
from sfm_features.training.objects.data import ObjectImages, load_images, make_views
from sfm_features.training.objects.loop import ObjectOutcome, ObjectTrainer
from sfm_features.training.objects.models import count_coinciding
from sfm_features.training.objects.options import ObjectOptions, ObjectSummary
from sfm_features.training.runlog import require_matplotlib
from sfm_features.types import RunOptions

logger = logging.getLogger(__name__)


def train_object(
    images: Path,
    output: Path,
    options: ObjectOptions = ObjectOptions(),
    run: RunOptions = RunOptions(),
) -> ObjectSummary:
    """Train into OUTPUT, or go on with what is there; only the student is for use.

    The teacher's detector, which sees depth maps, is written beside it.
    """
    options.check()
    require_matplotlib()
    device = choose_device(run.device)
    loaded = load_images(
        images, options.depth, options.size_px, options.depth_kind, options.image_list
    )
    if run.strict and loaded.skipped:
        raise InputError(next(iter(loaded.skipped.values())))
    teacher = _read_teacher(options)
    with claim(output):
        outcome = ObjectTrainer(
            loaded, output, options, device, run.seed, teacher=teacher
        ).run()
    card = _describe(loaded, options, run, outcome)
    path = output / "weights.safetensors"
    save_keypoint_net(outcome.student, path, card)
    if outcome.teacher is not None:
        save_keypoint_net(outcome.teacher, output / "teacher.safetensors", card)
    return ObjectSummary(
        weights=path,
        steps=outcome.steps,
        seconds=outcome.seconds,
        images=len(loaded),
        depth_maps=int(loaded.has_depth.sum()),
        skipped=loaded.skipped,
        doubts=[*loaded.doubts, *_doubt_keypoints(loaded, options, outcome, run.seed)],
        last=dict(outcome.last),
    )


def _read_teacher(options: ObjectOptions) -> KeypointNet | None:
    """Read the teacher that was trained before, if one is given."""
    if options.teacher is None:
        return None
    net, _ = load_keypoint_net(options.teacher)
    for name, value in net.config.items():
        if value != getattr(options, name):
            raise OptionError(
                f"{options.teacher}: was trained with {name} {value}, asked for "
                f"{getattr(options, name)}; give --{name.replace('_', '-')} {value}"
            )
    return net


def _describe(
    images: ObjectImages,
    options: ObjectOptions,
    run: RunOptions,
    outcome: ObjectOutcome,
) -> Card:
    recipe = asdict(options)
    for folder in (
        "depth",
        "image_list",
        "teacher",
        "vgg_weights",
    ):  # not where on a disk they are
        recipe[folder] = recipe[folder] is not None
    return Card(
        architecture=ARCHITECTURE,
        data=f"{len(images)} images, {int(images.has_depth.sum())} of them with depth",
        recipe=recipe
        | {
            "steps_done": outcome.steps,
            "seconds": round(outcome.seconds),
            "torch": version("torch"),
        },
        seeds=[run.seed],
        metrics={key: round(value, 4) for key, value in outcome.last.items()},
    )


def _doubt_keypoints(
    images: ObjectImages, options: ObjectOptions, outcome: ObjectOutcome, seed: int
) -> list[str]:
    """Say it when there are more keypoints than the object has places for."""
    views = make_views(images, torch.tensor(images.hold_back(seed)))
    extra = count_coinciding(outcome.student, views.rgb)
    if not extra:
        return []
    return [
        f"{extra} of {options.keypoints} keypoints lie on others; fewer would do: "
        f"--keypoints {max(2, options.keypoints - extra)}"
    ]
