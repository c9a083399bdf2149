"""Checkpoints that a kill at any moment leaves usable, and training that diverged."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from sfm_features.errors import SfmError, StaleStore
from sfm_features.training.label_store import save_whole

logger = logging.getLogger(__name__)

_KEPT = 2
_DAMAGE = (OSError, RuntimeError, ValueError, TypeError, KeyError, EOFError)


class Diverged(SfmError):
    """A loss or a gradient became infinite or not a number."""


@dataclass
class State:
    """Everything that training goes on from.

    `config` are the settings that make a run what it is; another one is refused.
    """

    config: dict[str, str]
    step: int = 0
    stage: int = 0
    seconds: float = 0.0
    net: dict[str, Any] = field(default_factory=dict)
    objective: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    average: dict[str, Any] = field(default_factory=dict)
    stage_start: dict[str, Any] = field(default_factory=dict)
    """The weights that this stage's labels come from, and that it preserves."""
    best: dict[str, Any] = field(default_factory=dict)
    """The weights that were validated best, where that is kept track of."""
    best_score: float = -1.0
    first_score: float = -1.0
    worse: int = 0
    """How many validations in a row were worse than the first."""


def save_checkpoint(folder: Path, state: State) -> Path:
    """Write a checkpoint and remove all but the newest two."""
    path = folder / f"{state.step:08d}-{state.stage:02d}.pt"
    save_whole(path, lambda temporary: torch.save(vars(state), temporary))
    for old in sorted(folder.glob("*.pt"))[:-_KEPT]:
        old.unlink()
    return path


def load_checkpoint(folder: Path, config: dict[str, str]) -> State | None:
    """Read the newest checkpoint that is whole; none if there is no checkpoint."""
    for path in sorted(folder.glob("*.pt"), reverse=True):
        try:
            # Only tensors and plain values: a checkpoint cannot run code.
            state = State(**torch.load(path, map_location="cpu", weights_only=True))
        except (*_DAMAGE, UnpicklingError) as error:
            logger.warning("%s: damaged (%s), trying the one before", path, error)
            continue
        _check_config(folder, state.config, config)
        return state
    return None


def _check_config(folder: Path, before: dict[str, str], now: dict[str, str]) -> None:
    for key in sorted({*before, *now}):
        if before.get(key) != now.get(key):
            raise StaleStore(
                f"{folder.parent}: was trained with {key} {before.get(key)}, asked for "
                f"{now.get(key)}; give the same settings to go on, or another folder"
            )


def refuse_infinite(
    what: str, value: float, step: int, names: Sequence[str], folder: Path
) -> None:
    """Raise Diverged if a value is not finite: training on would ruin the weights."""
    if math.isfinite(value):
        return
    last = max(folder.glob("*.pt"), default=None)
    raise Diverged(
        f"step {step}: {what} is {value} on {', '.join(names)}; the last good "
        f"checkpoint is {last}; remove what is wrong with these photos, or start again "
        "with a lower learning rate"
    )
