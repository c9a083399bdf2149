"""The training loop: stages, steps, checkpoints, validation; goes on after any stop."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from sfm_features.nets.dense import DenseNet
from sfm_features.training.averaging import (
    copy_weights,
    follow,
    hash_weights,
    to_channels_last,
)
from sfm_features.training.checkpoints import (
    State,
    load_checkpoint,
    refuse_infinite,
    save_checkpoint,
)
from sfm_features.training.data import (
    Batch,
    PairSource,
    stream_batches,
)
from sfm_features.training.device import flush_denormals
from sfm_features.training.evolve import Stage, schedule_rate
from sfm_features.training.lessons import Planner
from sfm_features.training.multiview import Collections
from sfm_features.training.objective import Objective
from sfm_features.training.photos import PhotoSet
from sfm_features.training.pictures import draw_round
from sfm_features.training.runlog import RunLog, draw_curves, draw_difficulty, make_bar
from sfm_features.training.settings import Outcome, Settings
from sfm_features.training.town import TownPairs
from sfm_features.training.turntables import TurntablePairs
from sfm_features.training.validate import Scores, ViewPair, validate

logger = logging.getLogger(__name__)

_WARM_UP_STEPS = 50
_LOG_STEPS = 20
_WORSE_IN_A_ROW = 3
_DRAWN = 4


class Trainer:
    """Trains one network in one folder."""

    def __init__(
        self,
        net: DenseNet,
        photos: PhotoSet,
        held_back: Sequence[int],
        folder: Path,
        settings: Settings,
        device: torch.device = torch.device("cpu"),
        seed: int = 0,
        town: TownPairs | None = None,
        collections: Collections | None = None,
        turntables: TurntablePairs | None = None,
        on_step: Callable[[int], None] | None = None,
        depth_teacher: DenseNet | None = None,
    ) -> None:
        self.net = to_channels_last(net.to(device))
        self.photos, self.held_back = photos, held_back
        self.folder, self.settings, self.device = folder, settings, device
        self.seed, self.on_step = seed, on_step
        # A teacher learns from the same labels, of photos: depth shows no texture.
        lessons = folder.parent if settings.sees_depth else folder
        self.planner = Planner(
            photos, held_back, lessons, settings, device, seed, town, collections,
            turntables,
        )  # fmt: skip
        self.shown, self.measured = photos, list(held_back)
        if settings.sees_depth:
            self.shown = photos.show_depth()
            known = {*photos.list_with_depth()}
            self.measured = [i for i in held_back if i in known] or self.measured
        self.depth_teacher: DenseNet | None = None
        if depth_teacher is not None:
            self.depth_teacher = depth_teacher.to(device).eval().requires_grad_(False)
        self.objective = Objective(
            settings.descriptor_loss,
            settings.switches,
            settings.weights,
            settings.pg2sd,
            settings.distillation,
        ).to(device)
        # The averaged weights: what is validated, what labels photos, what is kept.
        self.teacher = copy.deepcopy(self.net).eval().requires_grad_(False)
        self.optimizer = self._make_optimizer()
        self.state = State(config=self._describe())
        self.frozen: DenseNet | None = None
        self.tutor: DenseNet | None = None
        self.scores: list[Scores] = []
        self.views: list[ViewPair] = []
        self.recent: list[dict[str, float]] = []

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.folder / "checkpoints"

    def run(self) -> Outcome:
        """Train to the end, from the newest checkpoint if there is one."""
        resumed = self._resume()
        self.log = RunLog(self.folder / "log.jsonl", self.state.step)
        self.started = time.perf_counter() - self.state.seconds
        stages = self.settings.stages
        with flush_denormals(), self._make_bar() as self.bar:
            while self.state.stage < len(stages):
                stage = stages[self.state.stage]
                self._begin(stage, resumed)
                resumed = False
                if self.state.step == 0 and self.state.stage == 0:
                    self._validate()
                self.recent.clear()
                goes_on = self._train(stage)
                self.state.stage = self.state.stage + 1 if goes_on else len(stages)
        return self._finish()

    def _resume(self) -> bool:
        state = load_checkpoint(self.checkpoints, self.state.config)
        if state is None:
            return False
        self.state = state
        self.net.load_state_dict(state.net)
        self.teacher.load_state_dict(state.average)
        self.objective.load_state_dict(state.objective)
        self.optimizer.load_state_dict(state.optimizer)
        logger.info("goes on at step %d, %.0f s", state.step, state.seconds)
        return True

    def _describe(self) -> dict[str, str]:
        return self.settings.describe() | {
            "seed": repr(self.seed),
            "network": type(self.net).__name__,
            "photos": self.photos.fingerprint(),
            "depth_teacher": repr(
                hash_weights(copy_weights(self.depth_teacher))
                if self.depth_teacher
                else ""
            ),
        }

    def _make_optimizer(self) -> torch.optim.Optimizer:
        decay = self.settings.weight_decay
        groups = [
            {"params": list(self.net.parameters()), "weight_decay": decay},
            {"params": list(self.objective.parameters()), "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, self.settings.learning_rate)

    def _make_bar(self) -> tqdm[Any]:
        desc = "depth teacher" if self.settings.sees_depth else "training"
        steps, minutes = self.settings.steps, self.settings.minutes
        return make_bar(desc, steps, minutes, self.state.step, self.state.seconds)

    def _begin(self, stage: Stage, resumed: bool) -> None:
        """Set a stage up: its labels, what it preserves, its optimizer."""
        if not resumed:
            if stage.fresh_optimizer:
                self.optimizer = self._make_optimizer()
            self.state.stage_start = copy_weights(self.teacher)
            # Written before the labels, so that a stop among them does not shift them.
            self._checkpoint()
            self.log.add(self.state.step, stage=self.state.stage, name=stage.name)
        start = copy.deepcopy(self.teacher)
        start.load_state_dict(self.state.stage_start)
        lessons = self.planner.prepare(stage, self.state.stage, start.eval())
        self.views = lessons.views
        path = self.folder / "rounds" / f"{self.state.stage:02d}-before.jpg"
        drawn = [self.shown.photos[i] for i in self.measured[:_DRAWN]]
        if drawn and self.settings.pictures and not path.exists():
            draw_round(path, drawn, start, self.device, self.seed)
        alone = stage.detector != stage.descriptor
        # In training mode, as the network that it is compared with.
        preserved = self.settings.switches.preservation and alone
        self.frozen = copy.deepcopy(start).train() if preserved else None
        tutors = {"own": None, "snapshot": start, "average": self.teacher}
        self.tutor = tutors[self.settings.pg2sd.teacher]
        self.source = PairSource(
            self.photos,
            lessons.labels,
            self.settings.data.soften(stage.hardness),
            self.seed,
            lessons.related,
            self.held_back,
        )

    def _train(self, stage: Stage) -> bool:
        """Train until the stage is over; False when training should stop altogether."""
        self.net.train()
        batches = stream_batches(self.source, self.state.step, self.settings.workers)
        try:
            while (progress := self._progress()) < stage.end:
                step, batch = next(batches)
                if self.settings.sees_depth:
                    batch = batch.see_depth()
                figures = self._step(batch.to(self.device), stage, progress)
                self.state.step = step + 1
                self._report(figures)
                if self.on_step:
                    self.on_step(self.state.step)
                if self._is_due(progress) and not self._validate():
                    return False
                if self.state.step % self.settings.checkpoint_steps == 0:
                    self._checkpoint()
        finally:
            batches.close()
        return True

    def _progress(self) -> float:
        """Return how much of the run is done, from 0 to 1."""
        self.state.seconds = time.perf_counter() - self.started
        if self.settings.steps:
            return self.state.step / self.settings.steps
        return self.state.seconds / (60 * self.settings.minutes)

    def _step(self, batch: Batch, stage: Stage, progress: float) -> dict[str, float]:
        """Update the weights once."""
        rate = schedule_rate(stage, progress, self.settings.last_rate)
        rate *= min(1.0, (self.state.step + 1) / _WARM_UP_STEPS)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * self.settings.learning_rate
        parts = self.objective(
            self.net, batch, stage, self.frozen, progress, self.tutor,
            self.depth_teacher,
        )  # fmt: skip
        figures = {name: float(value.detach()) for name, value in parts.items()}
        for name, value in figures.items():
            self._check(f"the loss {name!r}", value, batch)
        self.optimizer.zero_grad(set_to_none=True)
        parts["loss"].backward()
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), self.settings.clip)
        self._check("the gradient", float(norm), batch)
        self.optimizer.step()
        follow(self.teacher, self.net, self.settings.average, self.state.step)
        return figures

    def _check(self, what: str, value: float, batch: Batch) -> None:
        refuse_infinite(what, value, self.state.step + 1, batch.names, self.checkpoints)

    def _report(self, figures: dict[str, float]) -> None:
        self.bar.update(1 if self.settings.steps else self.state.seconds - self.bar.n)
        self.recent.append(figures)
        if self.state.step % _LOG_STEPS:
            return
        # Single steps jump about: webcams by night are harder than a crop by day.
        means = {
            key: sum(found) / len(found)
            for key in figures
            if (found := [r[key] for r in self.recent if key in r])
        }
        self.recent.clear()
        self.log.add(self.state.step, seconds=self.state.seconds, **means)
        shown = {k: f"{v:.3f}" for k, v in means.items()}
        if self.scores:
            shown["validation"] = f"{self.scores[-1].overall:.3f}"
        self.bar.set_postfix(shown, refresh=False)

    def _is_due(self, before: float) -> bool:
        """Tell whether the run has passed one of its moments of validation."""
        count = self.settings.validations
        return math.floor(self._progress() * count) > math.floor(before * count)

    def _validate(self) -> bool:
        """Validate; False if it stays worse than the start, where that counts."""
        scores = validate(
            self.teacher,
            self.shown,
            self.measured,
            self.device,
            self.seed,
            self.views,
        )
        self.scores.append(scores)
        figures = {k: v for k, v in vars(scores).items() if v is not None}
        if spread := self.objective.guidance.describe(self._progress()):
            figures["difficulty"] = spread
        seconds = self.state.seconds
        self.log.add(self.state.step, seconds=seconds, validation=True, **figures)
        if self.settings.pictures:
            draw_curves(self.log, self.folder / "curves.png")
            draw_difficulty(self.log, self.folder / "difficulty.png")
        logger.info(
            "step %d: matching score %.3f by day, %.3f against night",
            self.state.step,
            scores.matching_score,
            scores.night_matching_score,
        )
        if not self.settings.keep_best:
            return True
        score = scores.overall
        if self.state.first_score < 0:
            self.state.first_score = self.state.best_score = score
            self.state.best = copy_weights(self.teacher)
        elif score > self.state.best_score:
            self.state.best_score, self.state.best = score, copy_weights(self.teacher)
        worse = score < self.state.first_score
        self.state.worse = self.state.worse + 1 if worse else 0
        return self.state.worse < _WORSE_IN_A_ROW

    def _checkpoint(self) -> None:
        self.state.net = self.net.state_dict()
        self.state.average = self.teacher.state_dict()
        self.state.objective = self.objective.state_dict()
        self.state.optimizer = self.optimizer.state_dict()
        save_checkpoint(self.checkpoints, self.state)

    def _finish(self) -> Outcome:
        """Choose the weights and say how it went."""
        if not self.scores:
            self._validate()
        self._checkpoint()
        kept_start = False
        if self.settings.keep_best:
            kept_start = self.state.best_score <= self.state.first_score
            self.teacher.load_state_dict(self.state.best)
        return Outcome(
            self.teacher, self.state.step, self.state.seconds, self.log, kept_start
        )
