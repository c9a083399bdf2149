"""A teacher that sees depth: what it sees, whom it teaches, and stops at any moment."""

from __future__ import annotations

import copy
import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from samples import make_texture, write_image
from training_kit import TinyNet, make_photo

from sfm_features.depths import DepthMap
from sfm_features.errors import InputError, OptionError
from sfm_features.geometry import warp_points
from sfm_features.nets.weights import ARCHITECTURES, build_net
from sfm_features.scenes.turntable import build_turntable
from sfm_features.training import labels
from sfm_features.training.crops import Surface, draw_crop
from sfm_features.training.data import Batch, DataOptions, PairSource
from sfm_features.training.depth_teacher import plan_teacher, train_teacher
from sfm_features.training.embeddings import Distillation, distil_positions, watch
from sfm_features.training.evolve import plan_stages
from sfm_features.training.label_store import choose_photos
from sfm_features.training.labels import LabelOptions
from sfm_features.training.loop import Trainer
from sfm_features.training.nearness import Nearness, draw_distance
from sfm_features.training.objective import Objective
from sfm_features.training.options import DepthOptions, TrainOptions
from sfm_features.training.photometric import LightRanges
from sfm_features.training.photos import Photo, PhotoSet
from sfm_features.training.settings import Settings
from sfm_features.training.train import train
from sfm_features.training.warps import sample_homography
from sfm_features.types import RunOptions

PLAIN = LightRanges(0, 0, 0, 0, 0, 0, 0, 0, 0)
SIZE = (200, 150)
CROP_PX = 96
CPU = torch.device("cpu")
TAPPED = "stem"
SETTINGS = Settings(
    stages=tuple(plan_stages("joint", 1)),
    steps=6,
    data=DataOptions(batch=2, crop_px=64, points=32),
    labels=LabelOptions(views=2, density=2.0),
    validations=1,
    checkpoint_steps=3,
    pictures=False,
)


class TappedNet(TinyNet):
    """A tiny network that can be taught, and teach."""

    taps = (TAPPED,)


def make_deep_photo(seed: int = 0) -> Photo:
    """Make a photo of a bright disc before a slope, of which a corner is not known."""
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    disc = np.hypot(x - 100, y - 70) < 45
    grey = np.where(disc, 230, 20 + x // 4).astype(np.uint8)
    known = (x + y) > 60
    nearness = Nearness(grey, known)
    photo = make_photo(SIZE, seed)
    lit = photo.grey // 4 + np.uint8(170) * disc
    return replace(photo, grey=lit, background=~disc, nearness=nearness)


def make_photos() -> PhotoSet:
    """Make four photos with depth and two without."""
    deep = [make_deep_photo(i) for i in range(4)]
    return PhotoSet([*deep, make_photo(SIZE, 4), make_photo(SIZE, 5)])


def make_batch(photos: PhotoSet) -> Batch:
    rng = np.random.default_rng(0)
    points = {
        i: rng.uniform(10, 140, (80, 2)).astype(np.float32) for i in range(len(photos))
    }
    return PairSource(photos, points, SETTINGS.data).make_batch(0)


def test_nearness_is_warped_as_its_photo() -> None:
    """A rendered depth map, seen as a photo of its own, must warp to the same crop."""
    picture = build_turntable(0, (320, 240)).photograph(0.4)
    far = picture.depth.astype(np.float32)
    nearness = draw_distance(DepthMap(far, np.isfinite(far)), (320, 240))
    chroma = np.full((120, 160, 2), 128, np.uint8)
    photo = Photo("depth", nearness.grey, chroma, nearness=nearness)
    rng = np.random.default_rng(0)
    nothing = {0: np.zeros((0, 2), np.float32)}
    ranks = []
    for _ in range(8):
        warp = sample_homography(rng, np.array([160, 120]), 128)
        crop = draw_crop(
            PhotoSet([photo]), nothing, [Surface(0, warp)], 128, rng, PLAIN
        )
        assert (crop.nearness.grey == crop.image).all()
        xy = rng.integers(0, 128, (500, 2))
        back = warp_points(np.linalg.inv(warp), xy.astype(np.float64))
        inside = ((back > 2) & (back < np.array([317, 237]))).all(1)
        assert crop.nearness.known[tuple(xy[inside].T[::-1])].all()
        outside = ((back < -1) | (back > np.array([320, 240]))).any(1)
        assert not crop.nearness.known[tuple(xy[outside].T[::-1])].any()
        # The truth itself, asked without any of the code that draws it.
        columns, rows = np.rint(back[inside]).astype(int).T
        truth = 1 / far[rows, columns]
        drawn = crop.nearness.grey[tuple(xy[inside].T[::-1])].astype(float)
        ranks.append(np.corrcoef(truth, drawn)[0, 1])
    assert np.median(ranks) > 0.98


def test_what_hangs_in_front_brings_its_own_depth_or_none() -> None:
    outline = np.array([[20.0, 20], [80, 20], [80, 80], [20, 80]])
    surfaces = [Surface(0, np.eye(3)), Surface(1, np.eye(3), outline)]
    nothing = {i: np.zeros((0, 2), np.float32) for i in range(2)}
    behind = make_deep_photo()
    assert behind.nearness is not None
    flat = Nearness(np.full(SIZE[::-1], 77, np.uint8), np.ones(SIZE[::-1], bool))
    for front in (make_photo(SIZE, 1), replace(make_photo(SIZE, 1), nearness=flat)):
        photos = PhotoSet([behind, front])
        rng = np.random.default_rng(0)
        crop = draw_crop(photos, nothing, surfaces, CROP_PX, rng, PLAIN)
        within = np.s_[30:70, 30:70]
        expected = behind.nearness.grey if front.nearness is None else flat.grey
        assert (crop.nearness.grey[within] == expected[within]).all()
        assert crop.nearness.known[within].all() == (front.nearness is not None)
        assert crop.nearness.known[within].any() == (front.nearness is not None)
        known = behind.nearness.known[:15, :CROP_PX]
        assert (crop.nearness.known[:15] == known).all() and not known.all()


def test_the_student_learns_where_depth_is_known_and_the_teacher_never() -> None:
    torch.manual_seed(0)
    mine = torch.randn(2, 5, 8, 8, requires_grad=True)
    theirs = torch.randn(2, 5, 8, 8, requires_grad=True)
    known = torch.zeros(2, 32, 32, dtype=torch.bool)
    known[0, :, :16] = True
    loss = distil_positions({"a": mine}, {"a": theirs}, known)
    loss.backward()
    assert mine.grad is not None and theirs.grad is None
    assert mine.grad[0, :, :, :4].abs().sum(0).min() > 0
    assert not mine.grad[0, :, :, 4:].any() and not mine.grad[1].any()
    rows = [x.detach()[0, :, :, :4].flatten(1).T for x in (mine, theirs)]
    a, b = (x - x.mean(0) for x in rows)
    cosines = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    expected = pytest.approx(float(1 - cosines.mean()), abs=1e-6)
    assert float(loss.detach()) == expected
    # What is the same everywhere neither helps nor hurts.
    shifted = distil_positions({"a": mine + 9}, {"a": theirs}, known)
    assert float(shifted.detach()) == pytest.approx(float(loss.detach()), abs=1e-5)
    # A batch without any depth asks for nothing.
    nothing = distil_positions({"a": mine}, {"a": theirs}, known & False)
    assert float(nothing.detach()) == 0


@pytest.mark.parametrize("deep", [True, False])
def test_an_objective_hands_the_teachers_gradient_to_the_student(deep: bool) -> None:
    photos = make_photos() if deep else make_photos().forget_depth()
    batch = make_batch(photos)
    assert batch.depth_known.any() == deep
    net, teacher = TappedNet(), TappedNet(seed=1)
    objective = Objective(distillation=Distillation(1.0))
    stage = plan_stages("joint", 1)[0]
    before = copy.deepcopy(teacher.eval().state_dict())
    parts = objective(net, batch, stage, depth_teacher=teacher)
    parts["depth"].backward()
    assert (float(parts["depth"].detach()) > 0) == deep
    reached = {n for n, p in net.named_parameters() if p.grad is not None}
    assert all(name.startswith(TAPPED) for name in reached) and reached
    moved = sum(
        float(p.grad.abs().sum()) for p in net.parameters() if p.grad is not None
    )
    assert (moved > 0) == deep
    assert all(p.grad is None for p in teacher.parameters())
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_tap_can_be_watched_and_none_stays(name: str) -> None:
    net = build_net(name).eval()
    grey = torch.rand(1, 1, 64, 96)
    with torch.no_grad():
        plain = net(grey)
        with watch(net, net.taps) as seen:
            watched = net(grey)
    assert tuple(seen) == net.taps
    assert all(v.ndim == 4 and 64 % v.shape[2] == 0 for v in seen.values())
    assert torch.equal(plain.logits, watched.logits)
    assert not any(m._forward_hooks for m in net.modules())


def test_without_a_weight_depth_changes_nothing(tmp_path: Path) -> None:
    def run(photos: PhotoSet, name: str) -> dict[str, torch.Tensor]:
        trainer = Trainer(TappedNet(), photos, [0], tmp_path / name, SETTINGS, seed=5)
        return trainer.run().net.state_dict()

    deep, flat = run(make_photos(), "a"), run(make_photos().forget_depth(), "b")
    assert all(torch.equal(value, flat[name]) for name, value in deep.items())


def test_a_student_comes_to_see_what_its_teacher_sees(tmp_path: Path) -> None:
    """Also: a teacher that is done is read, not trained again."""
    photos, held_back = make_photos(), [3]
    settings = replace(
        SETTINGS, steps=40, learning_rate=1e-2, distillation=Distillation(20.0),
        data=replace(SETTINGS.data, light=PLAIN),
    )  # fmt: skip
    net = TappedNet()
    start = copy.deepcopy(net.state_dict())
    arguments = (tmp_path, settings, CPU, 5)
    teacher = train_teacher(net, photos, held_back, *arguments)
    assert teacher is not None
    same = {k: torch.equal(v, start[k]) for k, v in net.state_dict().items()}
    assert all(same.values()), "the teacher's training changed its student"
    lines = (tmp_path / "teacher/log.jsonl").read_text().splitlines()
    log = [json.loads(line) for line in lines]
    assert log[-1]["step"] == 20 and "on_background" in log[-1]
    again = train_teacher(net, photos, held_back, *arguments)
    assert again is not None
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    apart = {}
    for name, taught_by in (("taught", teacher), ("alone", None)):
        student = Trainer(
            TappedNet(), photos, held_back, tmp_path / name, settings, seed=5,
            depth_teacher=taught_by,
        ).run().net  # fmt: skip
        batch = make_batch(photos)
        parts = Objective(distillation=settings.distillation)(
            student, batch, settings.stages[0], depth_teacher=teacher
        )
        apart[name] = float(parts["depth"].detach())
    assert apart["taught"] < apart["alone"]


def test_a_teacher_sees_depth_alone(tmp_path: Path) -> None:
    seen = []

    class Looking(TappedNet):
        def forward(self, grey):
            if self.training:
                seen.append(grey.detach().clone())
            return super().forward(grey)

    photos = make_photos()
    flat = Nearness(np.full(SIZE[::-1], 51, np.uint8), np.ones(SIZE[::-1], bool))
    deep = [
        p if p.nearness is None else replace(p, nearness=flat) for p in photos.photos
    ]
    settings = plan_teacher(replace(SETTINGS, distillation=Distillation(1.0, (), 3)))
    Trainer(Looking(), PhotoSet(deep), [0], tmp_path / "teacher", settings).run()
    assert len(seen) == 3
    assert all(torch.allclose(grey, torch.tensor(51 / 255)) for grey in seen)


def write_deep_photos(folder: Path, masks: bool = False) -> tuple[Path, Path]:
    """Write photos of textures, and what of them is near; the last has no map."""
    y, x = np.mgrid[:140, :180]
    for i in range(6):
        write_image(folder / f"photos/{i}.png", make_texture((180, 140), i))
        disc = np.hypot(x - 60 - 10 * i, y - 70) < 40
        shown = np.uint8(255) * disc if masks else np.where(disc, 50, 200 + x // 8)
        if i < 5:
            (folder / "depth").mkdir(exist_ok=True)
            assert cv2.imwrite(str(folder / f"depth/{i}.png"), shown.astype(np.uint8))
    return folder / "photos", folder / "depth"


QUICK = TrainOptions(
    steps=4, rounds=1, batch=1, crop_px=64, points=32, views=2, validations=1,
    validation_photos=1, checkpoint_steps=2, layer_share=1.0,
)  # fmt: skip
ON_CPU = RunOptions(device="cpu")


def teach(depths: Path, **changes: object) -> DepthOptions:
    quick = DepthOptions(depths, "distance", distillation=1.0, teacher_steps=4)
    return replace(quick, **changes)  # type: ignore[arg-type]


KILLED = """
import os, signal, sys
sys.path[:0] = {path!r}
from pathlib import Path
from test_depth_teacher import ON_CPU, QUICK, Trainer, teach, train
step, taken = Trainer._step, []
def step_or_die(self, *given):
    taken.append(self.settings.sees_depth)
    if len(taken) == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *given)
Trainer._step = step_or_die
photos, depths, output = map(Path, {folders!r})
train(photos, output, QUICK, ON_CPU, depth=teach(depths))
"""


def test_a_run_that_is_killed_in_either_stage_ends_the_same(tmp_path: Path) -> None:
    photos, depths = write_deep_photos(tmp_path)
    depth = teach(depths)
    whole = train(photos, tmp_path / "whole", QUICK, ON_CPU, depth=depth)
    assert sorted(path.name for path in whole.weights.parent.glob("*.safetensors")) == [
        "weights.safetensors"
    ]
    recipe = json.loads(whole.weights.with_suffix(".json").read_text())["recipe"]
    assert recipe["distillation"] == repr(Distillation(1.0, (), 4))
    for at, is_taught in ((4, False), (8, True)):
        output = tmp_path / f"killed{at}"
        folders = [str(f) for f in (photos, depths, output)]
        code = KILLED.format(path=sys.path, at=at, folders=folders)
        killed = subprocess.run([sys.executable, "-c", code], capture_output=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
        assert (output / "checkpoints").exists() == is_taught
        again = train(photos, output, QUICK, ON_CPU, depth=depth)
        assert again.steps == 4
        assert again.weights.read_bytes() == whole.weights.read_bytes()


def test_masks_are_no_depth(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    photos, masks = write_deep_photos(tmp_path, masks=True)
    options = replace(QUICK, steps=1)
    summary = train(photos, tmp_path / "run", options, ON_CPU, depth=teach(masks))
    assert summary.weights.exists() and not (tmp_path / "run/teacher").exists()
    assert "nothing is distilled" in caplog.text


def test_misspelt_taps_and_labels_of_nothing_deep_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, depths = write_deep_photos(tmp_path)
    for change, message in (
        ({"taps": ("up9",)}, r"--taps up9: .* down2, .*up2"),
        ({"distillation": -1.0}, "--distillation -1"),
        ({"background_weight": float("nan")}, "--background-weight nan"),
        ({"teacher_steps": -1}, "--teacher-steps -1"),
        ({"depth": photos / "0.png"}, "check --depth"),
    ):
        depth = teach(depths, **change)
        with pytest.raises((OptionError, InputError), match=message):
            train(photos, tmp_path / "run", QUICK, ON_CPU, depth=depth)
    five = [*(make_photo(SIZE, i) for i in range(4)), make_deep_photo(9)]
    lone = PhotoSet(five)
    seed = next(i for i in range(99) if choose_photos(lone, 1, i, 0)[0] in (1, 2, 3))
    settings = replace(
        SETTINGS, stages=(replace(SETTINGS.stages[0], labels="detector"),),
        label_photos=1, distillation=Distillation(1.0),
    )  # fmt: skip
    monkeypatch.setattr(labels, "_LEAST_P", {"cell": 0.0})
    net = TappedNet()
    with pytest.raises(InputError, match="--label-photos 0"):
        train_teacher(net, lone, [0], tmp_path, settings, CPU, seed)
