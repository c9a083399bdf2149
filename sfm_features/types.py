"""The values that cross from one room to another, and THE pixel convention.

Pixels: original-image pixels, x to the right, y down, the centre of the top-left
pixel is (0, 0), in the frame of the stored file (EXIF orientation is never baked
into coordinates). COLMAP puts that same centre at (0.5, 0.5); `colmap.py` adds
`PIXEL_CENTRE` on the way in and takes it off on the way out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sfm_features.errors import require_at_least

PIXEL_CENTRE = 0.5
"""COLMAP's coordinate of the centre of the top-left pixel."""

F16: TypeAlias = NDArray[np.float16]
F32: TypeAlias = NDArray[np.float32]
F64: TypeAlias = NDArray[np.float64]
I32: TypeAlias = NDArray[np.int32]
I64: TypeAlias = NDArray[np.int64]
U8: TypeAlias = NDArray[np.uint8]
Bool: TypeAlias = NDArray[np.bool_]
Pair: TypeAlias = tuple[str, str]


def undo_resize(xy: F32, original_wh: Sequence[int], resized_wh: Sequence[int]) -> F32:
    """Map pixels (N, 2) of a resized image back to the original image."""
    scale = np.divide(original_wh, resized_wh)
    return ((xy + PIXEL_CENTRE) * scale - PIXEL_CENTRE).astype(np.float32)


@dataclass(frozen=True)
class RunOptions:
    """How any stage runs, whatever it does."""

    device: str = "auto"
    """cpu, cuda, or auto: a GPU if there is one."""
    seed: int = 0
    """Same seed, same machine: same result."""
    strict: bool = False
    """Stop at the first bad image or pair instead of skipping it."""

    def __post_init__(self) -> None:
        require_at_least(0, seed=self.seed)  # COLMAP takes -1 as random


@dataclass(frozen=True)
class Features:
    """Local features of one image.

    keypoints (N, 2) f32, descriptors (N, D) f32 or f16 with unit rows, scores (N,) f32,
    image_size (width, height) of the original image, uncertainty_px of a keypoint.
    """

    keypoints: F32
    descriptors: NDArray[np.floating[Any]]
    scores: F32
    image_size: tuple[int, int]
    uncertainty_px: float = 1.0

    def __post_init__(self) -> None:
        count = len(self.keypoints)
        assert self.keypoints.shape == (count, 2), self.keypoints.shape
        assert self.keypoints.dtype == np.float32, self.keypoints.dtype
        assert self.descriptors.ndim == 2 and len(self.descriptors) == count
        assert self.scores.shape == (count,), self.scores.shape

    def __len__(self) -> int:
        return len(self.keypoints)


@dataclass(frozen=True)
class Matches:
    """Matches of an image pair: indices (K, 2) i32 into both, scores (K,) f32."""

    indices: I32
    scores: F32

    def __post_init__(self) -> None:
        assert self.indices.ndim == 2 and self.indices.shape[1] == 2
        assert self.indices.dtype == np.int32, self.indices.dtype
        assert self.scores.shape == (len(self.indices),)

    def __len__(self) -> int:
        return len(self.indices)

    def reversed(self) -> Matches:
        """Return the same matches seen from the second image."""
        return Matches(np.ascontiguousarray(self.indices[:, ::-1]), self.scores)


class Extractor(Protocol):
    """Turns an image into features; inherit to get the batched loop for free."""

    def extract(self, image: U8) -> Features:
        """Extract from one RGB image (H, W, 3); coordinates are that image's pixels."""
        ...

    def extract_batch(self, images: Sequence[U8]) -> list[Features]:
        """Extract from images of one size."""
        return [self.extract(image) for image in images]

    def count_side_by_side(self) -> int:
        """Count the threads that may extract at once, each on one core."""
        return 1

    @contextmanager
    def work_side_by_side(self) -> Iterator[Callable[[], None]]:
        """While it lasts, threads that call what is given may extract side by side."""
        yield lambda: None


class Matcher(Protocol):
    """Matches the features of two images. Inherit from it to get the loop for free."""

    def match(self, a: Features, b: Features) -> Matches:
        """Match `a` against `b`."""
        ...

    def match_many(self, a: Features, others: Sequence[Features]) -> list[Matches]:
        """Match one image against several."""
        return [self.match(a, b) for b in others]


@dataclass(frozen=True)
class Camera:
    """Intrinsics, as COLMAP defines them.

    `params` follow COLMAP's model of that name, so the principal point is in COLMAP's
    pixel frame: a centred one is (width / 2, height / 2).
    """

    model: str
    width: int
    height: int
    params: tuple[float, ...]


@dataclass(frozen=True)
class Pose:
    """A rigid transform `cam_from_world`: x_cam = rotation @ x_world + translation."""

    rotation: F64
    translation: F64

    @property
    def centre(self) -> F64:
        """The camera's centre in the world."""
        centre: F64 = -self.rotation.T @ self.translation
        return centre


@dataclass(frozen=True)
class RegisteredImage:
    """An image of a model: where it stands and which keypoints became 3D points.

    point_ids (N,) i64 has a row of `Model.points` for each keypoint, or -1.
    """

    name: str
    camera: Camera
    cam_from_world: Pose
    keypoints: F32
    point_ids: I64


@dataclass(frozen=True)
class Model:
    """A reconstruction, read: images by name and P points.

    points (P, 3) f64, colours (P, 3) u8, errors_px (P,) f64, track_lengths (P,) i64.
    An error of -1 was not computed, as other tools may leave it.
    """

    images: Mapping[str, RegisteredImage]
    points: F64
    colours: U8
    errors_px: F64
    track_lengths: I64

    @property
    def mean_track_length(self) -> float:
        """Images that see a point, on average."""
        return float(self.track_lengths.mean()) if len(self.points) else 0.0

    @property
    def mean_error_px(self) -> float:
        """Mean reprojection error over points, apart from those it is not known of."""
        known = self.errors_px[self.errors_px >= 0]
        return float(known.mean()) if len(known) else 0.0


LocalizationStatus: TypeAlias = Literal[
    "localized",
    "no features",
    "no candidates",
    "few matches",
    "few inliers",
    "degenerate",
]


@dataclass(frozen=True)
class Localization:
    """What is known of a query. A pose is there only if the status is `localized`.

    covariance (6, 6) of rotation (radians) and translation. Matches are pixels (M, 2)
    of the query, rows (M,) of the map's points, and whether they fit (M,).
    """

    status: LocalizationStatus
    reason: str
    cam_from_world: Pose | None
    camera: Camera
    covariance: F64 | None = None
    retrieved: tuple[str, ...] = ()
    xy: F32 = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    point_rows: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    inliers: Bool = field(default_factory=lambda: np.zeros(0, np.bool_))
    milliseconds: dict[str, float] = field(default_factory=dict)

    @property
    def num_inliers(self) -> int:
        """Matches that fit the pose."""
        return int(self.inliers.sum())
