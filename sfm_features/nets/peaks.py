"""Peaks of a map: the pixels that are the highest around, and their tops in between."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from sfm_features.nets.halves import Run, run_in_turn

_MOST_OFFSET_PX = 0.75
"""How far the top of a slanting peak may be from its highest pixel, along an axis."""


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


def find_peaks(log_p: Tensor, options: DecodeOptions, run: Run = run_in_turn) -> Tensor:
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


def choose_best(log_p: Tensor, peaks: Tensor, most: int) -> tuple[Tensor, Tensor]:
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


def _run_maximum(x: Tensor, count: int, dim: int) -> Tensor:
    """Take the maximum of each `count` consecutive entries along a dimension."""
    seen = 1
    while seen < count:
        step = min(seen, count - seen)
        length = x.shape[dim] - step
        x = torch.maximum(x.narrow(dim, 0, length), x.narrow(dim, step, length))
        seen += step
    return x
