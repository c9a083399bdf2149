"""Where training runs, and in which precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sfm_features.errors import OptionError
from sfm_features.nets.blocks import has_bf16


def choose_device(name: str) -> torch.device:
    """Return the device of --device: cpu, cuda, or auto, a GPU if there is one."""
    there = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if there else "cpu")
    if name not in ("cpu", "cuda"):
        raise OptionError(f"--device {name}: choose cpu, cuda or auto")
    if name == "cuda" and not there:
        raise OptionError("--device cuda: no GPU that PyTorch can use; try cpu")
    return torch.device(name)


def autocast(device: torch.device) -> torch.autocast:
    """Return the context that computes in bfloat16 where the hardware has it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=has_bf16(device.type))


@contextmanager
def flush_denormals() -> Iterator[None]:
    """Take numbers next to zero for zero: they slow a CPU down tenfold.

    What is not learned fades to such. Afterwards they count again, as whoever called
    may want them.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
