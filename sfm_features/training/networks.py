"""Networks by name: made afresh from a seed, or read from weights."""

from __future__ import annotations

import torch

from sfm_features.errors import OptionError
from sfm_features.nets.dense import DenseNet
from sfm_features.nets.evo import EvoNet
from sfm_features.nets.sekd import SekdNet

NETWORKS: dict[str, type[DenseNet]] = {"evo": EvoNet, "sekd": SekdNet}


def build_net(name: str, seed: int) -> DenseNet:
    """Make an untrained network; the same seed makes the same weights."""
    if name not in NETWORKS:
        raise OptionError(f"--net {name}: choose one of {', '.join(sorted(NETWORKS))}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NETWORKS[name]()
