"""The teacher that sees depth: a run of its own, before that of its student.

It begins with the student's weights and is asked the same, on nearness maps in place of
photos: where the thing is, and what of it is the same in another view.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from sfm_features.nets.dense import DenseNet
from sfm_features.training.embeddings import Distillation
from sfm_features.training.loop import Trainer
from sfm_features.training.pg2sd import Pg2sdOptions
from sfm_features.training.photos import PhotoSet
from sfm_features.training.settings import Settings
from sfm_features.training.turntables import TurntablePairs

logger = logging.getLogger(__name__)

_SHARE = 0.5
"""How long the teacher is trained if that is not said, measured by its student."""
FOLDER = "teacher"


def train_teacher(
    net: DenseNet,
    photos: PhotoSet,
    held_back: Sequence[int],
    output: Path,
    settings: Settings,
    device: torch.device,
    seed: int,
    turntables: TurntablePairs | None = None,
) -> DenseNet | None:
    """Train a teacher in output/teacher, or read it there; none without depth."""
    if not {*photos.list_with_depth()} - {*held_back}:
        logger.warning(
            "no photo to train on has a depth map (masks are none): nothing is "
            "distilled; give depth maps or --turntables"
        )
        return None
    trainer = Trainer(
        copy.deepcopy(net), photos, held_back, output / FOLDER, plan_teacher(settings),
        device, seed, turntables=turntables,
    )  # fmt: skip
    return trainer.run().net


def plan_teacher(settings: Settings) -> Settings:
    """Return the settings of the teacher of a student: one round, nothing fancy."""
    first = replace(
        settings.stages[0], name="depth teacher", start=0.0, end=1.0,
        detector=True, descriptor=True,
    )  # fmt: skip
    asked = settings.distillation.teacher_steps
    half = max(1, round(_SHARE * settings.steps)) if settings.steps else 0
    return replace(
        settings,
        stages=(first,),
        steps=asked or half,
        minutes=0.0 if asked else _SHARE * settings.minutes,
        distillation=Distillation(),
        teachers=(),
        pg2sd=Pg2sdOptions(),
        validations=2,
        start_share=0.0,
        whiten=False,
        keep_best=False,
        sees_depth=True,
    )
