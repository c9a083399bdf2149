"""Keypoints as maps and as places, and soft drawings of the lines between them."""

from __future__ import annotations

import torch
from torch import Tensor

_EPSILON = 1e-8
_SURE_CELLS = 1.5
"""A keypoint is as sure as the share of its map that lies this near to it."""


def locate(logits: Tensor) -> Tensor:
    """Return the expected x, y (B, K, 2) of maps (B, K, h, w); -1..1 over the image."""
    height, width = logits.shape[-2:]
    share = logits.float().flatten(2).softmax(2).unflatten(2, (height, width))
    x = (share.sum(2) * _middles(width, logits)).sum(2)
    y = (share.sum(3) * _middles(height, logits)).sum(2)
    return torch.stack([x, y], 2)


def measure_sureness(logits: Tensor) -> Tensor:
    """Return the share (B, K) of each map (B, K, h, w) that is around its keypoint."""
    height, width = logits.shape[-2:]
    share = logits.float().flatten(2).softmax(2).unflatten(2, (height, width))
    at = locate(logits)
    x = torch.arange(width, device=logits.device) - ((at[..., :1] + 1) * width - 1) / 2
    y = (
        torch.arange(height, device=logits.device)
        - ((at[..., 1:] + 1) * height - 1) / 2
    )
    near = y[..., :, None] ** 2 + x[..., None, :] ** 2 <= _SURE_CELLS**2
    return (share * near).sum((2, 3))


def draw_links(
    a: Tensor, b: Tensor, weights: Tensor, size: int, thickness: float
) -> Tensor:
    """Draw soft lines from a to b (B, E, 2), the strongest at each pixel: (B, 1, S, S).

    Only the strongest line of a pixel has a gradient, so it alone is drawn with one.
    """
    middles = _middles(size, a)
    y, x = torch.meshgrid(middles, middles, indexing="ij")
    pixels = torch.stack([x, y], 2).reshape(-1, 2)
    logs = weights.detach().log()[:, None]
    # Image by image, so that what is thrown away again stays in the cache.
    strongest = torch.stack(
        [
            find_strongest(s, e, logs, pixels, thickness)
            for s, e in zip(a.detach(), b.detach(), strict=True)
        ]
    )
    picked = strongest[..., None].expand(-1, -1, 2)
    start, end = a.gather(1, picked), b.gather(1, picked)
    along, offset = end - start, pixels - start
    t = (offset * along).sum(2) / (along.square().sum(2) + _EPSILON)
    miss = offset - t.clamp(0, 1)[..., None] * along
    lines = weights[strongest] * torch.exp(-miss.square().sum(2) / thickness)
    return lines.reshape(len(a), 1, size, size)


def find_strongest(
    a: Tensor, b: Tensor, logs: Tensor, pixels: Tensor, thickness: float
) -> Tensor:
    """Return which line from a to b (E, 2) is strongest at each of P pixels: (P,)."""
    along = b - a
    square = along.square().sum(1, keepdim=True) + _EPSILON
    inner = torch.addmm(-(along * a).sum(1, keepdim=True), along, pixels.T)
    t = (inner / square).clamp_(0, 1)
    # |p - a - t d|^2, but for |p|^2, which is the same for all lines.
    beyond = torch.addmm(a.square().sum(1, keepdim=True), a, pixels.T, alpha=-2)
    beyond += t.mul_(t * square - 2 * inner)
    return torch.add(logs, beyond, alpha=-1 / thickness).argmax(0)


def _middles(count: int, like: Tensor) -> Tensor:
    """Return the middles of `count` cells that divide -1..1."""
    steps = torch.arange(count, device=like.device, dtype=torch.float32)
    return (2 * steps + 1) / count - 1
