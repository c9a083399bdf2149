"""Surfaces of a scene: textured flat pieces, collected by a builder into arrays."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import cv2
import numpy as np
from numpy.typing import ArrayLike

from sfm_features.types import F32, F64, I32, I64, U8, Bool

ROUND = -1.0
"""The taper of a surface that is an ellipse inside its rectangle."""
MAX_LEVELS = 8
GUTTER = 4


@dataclass(frozen=True)
class Texture:
    """A picture with its smaller copies in one atlas (rows, columns, RGBA) u8.

    Alpha is what glows at night, or for a cutout what is there at all. `scale` and
    `offset` (L, 2) f32 take x, y of the picture to the atlas, level by level.
    """

    atlas: U8
    size: tuple[int, int]
    scale: F32
    offset: F32
    solid: Bool | None


def make_texture(rgba: U8, cutout: bool = False) -> Texture:
    """Build the atlas of a picture (H, W, 4)."""
    height, width = rgba.shape[:2]
    levels = [rgba]
    while min(levels[-1].shape[:2]) >= 8 and len(levels) < MAX_LEVELS:
        h, w = levels[-1].shape[:2]
        small = cv2.resize(levels[-1], (w // 2, h // 2), interpolation=cv2.INTER_AREA)
        levels.append(np.asarray(small, np.uint8))
    column = sum(level.shape[0] + 2 * GUTTER for level in levels[1:])
    rows = max(height + 2 * GUTTER, column)
    extra = levels[1].shape[1] + 2 * GUTTER if len(levels) > 1 else 0
    atlas = np.zeros((rows, width + 2 * GUTTER + extra, 4), np.uint8)
    scale, offset = [], []
    x, y = 0, 0
    for number, level in enumerate(levels):
        padded = cv2.copyMakeBorder(
            level, GUTTER, GUTTER, GUTTER, GUTTER, cv2.BORDER_REPLICATE
        )
        h, w = padded.shape[:2]
        atlas[y : y + h, x : x + w] = padded
        scale.append((level.shape[1] / width, level.shape[0] / height))
        offset.append((x + GUTTER, y + GUTTER))
        x, y = (w, 0) if number == 0 else (x, y + h)
    solid = rgba[..., 3] > 127 if cutout else None
    return Texture(
        atlas,
        (width, height),
        np.array(scale, np.float32),
        np.array(offset, np.float32),
        solid,
    )


@dataclass(frozen=True)
class Surfaces:
    """N flat pieces: origin + u * edge_u + v * edge_v with u, v in 0..1.

    The origin is the top left corner seen from the front, edge_u points right and
    edge_v down, all (N, 3) f64. `texture` (N,) and `region` (N, 4: x, y, width, height
    in texels) say what is painted on it; `taper` (N,) how much narrower the top is.
    """

    origin: F64
    edge_u: F64
    edge_v: F64
    texture: I32
    region: F64
    taper: F64
    two_sided: Bool

    def __len__(self) -> int:
        return len(self.origin)

    def take(self, chosen: I64) -> Surfaces:
        """Return some of the surfaces."""
        return Surfaces(*(getattr(self, part.name)[chosen] for part in fields(self)))

    @property
    def area(self) -> F64:
        """Areas (N,) of the whole rectangles, in square metres."""
        spans = np.cross(self.edge_u, self.edge_v)
        return np.asarray(np.linalg.norm(spans, axis=1), np.float64)

    @property
    def normal(self) -> F64:
        """Unit normals (N, 3), out of the front."""
        out = np.cross(self.edge_v, self.edge_u)
        return np.asarray(out / np.linalg.norm(out, axis=1, keepdims=True), np.float64)

    def normal_at(self, index: int) -> F64:
        """Return the unit normal (3,) of one surface."""
        out = np.cross(self.edge_v[index], self.edge_u[index])
        return np.asarray(out / np.linalg.norm(out), np.float64)


@dataclass(frozen=True)
class Lamp:
    """A light that burns at night: where, its colour and its strength."""

    centre: tuple[float, float, float]
    colour: tuple[float, float, float]
    power: float


@dataclass
class Builder:
    """Collects textures, surfaces, lamps and the boxes a camera must stay out of."""

    rng: np.random.Generator
    textures: list[Texture] = field(default_factory=list)
    names: dict[str, int] = field(default_factory=dict)
    lamps: list[Lamp] = field(default_factory=list)
    blocks: list[tuple[float, ...]] = field(default_factory=list)
    _rows: list[tuple[F64, F64, F64, int, F64, float, bool]] = field(
        default_factory=list
    )

    def add_texture(self, rgba: U8, cutout: bool = False, name: str = "") -> int:
        """Add a picture (H, W, 4) and return its number."""
        self.textures.append(make_texture(rgba, cutout))
        if name:
            self.names[name] = len(self.textures) - 1
        return len(self.textures) - 1

    def add(
        self,
        origin: ArrayLike,
        edge_u: ArrayLike,
        edge_v: ArrayLike,
        texture: int | str,
        *,
        ppm: float = 0.0,
        taper: float = 0.0,
        two_sided: bool = False,
    ) -> None:
        """Add a surface; with `ppm` it takes a random part of a texture that large."""
        corner, u, v = (np.asarray(a, np.float64) for a in (origin, edge_u, edge_v))
        number = self.names[texture] if isinstance(texture, str) else texture
        width, height = self.textures[number].size
        region = np.array([0, 0, width, height], np.float64)
        if ppm:
            w = min(np.linalg.norm(u) * ppm, width)
            h = min(np.linalg.norm(v) * ppm, height)
            x, y = self.rng.random(2) * (width - w, height - h)
            region = np.array([x, y, w, h], np.float64)
        self._rows.append((corner, u, v, number, region, taper, two_sided))

    def keep_out(
        self, frame: Frame, low: tuple[float, float], high: tuple[float, float]
    ) -> None:
        """Keep cameras out of a rectangle (right, out) of a frame."""
        middle = frame.at((low[0] + high[0]) / 2, (low[1] + high[1]) / 2, 0)
        half = ((high[0] - low[0]) / 2, (high[1] - low[1]) / 2)
        self.blocks.append((*middle[:2].tolist(), *frame.right[:2].tolist(), *half))

    def finish(self) -> Surfaces:
        """Return all surfaces as arrays."""
        o, u, v, texture, region, taper, two_sided = zip(*self._rows, strict=True)
        return Surfaces(
            np.array(o),
            np.array(u),
            np.array(v),
            np.array(texture, np.int32),
            np.array(region),
            np.array(taper, np.float64),
            np.array(two_sided, np.bool_),
        )


UP = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True)
class Frame:
    """A place to build at: a corner on the ground and the direction to the right.

    Points are given as (right, out, up): `out` is towards the viewer of the front.
    """

    origin: F64
    right: F64

    @property
    def out(self) -> F64:
        """The horizontal direction out of the front."""
        return np.array([self.right[1], -self.right[0], 0.0])

    def at(self, right: float, out: float, up: float) -> F64:
        """Return the world point of (right, out, up)."""
        return np.asarray(
            self.origin + right * self.right + out * self.out + up * UP, np.float64
        )

    def turned(self, origin: F64, degrees: float) -> Frame:
        """Return a frame at another origin, turned to the left seen from above."""
        a = np.deg2rad(degrees)
        turned = np.cos(a) * self.right - np.sin(a) * self.out
        return Frame(origin, np.asarray(turned, np.float64))


def add_box(
    builder: Builder,
    frame: Frame,
    low: tuple[float, float, float],
    high: tuple[float, float, float],
    texture: int | str,
    *,
    ppm: float = 64.0,
    top: int | str | None = None,
    faces: str = "frltb",
) -> None:
    """Add the faces (front, right, left, top, back, under) of a box in a frame."""
    (x0, y0, z0), (x1, y1, z1) = low, high
    right, out = frame.right, frame.out
    across, deep, down = (x1 - x0) * right, (y1 - y0) * out, (z0 - z1) * UP
    sides = {
        "f": (frame.at(x0, y1, z1), across, down),
        "b": (frame.at(x1, y0, z1), -across, down),
        "r": (frame.at(x1, y1, z1), -deep, down),
        "l": (frame.at(x0, y0, z1), deep, down),
        "t": (frame.at(x0, y0, z1), across, deep),
        "u": (frame.at(x0, y1, z0), across, -deep),
    }
    for face in faces:
        paint = top if face == "t" and top is not None else texture
        builder.add(*sides[face], paint, ppm=ppm)
