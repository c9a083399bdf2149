"""The loop: exact after a kill, stopped by a NaN, and planned as asked."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from training_kit import TinyNet, write_photos

from sfm_features.errors import StaleStore
from sfm_features.training.checkpoints import Diverged
from sfm_features.training.data import DataOptions
from sfm_features.training.evolve import Switches, plan_stages, schedule_rate
from sfm_features.training.labels import LabelOptions
from sfm_features.training.lessons import Lessons, Planner
from sfm_features.training.loop import Trainer
from sfm_features.training.pg2sd import Pg2sdOptions
from sfm_features.training.photos import hold_back, load_photos
from sfm_features.training.settings import Outcome, Settings

SETTINGS = Settings(
    stages=tuple(plan_stages("joint", 2)),
    steps=6,
    data=DataOptions(batch=2, crop_px=64, points=32),
    labels=LabelOptions(views=2, density=2.0),
    validations=2,
    checkpoint_steps=3,
    pictures=False,
)
KILLED = """
import os, signal, sys
sys.path[:0] = {path!r}
from test_loop import train
def kill(step):
    if step == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
train({photos!r}, {output!r}, {recipe!r}, kill)
"""


def train(photos, output, recipe="joint", on_step=None, **changes) -> Outcome:
    """Train a tiny network for six steps."""
    loaded = load_photos([Path(photos)])
    settings = replace(SETTINGS, stages=tuple(plan_stages(recipe, 2)), **changes)
    head = "pixel" if recipe == "alternating" else "cell"
    net = TinyNet(head, fine=recipe == "alternating")
    with torch.no_grad():
        net.detector.bias.fill_(1.0)
    held_back = hold_back(loaded, 0.2, 2, 0)
    trainer = Trainer(
        net, loaded, held_back, Path(output), settings, seed=5, on_step=on_step
    )
    return trainer.run()


KILLED_WRITING = """
import os, signal, sys
sys.path[:0] = {path!r}
import torch
from test_loop import train
save, replace, written = torch.save, os.replace, []
def die():
    os.kill(os.getpid(), signal.SIGKILL)
def save_and_die(values, path):
    save(values, path)
    written.append(path)
    if len(written) == {count} and {moment!r} == "half written":
        os.truncate(path, os.path.getsize(path) // 2)
        die()
def replace_and_die(source, target):
    is_it = str(target).endswith(".pt") and len(written) == {count}
    if is_it and {moment!r} == "not renamed":
        die()
    replace(source, target)
    if is_it and {moment!r} == "older ones left":
        die()
torch.save, os.replace = save_and_die, replace_and_die
train({photos!r}, {output!r})
"""


def weights_of(outcome: Outcome) -> dict[str, torch.Tensor]:
    return dict(outcome.net.state_dict())


@pytest.mark.parametrize("recipe", ["joint", "alternating"])
def test_a_killed_run_ends_with_the_same_weights(tmp_path: Path, recipe: str) -> None:
    photos = write_photos(tmp_path / "photos", 6, frames=3)
    whole = train(photos, tmp_path / "whole", recipe)
    assert whole.steps == 6
    output = tmp_path / "killed"
    code = KILLED.format(
        path=sys.path, at=5, photos=str(photos), output=str(output), recipe=recipe
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not (output / "checkpoints").joinpath("00000006-02.pt").exists()
    again = train(photos, output, recipe)
    assert again.steps == 6
    for name, value in weights_of(whole).items():
        assert torch.equal(value, weights_of(again)[name]), name
    lines = (output / "log.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == sorted(steps)


@pytest.mark.parametrize(
    "pg2sd",
    [
        Pg2sdOptions("pg2sd"),
        Pg2sdOptions("pg2sd", "published", softened="descriptors"),
        Pg2sdOptions("pg2sd", teacher="snapshot", flatten=True),
        Pg2sdOptions("g2sds", teacher="average", softened="descriptors"),
        Pg2sdOptions("pgcs"),
    ],
)
@pytest.mark.parametrize("recipe", ["joint", "alternating"])
def test_a_stopped_run_remembers_what_was_hard(
    tmp_path: Path, recipe: str, pg2sd: Pg2sdOptions
) -> None:
    photos = write_photos(tmp_path / "photos")
    whole = train(photos, tmp_path / "whole", recipe, pg2sd=pg2sd)
    plain = train(photos, tmp_path / "plain", recipe)

    def stop(step: int) -> None:
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(photos, tmp_path / "stopped", recipe, stop, pg2sd=pg2sd)
    again = train(photos, tmp_path / "stopped", recipe, pg2sd=pg2sd)
    for name, value in weights_of(whole).items():
        assert torch.equal(value, weights_of(again)[name]), name
    differs = [
        name
        for name, value in weights_of(plain).items()
        if not torch.equal(value, weights_of(whole)[name])
    ]
    assert differs


@pytest.mark.parametrize("moment", ["half written", "not renamed", "older ones left"])
def test_a_kill_while_a_checkpoint_is_written(tmp_path: Path, moment: str) -> None:
    photos = write_photos(tmp_path / "photos")
    whole = weights_of(train(photos, tmp_path / "whole"))
    for count in (1, 3):
        output = tmp_path / f"killed-{count}"
        code = KILLED_WRITING.format(
            path=sys.path, count=count, moment=moment, photos=str(photos),
            output=str(output),
        )  # fmt: skip
        killed = subprocess.run([sys.executable, "-c", code], capture_output=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
        again = weights_of(train(photos, output))
        for name, value in whole.items():
            assert torch.equal(value, again[name]), name
        assert not list((output / "checkpoints").glob("*.part"))


def test_training_changes_weights_and_repeats_itself(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos")
    first = weights_of(train(photos, tmp_path / "a", pictures=True))
    again = weights_of(train(photos, tmp_path / "b"))
    start = TinyNet().state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["descriptor.weight"], start["descriptor.weight"])
    assert (tmp_path / "a/curves.png").stat().st_size > 10_000
    assert len(list((tmp_path / "a/rounds").glob("*.jpg"))) == 2
    assert len(list((tmp_path / "a/checkpoints").glob("*.pt"))) == 2


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos")
    first = weights_of(train(photos, tmp_path / "run"))
    newest = max((tmp_path / "run/checkpoints").glob("*.pt"))
    newest.write_bytes(newest.read_bytes()[:1000])
    (newest.parent / "99999999-09.pt.part").write_bytes(b"half a checkpoint")
    again = train(photos, tmp_path / "run")
    assert again.steps == 6
    for name, value in weights_of(again).items():
        assert torch.equal(value, first[name]), name


def test_other_settings_are_refused(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos")
    train(photos, tmp_path / "run")
    with pytest.raises(StaleStore, match="learning_rate 0.002, asked for 0.5"):
        train(photos, tmp_path / "run", learning_rate=0.5)


def test_nan_stops_and_names_step_and_photos(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos")

    class Poisoned(TinyNet):
        steps = 0

        def forward(self, grey):
            self.steps += self.training
            dense = super().forward(grey)
            poison = float("nan") if self.steps == 5 and self.training else 1.0
            return replace(dense, logits=dense.logits * poison)

    loaded = load_photos([photos])
    trainer = Trainer(Poisoned(), loaded, [0], tmp_path / "run", SETTINGS)
    with pytest.raises(Diverged, match=r"step 5: .*'detector' is nan on .*png"):
        trainer.run()
    kept = sorted(path.name for path in (tmp_path / "run/checkpoints").glob("*.pt"))
    assert kept == ["00000003-00.pt", "00000003-01.pt"]


def test_worse_than_the_start_keeps_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sfm_features.training import judge

    seen = []

    def get_worse(*_):
        seen.append(0)
        score = 0.5 - 0.1 * len(seen)
        return judge.Scores(score, score, score, score, score, score)

    monkeypatch.setattr(judge, "validate", get_worse)
    photos = write_photos(tmp_path / "photos")
    outcome = train(photos, tmp_path / "run", steps=60, validations=60, keep_best=True)
    assert outcome.kept_start
    assert outcome.steps == 3
    start = TinyNet().state_dict()
    assert torch.equal(weights_of(outcome)["stem.0.weight"], start["stem.0.weight"])


def test_what_comes_before_a_stage_takes_none_of_its_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when places are reconstructed for longer than the whole training lasts."""
    photos = write_photos(tmp_path / "photos", 6, frames=3)
    prepare = Planner.prepare

    def take_long(*arguments: Any) -> Lessons:
        time.sleep(4)
        return prepare(*arguments)

    monkeypatch.setattr(Planner, "prepare", take_long)
    outcome = train(photos, tmp_path / "run", steps=0, minutes=0.05)
    begun = [record["step"] for record in outcome.log.records if "stage" in record]
    assert len(begun) == 2 and 0 == begun[0] < begun[1] < outcome.steps
    assert outcome.seconds < 5
    assert outcome.log.was_validated(outcome.steps)


def test_minutes_are_kept(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos")
    outcome = train(photos, tmp_path / "run", steps=0, minutes=0.1)
    # A validation takes its time too, on a busy machine nearly all of it.
    assert 6 <= outcome.seconds < 60


def test_plans() -> None:
    joint = plan_stages("joint", 3)
    assert [s.labels for s in joint] == ["corners", "product", "product"]
    assert joint[-1].end == 1 and all(s.detector and s.descriptor for s in joint)
    stages = plan_stages("alternating", 2, first="random")
    assert [s.labels for s in stages] == ["random", "reliability", "detector"] + [
        "reliability"
    ]
    assert [s.detector for s in stages] == [False, True, False, True]
    assert all(s.fresh_optimizer for s in stages)
    joint = plan_stages("joint", 4)
    assert [s.hardness for s in joint] == [0.25, 0.5, 0.75, 1.0]
    light = DataOptions(aligned_share=0.2).soften(joint[0].hardness)
    assert (light.aligned_share, light.light.night_share) == (0.05, 0.0625)
    adapting = plan_stages("joint", 2, first="product")
    assert [s.hardness for s in adapting] == [1.0, 1.0]
    assert [stage.from_scratch for stage in stages] == [True, False, True, False]
    assert [stages[2].ease(p) for p in (0, 0.4, 0.8, 1)] == [0.5, 0.25, 0, 0]
    assert stages[1].ease(0) == adapting[0].ease(0) == 0
    blind = plan_stages("alternating", 1, Switches(reliability=False))
    assert [s.labels for s in blind] == ["corners", "detector"]


def test_the_rate_falls_to_its_last_share() -> None:
    whole = plan_stages("joint", 2)[1]
    assert schedule_rate(whole, 0.0, 0.01) == 1
    assert schedule_rate(whole, 1.0, 0.01) == pytest.approx(0.01)
    own = plan_stages("alternating", 2)[1]
    assert schedule_rate(own, own.start, 0.01) == 1
    assert schedule_rate(own, own.end, 0.01) == pytest.approx(0.01)
