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
    mix,
    to_channels_last,
)
from sfm_features.training.checkpoints import (
    State,
    load_checkpoint,
    refuse_infinite,
    save_checkpoint,
)
from sfm_features.training.data import Batch, PairSource
from sfm_features.training.device import flush_denormals
from sfm_features.training.ensemble import Ensemble
from sfm_features.training.evolve import Stage, schedule_rate
from sfm_features.training.judge import Judge
from sfm_features.training.lessons import Planner
from sfm_features.training.multiview import Collections
from sfm_features.training.objective import Objective
from sfm_features.training.photos import PhotoSet
from sfm_features.training.runlog import RunLog, StepReport, make_bar
from sfm_features.training.settings import Outcome, Settings
from sfm_features.training.stream import stream_batches
from sfm_features.training.town import TownPairs
from sfm_features.training.turntables import TurntablePairs
from sfm_features.training.whitening import BATCHES, whiten

logger = logging.getLogger(__name__)

_WARM_UP_STEPS = 50
_UNSEEN = 1_000_000
"""Number of a batch that no run gets to."""


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
        ensemble: Ensemble | None = None,
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
        self.judge = Judge(photos, held_back, folder, settings, device, seed)
        self.depth_teacher: DenseNet | None = None
        if depth_teacher is not None:
            self.depth_teacher = depth_teacher.to(device).eval().requires_grad_(False)
        self.ensemble = ensemble
        self.objective = Objective(
            settings.descriptor_loss,
            settings.switches,
            settings.weights,
            settings.pg2sd,
            settings.distillation,
        ).to(device)
        self.first = copy_weights(self.net) if settings.start_share > 0 else {}
        # The averaged weights: what is validated, what labels photos, what is kept.
        self.teacher = copy.deepcopy(self.net).eval().requires_grad_(False)
        self.optimizer = self._make_optimizer()
        self.state = State(config=self._describe())
        self.source: PairSource | None = None
        self.frozen: DenseNet | None = None
        self.tutor: DenseNet | None = None

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
            "held_back": repr(list(self.held_back)),
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
        before = time.perf_counter()
        lessons = self.planner.prepare(stage, self.state.stage, start.eval())
        # Else labels and reconstructions could take all the minutes of a stage.
        self.started += time.perf_counter() - before
        self.judge.views = lessons.views
        self.judge.draw_stage(self.state.stage, start)
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
        report = StepReport(self.bar, self.log, timed=not self.settings.steps)
        assert self.source is not None
        batches = stream_batches(self.source, self.state.step, self.settings.workers)
        try:
            while (progress := self._progress()) < stage.end:
                step, batch = next(batches)
                if self.settings.sees_depth:
                    batch = batch.see_depth()
                figures = self._step(batch.to(self.device), stage, progress)
                self.state.step = step + 1
                score = self.judge.score
                report.add(self.state.step, self.state.seconds, figures, score)
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
            self.depth_teacher, self.ensemble,
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

    def _is_due(self, before: float) -> bool:
        """Tell whether the run has passed one of its moments of validation."""
        count = self.settings.validations
        return math.floor(self._progress() * count) > math.floor(before * count)

    def _validate(self) -> bool:
        """Validate; False if it stays worse than the start, where that counts."""
        scores = self.judge.measure(self.teacher)
        difficulty = self.objective.guidance.describe(self._progress())
        self.judge.write_down(scores, difficulty, self.state, self.log)
        return self.judge.keep_best(scores, self.teacher, self.state)

    def _checkpoint(self) -> None:
        self.state.net = self.net.state_dict()
        self.state.average = self.teacher.state_dict()
        self.state.objective = self.objective.state_dict()
        self.state.optimizer = self.optimizer.state_dict()
        save_checkpoint(self.checkpoints, self.state)

    def _whiten(self) -> None:
        """Whiten the descriptors of the weights that are kept, and measure again.

        Checkpoints hold them as they were: a run that is over is whitened anew.
        """
        if self.source is None:
            self.state.stage = len(self.settings.stages) - 1
            self._begin(self.settings.stages[-1], resumed=True)
            assert self.source is not None
        batches = (self.source.make_batch(_UNSEEN + k) for k in range(BATCHES))
        if whiten(self.teacher, batches, self.device):
            self._validate()

    def _finish(self) -> Outcome:
        """Choose the weights and say how it went."""
        if not self.log.was_validated(self.state.step):
            self._validate()
        self._checkpoint()
        kept_start = self.judge.restore_best(self.teacher, self.state)
        if self.settings.start_share > 0:
            mix(self.teacher, self.first, self.settings.start_share)
            self._validate()
        if self.settings.whiten:
            self._whiten()
        return Outcome(
            self.teacher, self.state.step, self.state.seconds, self.log, kept_start
        )
