"""From a folder of photos to weights, and from weights to better ones, or the same."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from training_kit import make_photo, write_photos

from sfm_features.errors import (
    BusyStore,
    ImageError,
    InputError,
    OptionError,
    OutputError,
    StaleStore,
    WeightsError,
)
from sfm_features.journal import claim
from sfm_features.training import labels
from sfm_features.training.label_store import choose_photos
from sfm_features.training.networks import make_net, read_net
from sfm_features.training.options import AdaptOptions, TrainOptions
from sfm_features.training.photos import PhotoSet
from sfm_features.training.town import TownPairs
from sfm_features.training.train import adapt, train
from sfm_features.types import RunOptions

QUICK = TrainOptions(
    steps=2, rounds=1, batch=1, crop_px=64, points=32, views=2, validations=1,
    validation_photos=2,
)  # fmt: skip
CPU = RunOptions(device="cpu")


def test_train_then_adapt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = write_photos(tmp_path / "photos", 6, frames=2)
    trained = train(photos, tmp_path / "run", QUICK, CPU)
    assert trained.steps == 2 and trained.photos == 8
    # Numbers next to zero count again, whoever asks for them in this process.
    assert float(torch.tensor([1e-40]) * 1.0) > 0
    text = trained.weights.with_suffix(".json").read_text()
    assert json.loads(text)["seeds"] == [0]
    assert '1 fixed cameras: camera (2)"' in text and str(tmp_path) not in text
    # After two steps a network finds next to nothing, so it is asked for little.
    monkeypatch.setattr(labels, "_LEAST_P", {"cell": 0.0})
    monkeypatch.setattr(labels, "_LEAST_R", 0.0)
    options = AdaptOptions(
        steps=2, rounds=1, batch=1, crop_px=64, views=2,
        validations=2, validation_photos=2, replay=(photos,), learning_rate=1e-6,
    )  # fmt: skip
    adapted = adapt(photos, tmp_path / "adapted", str(trained.weights), options, CPU)
    assert adapted.weights.exists()
    card = json.loads(adapted.weights.with_suffix(".json").read_text())
    assert "warps=WarpRanges(scale=(0.75, 1.33)" in card["recipe"]["data"]
    score = adapted.last["matching_score"] + adapted.last["night_matching_score"]
    before = adapted.first["matching_score"] + adapted.first["night_matching_score"]
    assert score >= before
    start, kept = read_net(str(trained.weights)), read_net(str(adapted.weights))
    same = [
        torch.equal(value, kept.state_dict()[key])
        for key, value in start.state_dict().items()
    ]
    assert all(same) == adapted.kept_start


def test_training_goes_on_from_weights(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 6)
    options = replace(QUICK, net="sekd", learning_rate=1e-6)
    summary = train(photos, tmp_path / "run", options, CPU, start="evo")
    start, found = (read_net(name) for name in ("evo", str(summary.weights)))
    # Averages of the batches move by themselves; what is learned, by the rate at most.
    parameters = zip(start.parameters(), found.parameters(), strict=True)
    moved = max(float((a - b).detach().abs().max()) for a, b in parameters)
    assert 0 < moved < 1e-5
    card = json.loads(summary.weights.with_suffix(".json").read_text())
    assert "labels='product'" in card["recipe"]["stages"]
    with pytest.raises(StaleStore, match="was trained with start"):
        train(photos, tmp_path / "run", options, CPU, start="evo-object")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop_px": 100}, "--crop-px 100: must be a multiple of 32"),
        ({"rounds": 0}, "--rounds 0"),
        ({"steps": 0, "minutes": 0.0}, "--minutes"),
        ({"learning_rate": 0.0}, "--learning-rate"),
        ({"learning_rate": float("inf")}, "--learning-rate inf"),
        ({"start_share": 1.0}, "--start-share 1"),
        ({"night_share": -3.0}, "--night-share -3.0: must be from 0 to 1"),
        ({"average": float("nan")}, "--average nan"),
        ({"density": float("nan")}, "--density nan"),
        ({"validation_photos": 0}, "--validation-photos 0: must be at least 1"),
        ({"checkpoint_steps": 0}, "--checkpoint-steps 0"),
        ({"points": 0}, "--points 0"),
        ({"max_side": 40}, "--max-side 40: must be at least 96"),
        ({"descriptor_distinctness": False}, "--descriptor-loss triplet"),
        ({"net": "tardis"}, "--net tardis: choose one of evo, sekd"),
    ],
)
def test_senseless_options_are_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    photos = write_photos(tmp_path / "photos")
    with pytest.raises(OptionError, match=message):
        train(photos, tmp_path / "run", TrainOptions(**change), CPU)  # type: ignore[arg-type]


def test_a_second_run_on_one_output_is_refused(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos")
    with claim(tmp_path / "run"), pytest.raises(BusyStore):
        train(photos, tmp_path / "run", QUICK, CPU)
    taken = tmp_path / "file"
    taken.touch()
    with pytest.raises(OutputError, match="not a folder"):
        train(photos, taken / "run", QUICK, CPU)


def test_strict_stops_at_a_photo_that_cannot_be_read(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos")
    (photos / "bad.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"bad\.png"):
        train(photos, tmp_path / "run", QUICK, replace(CPU, strict=True))


def test_other_pixels_or_other_photos_held_back_are_another_run(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 8)
    train(photos, tmp_path / "run", QUICK, CPU)
    with pytest.raises(StaleStore, match="held_back"):
        train(photos, tmp_path / "run", replace(QUICK, validation_photos=1), CPU)
    first = sorted(photos.iterdir())[0]
    image = cv2.imread(str(first))
    cv2.imwrite(str(first), 255 - image)
    with pytest.raises(StaleStore, match="photos"):
        train(photos, tmp_path / "run", QUICK, CPU)


def test_the_start_is_mixed_in_at_the_end(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 6, frames=2)
    half = replace(QUICK, start_share=0.5)
    ends = [
        train(photos, tmp_path / name, options, CPU, start="evo").weights
        for name, options in (("plain", QUICK), ("mixed", half), ("mixed", half))
    ]
    first, plain, mixed, again = (
        read_net(str(name)).state_dict() for name in ("evo", *ends)
    )
    assert any(not torch.equal(plain[key], first[key]) for key in first)
    for key, value in mixed.items():
        if value.dtype.is_floating_point:
            torch.testing.assert_close(value, (plain[key] + first[key]) / 2)
        assert torch.equal(value, again[key])
    with pytest.raises(OptionError, match="--from"):
        train(photos, tmp_path / "nothing", half, CPU)


def test_too_few_photos_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="training needs 4"):
        train(write_photos(tmp_path / "photos", 3), tmp_path / "run", QUICK, CPU)


def test_a_network_is_a_function_of_its_seed() -> None:
    one, same, other = (make_net("evo", seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(value, same[key]) for key, value in one.items())
    assert not all(torch.equal(value, other[key]) for key, value in one.items())


def test_adapting_from_nowhere_is_refused(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere.safetensors")
    with pytest.raises(WeightsError, match="no such file"):
        adapt(write_photos(tmp_path / "photos"), tmp_path / "run", nowhere, run=CPU)


def test_a_place_is_reconstructed_and_learned_from(
    town_photos: Path, tmp_path: Path
) -> None:
    options = AdaptOptions(
        steps=4, rounds=1, batch=2, crop_px=128, views=1, validations=1,
        validation_photos=2, learning_rate=1e-6, multiview=True, track_share=1.0,
    )  # fmt: skip
    summary = adapt(town_photos / "images", tmp_path / "run", "evo", options, CPU)
    assert 0.2 < summary.first["views"] <= 1 and "views" in summary.last
    folder = tmp_path / "run/multiview/00"
    report = (folder / "collections.txt").read_text()
    found = re.fullmatch(
        r"all: (\d+) of 12 images in 1 models, (\d+) points.*\n", report
    )
    assert found is not None, report
    assert int(found[1]) >= 8 and int(found[2]) > 100
    assert not list((folder / "places").rglob("report.html"))


def test_town_pairs_are_exact(tmp_path: Path) -> None:
    """Day and night views agree on where things are."""
    town = TownPairs(tmp_path, 2, 0, first=10)
    assert len(town.photos) == 4
    rng = np.random.default_rng(0)
    seen = 0
    for _ in range(6):
        first, second, centre, landed = town.choose(rng)
        assert 10 <= first < 14 and 10 <= second < 14
        here, there = town.relate(first, second, centre[None])
        if len(here):
            seen += 1
            np.testing.assert_allclose(here[0], centre)
            np.testing.assert_allclose(there[0], landed)
            _, back = town.relate(second, first, there)
            if len(back):
                assert np.linalg.norm(back[0] - centre) < 0.2
    assert seen > 2
    # A view by day and by night gets its keypoints from both.
    all_views = town.extend(PhotoSet([make_photo(seed=i) for i in range(10)]))
    assert list(all_views.views().values()) == [[10, 12], [11, 13]]
    assert [photo.by_night for photo in town.photos] == [False, False, True, True]
    assert choose_photos(all_views, 3, 0, 0)[3:] == [10, 11]
    # Photos without labels have no part in it.
    some = town.among({11, 12})
    assert {n for _ in range(30) for n in some.choose(rng)[:2]} == {11, 12}
