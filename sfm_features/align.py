"""Placing the keypoints of a track by what the photographs show around them.

Detectors place a keypoint in each image by itself, to about half a pixel. What shows
the same can be laid upon each other ten times as exactly: Lucas and Kanade's method,
with a patch that may shift, stretch, shear and turn, and be brighter or duller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from sfm_features.tracks import Tracks, group
from sfm_features.types import F32, F64, I64, PIXEL_CENTRE, Bool

_RADIUS = 7
_SIGMA = 4.0
"""Of the weights in a patch."""
_STEPS = 10
_DONE_PX = 0.02
"""A step that is smaller is the last."""
_LEAST_ALIKE = 0.8
"""Correlation of two patches that show the same, after alignment."""
_MOST_PX = 3.0
"""What moves further has found something else."""
_MOST_GROWN = 2.0
"""How many times as large or small as the cameras say a patch may be seen."""
_AT_ONCE = 4000
"""Patches that are worked on together."""
_DAMPING = 1e-4
_CONTRAST = 1e-3
"""Grey levels added to a patch's contrast, so that a plain one can be divided by it."""


@dataclass(frozen=True)
class Picture:
    """A grey picture (H, W), perhaps smaller than the image; `scale` is how much."""

    grey: F32
    scale: F64

    def place(self, xy: F64) -> F64:
        """Turn pixels (N, 2) of the image into the picture's."""
        return (xy + PIXEL_CENTRE) * self.scale - PIXEL_CENTRE

    def place_back(self, xy: F64) -> F64:
        """Turn pixels (N, 2) of the picture into the image's."""
        return (xy + PIXEL_CENTRE) / self.scale - PIXEL_CENTRE


@dataclass(frozen=True)
class Aligned:
    """Where keypoints of `Tracks` are now (O, 2), and which were found again (O,).

    A reference counts as found if any other observation was. Together those of a point
    are, on average, where the detector saw them.
    """

    xy: F64
    found: Bool


def align(
    tracks: Tracks,
    read: Callable[[str], Picture | None],
    each: Callable[[], None] = lambda: None,
    held: Bool | None = None,
) -> Aligned:
    """Lay each observation's patch upon its reference's; `each` is called per image.

    `read` returns None for what cannot be read; its keypoints stay as they are. So do
    those that are `held` (O,), and others of their points are placed by them.
    """
    held = np.zeros(len(tracks), np.bool_) if held is None else held
    xy, found = tracks.xy.copy(), np.zeros(len(tracks), np.bool_)
    linear = np.tile(np.eye(2), (len(tracks), 1, 1))
    others = np.flatnonzero(tracks.reference != np.arange(len(tracks)))
    of_reference = tracks.image[tracks.reference[others]]
    for row, rows in enumerate(group(of_reference, len(tracks.names))):
        each()
        mine = others[rows]
        picture = read(tracks.names[row]) if len(mine) else None
        if picture is None:
            continue
        compared, which = np.unique(tracks.reference[mine], return_inverse=True)
        patches = _Template.cut(picture.grey, picture.place(tracks.xy[compared]))
        for there in np.unique(tracks.image[mine]):
            target = read(tracks.names[there])
            if target is None:
                continue
            seen = np.flatnonzero(tracks.image[mine] == there)
            for start in range(0, len(seen), _AT_ONCE):
                some = seen[start : start + _AT_ONCE]
                template, scale = patches.take(which[some]), picture.scale
                xy[mine[some]], linear[mine[some]], found[mine[some]] = _align(
                    tracks, mine[some], template, scale, target
                )
    found[tracks.reference[found]] = True
    placed = _centre(tracks, xy, linear, found, held)
    placed[held] = tracks.xy[held]
    return Aligned(placed, found)


def _centre(tracks: Tracks, xy: F64, linear: F64, found: Bool, held: Bool) -> F64:
    """Move what was found of a point so that on average it is where it was detected.

    Or else what a detector did wrong in the reference alone would be the point's error
    for whoever looks for it in a new photograph. Where some of it is held, only that
    counts.
    """
    of = tracks.reference[found]
    holds = np.zeros(len(xy), np.bool_)
    holds[of[held[found]]] = True
    weight = np.where(holds[of], held[found], 1.0)
    off = np.linalg.solve(linear[found], (tracks.xy - xy)[found][:, :, None])[:, :, 0]
    total, count = np.zeros_like(xy), np.zeros(len(xy))
    np.add.at(total, of, weight[:, None] * off)
    np.add.at(count, of, weight)
    shift = total[of] / count[of][:, None]
    moved: F64 = xy.copy()
    moved[found] += (linear[found] @ shift[:, :, None])[:, :, 0]
    return moved


def _align(
    tracks: Tracks, rows: I64, template: _Template, from_scale: F64, target: Picture
) -> tuple[F64, F64, Bool]:
    """Align some observations in one image with their references in another.

    Returns where they are, what turns a small step in the reference's image into one
    there (N, 2, 2), and which were found.
    """
    start = target.place(tracks.xy[rows])
    scale = target.scale[:, None] / from_scale
    linear = tracks.linear[rows] * scale
    usable = np.isfinite(linear).all(axis=(1, 2))
    warp = np.concatenate((linear, start[:, :, None]), axis=2)
    warp[~usable] = 0
    warp, before, after = template.follow(target.grey, warp)
    xy = warp[:, :, 2]
    moved = np.linalg.norm(xy - start, axis=1)
    found = usable & (after >= np.maximum(before, _LEAST_ALIKE)) & (moved <= _MOST_PX)
    with np.errstate(divide="ignore", invalid="ignore"):
        grown = np.linalg.det(warp[:, :, :2]) / np.linalg.det(linear)
        found &= np.maximum(grown, 1 / grown) <= _MOST_GROWN
    placed = np.where(found[:, None], target.place_back(xy), tracks.xy[rows])
    return placed, warp[:, :, :2] / scale, found


@dataclass(frozen=True)
class _Template:
    """Patches (N, P) of even contrast, and what turns differences into warps.

    `slopes` (N, P, K) are weighted, `inverse` (N, K, K) is that of the normal equation.
    """

    patches: F32
    slopes: F32
    inverse: F32

    @staticmethod
    def cut(grey: F32, xy: F64) -> _Template:
        """Cut patches around pixels (N, 2)."""
        places = xy[:, None] + _OFFSETS
        patches, contrast = _even(_look(grey, places))
        slope_x, slope_y = (
            (_look(grey, places + half) - _look(grey, places - half)) / contrast
            for half in (np.array([0.5, 0]), np.array([0, 0.5]))
        )
        x, y = _OFFSETS.T.astype(np.float32)
        moves = (slope_x, slope_y, slope_x * x, slope_x * y, slope_y * x, slope_y * y)
        light = (np.ones_like(patches), patches)
        slopes = np.stack((*moves, *light), axis=2)
        weighted = slopes * _WEIGHTS[:, None]
        normal = np.swapaxes(weighted, 1, 2) @ slopes
        size = normal.shape[1]
        trace = np.trace(normal, axis1=1, axis2=2)[:, None, None]
        normal += np.eye(size, dtype=np.float32) * (_DAMPING * trace / size + 1e-9)
        return _Template(patches, weighted, np.linalg.inv(normal))

    def take(self, rows: I64) -> _Template:
        """Return some of the patches, perhaps some of them several times."""
        return _Template(self.patches[rows], self.slopes[rows], self.inverse[rows])

    def follow(self, grey: F32, warps: F64) -> tuple[F64, F64, F64]:
        """Improve warps (N, 2, 3); return them, and how alike before and after."""
        warps = warps.copy()
        seen = _even(_look(grey, _warp(warps)))[0]
        before = (seen * self.patches * _WEIGHTS).sum(axis=1)
        moving = np.arange(len(warps))
        for _ in range(_STEPS):
            off = (seen[moving] - self.patches[moving])[:, :, None]
            pull = np.swapaxes(self.slopes[moving], 1, 2) @ off
            step = (self.inverse[moving] @ pull)[:, :6, 0]
            warps[moving] = _undo(warps[moving], step.astype(np.float64))
            seen[moving] = _even(_look(grey, _warp(warps[moving])))[0]
            moving = moving[np.abs(step[:, :2]).max(axis=1, initial=0) > _DONE_PX]
            if not len(moving):
                break
        return warps, before, (seen * self.patches * _WEIGHTS).sum(axis=1)


def _undo(warps: F64, step: F64) -> F64:
    """Put the inverse of a small step in the template before a warp."""
    back = np.zeros((len(warps), 3, 3))
    back[:, 2, 2] = 1
    back[:, :2, :2] = step[:, 2:].reshape(-1, 2, 2) + np.eye(2)
    back[:, :2, 2] = step[:, :2]
    return warps @ np.linalg.inv(back)


def _warp(warps: F64) -> F64:
    return _OFFSETS @ np.swapaxes(warps[:, :, :2], 1, 2) + warps[:, None, :, 2]


def _even(patches: F32) -> tuple[F32, F32]:
    """Take off the mean and divide by the contrast; return the contrast, too."""
    centred: F32 = patches - (patches @ _WEIGHTS)[:, None]
    contrast: F32 = np.sqrt((centred**2) @ _WEIGHTS)[:, None] + np.float32(_CONTRAST)
    return centred / contrast, contrast


def _look(grey: F32, places: F64) -> F32:
    """Look up pixels (N, P, 2) between pixels; beyond the edge is what is at it."""
    x, y = np.ascontiguousarray(places.astype(np.float32).transpose(2, 0, 1))
    how, border = cv2.INTER_CUBIC, cv2.BORDER_REPLICATE
    parts = [  # OpenCV takes no more than 32,766 rows
        cv2.remap(
            grey, x[i : i + _AT_ONCE], y[i : i + _AT_ONCE], how, borderMode=border
        )
        for i in range(0, len(x), _AT_ONCE)
    ]
    return np.concatenate(parts).astype(np.float32)


def _make_offsets() -> F64:
    side = np.arange(-_RADIUS, _RADIUS + 1.0)
    return np.stack(np.meshgrid(side, side), axis=2).reshape(-1, 2)


_OFFSETS = _make_offsets()
_WEIGHTS: F32 = np.exp(-(_OFFSETS**2).sum(axis=1) / (2 * _SIGMA**2)).astype(np.float32)
_WEIGHTS /= _WEIGHTS.sum()
