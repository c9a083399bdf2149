"""Whitening: the map that is folded in, what it does to descriptors, and its place."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training_kit import write_photos

from sfm_features.errors import OptionError
from sfm_features.nets.evo import EvoNet
from sfm_features.training import labels
from sfm_features.training.networks import read_net
from sfm_features.training.options import TrainOptions
from sfm_features.training.train import train
from sfm_features.training.whitening import Spread, whiten
from sfm_features.types import RunOptions

DIM = 16


def make_views(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Make two views of points: four directions are loud, and differ between views."""
    draw = torch.Generator().manual_seed(seed)
    points = torch.randn(count, DIM, generator=draw)
    points[:, :4] *= 4
    noise = [torch.randn(count, DIM, generator=draw) for _ in range(2)]
    for part in noise:
        part[:, :4] *= 6
        part[:, 4:] *= 0.4
    return points + noise[0] + 3, points + noise[1] + 3


def share_matched(a: torch.Tensor, b: torch.Tensor) -> float:
    unit_a, unit_b = (torch.nn.functional.normalize(x, dim=1) for x in (a, b))
    found = (unit_a @ unit_b.T).argmax(1)
    return float((found == torch.arange(len(a))).double().mean())


def test_what_views_agree_on_counts_most() -> None:
    spread = Spread.empty(DIM)
    for seed in range(4):
        spread.add(*make_views(2000, seed))
    matrix, mean = spread.solve()
    assert torch.allclose(mean, torch.full_like(mean, 3), atol=0.2)
    a, b = (x.double() for x in make_views(500, 9))
    mapped = [(x - mean) @ matrix for x in (a, b)]
    before, after = share_matched(a, b), share_matched(*mapped)
    assert after > 2 * before
    # What differs between views differs as much in all directions, but for shrinkage.
    spreads = (mapped[0] - mapped[1]).std(0)
    assert spreads.max() / spreads.min() < 4
    assert (a - b).std(0).max() / (a - b).std(0).min() > 10


@pytest.mark.parametrize("padding", [0, 16])
def test_a_map_is_folded_in_exactly(padding: int) -> None:
    torch.manual_seed(0)
    net, grey = EvoNet().eval(), torch.rand(1, 1, 64, 48 + padding)
    draw = torch.Generator().manual_seed(1)
    matrix = torch.randn(128, 128, generator=draw, dtype=torch.float64)
    mean = torch.randn(128, generator=draw, dtype=torch.float64)
    with torch.no_grad():
        before = net(grey)
        net.map_descriptors(matrix, mean)
        after = net(grey)
    wanted = torch.einsum(
        "bchw,cd->bdhw", before.descriptors.double() - mean[:, None, None], matrix
    )
    torch.testing.assert_close(after.descriptors.double(), wanted, rtol=1e-4, atol=1e-4)
    assert torch.equal(before.logits, after.logits)


def test_nothing_is_touched_without_points() -> None:
    net = EvoNet()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    assert not whiten(net, [], torch.device("cpu"))
    for key, value in net.state_dict().items():
        torch.testing.assert_close(value, before[key])


def test_a_network_whose_last_layer_takes_no_map_is_refused(tmp_path: Path) -> None:
    """Before an hour of training, and not in silence at its end."""
    with pytest.raises(OptionError, match="--whiten needs"):
        train(tmp_path, tmp_path / "run", TrainOptions(net="sekd", whiten=True))
    assert not (tmp_path / "run").exists()


def test_a_run_ends_with_it_and_ends_so_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labels, "_LEAST_P", {"cell": 0.0})
    monkeypatch.setattr(labels, "_LEAST_R", 0.0)
    photos, cpu = write_photos(tmp_path / "photos", 6, frames=2), RunOptions("cpu")

    def run(name: str, whitens: bool) -> dict[str, torch.Tensor]:
        options = TrainOptions(
            steps=2, rounds=1, batch=2, crop_px=64, points=64, views=2, validations=1,
            validation_photos=2, whiten=whitens,
        )  # fmt: skip
        found = train(photos, tmp_path / name, options, cpu, start="evo")
        return read_net(str(found.weights)).state_dict()

    plain, whitened = run("plain", False), run("white", True)
    changed = {key for key in plain if not torch.equal(plain[key], whitened[key])}
    layers = ("descriptor4", "descriptor8")
    assert changed == {
        f"{layer}.{part}" for layer in layers for part in ("weight", "bias")
    }
    again = run("white", True)
    assert all(torch.equal(again[key], whitened[key]) for key in again)
