"""Our fast network beside kornia's XFeat: forward alone, and what decoding adds.

Both run in turns in one process with random weights, batch norms folded, channels
last; XFeat in bfloat16 is the faster of autocast and converted weights. Unless
`keep_memory` is off, glibc keeps freed memory for both, as it does in our extractors.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from kornia.feature.xfeat import XFeatModel
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from tqdm import tqdm

from pipelines.benchmarks.results import Check, Result
from sfm_features.nets.blocks import prepare_for_use
from sfm_features.nets.decode import detect
from sfm_features.nets.evo import EvoNet
from sfm_features.nets.grey import grey_from_rgb
from sfm_features.nets.memory import keep_freed_memory
from sfm_features.nets.peaks import DecodeOptions
from sfm_features.nets.weights import find_bundled, load_weights
from sfm_features.scenes.render import render_view
from sfm_features.scenes.town import build_town
from sfm_features.scenes.views import town_views
from sfm_features.types import U8

SIZE = (640, 480)
KEYPOINTS = 2048
FORWARD_LIMIT = 1.5
DECODE_LIMIT = 0.4
_WARM_UP = 5
_DECODE = f"evo bf16, decoded to {KEYPOINTS} keypoints"

Jobs = dict[str, Callable[[], object]]


def measure_networks(
    threads: int,
    repeats: int = 50,
    seed: int = 0,
    size: tuple[int, int] = SIZE,
    keep_memory: bool = True,
) -> Result:
    """Time forward passes in turns, in float32 and bfloat16, and the decoder."""
    if keep_memory:
        keep_freed_memory()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            times = time_in_turns(_make_jobs(seed, size), repeats, "networks")
    finally:
        torch.set_num_threads(before)
    ms = {name: 1000 * median(seconds) for name, seconds in times.items()}
    peer = {"f32": ms["XFeat f32"]}
    peer["bf16"] = min(ms["XFeat bf16"], ms["XFeat autocast"])
    rows = [
        {
            "what": name,
            "ms": ms[name],
            "fastest ms": 1000 * min(times[name]),
            "over XFeat": ms[name] / peer["f32" if "f32" in name else "bf16"],
        }
        for name in ms
    ]
    checks = [
        Check(f"evo over XFeat, {kind}", ms[f"evo {kind}"] / peer[kind], FORWARD_LIMIT)
        for kind in ("f32", "bf16")
    ]
    # Together, as the decoder finds in the caches what the network has just left.
    share = ms[_DECODE] / ms["evo bf16"] - 1
    checks.append(Check("decoding over bf16 forward", share, DECODE_LIMIT))
    title = f"Networks: {size[0]} x {size[1]}, {threads} thread(s)"
    return Result(title, rows, checks, {"seconds": times})


def _make_jobs(seed: int, size: tuple[int, int]) -> Jobs:
    torch.manual_seed(seed)
    grey = torch.rand(1, 1, size[1], size[0])
    xfeat, evo = _fold(XFeatModel().eval()), EvoNet()
    peer = xfeat.to(memory_format=torch.channels_last)
    peer_half = copy.deepcopy(peer).to(torch.bfloat16)
    full, half = (prepare_for_use(evo, "cpu", bf16=kind) for kind in (False, True))
    # Random weights and noise give the most peaks that there can be.
    noisy = DecodeOptions(KEYPOINTS, least_probability=0)
    bundled, _ = load_weights(find_bundled("evo"), "evo")
    trained = prepare_for_use(bundled, "cpu", bf16=True)
    pixels = grey_from_rgb(render_picture(seed, size))
    picture = torch.from_numpy(pixels)[None, None].float() / 255
    options = DecodeOptions(KEYPOINTS)
    found = len(detect(trained, picture, options)[0])
    assert found == KEYPOINTS or size != SIZE, f"only {found} keypoints"
    return {
        "XFeat f32": partial(peer, grey),
        "evo f32": partial(full, grey),
        "XFeat bf16": partial(peer_half, grey.bfloat16()),
        "XFeat autocast": partial(_run_autocast, peer, grey),
        "evo bf16": partial(half, grey),
        _DECODE: partial(detect, trained, picture, options),
        f"{_DECODE} of noise": partial(detect, half, grey, noisy),
    }


def render_picture(seed: int, size: tuple[int, int]) -> U8:
    """Take a photograph (H, W, 3) of the rendered town."""
    (view,) = town_views(1, seed, size)
    town = build_town(seed)
    return render_view(town, view.camera, view.cam_from_world, "day", seed).rgb


def time_in_turns(jobs: Jobs, repeats: int, title: str) -> dict[str, list[float]]:
    """Time jobs one after the other, so that other load on the machine hits all."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for i in tqdm(range(repeats + _WARM_UP), desc=title, unit="round"):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            if i >= _WARM_UP:
                times[name].append(time.perf_counter() - start)
    return times


def _run_autocast(net: nn.Module, grey: Tensor) -> object:
    with torch.autocast("cpu", torch.bfloat16):
        return net(grey)


def _fold(net: nn.Module) -> nn.Module:
    """Put each batch norm that follows a convolution into it, in place."""
    for module in net.modules():
        if isinstance(module, nn.Sequential):
            for i in range(len(module) - 1):
                conv, norm = module[i], module[i + 1]
                if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    module[i] = fuse_conv_bn_eval(conv, norm)
                    module[i + 1] = nn.Identity()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    return net
