"""All that makes a training run what it is, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass

from sfm_features.nets.dense import DenseNet
from sfm_features.training.data import DataOptions
from sfm_features.training.embeddings import Distillation
from sfm_features.training.evolve import DescriptorLoss, Stage, Switches
from sfm_features.training.labels import LabelOptions
from sfm_features.training.objective import LossWeights
from sfm_features.training.pg2sd import Pg2sdOptions
from sfm_features.training.runlog import RunLog


@dataclass(frozen=True)
class Settings:
    """What is done, on what, for how long; one of `steps` and `minutes` is positive."""

    stages: tuple[Stage, ...]
    start: str = ""
    """Hash of the weights to begin with; empty = those that the seed makes."""
    steps: int = 0
    minutes: float = 0.0
    learning_rate: float = 2e-3
    last_rate: float = 0.01
    """Share of the learning rate that is left at the end."""
    clip: float = 5.0
    weight_decay: float = 0.01
    average: float = 0.998
    """Share of the averaged weights that a step keeps; 0 = no averaging."""
    data: DataOptions = DataOptions()
    labels: LabelOptions = LabelOptions()
    multiview: bool = False
    """Places are reconstructed, too, and pairs come from their points."""
    label_photos: int = 0
    """Photos that a stage labels with the network; 0 = all."""
    switches: Switches = Switches()
    weights: LossWeights = LossWeights()
    pg2sd: Pg2sdOptions = Pg2sdOptions()
    distillation: Distillation = Distillation()
    teachers: tuple[str, ...] = ()
    """Votes, names and hashes of networks whose descriptors are taught."""
    sees_depth: bool = False
    """Train on nearness maps in place of photos, of those that have one: a teacher."""
    descriptor_loss: DescriptorLoss = "softmax"
    validations: int = 12
    checkpoint_steps: int = 200
    workers: int = 1
    pictures: bool = True
    """Draw curves, and what the network sees before each stage."""
    start_share: float = 0.0
    """Share of the first weights in the mean that is kept."""
    whiten: bool = False
    """Whiten descriptors at the end."""
    keep_best: bool = False
    """Keep the best weights, be they the first, and stop when they get worse."""

    def describe(self) -> dict[str, str]:
        """Describe what a checkpoint must agree with; speed may differ."""
        parts = {key: repr(value) for key, value in vars(self).items()}
        for free in ("workers", "checkpoint_steps", "pictures"):
            parts.pop(free)
        return parts


@dataclass(frozen=True)
class Outcome:
    """The network as it came out; `kept_start` if nothing better was reached."""

    net: DenseNet
    steps: int
    seconds: float
    log: RunLog
    kept_start: bool
