"""What can be asked of training and of adapting, and what comes back."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal, TypeAlias

from sfm_features.depths import DepthKind
from sfm_features.errors import InputError, OptionError
from sfm_features.training.evolve import DescriptorLoss, Recipe, Strategy, Switches
from sfm_features.training.photos import MIN_SIDE_PX

Warps: TypeAlias = Literal["mild", "strong"]


@dataclass(frozen=True)
class TrainOptions:
    """How a network is trained."""

    net: str = "evo"
    """Network: evo (fast, the one we ship) or sekd (the published architecture)."""
    recipe: Recipe = "joint"
    """Update everything at once, or alternate as SEKD does."""
    minutes: float = 60.0
    """How long to train; the learning rate follows. Labels and reconstructions come on
    top."""
    steps: int = 0
    """Train for so many steps instead; only this repeats exactly."""
    rounds: int = 3
    """How often the network teaches itself anew, the first labels included."""
    first_labels: Literal["corners", "random"] = "corners"
    """Keypoints of the first round."""
    more_photos: tuple[Path, ...] = ()
    """Further folders of photos."""
    batch: int = 8
    """Pairs of crops in a step."""
    crop_px: int = 256
    """Side of a crop, a multiple of 32."""
    points: int = 256
    """Corresponding points of a pair that descriptors learn from."""
    learning_rate: float = 4e-3
    """Highest learning rate."""
    descriptor_loss: DescriptorLoss = "softmax"
    """Dual softmax with a learned temperature, or hardest triplet."""
    strategy: Strategy = "none"
    """Easy samples first (pgcs), softened predictions (g2sds), or both (pg2sd)."""
    aligned_share: float = 0.2
    """Share of pairs from fixed cameras: subfolders of day_* and night_* frames; less
    in the first rounds."""
    night_share: float = 0.25
    """Share of crops that are turned into night; less in the first rounds."""
    layer_share: float = 0.4
    """Share of pairs of crops of one photo that have pieces of other photos in front,
    moving on their own: parallax and occlusion."""
    town_views: int = 0
    """Views of a rendered town to train on, by day and by night; 0 = none."""
    town_share: float = 0.1
    """Share of pairs from the town, if there is one."""
    multiview: Path | None = None
    """Folder of photos whose subfolders show one place each: each round but the first
    reconstructs them, and learns from the points."""
    track_share: float = 0.25
    """Share of pairs from two views of such a place."""
    views: int = 6
    """Random affine views of a photo that its labels are averaged over."""
    label_photos: int = 600
    """Photos that a round labels afresh, others each time; 0 = all."""
    density: float = 4.0
    """Keypoints wanted per 1,000 px of a photo."""
    detector_repeatability: bool = True
    """Pull the detector's maps of both images of a pair together."""
    descriptor_repeatability: bool = True
    """Pull corresponding descriptors together (without: triplet only)."""
    descriptor_distinctness: bool = True
    """Push other descriptors away (without: triplet only)."""
    reliability: bool = True
    """Choose keypoints that descriptors tell from their neighbours."""
    affine_adaption: bool = True
    """Average labels over affine views."""
    preservation: bool = True
    """Keep one part as it is while the other is updated (alternating recipe)."""
    average: float = 0.998
    """Share of the averaged weights that a step keeps; 0 = no averaging."""
    start_share: float = 0.0
    """Share of the weights that training went on from in the mean that is kept; half
    keeps nearly all of what is learned, and little of what is forgotten."""
    teachers: tuple[str, ...] = ()
    """Trained networks (names or files): teach the descriptors what all of theirs say
    side by side, in one round, and leave the keypoints as they are. One named twice
    counts twice; evo@2 sees every picture at twice its size."""
    whiten: bool = False
    """Whiten evo's descriptors at the end: more matches are right, mostly."""
    max_side: int = 480
    """Photos are shrunk to this longer side (px)."""
    memory_mib: int = 3000
    """Memory for decoded photos; the rest goes to a file in OUTPUT."""
    validation_photos: int = 16
    """Photos that are held back to measure on."""
    validations: int = 12
    """How often to measure."""
    checkpoint_steps: int = 200
    """Steps between two checkpoints."""
    workers: int = 1
    """Processes that prepare batches; one is a thread, and does for a CPU."""

    def check(self) -> None:
        """Raise OptionError for a value that makes no sense."""
        _check_numbers(self)
        _check_steps(self)
        if self.multiview is not None and not self.multiview.is_dir():
            raise InputError(f"{self.multiview}: no such folder; check --multiview")
        if self.start_share == 1:
            raise OptionError(
                "--start-share 1: nothing of what is learned would be kept"
            )
        if self.teachers and self.strategy != "none":
            raise OptionError(
                f"--strategy {self.strategy} weighs pairs, and --teachers need none; "
                "leave one of them out"
            )
        if self.teachers and self.multiview is not None:
            raise OptionError(
                "--multiview reconstructs places for pairs, and --teachers need none; "
                f"give the photos with --more-photos {self.multiview}"
            )
        both = self.descriptor_repeatability and self.descriptor_distinctness
        if self.descriptor_loss != "triplet" and not both:
            raise OptionError(
                "the dual softmax has no parts to leave out; use --descriptor-loss "
                "triplet to train without repeatability or distinctness"
            )

    def switches(self) -> Switches:
        """Return the parts of the method that are on."""
        names = Switches.__dataclass_fields__
        return Switches(**{name: getattr(self, name) for name in names})


@dataclass(frozen=True)
class AdaptOptions:
    """How a network is adapted to one's own photos."""

    minutes: float = 10.0
    """How long to train; labels and reconstructions come on top."""
    steps: int = 0
    """Train for so many steps instead."""
    rounds: int = 2
    """How often the network teaches itself anew."""
    learning_rate: float = 8e-4
    """Highest learning rate, low so that little is forgotten."""
    replay: tuple[Path, ...] = ()
    """Folders of other photos to mix in, so that they are not forgotten."""
    replay_share: float = 0.25
    """Share of pairs from those."""
    multiview: bool = False
    """The photos, or each subfolder of them, show one place: each round reconstructs
    it, and learns from its points."""
    track_share: float = 0.4
    """Share of pairs from two views of such a place."""
    batch: int = 8
    """Pairs of crops in a step."""
    crop_px: int = 256
    """Side of a crop, a multiple of 32."""
    strategy: Strategy = "none"
    """Easy samples first (pgcs), softened predictions (g2sds), or both (pg2sd)."""
    warps: Warps = "mild"
    """How the views of a pair differ: as photos of a place, taken upright, mostly do,
    or strongly: turned and from far, too."""
    night_share: float = 0.15
    """Share of crops that are turned into night."""
    layer_share: float = 0.4
    """Share of pairs of crops of one photo that have pieces of other photos in front,
    moving on their own: parallax and occlusion."""
    views: int = 6
    """Random affine views of a photo that its labels are averaged over."""
    label_photos: int = 200
    """Photos that a round labels afresh, others each time; 0 = all."""
    max_side: int = 480
    """Photos are shrunk to this longer side (px)."""
    memory_mib: int = 3000
    """Memory for decoded photos; the rest goes to a file in OUTPUT."""
    validation_photos: int = 16
    """Photos that are held back to measure on."""
    validations: int = 10
    """How often to measure, and to stop early if it gets worse."""
    workers: int = 1
    """Processes that prepare batches; one is a thread, and does for a CPU."""

    def check(self) -> None:
        """Raise OptionError for a value that makes no sense."""
        _check_numbers(self)
        _check_steps(self)
        for folder in self.replay:
            if not folder.is_dir():
                raise InputError(f"{folder}: no such folder; check --replay")


@dataclass(frozen=True)
class DepthOptions:
    """What depth maps, masks and turntables teach: to stay on the thing."""

    depth: Path | None = None
    """Folder of depth maps or masks (0 = background), called as the photos, or a
    reconstruction of the photos: their background gets no keypoints."""
    depth_kind: DepthKind = "auto"
    """What larger values of depth maps mean: distance, nearness, or auto."""
    background_weight: float = 1.0
    """How much it counts that there are no keypoints on the background."""
    distillation: float = 0.0
    """How much it counts that embeddings are like those of a teacher that sees depth;
    0 = no teacher."""
    taps: tuple[str, ...] = ()
    """Which embeddings, of evo: down2, down4, down8, down16, up4, up2, the default."""
    teacher_steps: int = 0
    """Steps of the teacher, before; 0 = half as many (or half as long) again."""
    turntables: int = 0
    """Things on turntables before busy rooms to render and train on; 0 = none."""
    turntable_share: float = 0.5
    """Share of pairs from two views of those, if there are any."""

    def check(self) -> None:
        """Raise OptionError or InputError for a value that makes no sense."""
        _check_numbers(self)
        if self.depth is not None and not self.depth.is_dir():
            raise InputError(f"{self.depth}: no such folder; check --depth")


@dataclass(frozen=True)
class TrainSummary:
    """What came out: the weights, their figures, and what was left out."""

    weights: Path
    steps: int
    seconds: float
    photos: int
    skipped: dict[str, str] = field(default_factory=dict)
    first: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    kept_start: bool = False

    def to_text(self) -> str:
        """Say it in lines."""
        figures = ", ".join(
            f"{name.replace('_', ' ')} {self.first.get(name, float('nan')):.3f} -> "
            f"{value:.3f}"
            for name, value in self.last.items()
        )
        lines = [
            f"{self.weights}: {self.steps} steps in {self.seconds / 60:.1f} minutes on "
            f"{self.photos} photos",
            f"on held-back photos: {figures}",
        ]
        if self.kept_start:
            lines.append(
                "training found nothing better, so these are the weights it began with"
            )
        lines += [f"skipped {name}: {reason}" for name, reason in self.skipped.items()]
        return "\n".join(lines)


_LEAST = {
    **dict.fromkeys(("rounds", "batch", "views", "validations", "workers"), 1),
    **dict.fromkeys(("validation_photos", "checkpoint_steps", "points"), 1),
    **dict.fromkeys(("steps", "label_photos", "memory_mib", "town_views"), 0),
    **dict.fromkeys(("background_weight", "distillation", "teacher_steps"), 0),
    **{"turntables": 0, "density": 0},
    "max_side": MIN_SIDE_PX,
}
"""What options must be at least, where there are any."""


def _check_numbers(options: TrainOptions | AdaptOptions | DepthOptions) -> None:
    """Raise OptionError for a number that makes no sense."""
    for option in fields(options):
        value, flag = getattr(options, option.name), option.name.replace("_", "-")
        if option.name.endswith("_share") or option.name == "average":
            if not 0 <= value <= 1:
                raise OptionError(f"--{flag} {value}: must be from 0 to 1")
        elif isinstance(value, float) and not math.isfinite(value):
            raise OptionError(f"--{flag} {value}: is no number")
        elif option.name in _LEAST and value < _LEAST[option.name]:
            lowest = _LEAST[option.name]
            raise OptionError(f"--{flag} {value}: must be at least {lowest}")


def _check_steps(options: TrainOptions | AdaptOptions) -> None:
    if options.crop_px < 32 or options.crop_px % 32:
        raise OptionError(f"--crop-px {options.crop_px}: must be a multiple of 32")
    if options.steps == 0 and not options.minutes > 0:
        raise OptionError(f"--minutes {options.minutes}: must be more than 0")
    if not options.learning_rate > 0:
        raise OptionError(
            f"--learning-rate {options.learning_rate}: must be more than 0"
        )
