"""What a report is made of."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sfm_features.metrics import ModelErrors
from sfm_features.types import F32, I32, Model, Pair


@dataclass(frozen=True)
class ReportData:
    """A finished reconstruction, or a failed one, in plain values.

    Pairs map to indices (K, 2) into the keypoints (N, 2) of their two images, and
    either mapping of pairs may read them lazily.
    """

    images: Path
    """Folder that the image names are relative to."""
    keypoints: Mapping[str, F32]
    """Keypoints of every image that was extracted."""
    verified: Mapping[Pair, I32]
    """Matches that passed the geometric verification; pairs without may be absent."""
    matches: Mapping[Pair, I32] = field(default_factory=dict)
    """Matches before the verification, to show what was rejected."""
    model: Model | None = None
    """The model, the largest one if there are several; None when none came out."""
    other_models: Sequence[Collection[str]] = ()
    """Names of the images of each other model."""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Images that could not be used, with the reason."""
    unregistered: Mapping[str, str] = field(default_factory=dict)
    """Why images are not in the model; the report finds words for those not named."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """What each stage took, in the order of the stages."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options used; a mapping or a dataclass as a value becomes a group of its own."""
    errors: ModelErrors | None = None
    """Comparison with the true poses, where these are known."""
    hint: str = ""
    """What to try, if it is known why things went wrong."""
    more_images: Sequence[Path] = ()
    """Where images are that are not in `images`."""
    is_of_new: bool = False
    """Pairs are only those with an image that was added to a map."""
    title: str = ""
    """Heading; default: the name of the images' folder."""

    @property
    def names(self) -> list[str]:
        """Every image that was asked for, bad ones too, sorted."""
        return sorted({*self.keypoints, *self.skipped, *self.registered})

    def find(self, name: str) -> Path:
        """Return where an image is, or would be."""
        paths = [folder / name for folder in (self.images, *self.more_images)]
        return next((path for path in paths if path.is_file()), paths[0])

    @property
    def registered(self) -> Collection[str]:
        """Names of the images in the model."""
        return self.model.images.keys() if self.model else ()
