"""PG2SD against its published figures, and what its statistics do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional
from training_kit import TinyNet, make_batch

from sfm_features.training.guidance import Guidance
from sfm_features.training.losses import Samples
from sfm_features.training.pg2sd import (
    Difficulty,
    Pg2sdOptions,
    Schedule,
    constrain_peaks,
    distil_own,
    distil_taught,
    measure_hard_share,
    soften,
    weigh,
)
from sfm_features.training.runlog import RunLog, draw_difficulty
from sfm_features.training.warps import sample_maps

OPTIONS = Pg2sdOptions("pg2sd")
SHOWN = {"descriptor hard share", "descriptor easiest", "descriptor hardest"}
PUBLISHED = replace(OPTIONS, form="published")


def at(epoch: int, options: Pg2sdOptions = OPTIONS) -> Schedule:
    """Return the schedule of an epoch of the published forty, counted from 1."""
    return Schedule(options, (epoch - 1) / 40)


def find_confidence(p: torch.Tensor) -> torch.Tensor:
    smooth = functional.avg_pool2d(p, 3, 1, 1)
    mean = functional.avg_pool2d(smooth, 17, 1, 8, count_include_pad=False)
    return (functional.max_pool2d(smooth, 17, 1, 8) - mean) / 2


@pytest.mark.parametrize(
    ("epoch", "slopes"),
    [
        (1, (0.12, 0.56, 1.0)),
        (8, (0.44, 0.72, 1.0)),
        (12, (0.68, 0.84, 1.0)),
        (20, (0.94, 0.97, 1.0)),
        (40, (1.0, 1.0, 1.0)),
    ],
)
def test_the_constraint_lets_hard_samples_in(
    epoch: int, slopes: tuple[float, ...]
) -> None:
    schedule = at(epoch)
    for c, slope in zip((0.0, 0.25, 0.5), slopes, strict=True):
        gate, late = schedule.gate, schedule.slope
        assert 2 * c * (1 - gate) + late * gate - 0.001 == pytest.approx(
            slope, abs=0.01
        )


def test_the_gate_opens_at_its_turn() -> None:
    assert Schedule(OPTIONS, 0.2).gate == pytest.approx(0.5)
    assert at(1).gate == pytest.approx(0.119, abs=1e-3)
    assert at(1).slope == pytest.approx(1.0003, abs=1e-4)


@pytest.mark.parametrize(
    ("epoch", "temperature", "mixing"),
    [(1, 1.5, 0.5), (8, 1.354, 0.354), (12, 1.271, 0.271), (20, 1.104, 0.104),
     (25, 1.0, 0.0), (40, 1.0, 0.0)],
)  # fmt: skip
def test_softening_ends(epoch: int, temperature: float, mixing: float) -> None:
    assert at(epoch).temperature == pytest.approx(temperature, abs=1e-3)
    assert at(epoch).mixing == pytest.approx(mixing, abs=1e-3)


@pytest.mark.parametrize("epoch", [1, 12, 40])
def test_the_constraints_gradient_is_its_closed_form(epoch: int) -> None:
    torch.manual_seed(epoch)
    p = torch.rand(2, 1, 40, 40, dtype=torch.float64, requires_grad=True)
    schedule = at(epoch)
    (found,) = torch.autograd.grad(constrain_peaks(p, schedule), p)
    c = find_confidence(p)
    gate = schedule.gate
    slope = 2 * c * (1 - gate) + schedule.slope * gate - 0.001
    (expected,) = torch.autograd.grad(c, p, -slope.detach() / c.numel())
    torch.testing.assert_close(found, expected)
    # A flat map has nothing to sharpen.
    assert constrain_peaks(torch.full((1, 1, 40, 40), 0.3), schedule) > 0.99


def test_distillation_is_what_was_published() -> None:
    torch.manual_seed(0)
    maps = torch.rand(50, 2, dtype=torch.float64, requires_grad=True)
    q = (maps / 1.3).softmax(1)
    entropy = -(q * q.log()).sum(1).mean()
    expected = 0.4 * (0.5 * (maps - q).square()).mean() + 0.6 * entropy
    torch.testing.assert_close(distil_own(maps, 1.3, 0.4), expected)
    # Nothing is held fixed: the softened labels move, too.
    assert torch.autograd.gradcheck(lambda m: distil_own(m, 1.3, 0.4), (maps,))


def test_a_teacher_is_not_taught() -> None:
    torch.manual_seed(0)
    maps = torch.rand(6, 3, requires_grad=True)
    taught = torch.rand(6, 3, requires_grad=True)
    weight = torch.tensor([1.0, 0, 0, 0, 0, 0])
    distil_taught(maps, taught, weight, 1.2, 0.3).backward()
    assert taught.grad is None
    assert maps.grad is not None
    assert maps.grad[0].abs().sum() > 0 and maps.grad[1:].abs().sum() == 0
    alike = distil_taught(taught, taught, weight, 1.0, 0.0)
    assert alike <= distil_taught(maps, taught, weight, 1.0, 0.0)


def test_a_teachers_lesson_is_its_closed_form() -> None:
    torch.manual_seed(0)
    maps, taught = torch.rand(2, 4, 3, dtype=torch.float64)
    weight = torch.tensor([1.0, 2, 0, 1], dtype=torch.float64)
    target = (taught / 1.3).softmax(1)
    entropy = -(target * (maps / 1.3).log_softmax(1)).sum(1) * 1.3**2
    each = 0.4 * (0.5 * (maps - target).square()).mean(1) + 0.6 * entropy
    expected = (weight * each).sum() / 4
    torch.testing.assert_close(distil_taught(maps, taught, weight, 1.3, 0.4), expected)


def test_difficulty_is_the_rank_of_late() -> None:
    difficulty = Difficulty(20, 0.75)
    difficulty.update(torch.linspace(0, 1, 4001))
    norms = torch.tensor([0.0, 0.1, 0.5, 0.93, 1.0])
    torch.testing.assert_close(difficulty.rank(norms), norms, atol=2e-3, rtol=0)
    torch.testing.assert_close(
        difficulty.rarity(norms), torch.ones(5), atol=2e-2, rtol=0
    )
    for _ in range(40):
        difficulty.update(torch.full((100,), 0.02))
    assert difficulty.rank(torch.tensor([0.06])) > 0.99
    assert difficulty.rarity(torch.tensor([0.9])) > 10
    difficulty.update(torch.zeros(0))
    assert difficulty.shares.sum().item() == pytest.approx(1)


def test_easy_samples_first_and_all_alike_at_last() -> None:
    difficulty = Difficulty(20, 0.0)
    norms = torch.linspace(0, 1, 2001)
    difficulty.update(norms)
    early = weigh(norms, difficulty, Schedule(replace(OPTIONS, steepness=60), 0.0))
    torch.testing.assert_close(early, 1 - norms, atol=2e-3, rtol=0)
    late = weigh(norms, difficulty, Schedule(OPTIONS, 1.0))
    torch.testing.assert_close(late, torch.ones(2001), atol=1e-3, rtol=0)
    shares = [measure_hard_share(norms, w, difficulty) for w in (early, late)]
    # Integrals of u (1 - u) and of u over the upper half, over the whole.
    assert shares == [pytest.approx(0.5, abs=0.01), pytest.approx(0.75, abs=0.01)]
    assert soften(0.0, OPTIONS) == (1.5, 0.5)
    assert soften(0.25, OPTIONS) == (1.25, 0.25)
    assert soften(0.8, OPTIONS) == (1.0, 0.0)


def test_flattened_late_weights_are_rarities() -> None:
    difficulty = Difficulty(4, 0.0)
    norms = torch.tensor([0.1, 0.1, 0.1, 0.9])  # shares 3/4, 0, 0, 1/4
    difficulty.update(norms)
    options = replace(OPTIONS, flatten=True, steepness=60)
    late = weigh(norms, difficulty, Schedule(options, 1.0))
    torch.testing.assert_close(late, torch.tensor([1 / 3, 1 / 3, 1 / 3, 1.0]))


def test_without_its_histogram_it_is_as_published() -> None:
    torch.manual_seed(0)
    p, maps = torch.rand(2, 1, 32, 32), torch.rand(40, 2)
    samples = Samples(torch.rand(20), torch.rand(20), torch.ones(20))
    plain = [Guidance(o) for o in (PUBLISHED, replace(OPTIONS, bins=0))]
    for progress in (0.0, 0.3, 1.0):
        one, other = (g.constrain("detector", samples, progress, p) for g in plain)
        assert one == other and set(one) == {"detector constraint"}
        expected = constrain_peaks(p, Schedule(PUBLISHED, progress))
        torch.testing.assert_close(one["detector constraint"], expected)
        one_loss, other_loss = (g.distil(maps, None, samples, progress) for g in plain)
        assert one_loss == other_loss
        assert plain[0].constrain("descriptor", samples, progress) == {}
    assert not plain[1].state_dict()


def test_strategies_turn_on_what_they_name() -> None:
    samples = Samples(torch.rand(99), torch.rand(99), torch.ones(99))
    for strategy, keys in (
        ("none", set()),
        ("g2sds", SHOWN),
        ("pgcs", SHOWN | {"descriptor constraint"}),
    ):
        options = Pg2sdOptions(strategy)  # type: ignore[arg-type]
        found = Guidance(options).constrain("descriptor", samples, 0.5)
        assert set(found) == keys
        assert options.distils == (strategy == "g2sds")


def test_what_weighs_nothing_does_not_count() -> None:
    used = torch.tensor([1.0, 1, 0, 0])
    norms, each = torch.tensor([0.2, 0.4, 0.9, 0.9]), torch.tensor([1.0, 3, 99, 99])
    guidance = Guidance(replace(OPTIONS, steepness=60))
    found = guidance.constrain("descriptor", Samples(each, norms, used), 1.0)
    assert found["descriptor constraint"].item() == pytest.approx(2.0, rel=1e-3)
    difficulty = guidance.difficulties["descriptor"]
    assert isinstance(difficulty, Difficulty) and difficulty.shares[18] == 0


def test_hard_samples_are_taught_most_and_unused_ones_not() -> None:
    torch.manual_seed(0)
    guidance = Guidance(replace(OPTIONS, teacher="average"))
    norms = torch.tensor([0.05, 0.5, 0.95, 0.95])
    used = torch.tensor([1.0, 1, 1, 0])
    samples = Samples(torch.rand(4), norms, used)
    guidance.constrain("descriptor", samples, 0.5)
    maps, taught = torch.rand(2, 8, 2)
    maps.requires_grad_()
    found = guidance.distil(maps, taught, samples, 0.5)
    found.backward()
    assert maps.grad is not None
    assert maps.grad.norm(dim=1).reshape(2, 4)[:, 3].tolist() == [0, 0]
    difficulty = guidance.difficulties["descriptor"]
    assert isinstance(difficulty, Difficulty)
    weights = weigh(norms, difficulty, Schedule(OPTIONS, 0.5)) * used
    softness = soften(measure_hard_share(norms, weights, difficulty), OPTIONS)
    share = (difficulty.rank(norms) * used).repeat(2)
    lesson = distil_taught(maps, taught, share, *softness)
    torch.testing.assert_close(found, OPTIONS.distillation * lesson)


def test_what_is_softened_is_how_surely_points_match_and_are_keypoints() -> None:
    torch.manual_seed(0)
    batch, net = make_batch(False), TinyNet()
    dense = net(batch.images.float() / 255)
    each = torch.rand(batch.used.numel())
    samples = Samples(each, each, batch.used.flatten().float())
    found = Guidance(OPTIONS).read(net, dense, batch, samples)
    assert found.shape == (2 * batch.used.numel(), 2)
    torch.testing.assert_close(found[:, 0], (-each).exp().repeat(2))
    p = net.probability(dense.logits)
    score = sample_maps(p, batch.xy.flatten(0, 1)).flatten()
    torch.testing.assert_close(found[:, 1], score)


def test_what_is_hard_is_described_and_drawn(tmp_path: Path) -> None:
    torch.manual_seed(0)
    guidance, log = Guidance(OPTIONS), RunLog(tmp_path / "log.jsonl", 0)
    for step in range(3):
        norms = torch.rand(500) ** (step + 1)
        samples = Samples(norms * 2, norms, torch.ones(500))
        for name in ("detector", "descriptor"):
            found = guidance.constrain(name, samples, step / 2)
            log.add(step, **{key: float(value) for key, value in found.items()})
            assert found[f"{name} hardest"] > found[f"{name} easiest"]
        log.add(step, difficulty=guidance.describe(step / 2))
    first, last = (log.records[i]["difficulty"]["detector"] for i in (2, -1))
    assert sum(last["shares"]) == pytest.approx(1, abs=1e-3)
    assert last["shares"][0] > 2 * last["shares"][-1]
    # At first the weight falls with difficulty, at last it is the same for all.
    assert first["weights"] == sorted(first["weights"], reverse=True)
    assert first["weights"][0] > 2 * first["weights"][-1]
    assert max(last["weights"]) - min(last["weights"]) < 0.01
    draw_difficulty(log, tmp_path / "difficulty.png")
    assert (tmp_path / "difficulty.png").stat().st_size > 10_000
    draw_difficulty(RunLog(tmp_path / "none.jsonl", 0), tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
