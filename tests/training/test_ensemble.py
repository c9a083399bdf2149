"""Descriptors taught by several networks: what is taught, and that it is learned."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_kit import make_photo, write_photos

from sfm_features.errors import OptionError, WeightsError
from sfm_features.nets.dense import DenseNet
from sfm_features.nets.evo import EvoNet
from sfm_features.nets.weights import find_bundled
from sfm_features.training.ensemble import Ensemble, Teacher, read_teachers
from sfm_features.training.networks import make_net, read_net
from sfm_features.training.options import TrainOptions
from sfm_features.training.train import train
from sfm_features.types import RunOptions

PHOTOS = [make_photo((96, 80), seed) for seed in range(6)]


def draw_grey(seed: int = 5) -> torch.Tensor:
    return torch.rand(2, 1, 64, 96, generator=torch.Generator().manual_seed(seed))


def describe(net: DenseNet, grey: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return torch.nn.functional.normalize(net.eval()(grey).descriptors, dim=1)


@pytest.mark.parametrize("name", ["evo", "sekd"])
def test_who_is_taught_by_itself_has_nothing_to_learn(name: str) -> None:
    net = make_net(name, 3)
    ensemble = Ensemble([Teacher(net), Teacher(net)], net)
    assert ensemble.choose_axes(net, PHOTOS, 0) == pytest.approx(1, abs=1e-4)
    grey = draw_grey()
    taught = ensemble.ask(grey)
    torch.testing.assert_close(taught, describe(net, grey), atol=0.03, rtol=0)
    assert ensemble.distance(grey, taught) == pytest.approx(0, abs=1e-5)
    assert ensemble.distance(grey, -taught) == pytest.approx(2, abs=1e-5)


def test_what_is_taught_is_as_alike_as_the_teachers_descriptors_are() -> None:
    """Axes keep angles: that is all that matching sees."""
    student, teachers = read_net("evo"), [read_net("evo"), read_net("sekd")]
    ensemble = Ensemble([Teacher(net) for net in teachers], student)
    kept = ensemble.choose_axes(student, PHOTOS, 0)
    assert 0.9 < kept < 1
    unit = ensemble.axes.T @ ensemble.axes
    torch.testing.assert_close(unit, torch.eye(128), atol=1e-4, rtol=0)
    grey = draw_grey()
    taught = ensemble.ask(grey).flatten(2)
    wanted = [describe(net, grey).flatten(2) for net in teachers]
    found = torch.einsum("bdi,bdj->bij", taught, taught)
    alike = sum(torch.einsum("bdi,bdj->bij", w, w) for w in wanted) / 2
    assert (found - alike).abs().mean() < 0.05
    # The student has half of it already, as axes are turned towards its own.
    near = float(1 - ensemble.distance(grey, describe(student, grey)))
    far = float(1 - ensemble.distance(grey, describe(student, grey).flip(1)))
    assert near > 0.6
    assert abs(far) < 0.3


def test_what_an_enlarged_picture_shows_is_read_in_the_middles_of_the_cells() -> None:
    """A picture shown at a third of its size and enlarged again is what it was."""
    net = read_net("evo")
    small = draw_grey()
    large = torch.nn.functional.interpolate(small, scale_factor=3, mode="bicubic")
    student = Ensemble([Teacher(net, 1 / 3)], net)
    student.axes.copy_(torch.eye(128))
    taught = student.ask(large)
    assert taught.shape[2:] == (48, 72)
    # Of nine cells of the student, the one in the middle has a cell of the teacher's.
    again = taught[:, :, 1::3, 1::3]
    alike = torch.nn.functional.cosine_similarity(again, describe(net, small))
    assert alike.mean() > 0.97
    elsewhere = torch.nn.functional.cosine_similarity(
        again[:, :, 1:], describe(net, small)[:, :, :-1]
    )
    assert 1 - elsewhere.mean() > 3 * (1 - alike.mean())


def test_maps_that_do_not_lie_alike_are_read_alike() -> None:
    class Coarse(EvoNet):
        descriptor_stride = 8

    fine = EvoNet()
    ensemble = Ensemble([Teacher(fine), Teacher(fine, 0.5)], Coarse())
    assert ensemble.ask(draw_grey()).shape == (2, 128, 8, 12)


def test_teachers_are_named_with_votes_and_sizes(tmp_path: Path) -> None:
    weights = tmp_path / "mine@2.safetensors"
    for suffix in (".safetensors", ".json"):
        source = find_bundled("evo").with_suffix(suffix)
        weights.with_suffix(suffix).write_bytes(source.read_bytes())
    found = read_teachers(["evo", "evo@1.5", str(weights), f"{weights}@0.5", "evo"])
    asked = [(one.name, one.size, one.votes) for one in found]
    assert asked == [
        ("evo @ 1", 1, 2), ("evo @ 1.5", 1.5, 1),
        ("mine@2 @ 1", 1, 1), ("mine@2 @ 0.5", 0.5, 1),
    ]  # fmt: skip
    for size in ("0", "-1", "5", "nan", "inf"):
        with pytest.raises(OptionError, match=f"--teachers evo@{size}: .*0.25 to 4"):
            read_teachers([f"evo@{size}"])
    with pytest.raises(WeightsError, match="evo@large: no such file"):
        read_teachers(["evo@large"])


def test_teachers_need_trained_weights_and_no_pairs(tmp_path: Path) -> None:
    photos, cpu = write_photos(tmp_path / "photos", 6), RunOptions("cpu")
    taught = TrainOptions(steps=2, teachers=("evo", "sekd"))
    with pytest.raises(OptionError, match="--from"):
        train(photos, tmp_path / "run", taught, cpu)
    with pytest.raises(OptionError, match="--strategy pgcs"):
        train(
            photos, tmp_path / "run", replace(taught, strategy="pgcs"), cpu, start="evo"
        )
    with pytest.raises(OptionError, match=f"--more-photos {photos}"):
        train(
            photos,
            tmp_path / "run",
            replace(taught, multiview=photos),
            cpu,
            start="evo",
        )
    nowhere = replace(taught, teachers=("evo", "nowhere.safetensors"))
    with pytest.raises(WeightsError, match="nowhere.safetensors: no such file"):
        train(photos, tmp_path / "run", nowhere, cpu, start="evo")


def test_descriptors_are_learned_and_keypoints_stay(tmp_path: Path) -> None:
    photos, cpu = write_photos(tmp_path / "photos", 6, frames=2), RunOptions("cpu")
    options = TrainOptions(
        steps=40, batch=2, crop_px=64, points=64, validations=1, validation_photos=2,
        teachers=("evo@1.5", "sekd", "sekd"), average=0.5, learning_rate=1e-3,
    )  # fmt: skip
    weights = train(photos, tmp_path / "run", options, cpu, start="evo").weights
    lines = (tmp_path / "run/log.jsonl").read_text().splitlines()
    steps = [x for x in map(json.loads, lines) if "ensemble" in x]
    assert steps[-1]["ensemble"] < 0.9 * steps[0]["ensemble"]
    assert steps[-1]["kept"] > 0
    assert not {"descriptor", "detector", "places"} & steps[-1].keys()
    card = json.loads(weights.with_suffix(".json").read_text())
    assert "1 x evo @ 1.5 " in card["recipe"]["teachers"]
    assert "2 x sekd @ 1 " in card["recipe"]["teachers"]
    before, after = read_net("evo"), read_net(str(weights))
    assert torch.equal(before.refiner.layers[0].weight, after.refiner.layers[0].weight)
    grey = draw_grey()
    moved = 1 - torch.nn.functional.cosine_similarity(
        describe(before, grey), describe(after, grey)
    )
    assert moved.mean() > 0.02


def test_a_stop_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, cpu = write_photos(tmp_path / "photos", 6), RunOptions("cpu")
    options = TrainOptions(
        steps=5, batch=1, crop_px=64, points=64, validations=1, validation_photos=2,
        teachers=("evo", "sekd"), checkpoint_steps=2,
    )  # fmt: skip

    def run(name: str) -> dict[str, torch.Tensor]:
        found = train(photos, tmp_path / name, options, cpu, start="evo")
        return read_net(str(found.weights)).state_dict()

    whole = run("whole")
    measure, calls = Ensemble.distance, iter(range(100))

    def stop_in_step_four(
        self: Ensemble, grey: torch.Tensor, descriptors: torch.Tensor
    ) -> torch.Tensor:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return measure(self, grey, descriptors)

    monkeypatch.setattr(Ensemble, "distance", stop_in_step_four)
    with pytest.raises(KeyboardInterrupt):
        run("stopped")
    again = run("stopped")
    assert all(torch.equal(value, again[key]) for key, value in whole.items())
