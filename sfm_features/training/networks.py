"""Networks to start from: made afresh from a seed, or read from weights."""

from __future__ import annotations

from pathlib import Path

import torch

from sfm_features.errors import OptionError
from sfm_features.nets.dense import DenseNet
from sfm_features.nets.weights import (
    ARCHITECTURES,
    BUNDLED_NETS,
    build_net,
    find_bundled,
    load_weights,
)


def make_net(name: str, seed: int) -> DenseNet:
    """Make an untrained network; the same seed makes the same weights."""
    if name not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise OptionError(f"--net {name}: choose one of {known}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_net(name)


def read_net(start: str) -> DenseNet:
    """Read a network by the name of bundled weights, or from a file."""
    path = Path(start) if start not in BUNDLED_NETS else find_bundled(start)
    return load_weights(path)[0]
