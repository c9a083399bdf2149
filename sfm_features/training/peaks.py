"""Peaks of a map, between its pixels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_RIM_PX = 4


def find_peaks(
    score: Tensor, radius_px: int, least: float, most: int
) -> tuple[Tensor, Tensor]:
    """Find the highest peaks of a map (H, W): pixels (K, 2) and heights (K,).

    A peak is the highest within the radius. Its place is refined by a parabola through
    the logarithm along each axis, which is exact for a hill of normal shape.
    """
    around = functional.max_pool2d(score[None, None], 2 * radius_px + 1, 1, radius_px)
    high = (score == around[0, 0]) & (score > least)
    inner = torch.zeros_like(high)
    inner[_RIM_PX:-_RIM_PX, _RIM_PX:-_RIM_PX] = True
    rows, columns = (high & inner).nonzero(as_tuple=True)
    height = score[rows, columns]
    order = height.argsort(descending=True, stable=True)[:most]
    rows, columns = rows[order], columns[order]
    log = score.clamp(min=1e-6).log()
    x = columns + _refine(
        log[rows, columns - 1], log[rows, columns], log[rows, columns + 1]
    )
    y = rows + _refine(
        log[rows - 1, columns], log[rows, columns], log[rows + 1, columns]
    )
    return torch.stack([x, y], dim=1).float(), height[order]


def _refine(before: Tensor, at: Tensor, after: Tensor) -> Tensor:
    bend = before - 2 * at + after
    offset = (before - after) / (2 * bend.clamp(max=-1e-6))
    return offset.clamp(-0.5, 0.5)
