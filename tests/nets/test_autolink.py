"""AutoLink: what is drawn, where keypoints are said to be, and strict weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sfm_features.errors import WeightsError
from sfm_features.nets.autolink import (
    TAPS,
    AutoLink,
    KeypointNet,
    load_keypoint_net,
    save_keypoint_net,
)
from sfm_features.nets.links import draw_links, locate, measure_sureness
from sfm_features.nets.weights import Card

SIZE, THICKNESS = 24, 0.01


def draw_slowly(a, b, weights, size: int, thickness: float):
    """Draw every line at every pixel, as the formula says, and take the strongest."""
    steps = (2 * torch.arange(size) + 1) / size - 1
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    pixels = torch.stack([x, y], 2)[None, None]
    start, along = a[:, :, None, None], (b - a)[:, :, None, None]
    inner = ((pixels - start) * along).sum(4, keepdim=True)
    t = (inner / (along.square().sum(4, keepdim=True) + 1e-8)).clamp(0, 1)
    miss = (pixels - start - t * along).square().sum(4)
    lines = weights[None, :, None, None] * torch.exp(-miss / thickness)
    return lines.max(1, keepdim=True).values


def test_links_are_drawn_as_the_formula_says_with_its_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    ends = (torch.rand((2, 3, 5, 2), generator=generator) * 2 - 1).unbind(0)
    weights = torch.rand(5, generator=generator) + 0.1
    found = []
    for draw in (draw_links, draw_slowly):
        given = [e.clone().requires_grad_() for e in (*ends, weights)]
        drawing = draw(*given, SIZE, THICKNESS)
        (drawing * torch.linspace(0, 1, SIZE)).sum().backward()
        found.append([drawing.detach(), *(g.grad for g in given)])
    for mine, slow in zip(*found, strict=True):
        torch.testing.assert_close(mine, slow, atol=2e-5, rtol=1e-3)


def test_a_link_of_no_length_is_a_dot() -> None:
    here = torch.full((1, 1, 2), 1 / SIZE, requires_grad=True)
    drawing = draw_links(here, here.clone(), torch.ones(1), SIZE, THICKNESS)
    assert drawing.argmax() == SIZE // 2 * SIZE + SIZE // 2
    assert float(drawing.detach().max()) == pytest.approx(1)
    drawing.sum().backward()
    assert torch.isfinite(here.grad).all()


def test_a_keypoint_is_where_its_map_peaks() -> None:
    logits = torch.zeros((1, 3, 8, 16))
    logits[0, 0, 2, 11] = 100
    logits[0, 1, 7, 0] = logits[0, 1, 7, 2] = 100
    middles = [[(2 * 11 + 1) / 16 - 1, (2 * 2 + 1) / 8 - 1], [3 / 16 - 1, 15 / 8 - 1]]
    np.testing.assert_allclose(locate(logits)[0], [*middles, [0, 0]], atol=1e-6)
    sure, doubtful, nothing = measure_sureness(logits)[0].tolist()
    assert (sure, doubtful) == (pytest.approx(1), pytest.approx(1)) and nothing < 0.1


def test_taps_go_from_fine_to_coarse_and_back() -> None:
    found = KeypointNet(5, 4, 64)(torch.zeros((2, 3, 64, 64)))
    assert tuple(found.taps) == TAPS
    sizes = [tap.shape[1:] for tap in found.taps.values()]
    assert [s[1] for s in sizes] == [32, 16, 8, 4, 8, 16, 16]
    assert [s[0] for s in sizes] == [4, 8, 16, 32, 16, 8, 5]
    assert found.taps["logits"] is found.logits


def test_most_of_the_image_is_hidden_from_the_painter() -> None:
    model = AutoLink(4, 4, 64).eval()
    mask = model.draw_mask(200, 64, torch.Generator().manual_seed(1))
    assert mask.mean() == pytest.approx(0.2, abs=0.01)
    cells = mask.reshape(200, 16, 4, 16, 4)
    assert (cells.amin((2, 4)) == cells.amax((2, 4))).all()


def test_weights_are_read_back_or_refused(tmp_path: Path) -> None:
    net, path = KeypointNet(5, 4, 64).eval(), tmp_path / "w.safetensors"
    card = Card("autolink", recipe={"keypoints": 5, "width": 4, "size_px": 64})
    save_keypoint_net(net, path, card)
    again, _ = load_keypoint_net(path)
    image = torch.rand((1, 3, 64, 64))
    torch.testing.assert_close(again(image).logits, net(image).logits)
    beside = path.with_suffix(".json")
    for change, words in (
        ({"keypoints": 6}, "head"),
        ({"width": "4"}, "says width '4'"),
    ):
        text = json.loads(beside.read_text())
        beside.write_text(json.dumps(text | {"recipe": text["recipe"] | change}))
        with pytest.raises(WeightsError, match=words):
            load_keypoint_net(path)
        beside.write_text(json.dumps(text))
    with pytest.raises(WeightsError, match="weights of evo"):
        beside.write_text(json.dumps(text | {"architecture": "evo"}))
        load_keypoint_net(path)
