"""Keypoints of objects: taught by depth, exact after a kill, honest about bad input."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from sfm_features.errors import InputError, OptionError, StaleStore, WeightsError
from sfm_features.nets.autolink import KeypointNet, load_keypoint_net
from sfm_features.objects import ObjectDetector, detect_object
from sfm_features.scenes.figures import Figures, render_figures
from sfm_features.training.checkpoints import Diverged
from sfm_features.training.dkp import distillation_loss
from sfm_features.training.objects.data import (
    ObjectImages,
    Views,
    load_images,
    make_views,
)
from sfm_features.training.objects.loop import STUDENT, TEACHER, ObjectTrainer
from sfm_features.training.objects.models import count_coinciding
from sfm_features.training.objects.options import ObjectOptions
from sfm_features.training.objects.perceptual import make_perceptual
from sfm_features.training.objects.train import train_object
from sfm_features.types import RunOptions

QUICK = ObjectOptions(
    keypoints=4, steps=4, batch=3, size_px=32, width=4, validations=2,
    checkpoint_steps=3,
)  # fmt: skip
CPU = RunOptions(device="cpu")
KILLED = """
import os, signal
from pathlib import Path
from sfm_features.training.objects.data import load_images
from sfm_features.training.objects.loop import ObjectTrainer
from sfm_features.training.objects.options import ObjectOptions
def kill(step):
    if step == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
images = load_images(Path({images!r}), Path({depths!r}), 32)
options = ObjectOptions(**{options!r})
ObjectTrainer(images, Path({output!r}), options, on_step=kill).run()
"""


@pytest.fixture(scope="session")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Figures:
    return render_figures(tmp_path_factory.mktemp("figures"), 12, "busy", size=64)


@pytest.fixture(scope="session")
def loaded(figures: Figures) -> ObjectImages:
    return load_images(figures.images, figures.depths, 32)


def copy_some(figures: Figures, folder: Path, count: int = 12) -> tuple[Path, Path]:
    """Copy images and their depth maps, to spoil them."""
    for part in ("images", "depth"):
        (folder / part).mkdir(parents=True)
        for name in figures.names[:count]:
            source = figures.folder / part / name
            (folder / part / name).write_bytes(source.read_bytes())
    return folder / "images", folder / "depth"


def test_distillation_compares_directions_of_images_with_depth() -> None:
    mine = torch.tensor([[1.0, 0], [0, 2], [3, 3]])
    theirs = torch.tensor([[5.0, 0], [0, -1], [-1, 1]])
    student, teacher = {"up2": mine, "up1": mine}, {"up2": theirs, "up1": mine}

    def measure(*has_depth: float, taps: tuple[str, ...] = ("up2",)) -> float:
        return float(distillation_loss(student, teacher, taps, torch.tensor(has_depth)))

    assert measure(1, 0, 0) == pytest.approx(0, abs=1e-6)
    assert measure(0, 1, 0) == pytest.approx(2)
    assert measure(1, 1, 1) == pytest.approx(1)
    assert measure(0, 1, 0, taps=("up1", "up2")) == pytest.approx(1)
    assert measure(0, 0, 0) == 0


def test_photo_and_depth_are_cut_and_mirrored_alike(loaded: ObjectImages) -> None:
    near = ((loaded.nearness + 1) * 127.5).round()
    same = replace(loaded, rgb=near[:, None].expand(-1, 3, -1, -1).byte())
    rng = np.random.default_rng(0)
    rows = torch.arange(12).repeat(4)
    views = make_views(same, rows, rng, crop_share=0.4)
    assert (views.rgb - views.depth).abs().max() < 0.02
    plain = make_views(same, rows)
    changed = (views.rgb - plain.rgb).abs().mean((1, 2, 3))
    assert (changed > 0.05).float().mean() > 0.9
    flipped = make_views(same, rows, np.random.default_rng(1))
    exact = (flipped.rgb - plain.rgb).abs().amax((1, 2, 3)) < 1e-4
    mirrored = (flipped.rgb.flip(3) - plain.rgb).abs().amax((1, 2, 3)) < 1e-4
    assert (exact ^ mirrored).all() and 0.2 < exact.float().mean() < 0.8


@pytest.mark.parametrize("at", [2, 7])
def test_a_killed_run_ends_with_the_same_weights(
    figures: Figures, loaded: ObjectImages, tmp_path: Path, at: int
) -> None:
    """Killed in the teacher's stage, and in the student's."""
    whole = ObjectTrainer(loaded, tmp_path / "whole", QUICK).run()
    assert whole.steps == 8
    output = tmp_path / "killed"
    code = KILLED.format(
        at=at, images=str(figures.images), depths=str(figures.depths),
        options=vars(QUICK), output=str(output),
    )  # fmt: skip
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    again = ObjectTrainer(loaded, output, QUICK).run()
    for one, other in ((whole.student, again.student), (whole.teacher, again.teacher)):
        assert one is not None and other is not None
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name
    steps = [record["step"] for record in again.log.records]
    assert steps == sorted(steps)


def test_the_teacher_changes_the_student(loaded: ObjectImages, tmp_path: Path) -> None:
    taught = ObjectTrainer(loaded, tmp_path / "a", QUICK).run()
    blind = replace(loaded, has_depth=torch.zeros(12))
    alone = ObjectTrainer(blind, tmp_path / "b", QUICK).run()
    assert alone.teacher is None and alone.steps == 4
    assert not torch.equal(taught.student.head.weight, alone.student.head.weight)
    again = ObjectTrainer(loaded, tmp_path / "c", QUICK, teacher=taught.teacher).run()
    assert again.steps == 4  # only the student's
    with pytest.raises(StaleStore, match="taps"):
        ObjectTrainer(loaded, tmp_path / "a", replace(QUICK, taps=("logits",))).run()


def test_the_teacher_sees_depth_and_the_student_colours(
    loaded: ObjectImages, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    options = replace(QUICK, distillation=0.5)
    trainer = ObjectTrainer(loaded, tmp_path, options)
    trainer.run()
    views = make_views(loaded, torch.arange(4))
    grey = replace(views, rgb=torch.rand(4, 3, 32, 32))
    deep = replace(views, depth=torch.rand(4, 3, 32, 32))

    def measure(views: Views, stage: int) -> dict[str, torch.Tensor]:
        trainer.state.stage = stage
        with torch.no_grad():
            return trainer._measure(views, torch.Generator().manual_seed(0))

    for stage, same, other in ((TEACHER, grey, deep), (STUDENT, deep, grey)):
        plain = measure(views, stage)
        for name in ("perceptual", "pixels"):
            assert measure(same, stage)[name] == plain[name]
            assert measure(other, stage)[name] != plain[name]
    trainer.model.eval()
    trainer.model.training = True  # as in a step, but what it sees is not remembered
    with torch.no_grad():
        mine = trainer.model.detector(views.rgb).taps
        theirs = trainer.teacher(views.depth).taps
    apart = distillation_loss(mine, theirs, options.taps, views.has_depth)
    measured = measure(views, STUDENT)["distillation"]
    torch.testing.assert_close(measured, 0.5 * apart, rtol=1e-2, atol=0)


def test_other_pictures_are_another_run(loaded: ObjectImages, tmp_path: Path) -> None:
    ObjectTrainer(loaded, tmp_path, QUICK).run()
    for part in ("rgb", "nearness"):
        value = getattr(loaded, part).clone()
        value[0] = 0
        with pytest.raises(StaleStore, match="images"):
            ObjectTrainer(replace(loaded, **{part: value}), tmp_path, QUICK).run()


def test_held_back_images_are_not_drawn(loaded: ObjectImages, tmp_path: Path) -> None:
    trainer = ObjectTrainer(loaded, tmp_path, QUICK)
    for stage in (TEACHER, STUDENT):
        assert set(trainer._list_rows(stage)) == set(range(12)) - {*trainer.held_back}


def test_nan_stops_and_names_step_and_images(
    loaded: ObjectImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = ObjectTrainer(loaded, tmp_path / "run", QUICK)

    def poison(step: int) -> None:
        if step == 6:
            with torch.no_grad():
                trainer.model.painter.last.bias.fill_(torch.nan)

    trainer.on_step = poison
    with pytest.raises(
        Diverged, match=r"step 7: the loss 'perceptual' is nan on .*png"
    ):
        trainer.run()
    assert (
        sorted(p.name for p in trainer.checkpoints.glob("*.pt"))[-1][:8] == "00000006"
    )


def test_what_is_wrong_with_depth_is_said(figures: Figures, tmp_path: Path) -> None:
    """Maps that are missing, empty, inverted or of another section: the rest trains."""
    images, depths = copy_some(figures, tmp_path)
    names = figures.names
    (depths / names[0]).unlink()
    size = (64, 64)
    cv2.imwrite(str(depths / names[1]), np.zeros(size, np.uint16))
    good = cv2.imread(str(depths / names[2]), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(depths / names[2]), (good.max() + good.min()) - good)
    wide = cv2.resize(good, (90, 64))
    cv2.imwrite(str(depths / names[3]), wide)
    large = cv2.resize(good, (256, 256), interpolation=cv2.INTER_NEAREST)
    cv2.imwrite(str(depths / names[4]), large)
    (depths / names[5]).unlink()
    np.save(depths / f"{names[5]}.npy", np.full(size, np.nan))
    found = load_images(images, depths, 32)
    assert len(found) == 12
    assert found.has_depth.tolist() == [0, 0, 0, 0, 1, 0] + 6 * [1]
    skipped = "\n".join(found.skipped.values())
    for words in (
        "zero everywhere",
        "must show the same section",
        "not a number every",
    ):
        assert words in skipped
    (doubt,) = found.doubts
    assert names[2] in doubt and "looks inverted beside the other maps" in doubt
    summary = train_object(images, tmp_path / "run", replace(QUICK, depth=depths), CPU)
    assert summary.images == 12 and summary.depth_maps == 7
    assert "zero everywhere" in summary.to_text() and "inverted" in summary.to_text()


def test_all_maps_inverted_or_none_usable(figures: Figures, tmp_path: Path) -> None:
    images, depths = copy_some(figures, tmp_path)
    sure = load_images(images, depths, 32, "distance")
    assert not sure.doubts
    (doubt,) = load_images(images, depths, 32, "nearness").doubts
    assert "look inverted" in doubt and "--depth-kind nearness" in doubt
    auto = load_images(images, depths, 32, "auto")
    torch.testing.assert_close(auto.nearness, sure.nearness)
    for path in depths.iterdir():
        cv2.imwrite(str(path), np.zeros((64, 64), np.uint16))
    with pytest.raises(InputError, match="no depth map that can be used.*zero"):
        load_images(images, depths, 32)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"none is called 00000\.png"):
        load_images(images, tmp_path / "empty", 32)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"keypoints": 1}, "--keypoints 1: must be from 2"),
        ({"keypoints": 5000}, "a body has about 16"),
        ({"size_px": 40}, "--size-px 40: must be a multiple of 16"),
        ({"batch": 1}, "--batch 1"),
        ({"steps": 0}, "--steps 0"),
        ({"hidden_share": 1.0}, "--hidden-share 1.0"),
        ({"thickness": 0.0}, "--thickness"),
        ({"teacher": Path("t.safetensors")}, "give them with --depth"),
        ({"depth": Path("nowhere")}, "check --depth"),
    ],
)
def test_senseless_options_are_refused(
    figures: Figures, tmp_path: Path, change: dict[str, object], words: str
) -> None:
    options = replace(QUICK, **change)  # type: ignore[arg-type]
    with pytest.raises((OptionError, InputError), match=words):
        train_object(figures.images, tmp_path, options, CPU)


def test_one_image_is_not_enough(figures: Figures, tmp_path: Path) -> None:
    images, _ = copy_some(figures, tmp_path, 1)
    with pytest.raises(InputError, match="has 1 images that can be used.*at least 8"):
        train_object(images, tmp_path / "run", QUICK, CPU)


def test_more_keypoints_than_places_are_noticed() -> None:
    torch.manual_seed(0)
    net = KeypointNet(6, 4, 32).eval()
    with torch.no_grad():
        net.head.weight.zero_()
        net.head.bias.zero_()
        net.head.weight[:3] = torch.randn(net.head.weight[:3].shape) * 30
    images = torch.rand((5, 3, 32, 32))
    assert count_coinciding(net, images) == 2  # of the three that see nothing


def test_detection_is_in_the_pixels_of_the_file(
    figures: Figures, tmp_path: Path
) -> None:
    summary = train_object(figures.images, tmp_path / "run", QUICK, CPU)
    detector = ObjectDetector(summary.weights, "cpu")
    rgb = cv2.imread(str(figures.images / figures.names[0]))[..., ::-1][:, 8:]
    there = detector.detect(np.ascontiguousarray(rgb))
    assert (
        there.image_size == (56, 64)
        and ((there.confidence > 0) & (there.confidence <= 1)).all()
    )
    turned = detector.detect(
        np.ascontiguousarray(rgb.transpose(1, 0, 2)), orientation=5
    )
    np.testing.assert_allclose(turned.xy, there.xy[:, ::-1], atol=1e-3)
    twice = detector.detect(np.repeat(np.repeat(rgb, 2, axis=0), 2, axis=1))
    np.testing.assert_allclose(twice.xy, 2 * there.xy + 0.5, atol=0.3)
    count = detect_object(figures.images, tmp_path / "found", summary.weights, CPU)
    assert count == 12
    before = (tmp_path / "found/keypoints.json").read_bytes()
    assert len(list((tmp_path / "found/pictures").glob("*.jpg"))) == 12
    detect_object(figures.images, tmp_path / "found", summary.weights, CPU)
    assert (tmp_path / "found/keypoints.json").read_bytes() == before
    other = train_object(
        figures.images, tmp_path / "other", replace(QUICK, steps=3), CPU
    ).weights
    with pytest.raises(InputError, match="keypoints of other weights"):
        detect_object(figures.images, tmp_path / "found", other, CPU)


def test_vgg_is_read_from_a_file_and_compares_pictures(tmp_path: Path) -> None:
    widths = {
        0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256),
        12: (256, 256), 14: (256, 256), 17: (256, 512), 19: (512, 512), 21: (512, 512),
    }  # fmt: skip
    tensors = {}
    for number, (inputs, outputs) in widths.items():
        tensors[f"features.{number}.weight"] = torch.randn(outputs, inputs, 3, 3) / 40
        tensors[f"features.{number}.bias"] = torch.zeros(outputs)
    path = tmp_path / "vgg16.pth"
    torch.save(tensors, path)
    compare = make_perceptual(path)
    one, other = torch.rand((2, 1, 3, 32, 32)).unbind(0)
    assert compare(one, one) == 0 and compare(one, other) > 0
    assert [f.shape[1] for f in compare.describe(one)] == [64, 128, 256, 512]
    del tensors["features.12.weight"]
    torch.save(tensors, path)
    with pytest.raises(WeightsError, match=r"features\.12\.weight is missing"):
        make_perceptual(path)
    torch.save({"bomb": tmp_path}, path)  # an object, which only pickle could make
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        make_perceptual(path)


def test_weights_and_teacher_are_written_with_a_card(
    figures: Figures, tmp_path: Path
) -> None:
    options = replace(QUICK, depth=figures.depths)
    summary = train_object(figures.images, tmp_path, options, CPU)
    net, card = load_keypoint_net(summary.weights)
    assert card.metrics["loss"] > 0
    again = train_object(figures.images, tmp_path, options, CPU)  # it is finished
    assert (again.last, again.steps) == (summary.last, 8)
    text = summary.weights.with_suffix(".json").read_text()
    assert str(tmp_path) not in text and str(figures.folder) not in text
    teacher, _ = load_keypoint_net(tmp_path / "teacher.safetensors")
    assert not torch.equal(net.head.weight, teacher.head.weight)
    for name in ("curves.png", "log.jsonl", "skeletons/student-000008.jpg"):
        assert (tmp_path / name).stat().st_size > 100


def test_training_needs_neither_colmap_nor_kornia_nor_the_shell() -> None:
    code = (
        "import sys\n"
        "for name in ('pycolmap', 'kornia', 'tyro', 'h5py'): sys.modules[name] = None\n"
        "import sfm_features.training.objects.train, sfm_features.objects"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
