"""From a network's maps to keypoints: one decoder for every network.

Peaks are found before anything is sorted, and only in the image: what was padded is cut
off first. Everything is repeatable: of equal values the first in reading order counts.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from sfm_features.nets.dense import (
    CELL_PX,
    Dense,
    DenseNet,
    pad_to_stride,
    sample_rows,
)
from sfm_features.types import Features

Part = TypeVar("Part")
Run: TypeAlias = Callable[[Callable[[Tensor], Any], Tensor, Tensor], tuple[Any, Any]]
"""Does a piece of work on two halves, one after the other or side by side."""

_MOST_OFFSET_PX = 0.75
"""How far the top of a slanting peak may be from its highest pixel, along an axis."""


_SMALL = 2**19
"""Pixels up to which waking a second core for each little step costs more time than it
saves."""


@dataclass(frozen=True)
class DecodeOptions:
    """Which peaks become keypoints."""

    max_keypoints: int = 2048
    nms_radius_px: int = 2
    """Of two peaks closer than this in x and in y, the higher one is kept."""
    least_probability: float = 0.005
    """Lower peaks are left out, however few there are."""
    border_px: int = 4
    """Pixels at the image's edges where the network sees too little."""


def detect(
    net: DenseNet, grey: Tensor, options: DecodeOptions = DecodeOptions()
) -> list[Features]:
    """Run a network on grey (B, 1, H, W) in [0, 1] of any size, and decode."""
    height, width = grey.shape[-2:]
    padded = pad_to_stride(grey, net.stride)
    return decode(net, net(padded), (width, height), options)


def decode(
    net: DenseNet,
    dense: Dense,
    image_size: tuple[int, int],
    options: DecodeOptions = DecodeOptions(),
) -> list[Features]:
    """Choose and describe keypoints of each image; size (width, height) unpadded."""
    few = dense.logits.device.type == "cpu" and dense.logits.numel() <= _SMALL
    split = few and torch.get_num_threads() > 1 and torch.is_inference_mode_enabled()
    with _use_one_core() if few else nullcontext():
        return _decode(net, dense, image_size, options, _run_both if split else _run)


def _decode(
    net: DenseNet,
    dense: Dense,
    image_size: tuple[int, int],
    options: DecodeOptions,
    run: Run,
) -> list[Features]:
    width, height = image_size
    padded_size = (dense.logits.shape[-1], dense.logits.shape[-2])
    middle = padded_size[1] // 2 // CELL_PX * CELL_PX
    halves = dense.logits[:, :, :middle], dense.logits[:, :, middle:]
    log_p = torch.cat(run(net.log_probability, *halves), 2)[:, :, :height, :width]
    peaks = find_peaks(log_p, options, run)
    found = []
    for i in range(len(log_p)):
        pixels, scores = _choose_best(log_p[i, 0], peaks[i, 0], options.max_keypoints)

        def describe(some: Tensor, i: int = i) -> tuple[Tensor, Tensor]:
            xy = _place(net, dense, i, log_p[i, 0], some)
            maps = dense.descriptors[i : i + 1]
            return xy, sample_rows(maps, xy[None], padded_size)[0]

        parts = run(describe, *pixels.tensor_split(2))
        xy, descriptors = (torch.cat(both) for both in zip(*parts, strict=True))
        found.append(_pack(xy, descriptors, scores, image_size))
    return found


def _run(work: Callable[[Tensor], Part], a: Tensor, b: Tensor) -> tuple[Part, Part]:
    return work(a), work(b)


def _run_both(
    work: Callable[[Tensor], Part], a: Tensor, b: Tensor
) -> tuple[Part, Part]:
    """Do two halves on a core each: once, where torch would wake it for every step."""
    other = _start_helper().submit(_work_alone, work, b)
    return work(a), other.result()


@torch.inference_mode()
def _work_alone(work: Callable[[Tensor], Part], part: Tensor) -> Part:
    torch.set_num_threads(1)
    return work(part)


@functools.cache
def _start_helper() -> ThreadPoolExecutor:
    # A process that forks leaves its threads behind.
    os.register_at_fork(after_in_child=_start_helper.cache_clear)
    return ThreadPoolExecutor(1, thread_name_prefix="decode")


def find_peaks(log_p: Tensor, options: DecodeOptions, run: Run = _run) -> Tensor:
    """Mark the pixels of (B, 1, H, W) that are the highest around: bool."""
    radius, height = options.nms_radius_px, log_p.shape[2]
    middle = height // 2
    # Each half sees as far into the other one as a peak is compared.
    upper = log_p[:, :, : min(middle + radius, height)]
    lower = log_p[:, :, max(middle - radius, 0) :]
    first, second = run(lambda part: suppress_neighbours(part, radius), upper, lower)
    seen = middle - max(middle - radius, 0)
    peaks = torch.cat([first[:, :, :middle], second[:, :, seen:]], dim=2)
    if options.least_probability > 0:
        peaks &= log_p >= math.log(options.least_probability)
    for dim, size in ((2, log_p.shape[2]), (3, log_p.shape[3])):
        edge = min(options.border_px, size)
        peaks.narrow(dim, 0, edge).fill_(False)
        peaks.narrow(dim, size - edge, edge).fill_(False)
    return peaks


def suppress_neighbours(values: Tensor, radius: int) -> Tensor:
    """Mark pixels above all that come before and below none that comes after, within.

    Running maxima by shifts: max_pool2d takes a CPU several times as long as a network.
    """
    assert radius >= 1
    height, width = values.shape[-2:]
    padded = functional.pad(values, (radius,) * 4, value=-math.inf)
    rows = _run_maximum(padded, 2 * radius + 1, dim=3)
    above = _run_maximum(rows[:, :, : height + radius - 1], radius, dim=2)
    below = _run_maximum(rows[:, :, radius + 1 :], radius, dim=2)
    middle = padded[:, :, radius : radius + height]
    left = _run_maximum(middle[..., : width + radius - 1], radius, dim=3)
    right = _run_maximum(middle[..., radius + 1 :], radius, dim=3)
    first = values > torch.maximum(above, left)
    return first & (values >= torch.maximum(below, right))


def fit_peaks(values: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Fit a parabola around pixels x, y (N,) of values (H, W): their tops (N, 2).

    Along an axis on which a neighbour lies outside the image the pixel stays.
    """
    height, width = values.shape
    has_x, has_y = (x > 0) & (x < width - 1), (y > 0) & (y < height - 1)
    step = torch.tensor([-1, 0, 1], device=values.device)
    rows = (y[:, None] + step).clamp(0, height - 1)
    columns = (x[:, None] + step).clamp(0, width - 1)
    v = values[rows[:, :, None], columns[:, None, :]]
    centre = v[:, 1, 1]
    slope_x = (v[:, 1, 2] - v[:, 1, 0]) / 2 * has_x
    slope_y = (v[:, 2, 1] - v[:, 0, 1]) / 2 * has_y
    bend_x = v[:, 1, 2] + v[:, 1, 0] - 2 * centre
    bend_y = v[:, 2, 1] + v[:, 0, 1] - 2 * centre
    twist = (v[:, 2, 2] - v[:, 2, 0] - v[:, 0, 2] + v[:, 0, 0]) / 4 * (has_x & has_y)
    determinant = bend_x * bend_y - twist * twist
    # Of a saddle or a ridge each axis is fitted alone.
    is_peak = (bend_x < 0) & (bend_y < 0) & (determinant > 0)
    both_x = (twist * slope_y - bend_y * slope_x) / determinant
    both_y = (twist * slope_x - bend_x * slope_y) / determinant
    offset_x = torch.where(is_peak, both_x, -slope_x / bend_x)
    offset_y = torch.where(is_peak, both_y, -slope_y / bend_y)
    offset = torch.stack((offset_x * has_x, offset_y * has_y), dim=1).nan_to_num(0.0)
    offset = offset.clamp(-_MOST_OFFSET_PX, _MOST_OFFSET_PX)
    return torch.stack((x, y), dim=1) + offset


@contextmanager
def _use_one_core() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _run_maximum(x: Tensor, count: int, dim: int) -> Tensor:
    """Take the maximum of each `count` consecutive entries along a dimension."""
    seen = 1
    while seen < count:
        step = min(seen, count - seen)
        length = x.shape[dim] - step
        x = torch.maximum(x.narrow(dim, 0, length), x.narrow(dim, step, length))
        seen += step
    return x


def _choose_best(log_p: Tensor, peaks: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Return pixels (N, 2), scores (N,) of the highest peaks of (H, W), best first."""
    index = peaks.flatten().nonzero()[:, 0]
    values = log_p.flatten()[index] if log_p.is_contiguous() else log_p[peaks]
    if len(values) > most:
        # Not topk's own choice: among equal values it is not defined.
        enough = values >= values.topk(most).values[-1]
        index, values = index[enough], values[enough]
    order = values.argsort(descending=True, stable=True)[:most]
    index, values = index[order], values[order]
    width = log_p.shape[1]
    return torch.stack((index % width, index // width), dim=1), values.exp()


def _place(
    net: DenseNet, dense: Dense, image: int, log_p: Tensor, pixels: Tensor
) -> Tensor:
    """Say where between the pixels (N, 2) the peaks are, and never outside."""
    if dense.grey is None:
        return fit_peaks(log_p, pixels[:, 0], pixels[:, 1])
    xy = net.refine(dense.grey[image : image + 1], pixels[None].float())[0]
    last = torch.tensor(log_p.shape[::-1], device=xy.device) - 1
    return torch.minimum(xy.clamp(min=0), last)


def _pack(
    xy: Tensor, descriptors: Tensor, scores: Tensor, image_size: tuple[int, int]
) -> Features:
    """Scale descriptors to unit length; those that have none are dropped."""
    # The sum of squares, as torch's vector_norm takes ten times as long on short rows.
    length = descriptors.square().sum(1, keepdim=True).sqrt()
    keep = ((length > 0) & length.isfinite())[:, 0]
    parts = [xy, descriptors / length, scores]
    if not keep.all():
        parts = [part[keep] for part in parts]
    xy_px, unit, heights = (part.float().cpu().contiguous().numpy() for part in parts)
    return Features(xy_px, unit, heights, image_size)
