"""How a run is judged: measured on held-back photos, its best weights kept."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from sfm_features.nets.dense import DenseNet
from sfm_features.training.averaging import copy_weights
from sfm_features.training.checkpoints import State
from sfm_features.training.photos import PhotoSet
from sfm_features.training.pictures import draw_round
from sfm_features.training.runlog import RunLog, draw_curves, draw_difficulty
from sfm_features.training.settings import Settings
from sfm_features.training.validate import Scores, ViewPair, validate

logger = logging.getLogger(__name__)

_WORSE_IN_A_ROW = 3
_DRAWN = 4


class Judge:
    """Measures weights, shows what they see, and tells when they only get worse."""

    def __init__(
        self,
        photos: PhotoSet,
        held_back: Sequence[int],
        folder: Path,
        settings: Settings,
        device: torch.device,
        seed: int,
    ) -> None:
        self.photos, self.held_back = photos, list(held_back)
        if settings.sees_depth:
            self.photos = photos.show_depth()
            known = {*photos.list_with_depth()}
            self.held_back = [i for i in held_back if i in known] or self.held_back
        self.folder, self.settings = folder, settings
        self.device, self.seed = device, seed
        self.views: list[ViewPair] = []
        self.score: float | None = None
        """The latest one."""

    def draw_stage(self, number: int, start: DenseNet) -> None:
        """Draw what a stage starts with, unless that is done."""
        path = self.folder / "rounds" / f"{number:02d}-before.jpg"
        drawn = [self.photos.photos[i] for i in self.held_back[:_DRAWN]]
        if drawn and self.settings.pictures and not path.exists():
            draw_round(path, drawn, start, self.device, self.seed)

    def measure(self, net: DenseNet) -> Scores:
        """Measure a network on what is held back."""
        scores = validate(
            net, self.photos, self.held_back, self.device, self.seed, self.views
        )
        self.score = scores.overall
        return scores

    def write_down(
        self, scores: Scores, difficulty: dict[str, Any], state: State, log: RunLog
    ) -> None:
        """Log what was measured, and draw it beside what was before."""
        figures = {k: v for k, v in vars(scores).items() if v is not None}
        if difficulty:
            figures["difficulty"] = difficulty
        log.add(state.step, seconds=state.seconds, validation=True, **figures)
        if self.settings.pictures:
            draw_curves(log, self.folder / "curves.png")
            draw_difficulty(log, self.folder / "difficulty.png")
        logger.info(
            "step %d: matching score %.3f by day, %.3f against night",
            state.step,
            scores.matching_score,
            scores.night_matching_score,
        )

    def keep_best(self, scores: Scores, net: DenseNet, state: State) -> bool:
        """Keep weights that are best; False if it stays worse than the start.

        Without settings.keep_best nothing is kept, and nothing is too bad.
        """
        if not self.settings.keep_best:
            return True
        score = scores.overall
        if state.first_score < 0:
            state.first_score = state.best_score = score
            state.best = copy_weights(net)
        elif score > state.best_score:
            state.best_score, state.best = score, copy_weights(net)
        worse = score < state.first_score
        state.worse = state.worse + 1 if worse else 0
        return state.worse < _WORSE_IN_A_ROW

    def restore_best(self, net: DenseNet, state: State) -> bool:
        """Give a network the weights that were kept; True if those are the first."""
        if not self.settings.keep_best:
            return False
        net.load_state_dict(state.best)
        return state.best_score <= state.first_score
