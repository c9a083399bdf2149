"""What can be asked of training keypoints of an object, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sfm_features.depths import DepthKind
from sfm_features.errors import InputError, OptionError
from sfm_features.nets.autolink import STRIDE

Tap = Literal["block1", "block2", "block3", "block4", "up1", "up2", "logits"]
LEAST_IMAGES = 8
_MOST_KEYPOINTS = 64


@dataclass(frozen=True)
class ObjectOptions:
    """How keypoints of a kind of object are trained."""

    depth: Path | None = None
    """Folder of depth maps, named as the images: PNG (8 or 16 bit) or npy. They are
    needed for training only, and some may be missing."""
    image_list: Path | None = None
    """Text file of the images to use, one name a line; without it all are."""
    depth_kind: DepthKind = "auto"
    """Whether larger values are farther (distance: sensors, renderers) or nearer
    (nearness: MiDaS); auto goes by what most maps look like."""
    teacher: Path | None = None
    """Weights of a teacher that was trained before (teacher.safetensors)."""
    keypoints: int = 16
    """Keypoints of the object."""
    steps: int = 20_000
    """Steps of training."""
    teacher_steps: int = 0
    """Steps of the depth teacher, before; 0 = as many."""
    batch: int = 32
    """Images in a step."""
    size_px: int = 128
    """Images are squeezed into squares of this side, a multiple of 16."""
    width: int = 32
    """Channels of the first layer; others have up to eight times as many."""
    learning_rate: float = 1e-3
    """Highest learning rate."""
    link_rate: float = 0.05
    """Learning rate of the links' logits."""
    thickness: float = 1e-3
    """How thick links are drawn, as exp(-d^2 / thickness); the image spans 2."""
    levels: int = 0
    """How often the painter halves an image; 0 = down to 16 px. The fewer, the less far
    from a link it can paint what the link stands for."""
    hidden_share: float = 0.8
    """Share of the image that has to be painted from the links."""
    taps: tuple[Tap, ...] = ("up2",)
    """Embeddings of the student that are held to the teacher's."""
    distillation: float = 1.0
    """How much that counts."""
    pixels: float = 1.0
    """How much plain differences of colours count, beside those of features."""
    vgg_weights: Path | None = None
    """Compare pictures by VGG16 with these weights (torchvision's), not by evo."""
    flip: bool = True
    """Mirror every second image."""
    crop_share: float = 0.1
    """Crops leave out up to this share of each side."""
    validations: int = 8
    """How often to measure on held-back images, and to draw skeletons."""
    checkpoint_steps: int = 200
    """Steps between two checkpoints."""

    def check(self) -> None:
        """Raise OptionError for a value that makes no sense."""
        self._check_keypoints()
        if self.size_px < 2 * STRIDE or self.size_px % STRIDE:
            raise OptionError(
                f"--size-px {self.size_px}: must be a multiple of {STRIDE}, at least "
                f"{2 * STRIDE}"
            )
        for name in ("steps", "width", "validations", "checkpoint_steps"):
            if getattr(self, name) < 1:
                flag = name.replace("_", "-")
                raise OptionError(f"--{flag} {getattr(self, name)}: must be at least 1")
        if not 0 <= self.levels <= 4:
            raise OptionError(f"--levels {self.levels}: must be from 0 to 4")
        if self.batch < 2:
            raise OptionError(f"--batch {self.batch}: must be at least 2")
        for name in ("learning_rate", "link_rate", "thickness"):
            if not getattr(self, name) > 0:
                flag = name.replace("_", "-")
                raise OptionError(
                    f"--{flag} {getattr(self, name)}: must be more than 0"
                )
        for name, most in (("hidden_share", 0.99), ("crop_share", 0.4)):
            if not 0 <= getattr(self, name) <= most:
                flag = name.replace("_", "-")
                raise OptionError(
                    f"--{flag} {getattr(self, name)}: must be from 0 to {most}"
                )
        if self.depth is not None and not self.taps:
            raise OptionError("--taps: name at least one, or leave --depth out")
        if self.teacher is not None and self.depth is None:
            raise OptionError("--teacher: sees depth maps; give them with --depth")
        if self.depth is not None and not self.depth.is_dir():
            raise InputError(f"{self.depth}: no such folder; check --depth")

    @property
    def painter_levels(self) -> int:
        """How often the painter halves an image."""
        return self.levels or max(1, self.size_px.bit_length() - 5)

    def _check_keypoints(self) -> None:
        if not 2 <= self.keypoints <= _MOST_KEYPOINTS:
            raise OptionError(
                f"--keypoints {self.keypoints}: must be from 2, which one link needs, "
                f"to {_MOST_KEYPOINTS}; a body has about 16"
            )


@dataclass(frozen=True)
class ObjectSummary:
    """What came out: the weights, their figures, and what was left out."""

    weights: Path
    steps: int
    seconds: float
    images: int
    depth_maps: int
    skipped: dict[str, str] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)
    last: dict[str, float] = field(default_factory=dict)

    def to_text(self) -> str:
        """Say it in lines."""
        figures = ", ".join(f"{name} {value:.3f}" for name, value in self.last.items())
        lines = [
            f"{self.weights}: {self.steps} steps in {self.seconds / 60:.1f} minutes on "
            f"{self.images} images, {self.depth_maps} of them with depth",
            f"on held-back images: {figures}",
        ]
        lines += [f"skipped {name}: {reason}" for name, reason in self.skipped.items()]
        lines += [f"doubtful: {doubt}" for doubt in self.doubts]
        return "\n".join(lines)
