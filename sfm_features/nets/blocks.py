"""Convolutions with batch norm, and how the two become one for use."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Net = TypeVar("Net", bound=nn.Module)


class ConvNorm(nn.Module):
    """Convolution, batch norm, ReLU; with `skip` the input is added before the ReLU.

    Folded, all but the ReLU is one convolution: the input that is added becomes a one
    in the middle of the kernel, so a skip costs nothing in use.
    """

    def __init__(
        self, inputs: int, outputs: int, size: int = 3, stride: int = 1,
        *, groups: int = 1, skip: bool = False, relu: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        assert not skip or (inputs == outputs and stride == 1)
        self.conv = nn.Conv2d(
            inputs, outputs, size, stride, size // 2, groups=groups, bias=False
        )
        self.norm: nn.Module = nn.BatchNorm2d(outputs)
        self.skip, self.relu = skip, relu

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        if self.skip:
            y = y + x
        return torch.relu_(y) if self.relu else y

    @torch.no_grad()
    def fold(self) -> None:
        """Put batch norm and skip into the convolution."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = fuse_conv_bn_eval(self.conv.eval(), self.norm.eval())
            self.norm = nn.Identity()
        if self.skip:
            one = torch.zeros_like(self.conv.weight)
            self.conv.weight += nn.init.dirac_(one, self.conv.groups)
            self.skip = False


def fold_batch_norms(net: Net) -> Net:
    """Return a copy for use, its batch norms folded into the convolutions before."""
    folded = copy.deepcopy(net).eval().requires_grad_(False)
    for module in list(folded.modules()):
        if isinstance(module, ConvNorm):
            module.fold()
    return folded


def prepare_for_use(net: Net, device: str, bf16: bool | None = None) -> Net:
    """Return a copy for use: folded, channels last, bfloat16 where there is hardware.

    Batch norms that no convolution comes before stay float32; they cost little.
    """
    net = fold_batch_norms(net).to(device)
    halve = has_bf16(device) if bf16 is None else bf16
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            module.to(torch.bfloat16 if halve else torch.float32)
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            kernel = module.weight.data
            module.weight.data = kernel.contiguous(memory_format=torch.channels_last)
    return net


def has_bf16(device: str) -> bool:
    """Tell whether a device multiplies bfloat16 in hardware."""
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found = torch.cpu.get_capabilities() if device == "cpu" else {}
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))
