"""The networks' shapes, sizes and folding."""

from __future__ import annotations

import copy
import functools
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional

from sfm_features.nets.blocks import ConvNorm, fold_batch_norms, prepare_for_use
from sfm_features.nets.dense import DenseNet
from sfm_features.nets.evo import EvoNet, _fold_pixels, _unfold_pixels
from sfm_features.nets.sekd import SekdNet

NETS = [EvoNet, SekdNet]


def _make_used(kind: type[DenseNet]) -> DenseNet:
    """Return a network whose batch norms have seen something, and are not plain."""
    return copy.deepcopy(_make_once(kind))


@functools.cache
def _make_once(kind: type[DenseNet]) -> DenseNet:
    torch.manual_seed(0)
    net = kind()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
    with torch.no_grad():
        for _ in range(3):
            net(torch.rand(2, 1, 64, 64))
    return net.eval()


def test_sekd_has_the_published_number_of_parameters() -> None:
    assert sum(p.numel() for p in SekdNet().parameters()) == 661_762


def test_evo_is_small() -> None:
    assert 300_000 < sum(p.numel() for p in EvoNet().parameters()) < 1_000_000


@pytest.mark.parametrize("kind", NETS)
def test_shapes(kind: type[DenseNet]) -> None:
    net = _make_used(kind)
    dense = net(torch.rand(2, 1, 64, 96))
    s = net.descriptor_stride
    assert dense.logits.shape == (2, 1, 64, 96)
    assert dense.logits.dtype == torch.float32
    assert dense.descriptors.shape == (2, net.descriptor_dim, 64 // s, 96 // s)
    if dense.fine is not None:
        assert dense.fine.shape[2:] == (64, 96)


@pytest.mark.parametrize("kind", NETS)
def test_folding_changes_nothing(kind: type[DenseNet]) -> None:
    net = _make_used(kind)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    folded = fold_batch_norms(net)
    grey = torch.rand(1, 1, 64, 96)
    a, b = net(grey), folded(grey)
    torch.testing.assert_close(a.logits, b.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(a.descriptors, b.descriptors, atol=1e-5, rtol=1e-5)
    assert all((before[k] == v).all() for k, v in net.state_dict().items())
    left = [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]
    assert bool(left) == (kind is SekdNet)  # there no convolution comes before them


@pytest.mark.parametrize("kind", NETS)
def test_descriptors_alone_are_the_same(kind: type[DenseNet]) -> None:
    net, grey = _make_used(kind), torch.rand(1, 1, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(net.describe(grey), net(grey).descriptors)


@pytest.mark.parametrize("groups", [1, 4, 16])
def test_a_folded_skip_is_a_skip(groups: int) -> None:
    torch.manual_seed(0)
    block = ConvNorm(16, 16, groups=groups, skip=True).eval()
    x = torch.randn(1, 16, 9, 7)
    expected = torch.relu(block.norm(block.conv(x)) + x)
    torch.testing.assert_close(fold_batch_norms(block)(x), expected)
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("kind", NETS)
def test_bfloat16_is_close(kind: type[DenseNet]) -> None:
    net = _make_used(kind)
    grey = torch.rand(1, 1, 64, 96)
    exact, quick = net(grey), prepare_for_use(net, "cpu", bf16=True)(grey)
    assert quick.logits.dtype == torch.float32
    spread = exact.logits.std()
    assert (quick.logits - exact.logits).abs().mean() < 0.03 * spread
    cosine = functional.cosine_similarity(quick.descriptors, exact.descriptors)
    assert cosine.min() > 0.99


def test_evo_hardly_sees_exposure() -> None:
    net = _make_used(EvoNet)
    grey = 0.3 + 0.5 * torch.rand(1, 1, 64, 64)
    bright, dark = net(grey).logits, net(0.5 * grey + 0.02).logits
    assert (bright - dark).abs().mean() < 0.02 * bright.std()
    assert net(torch.full((1, 1, 64, 64), 0.7)).logits.isfinite().all()
    plain = EvoNet(standardise=False)
    plain.load_state_dict(net.state_dict())
    plain.eval()
    a, b = plain(grey).logits, plain(0.5 * grey + 0.02).logits
    assert (a - b).abs().mean() > 0.1 * a.std()


def test_pixels_fold_as_torch_does() -> None:
    x = torch.randn(2, 1, 6, 10)
    assert (_fold_pixels(x) == functional.pixel_unshuffle(x, 2)).all()
    y = torch.randn(2, 4, 3, 5).contiguous(memory_format=torch.channels_last)
    assert (_unfold_pixels(y) == functional.pixel_shuffle(y, 2)).all()


@pytest.mark.parametrize("kind", NETS)
def test_every_parameter_learns(kind: type[DenseNet]) -> None:
    net = _make_used(kind).train()
    dense = net(torch.rand(2, 1, 64, 64))
    loss = net.log_probability(dense.logits).square().mean()
    loss = loss + dense.descriptors.square().mean()
    if dense.grey is not None:
        pixels = torch.randint(0, 64, (2, 9, 2))
        loss = loss + (net.refine(dense.grey, pixels) - pixels).square().mean()
    loss.backward()
    idle = [
        name
        for name, p in net.named_parameters()
        if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()
    ]
    assert not idle, idle


def test_networks_need_torch_only() -> None:
    code = (
        "import sys\n"
        "for name in ('kornia', 'pycolmap', 'tyro', 'h5py'): sys.modules[name] = None\n"
        "import torch\n"
        "import sfm_features.nets.weights\n"
        "from sfm_features.nets.decode import detect\n"
        "from sfm_features.nets.evo import EvoNet\n"
        "import sfm_features.extractors.learned\n"
        "with torch.inference_mode():\n"
        "    print(len(detect(EvoNet().eval(), torch.rand(2, 1, 40, 50))))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "2"
