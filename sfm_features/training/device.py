"""Where training runs, and in which precision."""

from __future__ import annotations

import torch

from sfm_features.errors import OptionError


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
    return torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device))


def has_bfloat16(device: torch.device) -> bool:
    """Tell whether bfloat16 is done in hardware; emulated, it is slower than float."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported())
    return False
