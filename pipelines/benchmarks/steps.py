"""What a training step costs beyond the forward and backward pass that it is made of.

The real loop runs with its data, optimizer and averaging; then the same network takes
the same kind of batch forward through the losses and back, with nothing else to do.
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

import cv2
import torch
from tqdm import tqdm

from pipelines.benchmarks.results import Check, Result
from sfm_features.nets.dense import DenseNet
from sfm_features.training.averaging import to_channels_last
from sfm_features.training.data import Batch
from sfm_features.training.device import autocast
from sfm_features.training.evolve import plan_stages
from sfm_features.training.loop import Trainer
from sfm_features.training.networks import make_net
from sfm_features.training.objective import Objective
from sfm_features.training.photos import load_photos
from sfm_features.training.settings import Settings

STEP_LIMIT = 1.3
_WARM_UP = 8


class _Pass:
    """One pass forward through the losses and back."""

    def __init__(self, net: DenseNet, batch: Batch, with_losses: bool) -> None:
        self.net, self.batch, self.with_losses = net, batch, with_losses
        self.objective = Objective()
        self.stage = plan_stages("joint", 1)[0]

    def __call__(self) -> None:
        self.net.zero_grad(set_to_none=True)
        if self.with_losses:
            self.objective(self.net, self.batch, self.stage)["loss"].backward()
            return
        images = self.batch.images.float() / 255
        images = images.contiguous(memory_format=torch.channels_last)
        with autocast(images.device):
            dense = self.net(images)
        (dense.logits.float().mean() + dense.descriptors.float().mean()).backward()


def measure_steps(
    photos: Path, output: Path, steps: int = 40, seed: int = 0, net: str = "evo"
) -> Result:
    """Time steps of a short training, and forward and backward passes alone."""
    cv2.setNumThreads(1)  # as in training, whose batches are made beside the network
    loaded = load_photos([photos])
    stages = tuple(plan_stages("joint", 1, first="random"))
    settings = Settings(
        stages=stages,
        steps=steps,
        validations=1,
        pictures=False,
        checkpoint_steps=steps,
    )
    moments: list[float] = []
    trainer = Trainer(
        make_net(net, seed), loaded, [0], output, settings, seed=seed,
        on_step=lambda step: moments.append(time.perf_counter()),
    )  # fmt: skip
    trainer.run()
    whole = [b - a for a, b in zip(moments, moments[1:], strict=False)][_WARM_UP:]
    batch = trainer.source.make_batch(0)
    network = to_channels_last(make_net(net, seed)).train()
    parts = {
        "with losses": _Pass(network, batch, with_losses=True),
        "network only": _Pass(network, batch, with_losses=False),
    }
    alone: dict[str, list[float]] = {name: [] for name in parts}
    for i in tqdm(range(len(whole) // 2 + _WARM_UP), desc="passes", unit="round"):
        for name, part in parts.items():
            start = time.perf_counter()
            part()
            if i >= _WARM_UP:
                alone[name].append(time.perf_counter() - start)
    times = {"step": whole} | alone
    ms = {name: 1000 * median(seconds) for name, seconds in times.items()}
    reference = ms["with losses"]
    rows = [
        {"what": "training step", "ms": ms["step"], "ratio": ms["step"] / reference},
        {"what": "forward and backward, with losses", "ms": reference, "ratio": 1.0},
        {
            "what": "forward and backward, network only",
            "ms": ms["network only"],
            "ratio": ms["network only"] / reference,
        },
    ]
    checks = [Check("step over its passes", ms["step"] / reference, STEP_LIMIT)]
    data = settings.data
    title = f"Training steps of `{net}`: {data.batch} pairs of {data.crop_px} px"
    return Result(title, rows, checks, {"seconds": times})
