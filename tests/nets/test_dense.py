"""Probabilities that add up, and the one convention of sampling."""

from __future__ import annotations

import pytest
import torch
from nets_kit import BlobNet
from torch.nn import functional

from sfm_features.nets.dense import (
    CELL_PX,
    log_softmax_cells,
    pad_to_stride,
    sample_bilinear,
    sample_descriptors,
)
from sfm_features.nets.evo import EvoNet
from sfm_features.nets.grey import grey_from_rgb
from sfm_features.nets.sekd import SekdNet
from sfm_features.types import PIXEL_CENTRE


def test_cells_and_dustbin_add_up_to_one() -> None:
    torch.manual_seed(0)
    logits = 3 * torch.randn(2, 1, 32, 48)
    p = EvoNet().probability(logits)
    cells = functional.pixel_unshuffle(logits, CELL_PX)
    with_dustbin = torch.cat([cells, torch.zeros_like(cells[:, :1])], dim=1)
    expected = with_dustbin.softmax(dim=1)
    shuffled = functional.pixel_shuffle(expected[:, :-1], CELL_PX)
    torch.testing.assert_close(p, shuffled)
    total = functional.avg_pool2d(p, CELL_PX) * CELL_PX**2
    torch.testing.assert_close(total + expected[:, -1:], torch.ones(2, 1, 4, 6))


def test_pixel_head_is_the_softmax_of_its_two_channels() -> None:
    torch.manual_seed(0)
    net = SekdNet().eval()
    seen = {}
    net.detector.register_forward_hook(lambda *call: seen.update(two=call[2]))
    p = net.probability(net(torch.rand(1, 1, 16, 24)).logits)
    torch.testing.assert_close(p, seen["two"].softmax(dim=1)[:, 1:])


@pytest.mark.parametrize("net", [EvoNet(), SekdNet()], ids=["cell", "pixel"])
def test_extreme_logits_stay_finite(net: EvoNet | SekdNet) -> None:
    logits = torch.full((1, 1, 16, 16), -3e4)
    logits[0, 0, 3, 3] = 3e4
    logits[0, 0, 12, 12] = 100
    logits.requires_grad_()
    log_p = net.log_probability(logits)
    assert log_p.isfinite().all() and (log_p <= 0).all()
    assert log_p[0, 0, 3, 3] == 0 and log_p[0, 0, 12, 12] > -1e-6
    log_p.sum().backward()
    assert logits.grad is not None and logits.grad.isfinite().all()


def test_gradient_of_the_cells_is_that_of_torch() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 1, 8, 16, requires_grad=True, dtype=torch.float64)
    weights = torch.randn(1, 1, 8, 16, dtype=torch.float64)
    (log_softmax_cells(logits) * weights).sum().backward()
    mine, logits.grad = logits.grad, None
    cells = functional.pixel_unshuffle(logits, CELL_PX)
    cells = torch.cat([cells, torch.zeros_like(cells[:, :1])], dim=1)
    expected = functional.pixel_shuffle(cells.log_softmax(dim=1)[:, :-1], CELL_PX)
    (expected * weights).sum().backward()
    torch.testing.assert_close(mine, logits.grad)


@pytest.mark.parametrize("stride", [1, 2, 4, 8])
def test_a_ramp_gives_the_place_itself(stride: int) -> None:
    """Each cell holds the place of its middle, so sampling a place returns it."""
    width, height = 64, 48
    middles = [
        (torch.arange(side // stride) + PIXEL_CENTRE) * stride - PIXEL_CENTRE
        for side in (height, width)
    ]
    rows, columns = torch.meshgrid(*middles, indexing="ij")
    torch.manual_seed(0)
    inner = torch.rand(1, 200, 2) * (torch.tensor([width, height]) - 2 * stride)
    xy = inner + stride - PIXEL_CENTRE
    found = sample_bilinear(torch.stack((columns, rows))[None], xy, (width, height))
    torch.testing.assert_close(found, xy, atol=1e-4, rtol=0)


def test_descriptors_are_unit_and_edges_repeat() -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 5, 6, 8)
    xy = torch.tensor([[[-0.4, -0.4], [31.4, 23.4], [10.0, 7.3]]]).expand(2, -1, -1)
    found = sample_descriptors(maps, xy, (32, 24))
    torch.testing.assert_close(found.norm(dim=2), torch.ones(2, 3))
    corner = functional.normalize(maps[:, :, 0, 0], dim=1)
    torch.testing.assert_close(found[:, 0], corner)
    torch.testing.assert_close(
        found[:, 1], functional.normalize(maps[:, :, -1, -1], dim=1)
    )


@pytest.mark.parametrize("size", [(1, 1), (5, 33), (32, 32), (31, 64)])
def test_padding_repeats_the_last_row_and_column(size: tuple[int, int]) -> None:
    image = torch.rand(2, 1, *size)
    padded = pad_to_stride(image, 32)
    assert padded.shape[2] % 32 == 0 and padded.shape[3] % 32 == 0
    assert padded.shape[2] - size[0] < 32 and padded.shape[3] - size[1] < 32
    assert (padded[:, :, : size[0], : size[1]] == image).all()
    assert (padded[:, :, size[0] :, : size[1]] == image[:, :, -1:]).all()
    assert (padded[:, :, :, size[1] :] == padded[:, :, :, size[1] - 1, None]).all()


def test_grey_is_one_however_it_comes() -> None:
    grey = torch.randint(0, 256, (20, 30), dtype=torch.uint8).numpy()
    rgb = torch.from_numpy(grey)[..., None].expand(-1, -1, 3).contiguous().numpy()
    for same in (grey, grey[..., None], rgb):
        assert (grey_from_rgb(same) == grey).all()
    red, green, blue = torch.eye(3, dtype=torch.uint8).numpy()[:, None, None] * 200
    assert [int(grey_from_rgb(c)[0, 0]) for c in (red, green, blue)] == [60, 117, 23]


def test_blob_net_is_a_network_like_the_others() -> None:
    dense = BlobNet()(torch.rand(1, 1, 16, 24))
    assert dense.logits.shape == (1, 1, 16, 24)
    assert dense.descriptors.shape == (1, 3, 4, 6)
