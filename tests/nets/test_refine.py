"""The refiner moves with the picture, looks at the right pixels, and can learn."""

from __future__ import annotations

import torch

from sfm_features.nets.decode import detect
from sfm_features.nets.evo import EvoNet
from sfm_features.nets.peaks import DecodeOptions
from sfm_features.nets.refine import Refiner


def test_patches_are_centred_and_repeat_the_rim() -> None:
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(30.0), indexing="ij")
    grey = torch.stack([100 * y + x, -100 * y - x])[:, None]
    pixels = torch.tensor([[[7, 9], [29, 0]]]).repeat(2, 1, 1)
    patches = Refiner(radius=1)._cut(grey, pixels)
    inner = torch.tensor([806.0, 807, 808, 906, 907, 908, 1006, 1007, 1008])
    torch.testing.assert_close(patches[0, 0], inner)
    torch.testing.assert_close(patches[1, 0], -inner)
    rim = torch.tensor([28.0, 29, 29, 28, 29, 29, 128, 129, 129])
    torch.testing.assert_close(patches[0, 1], rim)


def test_offsets_are_bounded_and_blind_to_contrast() -> None:
    torch.manual_seed(0)
    refiner = Refiner()
    for layer in refiner.layers[::2]:
        torch.nn.init.normal_(layer.weight, std=1.0)
    grey = torch.rand(1, 1, 40, 40)
    pixels = torch.randint(0, 40, (1, 50, 2))
    offsets = refiner(grey, pixels)
    assert offsets.abs().max() <= refiner.reach_px
    assert offsets.abs().max() > 1
    brighter = refiner(0.2 + 0.7 * grey, pixels)
    torch.testing.assert_close(offsets, brighter, atol=0.1, rtol=0)
    assert refiner(grey, pixels[:, :0]).shape == (1, 0, 2)


def test_it_learns_where_spots_are() -> None:
    torch.manual_seed(0)
    refiner = Refiner()
    optimizer = torch.optim.Adam(refiner.parameters(), 3e-3)
    for _ in range(300):
        grey, pixels, xy = draw_spots()
        places = pixels + refiner(grey, pixels)
        loss = (places - xy).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    grey, pixels, xy = draw_spots()
    error = (pixels + refiner(grey, pixels) - xy).norm(dim=2)
    assert error.mean() < 0.15
    assert (pixels - xy).norm(dim=2).mean() > 0.7


def draw_spots() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw 64 spots that lie between pixels, and pixels near them."""
    y, x = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    middle = torch.cartesian_prod(torch.arange(8), torch.arange(8)) * 16 + 8.0
    xy = middle + 4 * torch.rand(64, 2) - 2
    distance = (x - xy[:, 0, None, None]) ** 2 + (y - xy[:, 1, None, None]) ** 2
    grey = torch.exp(-distance / (2 * 1.5**2)).sum(dim=0)
    pixels = (xy + 0.8 * torch.randn(64, 2)).round()
    return grey[None, None], pixels[None], xy[None]


def test_evo_refines_inside_of_the_image() -> None:
    torch.manual_seed(0)
    net = EvoNet().eval()
    for layer in net.refiner.layers[::2]:
        torch.nn.init.normal_(layer.weight, std=1.0)
    options = DecodeOptions(least_probability=0, border_px=0)
    with torch.inference_mode():
        found = detect(net, torch.rand(1, 1, 50, 70), options)[0]
    assert len(found) > 50
    assert (found.keypoints >= 0).all() and (found.keypoints <= (69, 49)).all()
    assert (found.keypoints % 1 > 0).any()
