"""The loss of a stage, put together from its parts."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from training_kit import make_batch

from sfm_features.nets.evo import EvoNet
from sfm_features.training.evolve import plan_stages
from sfm_features.training.objective import LossWeights, Objective
from sfm_features.training.pg2sd import Pg2sdOptions
from sfm_features.training.targets import EMPTY

WEIGHTS = LossWeights(2.0, 3.0, 5.0, 7.0, 11.0, 13.0, 17.0)
COUNTS = {
    "detector": 2, "detector constraint": 2, "descriptor": 3, "distilled": 3,
    "descriptor constraint": 3, "repeat": 5, "places": 7, "background": 17,
}  # fmt: skip


@pytest.mark.parametrize("recipe", ["joint", "alternating"])
@pytest.mark.parametrize("pg2sd", [Pg2sdOptions(), Pg2sdOptions("pg2sd")])
def test_the_loss_is_the_weighted_sum_of_its_parts(
    recipe: str, pg2sd: Pg2sdOptions
) -> None:
    torch.manual_seed(0)
    batch = make_batch(True)
    assert batch.background.any()
    seen = set[str]()
    for stage in plan_stages(recipe, 2):
        net = EvoNet()
        frozen = copy.deepcopy(net)
        with torch.no_grad():
            for value in frozen.parameters():
                value.mul_(1.1)
        objective = Objective(weights=WEIGHTS, pg2sd=pg2sd)
        alone = stage.detector != stage.descriptor
        parts = objective(net, batch, stage, frozen if alone else None, 0.5)
        counts = COUNTS | {"kept": 11 if stage.descriptor else 13}
        expected = sum(n * parts[name] for name, n in counts.items() if name in parts)
        torch.testing.assert_close(parts["loss"], expected)
        seen |= set(parts)
    assert {"detector", "descriptor", "repeat", "places", "background"} < seen
    assert ("kept" in seen) == (recipe == "alternating")
    assert ("distilled" in seen) == pg2sd.distils


def test_places_are_learned_where_both_crops_have_a_label() -> None:
    torch.manual_seed(0)
    batch = make_batch(False)
    objective, net = Objective(weights=WEIGHTS), EvoNet()
    stage = plan_stages("joint", 1)[0]
    with torch.no_grad():
        assert objective(net, batch, stage)["places"] > 0
        hidden = replace(batch, targets=batch.targets.clone())
        hidden.targets[2:] = EMPTY  # no label in second images
        assert objective(net, hidden, stage)["places"] == 0
