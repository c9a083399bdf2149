"""The training of depth teacher and student; goes on after any stop, exactly."""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from sfm_features.nets.autolink import KeypointNet
from sfm_features.training.averaging import copy_weights, hash_weights
from sfm_features.training.checkpoints import (
    State,
    load_checkpoint,
    refuse_infinite,
    save_checkpoint,
)
from sfm_features.training.device import autocast, flush_denormals
from sfm_features.training.dkp import (
    DkpWeights,
    distillation_loss,
    reconstruction_loss,
)
from sfm_features.training.objects.data import ObjectImages, Views, make_views
from sfm_features.training.objects.models import (
    make_model,
    make_optimizer,
    schedule_rate,
)
from sfm_features.training.objects.options import ObjectOptions
from sfm_features.training.objects.perceptual import make_perceptual
from sfm_features.training.objects.pictures import draw_losses, draw_skeletons
from sfm_features.training.runlog import RunLog
from sfm_features.types import I64

logger = logging.getLogger(__name__)

TEACHER, STUDENT = 0, 1
STAGES = ("teacher", "student")
_LOG_STEPS = 20
_CLIP = 5.0
_DRAWN = 8
_FREE = ("checkpoint_steps", "depth", "image_list", "teacher", "vgg_weights")
"""Options that may change between a stop and going on: speed, and where files lie."""


@dataclass(frozen=True)
class ObjectOutcome:
    """The detectors as they came out (no teacher without depth), and the figures."""

    student: KeypointNet
    teacher: KeypointNet | None
    steps: int
    seconds: float
    log: RunLog
    last: Mapping[str, float]


class ObjectTrainer:
    """Trains a student on photographs, and before it a teacher on their depth maps."""

    def __init__(
        self,
        images: ObjectImages,
        folder: Path,
        options: ObjectOptions,
        device: torch.device = torch.device("cpu"),
        seed: int = 0,
        teacher: KeypointNet | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> None:
        self.images, self.folder, self.options = images, folder, options
        self.device, self.seed, self.on_step = device, seed, on_step
        self.with_depth = torch.nonzero(images.has_depth)[:, 0]
        self.distils = len(self.with_depth) > 0
        self.held_back = images.hold_back(seed)
        self.perceptual = make_perceptual(options.vgg_weights).to(device)
        self.weights = DkpWeights(
            pixels=options.pixels,
            distillation=options.distillation,
            taps=tuple(options.taps),
        )
        self.given, self.teacher = teacher, teacher
        self.state = State(config=self._describe())
        self.recent: list[dict[str, float]] = []

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.folder / "checkpoints"

    def run(self) -> ObjectOutcome:
        """Train to the end, from the newest checkpoint if there is one."""
        state = load_checkpoint(self.checkpoints, self.state.config)
        if state is None:
            self.state.stage = STUDENT if self.given or not self.distils else TEACHER
            if self.given:
                self.state.stage_start = copy_weights(self.given)
        else:
            self.state = state
            logger.info("goes on at step %d, %.0f s", state.step, state.seconds)
        self.log = RunLog(self.folder / "log.jsonl", self.state.step)
        self.started = time.perf_counter() - self.state.seconds
        total = self._count_steps(STUDENT)
        bar = tqdm(total=total, initial=self.state.step, desc="training", unit="step")
        with flush_denormals(), bar as self.bar:
            while self.state.stage <= STUDENT:
                self._begin()
                self._train()
                self._end()
        return self._finish()

    def _describe(self) -> dict[str, str]:
        given = {k: repr(v) for k, v in asdict(self.options).items()}
        content = hashlib.sha256("\n".join(self.images.names).encode())
        for part in (self.images.has_depth, self.images.rgb, self.images.nearness):
            content.update(np.ascontiguousarray(part.numpy()).data)
        return {k: v for k, v in given.items() if k not in _FREE} | {
            "vgg": repr(self.options.vgg_weights is not None),
            "seed": repr(self.seed),
            "teacher": repr(
                hash_weights(copy_weights(self.given)) if self.given else ""
            ),
            "images": content.hexdigest()[:16],
        }

    def _count_steps(self, stage: int) -> int:
        """Return the step at which a stage ends."""
        teacher = self.options.teacher_steps or self.options.steps
        before = teacher if self.distils and not self.given else 0
        return before if stage == TEACHER else before + self.options.steps

    def _begin(self) -> None:
        """Build what this stage trains; fill it from the checkpoint."""
        stage = self.state.stage
        self.model = make_model(self.options, self.seed, stage).to(self.device)
        self.optimizer = make_optimizer(self.model, self.options)
        self.teacher = None
        if stage == STUDENT and self.distils:
            self.teacher = self._restore_teacher().to(self.device)
        if self.state.net:
            self.model.load_state_dict(self.state.net)
            self.optimizer.load_state_dict(self.state.optimizer)
        self.first = self._count_steps(TEACHER) if stage == STUDENT else 0
        self.rows = self._list_rows(stage)
        self.model.train()
        self.recent.clear()

    def _list_rows(self, stage: int) -> I64:
        """List the images of a stage: the teacher's have depth."""
        rows = np.setdiff1d(np.arange(len(self.images)), self.held_back)
        if stage == STUDENT:
            return rows
        known = np.intersect1d(rows, self.with_depth.numpy())
        return known if len(known) else self.with_depth.numpy()

    def _train(self) -> None:
        end = self._count_steps(self.state.stage)
        every = max(1, math.ceil((end - self.first) / self.options.validations))
        while self.state.step < end:
            views = self._draw(self.state.step).to(self.device)
            figures = self._step(
                views, (self.state.step - self.first) / (end - self.first)
            )
            self.state.step += 1
            self._report(figures)
            if self.on_step:
                self.on_step(self.state.step)
            done = self.state.step - self.first
            if done % every == 0 or self.state.step == end:
                self._validate()
            if self.state.step % self.options.checkpoint_steps == 0:
                self._checkpoint()

    def _end(self) -> None:
        """Keep what this stage has trained, and go on to the next."""
        if self.state.stage == TEACHER:
            self.state.stage_start = copy_weights(self.model.detector)
            self.state.net, self.state.optimizer = {}, {}
        self.state.stage += 1
        self._checkpoint(fresh=self.state.stage == STUDENT)

    def _draw(self, step: int) -> Views:
        """Draw the batch of a step: it depends on nothing but seed and step."""
        rng = np.random.default_rng([self.seed, step, 7])
        count, rows, options = self.options.batch, self.rows, self.options
        chosen = torch.from_numpy(rng.choice(rows, count, replace=count > len(rows)))
        return make_views(self.images, chosen, rng, options.flip, options.crop_share)

    def _step(self, views: Views, progress: float) -> dict[str, float]:
        """Update the weights once."""
        rate = schedule_rate(progress, self.state.step - self.first)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["highest"]
        generator = torch.Generator().manual_seed(
            self.seed * 1_000_003 + self.state.step
        )
        parts = self._measure(views, generator)
        figures = {name: float(value.detach()) for name, value in parts.items()}
        for name, value in figures.items():
            self._check(f"the loss {name!r}", value, views)
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(parts.values())).sum().backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), _CLIP)
        self._check("the gradient", float(norm), views)
        self.optimizer.step()
        return figures

    def _measure(self, views: Views, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the parts of the loss."""
        seen = views.depth if self.state.stage == TEACHER else views.rgb
        with autocast(self.device):
            parts, found, _ = reconstruction_loss(
                self.model, self.perceptual, self.weights, seen, generator
            )
            if self.teacher is not None and self.model.training:
                with torch.no_grad():
                    known = self.teacher(views.depth).taps
                parts["distillation"] = self.weights.distillation * distillation_loss(
                    found.taps, known, self.weights.taps, views.has_depth
                )
        return parts

    def _check(self, what: str, value: float, views: Views) -> None:
        refuse_infinite(what, value, self.state.step + 1, views.names, self.checkpoints)

    def _report(self, figures: dict[str, float]) -> None:
        self.bar.update()
        self.recent.append(figures)
        if self.state.step % _LOG_STEPS:
            return
        means = {k: sum(r[k] for r in self.recent) / len(self.recent) for k in figures}
        self.recent.clear()
        self._log(means)
        self.bar.set_postfix({k: f"{v:.3f}" for k, v in means.items()}, refresh=False)

    def _log(self, figures: Mapping[str, float], **more: Any) -> None:
        stage = STAGES[self.state.stage]
        self.state.seconds = time.perf_counter() - self.started
        named = {f"{stage} {name}": value for name, value in figures.items()}
        self.log.add(self.state.step, seconds=self.state.seconds, **named, **more)

    @torch.no_grad()
    def _validate(self) -> None:
        """Measure on held-back images, and draw skeletons on some."""
        rows = torch.tensor(self.held_back)
        generator = torch.Generator().manual_seed(self.seed)
        views = make_views(self.images, rows).to(self.device)
        with _evaluating(self.model):
            parts = self._measure(views, generator)
            figures = {"held back": float(torch.stack(list(parts.values())).sum())}
            seen = views.depth if self.state.stage == TEACHER else views.rgb
            name = f"{STAGES[self.state.stage]}-{self.state.step:06d}.jpg"
            path = self.folder / "skeletons" / name
            draw_skeletons(path, self.model, seen[:_DRAWN], generator)
        self._log(figures, validation=True)
        draw_losses(self.log, self.folder / "curves.png")

    def _checkpoint(self, fresh: bool = False) -> None:
        self.state.seconds = time.perf_counter() - self.started
        if not fresh:
            self.state.net = self.model.state_dict()
            self.state.optimizer = self.optimizer.state_dict()
        save_checkpoint(self.checkpoints, self.state)

    def _finish(self) -> ObjectOutcome:
        model = make_model(self.options, self.seed, STUDENT)
        model.load_state_dict(self.state.net)
        return ObjectOutcome(
            student=model.detector.eval(),
            teacher=self._restore_teacher() if self.distils else None,
            steps=self.state.step,
            seconds=self.state.seconds,
            log=self.log,
            last={"loss": self.log.series("student held back")[1][-1]},
        )

    def _restore_teacher(self) -> KeypointNet:
        """Build the teacher from the weights that its training ended with."""
        options = self.options
        teacher = KeypointNet(options.keypoints, options.width, options.size_px)
        teacher.load_state_dict(self.state.stage_start)
        return teacher.eval().requires_grad_(False)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    model.eval()
    try:
        yield
    finally:
        model.train()
