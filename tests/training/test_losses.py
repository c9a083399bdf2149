"""Losses against closed forms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from sfm_features.nets.dense import log_softmax_cells
from sfm_features.nets.peaks import fit_peaks
from sfm_features.training import losses
from sfm_features.training.targets import EMPTY, IGNORED, KEYPOINT, draw_heat


def make_targets(*size: int) -> torch.Tensor:
    return torch.full(size, EMPTY, dtype=torch.int8)


def focal_pixels(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return losses.focal_pixels(logits, targets).mean


def hardest_triplet(*arguments: Any, **options: Any) -> torch.Tensor:
    return losses.hardest_triplet(*arguments, **options).mean


def dual_softmax(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
    samples, right = losses.dual_softmax(*arguments)
    return samples.mean, right


def focal_cells(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Take the loss of keypoints that are in the middle of their pixels."""
    return losses.focal_cells(logits, targets, (targets == KEYPOINT).half()).mean


def test_cells_of_zero_logits_are_uniform() -> None:
    targets = make_targets(1, 8, 16)
    targets[0, 3, 4] = KEYPOINT
    logits = torch.zeros(1, 1, 8, 16)
    uniform = math.log(65) * (1 - 1 / 65) ** 0.5
    # One cell of weight one, one of weight a half, both equally wrong.
    torch.testing.assert_close(
        focal_cells(logits, targets).item(), uniform, atol=1e-5, rtol=0
    )


def test_cells_reward_the_right_pixel() -> None:
    targets = make_targets(1, 8, 8)
    targets[0, 2, 5] = KEYPOINT
    logits = torch.zeros(1, 1, 8, 8)
    logits[0, 0, 2, 5] = 20
    assert focal_cells(logits, targets) < 1e-5
    assert focal_cells(logits.mT, targets) > 10


@pytest.mark.parametrize("focal", [focal_cells, focal_pixels])
def test_being_sure_leaves_a_finite_slope(focal) -> None:
    targets = make_targets(1, 8, 16)
    targets[0, 2, 5] = KEYPOINT
    for sign in (1, -1):
        logits = torch.full((1, 1, 8, 16), -200.0 * sign)
        logits[0, 0, 2, 5] = 200.0 * sign
        logits.requires_grad_()
        focal(logits, targets).backward()
        assert torch.isfinite(logits.grad).all()


def test_cells_split_between_two_keypoints() -> None:
    targets = make_targets(1, 8, 8)
    targets[0, 2, 5] = targets[0, 6, 6] = KEYPOINT
    logits = torch.full((1, 1, 8, 8), -30.0)
    logits[0, 0, 2, 5] = logits[0, 0, 6, 6] = 30
    expected = math.log(2) * 0.5**0.5
    assert focal_cells(logits, targets).item() == pytest.approx(expected)


def test_a_keypoint_between_cells_is_wanted_by_both() -> None:
    """Without focus the best maps are the heat itself, and its top is the keypoint."""
    x, y = 7.6, 4.2
    heat = torch.from_numpy(draw_heat(np.array([[x, y]]), 16)).float()[None]
    assert heat.sum().item() == pytest.approx(1, abs=2e-3)
    logits = torch.zeros(1, 1, 16, 16, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200)
    targets = make_targets(1, 16, 16)
    targets[0, 4, 8] = KEYPOINT

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        loss = losses.focal_cells(logits, targets, heat, gamma=0.0).mean
        loss.backward()
        return loss

    optimizer.step(step)
    p = log_softmax_cells(logits.detach()).exp()[0, 0]
    torch.testing.assert_close(p, heat[0], atol=2e-3, rtol=0)
    top = fit_peaks(heat[0].clamp(min=1e-6).log(), torch.tensor([8]), torch.tensor([4]))
    torch.testing.assert_close(top, torch.tensor([[x, y]]), atol=0.01, rtol=0)


def test_unknown_cells_and_pixels_do_not_count() -> None:
    targets = make_targets(1, 8, 16)
    targets[0, 0, 0] = IGNORED
    logits = torch.zeros(1, 1, 8, 16)
    known = focal_cells(logits, targets)
    logits[0, 0, :, :8] = 5
    assert focal_cells(logits, targets) == known
    targets[0, :, :8] = IGNORED
    changed = logits.clone()
    changed[0, 0, :, :8] = -3
    assert focal_pixels(logits, targets) == focal_pixels(changed, targets)


def test_pixels_balance_keypoints_and_background() -> None:
    targets = make_targets(1, 10, 10)
    targets[0, :2, 0] = KEYPOINT
    # p = 1/2 everywhere: keypoints and background each lose (1/2)^gamma log 2.
    loss = focal_pixels(torch.zeros(1, 1, 10, 10), targets)
    assert loss.item() == pytest.approx(0.5 * math.log(2))
    sure = torch.where(targets[:, None] == KEYPOINT, 30.0, -30.0)
    assert focal_pixels(sure, targets) < 1e-6


def test_norms_say_how_wrong_a_prediction_is() -> None:
    """From 0, where it is right, to 1, where it is surely wrong."""
    targets = make_targets(1, 8, 8)
    targets[0, 2, 5] = KEYPOINT
    heat = (targets == KEYPOINT).half()
    sure = torch.where(targets[:, None] == KEYPOINT, 30.0, -30.0)
    for sign, norm in ((1, 0.0), (-1, 1.0)):
        for found in (
            losses.focal_cells(sign * sure, targets, heat),
            losses.focal_pixels(sign * sure, targets),
        ):
            torch.testing.assert_close(found.norms, torch.full_like(found.norms, norm))


def shift_maps(by: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return maps of a pair that is related by a shift to the right."""
    torch.manual_seed(0)
    first = torch.rand(1, 1, 16, 24) * 0.8 + 0.1
    second = torch.roll(first, by, dims=3)
    b_from_a = torch.eye(3)[None].clone()
    b_from_a[0, 0, 2] = by
    return torch.cat([first, second]), b_from_a, make_targets(2, 16, 24)


def test_equal_maps_are_repeatable_under_the_right_warp_only() -> None:
    p, b_from_a, targets = shift_maps(3)
    assert losses.detector_repeatability(p, b_from_a, targets) < 1e-6
    inverse = torch.linalg.inv(b_from_a)
    assert losses.detector_repeatability(p, inverse, targets) > 0.05


def test_what_either_image_does_not_show_is_not_compared() -> None:
    p, b_from_a, targets = shift_maps(3)
    for image in (0, 1):
        changed, hidden = p.clone(), targets.clone()
        changed[image, :, :, 8:12] = 0.9
        hidden[image, :, 8:12] = IGNORED
        for most in (0, 200):
            found = losses.detector_repeatability(changed, b_from_a, targets, most)
            unseen = losses.detector_repeatability(changed, b_from_a, hidden, most)
            assert found > 0.01 and unseen < 1e-6


def test_the_strongest_pixels_stand_for_all() -> None:
    p, b_from_a, targets = shift_maps(3)
    assert losses.detector_repeatability(p, b_from_a, targets, 40) < 1e-6
    peaky = p**6
    inverse = torch.linalg.inv(b_from_a)
    every = losses.detector_repeatability(peaky, inverse, targets)
    some = losses.detector_repeatability(peaky, inverse, targets, 200)
    assert some.item() == pytest.approx(every.item(), rel=0.25)


def test_repeatability_is_the_symmetric_divergence() -> None:
    p = torch.tensor([0.2, 0.6])[:, None, None, None].expand(2, 1, 8, 8)
    expected = 0.5 * (
        0.2 * math.log(0.2 / 0.6) + 0.8 * math.log(0.8 / 0.4)
        + 0.6 * math.log(0.6 / 0.2) + 0.4 * math.log(0.4 / 0.8)
    )  # fmt: skip
    loss = losses.detector_repeatability(p, torch.eye(3)[None], make_targets(2, 8, 8))
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_pairs_without_a_homography_have_no_detector_repeatability() -> None:
    p, b_from_a, targets = shift_maps(3)
    p.requires_grad_()
    loss = losses.detector_repeatability(p, b_from_a * math.nan, targets)
    loss.backward()
    assert loss == 0
    assert p.grad is not None and torch.isfinite(p.grad).all()


def make_points() -> tuple[torch.Tensor, torch.Tensor]:
    """Return corners of a big square, all of them used."""
    xy = torch.tensor([[0.0, 0], [100, 0], [0, 100], [100, 100]])
    return xy.expand(2, 1, 4, 2), torch.ones(1, 4, dtype=torch.bool)


def test_triplet_of_orthogonal_descriptors() -> None:
    xy, used = make_points()
    d = torch.eye(4)[None]
    # Pairs are 0 apart and others sqrt(2), more than the margin.
    assert hardest_triplet(d, d, xy, used) == 0
    swapped = d[:, [1, 0, 2, 3]]
    # Two pairs are sqrt(2) apart and their hardest negatives 0.
    expected = (2 * (math.sqrt(2) + 0.8)) / 4
    loss = hardest_triplet(d, swapped, xy, used)
    assert loss.item() == pytest.approx(expected, abs=2e-3)


def test_an_easy_triplet_passes_over_the_hardest_negatives() -> None:
    xy, used = make_points()
    a = torch.eye(4)[None].clone()
    angles = torch.tensor([0.0, 0.2, 0.5, 1.2])
    b = torch.stack([angles.cos(), angles.sin(), 0 * angles, 0 * angles], dim=1)[None]
    a[0] = b[0]
    apart = (2 - 2 * torch.cos(angles[:, None] - angles)).sqrt()
    near = [sorted(row[row > 0].tolist()) for row in apart]
    for ease, rank in ((0.0, 0), (0.4, 1), (0.7, 2), (1.0, 3)):
        # The last is beyond the three that there are: nothing is to be pushed.
        expected = [max(0.0, 0.8 - n[rank]) if rank < 3 else 0.0 for n in near]
        loss = hardest_triplet(a, b, xy, used, ease=ease)
        assert loss.item() == pytest.approx(sum(expected) / 4, abs=2e-3)


def test_triplet_switches() -> None:
    xy, used = make_points()
    d, swapped = torch.eye(4)[None], torch.eye(4)[None][:, [1, 0, 2, 3]]
    pull = hardest_triplet(d, swapped, xy, used, distinctness=False)
    push = hardest_triplet(d, swapped, xy, used, repeatability=False)
    assert pull.item() == pytest.approx(math.sqrt(2) / 2, abs=2e-3)
    assert push.item() == pytest.approx(0.4, abs=2e-3)


def test_norms_say_how_wrong_a_match_is() -> None:
    xy, used = make_points()
    same, temperature = torch.eye(4)[None], torch.tensor(3.0)
    swapped = same[:, [1, 0, 3, 2]]
    right, _ = losses.dual_softmax(same, same, xy, used, temperature)
    wrong, _ = losses.dual_softmax(same, swapped, xy, used, temperature)
    assert right.norms.max() < 0.01 and wrong.norms.min() > 0.99
    right = losses.hardest_triplet(same, same, xy, used)
    wrong = losses.hardest_triplet(same, swapped, xy, used)
    # Sigmoids of minus and plus the root of two.
    assert right.norms.tolist() == pytest.approx([0.1956] * 4, abs=1e-3)
    assert wrong.norms.tolist() == pytest.approx([0.8044] * 4, abs=1e-3)


def test_near_points_are_no_negatives() -> None:
    xy, used = make_points()
    near = xy.clone()
    near[:, :, 1] = near[:, :, 0] + 3
    same = torch.eye(4)[None].clone()
    same[0, 1] = same[0, 0]
    assert hardest_triplet(same, same, near, used) < 1e-3
    assert hardest_triplet(same, same, xy, used) > 0.3
    temperature = torch.tensor(20.0).log()
    # Places beside a point are told from it from 3.5 px on, so these are nearer.
    near[:, :, 1] = near[:, :, 0] + 2
    loss, right = dual_softmax(same, same, near, used, temperature)
    assert loss < 1e-5 and right == 1
    assert dual_softmax(same, same, xy, used, temperature)[0] > 0.3


def test_dual_softmax_of_equal_descriptors_is_uniform() -> None:
    xy, used = make_points()
    same = torch.ones(1, 4, 1)
    loss, _ = dual_softmax(same, same, xy, used, torch.tensor(3.0))
    assert loss.item() == pytest.approx(math.log(4), rel=1e-5)


def test_points_of_other_places_compete() -> None:
    xy, used = make_points()
    xy, used = torch.cat([xy, xy], dim=1), torch.cat([used, used])
    same, cold = torch.ones(2, 4, 1), torch.tensor(0.0)
    alone, _ = dual_softmax(same, same, xy, used, cold)
    there, right = dual_softmax(same, same, xy, used, cold, torch.arange(2))
    assert alone.item() == pytest.approx(math.log(4), rel=1e-5)
    assert there.item() == pytest.approx(math.log(8), rel=1e-5)
    one, _ = dual_softmax(same, same, xy, used, cold, torch.zeros(2))
    assert one == alone
    used[1, 2:] = False
    fewer, _ = dual_softmax(same, same, xy, used, cold, torch.arange(2))
    assert fewer.item() == pytest.approx(math.log(6), rel=1e-5)
    assert 0 <= right <= 1


def test_a_match_is_right_if_it_is_so_both_ways() -> None:
    xy, used = make_points()
    xy, used = xy[:, :, :2], used[:, :2]
    # The second point of a is nearest to that of b, which is nearer to the first.
    a, b = torch.tensor([[[0.9, 0.8], [0.1, 0.3]]]), torch.eye(2)[None]
    for one, other in ((a, b), (b, a)):
        _, right = dual_softmax(one, other, xy, used, torch.tensor(0.0))
        assert right == 0.5


def test_places_beside_a_point_compete() -> None:
    xy, used = make_points()
    same = torch.eye(4)[None]
    other = torch.zeros(1, 4, 3, 4)
    far, near = (other, other), (other, same[:, :, None].expand(1, 4, 3, 4))
    cold = torch.tensor(0.0)
    without, _ = dual_softmax(same, same, xy, used, cold)
    e = math.e
    assert without.item() == pytest.approx(math.log((e + 3) / e), rel=1e-5)
    apart, _ = dual_softmax(same, same, xy, used, cold, None, far)
    assert apart.item() == pytest.approx(math.log((e + 6) / e), rel=1e-5)
    confused, _ = dual_softmax(same, same, xy, used, cold, None, near)
    expected = (math.log((4 * e + 3) / e) + math.log((e + 6) / e)) / 2
    assert confused.item() == pytest.approx(expected, rel=1e-5)


def test_unused_points_neither_count_nor_compete() -> None:
    xy, used = make_points()
    torch.manual_seed(0)
    a = torch.nn.functional.normalize(torch.randn(1, 4, 8), dim=-1).requires_grad_()
    b = torch.nn.functional.normalize(torch.randn(1, 4, 8), dim=-1)
    used[0, 3] = False
    other = b.clone()
    other[0, 3] = a[0, 0].detach()
    temperature = torch.tensor(2.0)
    for loss in (
        lambda b: dual_softmax(a, b, xy, used, temperature)[0],
        lambda b: hardest_triplet(a, b, xy, used),
    ):
        assert loss(b) == loss(other)
    loss(b).backward()
    assert a.grad is not None and torch.isfinite(a.grad).all()


def test_preservation_measures_what_moved() -> None:
    logits = torch.zeros(1, 1, 4, 4)
    assert losses.preserve_detector(logits + 2, logits) == 4
    torch.manual_seed(0)
    maps = torch.randn(1, 8, 4, 4)
    assert losses.preserve_descriptor(3 * maps, maps) < 1e-10
    opposite = losses.preserve_descriptor(-maps, maps)
    assert opposite.item() == pytest.approx(4)


def test_refined_places_are_held_to_labels_and_to_each_other() -> None:
    b_from_a = torch.tensor([[2.0, 0, 1], [0, 2, 0], [0, 0, 1]])[None]
    xy = torch.tensor([[[[4.0, 5.0], [9, 9]]], [[[9.0, 10.0], [19, 18]]]])
    known = torch.tensor([[True, False]])
    assert losses.refinement(xy, xy, b_from_a, known) == 0
    places = xy + torch.tensor([0.5, 0.0])
    # Half a pixel off in both, and in b half a pixel from where a's place lands.
    assert losses.refinement(places, xy, b_from_a, known).item() == pytest.approx(1.0)
    both_right = xy + torch.tensor([0.5, 0.0]) * torch.tensor([1, 2]).reshape(
        2, 1, 1, 1
    )
    held = losses.refinement(both_right, xy, b_from_a, known).item()
    assert held == pytest.approx(0.75)  # consistent, though not where the labels are
    unrelated = losses.refinement(places, xy, b_from_a * math.nan, known).item()
    assert unrelated == pytest.approx(0.5)
