"""Pictures of a report: images with their keypoints, pairs with their matches."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from sfm_features.images import decode, resize_to
from sfm_features.orientation import turn_back, turn_upright
from sfm_features.types import F32, F64, I32, U8, Bool, undo_resize

SEEN = (74, 222, 128)
UNSEEN = (255, 120, 104)
FOUND = (255, 212, 64)
_GROUND = (22, 24, 28)
_QUALITY = 80
_GAP = 6
MAX_LINES = 100  # more of them hide the pictures
MAX_REJECTED = 60
_FAR_PX = 1e5
_SHIFT = 4  # OpenCV draws at sixteenths of a pixel


@dataclass(frozen=True)
class Upright:
    """A small picture turned upright, and what its keypoints need to follow."""

    rgb: U8
    orientation: int
    stored_size: tuple[int, int]

    def place(self, xy: F32) -> F32:
        """Map pixels (N, 2) of the stored image to this picture."""
        height, width = self.rgb.shape[:2]
        size = (height, width) if self.orientation >= 5 else (width, height)
        small = undo_resize(xy, size, self.stored_size)
        # Turning back is affine and its own axes are orthonormal: transpose inverts.
        frame = np.array([[0, 0], [1, 0], [0, 1]], np.float32)
        origin, right, down = turn_back(frame, self.orientation, (width, height))
        turned: F32 = (small - origin) @ np.stack([right - origin, down - origin], 1)
        return turned


@dataclass(frozen=True)
class Picture:
    """A JPEG as a data URI, with its size in pixels."""

    uri: str
    width: int
    height: int


def load_upright(path: Path, max_size: int) -> Upright:
    """Decode an image for looking at."""
    decoded = decode(path)
    small = resize_to(decoded.rgb, max_size)
    upright = turn_upright(small, decoded.orientation)
    return Upright(upright, decoded.orientation, decoded.size)


def draw_keypoints(image: Upright, xy: F32, seen: Bool | None) -> Picture:
    """Draw keypoints (N, 2), those that became 3D points (N,) above the others.

    Without a model none could become one, and all look the same: seen is None.
    """
    canvas, placed = image.rgb.copy(), image.place(xy)
    if seen is None:
        return encode_picture(draw_dots(canvas, placed, FOUND, 1.3, opacity=0.8))
    canvas = draw_dots(canvas, placed[~seen], UNSEEN, radius_px=1.3, opacity=0.6)
    canvas = draw_dots(canvas, placed[seen], SEEN, radius_px=1.9, opacity=0.95)
    return encode_picture(canvas)


def draw_depths(image: Upright, xy: F32, depths: F64) -> Picture:
    """Draw pixels (N, 2) in the colour of their depth (N,), near ones warm."""
    canvas = (image.rgb * 0.8).astype(np.uint8)
    far_first = np.argsort(-depths)
    shades = np.linspace(40, 240, len(depths)).astype(np.uint8)[:, None]
    if len(shades):  # OpenCV has no colours for none
        bgr = cv2.applyColorMap(shades, cv2.COLORMAP_TURBO)
        colours = np.asarray(bgr[:, 0, ::-1], np.uint8)
        canvas = draw_dots(canvas, image.place(xy)[far_first], colours, 2, opacity=0.9)
    return encode_picture(canvas)


def draw_pair(
    a: Upright, b: Upright, inliers: tuple[F32, F32], rejected: tuple[F32, F32]
) -> Picture:
    """Draw two images side by side, lines between matched keypoints, (K, 2) each."""
    heights, widths = zip(a.rgb.shape[:2], b.rgb.shape[:2], strict=True)
    canvas: U8 = np.full((max(heights), sum(widths) + _GAP, 3), _GROUND, np.uint8)
    shifts = []
    for image, left in ((a, 0), (b, widths[0] + _GAP)):
        height, width = image.rgb.shape[:2]
        top = (len(canvas) - height) // 2
        canvas[top : top + height, left : left + width] = image.rgb
        shifts.append(np.array([left, top], np.float32))
    # A little darker, so that thin lines stand out even on a white facade.
    canvas = (canvas * 0.8).astype(np.uint8)
    for (xy_a, xy_b), colour, most, opacity in (
        (rejected, UNSEEN, MAX_REJECTED, 0.4),
        (inliers, SEEN, MAX_LINES, 0.6),
    ):
        starts, ends = a.place(xy_a) + shifts[0], b.place(xy_b) + shifts[1]
        chosen = choose_rows(len(starts), most)
        canvas = _draw_lines(canvas, starts[chosen], ends[chosen], colour, opacity)
        dots = np.concatenate([starts, ends])
        canvas = draw_dots(canvas, dots, colour, radius_px=2, opacity=1.5 * opacity)
    return encode_picture(canvas)


def split_matches(
    keypoints: tuple[F32, F32], inliers: I32, matches: I32
) -> tuple[tuple[F32, F32], tuple[F32, F32]]:
    """Look up the keypoints (K, 2) of inliers, and of the matches that are none."""
    kept = {tuple(row) for row in inliers.tolist()}
    rows = [row for row in matches.tolist() if tuple(row) not in kept]
    rejected = np.asarray(rows, np.int32).reshape(-1, 2)
    a, b = keypoints
    return (
        (a[inliers[:, 0]], b[inliers[:, 1]]),
        (a[rejected[:, 0]], b[rejected[:, 1]]),
    )


def choose_rows(count: int, most: int) -> np.ndarray:
    """Choose at most so many rows, always the same ones, in order."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, most, replace=False))


def encode_picture(rgb: U8) -> Picture:
    """Encode an image (H, W, 3) as a JPEG that a page can hold."""
    # At the usual halved colour resolution small dots and thin lines would turn grey.
    full = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    quality = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    done, content = cv2.imencode(".jpg", rgb[..., ::-1], [*quality, *full])
    assert done
    text = base64.b64encode(content.tobytes()).decode("ascii")
    return Picture(f"data:image/jpeg;base64,{text}", rgb.shape[1], rgb.shape[0])


def draw_dots(
    canvas: U8,
    xy: F32,
    colours: tuple[int, ...] | U8,
    radius_px: float,
    opacity: float,
) -> U8:
    """Draw dots (N, 2) of one colour (3,), or each of its own (N, 3)."""
    layer = canvas.copy()
    radius = round(radius_px * (1 << _SHIFT))
    each = np.broadcast_to(colours, (len(xy), 3)).tolist()
    for (x, y), colour in zip(_to_fixed(xy), each, strict=True):
        cv2.circle(layer, (x, y), radius, colour, -1, cv2.LINE_AA, _SHIFT)
    return _blend(layer, canvas, opacity)


def _draw_lines(
    canvas: U8, starts: F32, ends: F32, colour: tuple[int, ...], opacity: float
) -> U8:
    layer = canvas.copy()
    for start, end in zip(_to_fixed(starts), _to_fixed(ends), strict=True):
        cv2.line(layer, start, end, colour, 1, cv2.LINE_AA, _SHIFT)
    return _blend(layer, canvas, opacity)


def _to_fixed(xy: F32) -> list[tuple[int, int]]:
    # Past these limits, or at nan, OpenCV's integers would wrap around.
    inside = np.nan_to_num(xy, nan=-_FAR_PX).clip(-_FAR_PX, _FAR_PX)
    scaled = np.rint(inside * (1 << _SHIFT)).astype(int)
    return [(x, y) for x, y in scaled.tolist()]


def _blend(layer: U8, canvas: U8, opacity: float) -> U8:
    blended = cv2.addWeighted(layer, opacity, canvas, 1 - opacity, 0)
    return np.asarray(blended, np.uint8)
