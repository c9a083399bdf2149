"""Depth maps of photographs: finding, reading, judging, and one scale for all of them.

Files of any origin will do: millimetres of a sensor, metres of a renderer, the relative
numbers of a network that estimates depth from one image. What counts afterwards is how
near a pixel is, from -1 (far) to 1 (near), each map on its own scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from sfm_features.errors import ImageError
from sfm_features.images import decode_values
from sfm_features.orientation import turn_upright
from sfm_features.types import F32, F64, Bool

DepthKind: TypeAlias = Literal["auto", "distance", "nearness"]
"""Larger values are farther (sensors), nearer (MiDaS), or what most maps look like."""

SUFFIXES = (".npy", ".png", ".tif", ".tiff", ".pgm")
_LEAST_KNOWN = 0.3
_PERCENTILES = (1.0, 99.0)
_ASPECT_TOLERANCE = 0.02
_VOTE_SIDE = 32
_LEAST_PARTED = 0.8
"""Share of the variance of 1 / depth that two heaps must explain; they explain 0.75 of
an even slope, in which nothing parts."""


@dataclass(frozen=True)
class DepthMap:
    """Values (H, W) as they were stored, and where they are known."""

    values: F32
    known: Bool


def find_depth(folder: Path, name: str) -> Path | None:
    """Find the depth map of an image: NAME.jpg.png or NAME.png, .npy, .tif, .pgm."""
    for stem in (folder / name, (folder / name).with_suffix("")):
        for suffix in SUFFIXES:
            path = stem.with_name(stem.name + suffix)
            if path.is_file():
                return path
    return None


def read_depth(path: Path) -> DepthMap:
    """Read a map; raise ImageError when it can tell nothing about depth."""
    raw = _load_array(path) if path.suffix == ".npy" else decode_values(path)
    values = _flatten(path, raw).astype(np.float32)
    # Zero is what sensors say where they measured nothing; infinity is the sky.
    known = ~np.isnan(values) & (values != 0) & (values != -np.inf)
    finite = known & np.isfinite(values)
    if not finite.any():
        what = "zero" if (values == 0).all() else "not a number"
        raise ImageError(f"{path}: is {what} everywhere; remove it or make it again")
    if known.mean() < _LEAST_KNOWN:
        raise ImageError(
            f"{path}: knows {known.mean():.0%} of its pixels (the others are 0 or not "
            "numbers); remove it or fill it"
        )
    if values[finite].min() < 0:
        raise ImageError(
            f"{path}: has negative values; give distances or nearness, not both signs"
        )
    low, high = np.percentile(values[finite], _PERCENTILES)
    if not high > low:
        raise ImageError(f"{path}: is {low:g} everywhere; remove it or make it again")
    return DepthMap(values, known)


def fit_depth(
    depth: DepthMap, stored_wh: tuple[int, int], orientation: int, path: Path
) -> DepthMap:
    """Turn a map as its photo is turned; raise ImageError if it is of another shape."""
    height, width = depth.values.shape
    stored, upright = stored_wh, stored_wh
    if orientation > 4:
        upright = stored_wh[1], stored_wh[0]
    if _is_like((width, height), stored):
        values = turn_upright(depth.values, orientation)
        return DepthMap(values, turn_upright(depth.known, orientation))
    if _is_like((width, height), upright):
        return depth
    raise ImageError(
        f"{path}: is {width} x {height}, its image {stored[0]} x {stored[1]}; maps "
        "may be of another size, but must show the same section"
    )


def scale_nearness(depth: DepthMap, kind: DepthKind, side: int) -> F32:
    """Return nearness (side, side) from -1, far, to 1, near; unknown is filled.

    The farthest and the nearest hundredth are cut off: one wild pixel sets no scale.
    """
    filled = _fill_unknown(depth)
    if kind == "distance":
        with np.errstate(divide="ignore"):
            filled = 1 / np.maximum(filled, np.finfo(np.float32).tiny)
    limited = np.where(np.isfinite(filled), filled, filled[np.isfinite(filled)].max())
    small = cv2.resize(
        limited.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA
    )
    low, high = np.percentile(small, _PERCENTILES)
    share = (small - low) / max(float(high - low), np.finfo(np.float32).tiny)
    return np.asarray(2 * np.clip(share, 0, 1) - 1, np.float32)


def split_nearness(nearness: F32) -> Bool:
    """Tell background (H, W) from object; raise ImageError where they hardly differ."""
    spread = float(nearness.var())
    levels = np.rint((nearness + 1) * 127.5).astype(np.uint8)
    level, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    behind = np.asarray(levels <= level)
    share = float(behind.mean())
    if 0 < share < 1:
        gap = float(nearness[~behind].mean() - nearness[behind].mean())
        parted = share * (1 - share) * gap**2 / max(spread, 1e-12)
    else:
        parted = 0.0
    if parted < _LEAST_PARTED:
        raise ImageError(
            f"near and far hardly part (they explain {parted:.0%} of the depth); "
            "give a mask instead, or remove the map"
        )
    return behind


def vote_kind(depth: DepthMap) -> float:
    """Tell whether larger values look nearer (to 1) or farther (to -1).

    In a photograph of an object what is in the middle and at the foot is near, as a
    rule; the corners and the top are not. This is how values agree with that in rank.
    """
    filled = _fill_unknown(depth)
    limited = np.minimum(filled, filled[np.isfinite(filled)].max())
    small = cv2.resize(limited, (_VOTE_SIDE, _VOTE_SIDE), interpolation=cv2.INTER_AREA)
    ranks = np.argsort(np.argsort(small, axis=None)).astype(np.float64)
    return float(np.corrcoef(ranks, _expect_near().ravel())[0, 1])


def _expect_near() -> F64:
    """Return how near (V, V) pixels are expected to be."""
    at = np.linspace(-1, 1, _VOTE_SIDE)
    y, x = np.meshgrid(at, at, indexing="ij")
    return np.asarray(np.exp(-(x**2 + 0.5 * y**2) * 2) + 0.5 * y, np.float64)


def _load_array(path: Path) -> NDArray[Any]:
    try:
        # Without pickle: an array of objects could run code.
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise ImageError(
            f"{path}: cannot be read as numbers ({error}); save it with numpy.save"
        ) from error


def _flatten(path: Path, raw: NDArray[Any]) -> NDArray[Any]:
    values = raw
    if values.ndim == 3 and values.shape[2] in (1, 3, 4):
        colours = values[..., : min(values.shape[2], 3)]
        if (colours != colours[..., :1]).any():
            raise ImageError(
                f"{path}: is a picture in colour; give the depth itself, not a "
                "colour map of it"
            )
        values = colours[..., 0]
    if values.ndim != 2 or min(values.shape) < 2 or values.dtype.kind not in "uif":
        raise ImageError(
            f"{path}: is an array {raw.shape} of {raw.dtype}; depth is one number for "
            "each pixel"
        )
    return values


def _is_like(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Tell whether two sizes have one aspect, as far as rounding allows."""
    ratio = (size[0] / size[1]) / (other[0] / other[1])
    slack = 1 / min(size) + 1 / min(other)
    return abs(ratio - 1) <= max(_ASPECT_TOLERANCE, slack)


def _fill_unknown(depth: DepthMap) -> F32:
    """Give unknown pixels the value of the nearest one that is known."""
    if depth.known.all():
        return depth.values
    _, labels = cv2.distanceTransformWithLabels(
        (~depth.known).astype(np.uint8), cv2.DIST_L2, 5,
        labelType=cv2.DIST_LABEL_PIXEL,
    )  # fmt: skip
    table = np.zeros(labels.max() + 1, np.float32)
    table[labels[depth.known]] = depth.values[depth.known]
    return np.asarray(table[labels], np.float32)
