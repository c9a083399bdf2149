"""From a network's maps to keypoints: one decoder for every network.

Peaks are found before anything is sorted, and only in the image: what was padded is cut
off first. Only peaks that are kept are described. Everything is repeatable: of equal
values the first in reading order counts.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

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
from sfm_features.nets.halves import Run, run_both, run_in_turn, use_one_core
from sfm_features.nets.peaks import DecodeOptions, choose_best, find_peaks, fit_peaks
from sfm_features.types import Features

_SMALL = 2**19
"""Pixels up to which waking a second core for each little step costs more time than it
saves."""


@dataclass(frozen=True)
class Seen:
    """A batch of images of one size (width, height), as a network saw it.

    log_p (B, 1, H, W) is without padding; pixels (N, 2) and scores (N,) are each
    image's peaks, best first.
    """

    dense: Dense
    image_size: tuple[int, int]
    log_p: Tensor
    pixels: list[Tensor]
    scores: list[Tensor]


def detect(
    net: DenseNet, grey: Tensor, options: DecodeOptions = DecodeOptions()
) -> list[Features]:
    """Run a network on grey (B, 1, H, W) in [0, 1] of any size, and decode."""
    seen = look(net, grey, options)
    return [describe(net, seen, i) for i in range(len(grey))]


def decode(
    net: DenseNet,
    dense: Dense,
    image_size: tuple[int, int],
    options: DecodeOptions = DecodeOptions(),
) -> list[Features]:
    """Choose and describe keypoints of each image; size (width, height) unpadded."""
    seen = find(net, dense, image_size, options)
    return [describe(net, seen, i) for i in range(len(seen.pixels))]


def look(net: DenseNet, grey: Tensor, options: DecodeOptions) -> Seen:
    """Run a network on grey (B, 1, H, W) in [0, 1] of any size, and find peaks."""
    height, width = grey.shape[-2:]
    dense = net(pad_to_stride(grey, net.stride))
    return find(net, dense, (width, height), options)


def find(
    net: DenseNet, dense: Dense, image_size: tuple[int, int], options: DecodeOptions
) -> Seen:
    """Find the peaks of each image; size (width, height) unpadded."""
    width, height = image_size
    middle = dense.logits.shape[2] // 2 // CELL_PX * CELL_PX
    halves = dense.logits[:, :, :middle], dense.logits[:, :, middle:]
    run, cores = _choose_way(dense)
    with cores:
        log_p = torch.cat(run(net.log_probability, *halves), 2)[:, :, :height, :width]
        peaks = find_peaks(log_p, options, run)
        best = [
            choose_best(log_p[i, 0], peaks[i, 0], options.max_keypoints)
            for i in range(len(log_p))
        ]
    pixels, scores = ([part[k] for part in best] for k in (0, 1))
    return Seen(dense, image_size, log_p, pixels, scores)


def describe(
    net: DenseNet, seen: Seen, image: int, most: int | None = None
) -> Features:
    """Place and describe the best peaks of an image, all by default."""
    dense = seen.dense
    padded_size = (dense.logits.shape[3], dense.logits.shape[2])

    def work(pixels: Tensor) -> tuple[Tensor, Tensor]:
        xy = _place(net, dense, image, seen.log_p[image, 0], pixels)
        maps = dense.descriptors[image : image + 1]
        return xy, sample_rows(maps, xy[None], padded_size)[0]

    run, cores = _choose_way(dense)
    with cores:
        parts = run(work, *seen.pixels[image][:most].tensor_split(2))
        xy, descriptors = (torch.cat(both) for both in zip(*parts, strict=True))
        return _pack(xy, descriptors, seen.scores[image][:most], seen.image_size)


def describe_places(net: DenseNet, maps: Tensor, xy: Tensor) -> Tensor:
    """Read the descriptor maps of one image at places (N, 2): unit (N, D)."""
    height, width = (cells * net.descriptor_stride for cells in maps.shape[2:])
    return functional.normalize(sample_rows(maps, xy[None], (width, height))[0], dim=1)


def _choose_way(dense: Dense) -> tuple[Run, AbstractContextManager[None]]:
    """Choose how halves are done, and on how many cores each step of them is."""
    few = dense.logits.device.type == "cpu" and dense.logits.numel() <= _SMALL
    split = few and torch.get_num_threads() > 1 and torch.is_inference_mode_enabled()
    return run_both if split else run_in_turn, use_one_core() if few else nullcontext()


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
