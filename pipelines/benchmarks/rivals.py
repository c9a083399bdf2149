"""Our extractors, all of them, beside the bare networks of SEKD and PG2SD.

SEKD's is the one in `nets/sekd.py`; PG2SD's is built here layer by layer as its authors
describe it, for the time that it takes: nine convolutions at full resolution, dilated
instead of strided. Both run as released, in float32 and on one scale, without what they
do afterwards; ours decodes and describes on all of its scales.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import median

import numpy as np
import torch
from torch import nn

from pipelines.benchmarks.networks import KEYPOINTS, SIZE, render_picture
from pipelines.benchmarks.results import Check, Result
from sfm_features.nets.blocks import prepare_for_use
from sfm_features.nets.memory import keep_freed_memory
from sfm_features.nets.sekd import SekdNet
from sfm_features.registry import build_extractor

SEKD_LIMIT, PG2SD_LIMIT = 1 / 8, 1 / 20
_WIDTHS = (32, 32, 64, 64, 128, 128)
_DILATIONS = (1, 1, 1, 2, 2, 4)
_LATE_DILATIONS = (4, 8, 16)


def measure_rivals(
    threads: int, repeats: int = 5, seed: int = 0, size: tuple[int, int] = SIZE
) -> Result:
    """Time whole extraction by `evo` and `evo-fine`, and two others' bare networks."""
    keep_freed_memory()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        torch.manual_seed(seed)
        picture = render_picture(seed, size)
        ours = {
            f"{name}, extracted": build_extractor(name, max_keypoints=KEYPOINTS)
            for name in ("evo", "evo-fine")
        }
        sekd, pg2sd = (
            prepare_for_use(net, "cpu", bf16=False)
            for net in (SekdNet(), _build_pg2sd())
        )
        rgb = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
        jobs: dict[str, Callable[[], object]] = {
            **{
                name: partial(extractor.extract, np.ascontiguousarray(picture))
                for name, extractor in ours.items()
            },
            "SEKD, forward only": partial(sekd, rgb[:, :1]),
            "PG2SD, forward only": partial(pg2sd, rgb),
        }
        # Not in turns: what PG2SD leaves of the caches would be our loss.
        ms = {
            name: _time_both_ways(job, threads, repeats) for name, job in jobs.items()
        }
    finally:
        torch.set_num_threads(before)
    best = {name: min(ways) for name, ways in ms.items()}
    evo, _, *theirs = best
    rows = [
        {
            "what": name,
            "ms, all cores on one": ms[name][0],
            "ms, one on each core": ms[name][1],
            "over evo": best[name] / best[evo],
        }
        for name in ms
    ]
    checks = [
        Check(f"evo over {name}", best[evo] / best[name], limit)
        for name, limit in zip(theirs, (SEKD_LIMIT, PG2SD_LIMIT), strict=True)
    ]
    title = f"Rivals: {size[0]} x {size[1]}, {threads} thread(s)"
    return Result(title, rows, checks)


def _time_both_ways(
    job: Callable[[], object], threads: int, repeats: int
) -> tuple[float, float]:
    """Return ms a picture: with all cores on one, and with one on each core."""

    @torch.inference_mode()
    def work(_: int) -> float:
        start = time.perf_counter()
        job()
        return time.perf_counter() - start

    together = 1000 * median([work(i) for i in range(repeats + 2)][2:])
    prepare = partial(torch.set_num_threads, 1)
    with ThreadPoolExecutor(threads, "rival", prepare) as pool:
        list(pool.map(work, range(2 * threads)))
        seconds = list(pool.map(work, range(repeats * threads)))
    return together, 1000 * median(seconds) / threads


def _build_pg2sd() -> nn.Module:
    layers: list[nn.Module] = []
    inputs = 3
    for width, dilation in zip(_WIDTHS, _DILATIONS, strict=True):
        layers += [_convolve(inputs, width, 3, dilation), nn.ReLU()]
        inputs = width
    layers += [_convolve(inputs, inputs, 2, dilation) for dilation in _LATE_DILATIONS]
    return nn.Sequential(*layers)


def _convolve(inputs: int, outputs: int, side: int, dilation: int) -> nn.Module:
    """Return a convolution; its batch norm would be folded into it."""
    padding = (side - 1) * dilation // 2
    return nn.Conv2d(inputs, outputs, side, dilation=dilation, padding=padding)
