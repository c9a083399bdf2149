"""Backgrounds from one's own reconstruction, against true depth; and hostile models."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from object_capture import Capture, make_capture
from PIL import Image
from samples import make_texture, write_image

from sfm_features.colmap import write_model
from sfm_features.errors import InputError
from sfm_features.geometry import look_at
from sfm_features.training.backgrounds import add_backgrounds
from sfm_features.training.options import AdaptOptions, DepthOptions
from sfm_features.training.photos import PhotoSet, load_photos
from sfm_features.training.sparse_depth import find_aim
from sfm_features.training.train import adapt
from sfm_features.types import Bool, Model, RunOptions


@pytest.fixture
def place(tmp_path: Path, capture: Capture) -> Path:
    """A folder with photos/ and out/, as `reconstruct` leaves it."""
    capture.write_photos(tmp_path / "photos")
    write_model(capture.model, tmp_path / "out/sparse/0")
    return tmp_path


def mark(place: Path, source: str = "out") -> PhotoSet:
    folder = place / "photos"
    photos = load_photos([folder])
    return add_backgrounds(photos, [folder], place / source, "auto", place / "b.jpg")


def find_marked(photos: PhotoSet) -> dict[str, Bool]:
    return {p.name: p.background for p in photos.photos if p.background is not None}


@pytest.mark.parametrize("source", ["out", "out/sparse", "out/sparse/0"])
def test_points_part_a_thing_from_its_room(
    place: Path, capture: Capture, source: str
) -> None:
    """Truth is known; of the table nothing is asked but that it stays."""
    marked = find_marked(mark(place, source))
    assert set(marked) == set(capture.pictures)
    for name, behind in marked.items():
        room = capture.find_room(name)
        thing = capture.pictures[name].tags == 1
        assert (behind & ~room).sum() < 0.05 * behind.sum()
        assert behind[thing].mean() < 0.1
        # What three views do not see is unknown, and no background.
        assert behind[room].mean() > 0.4


def test_a_network_is_adapted_with_a_model_of_its_photos(place: Path) -> None:
    options = AdaptOptions(
        steps=1, rounds=1, batch=1, crop_px=64, views=1, validations=1,
        validation_photos=2, layer_share=0.0,
    )  # fmt: skip
    (place / "photos/3.png").rename(place / "photos/new.png")
    run, depth = RunOptions(device="cpu"), DepthOptions(place / "out")
    summary = adapt(place / "photos", place / "run", "evo", options, run, depth)
    assert "on_background" in summary.last and (place / "run/backgrounds.jpg").exists()
    assert list(summary.skipped) == ["new.png"]


def test_a_thing_alone_has_no_background(tmp_path: Path) -> None:
    """Its own far side is none, though it is far."""
    capture = make_capture(room=False)
    capture.write_photos(tmp_path / "photos")
    write_model(capture.model, tmp_path / "out/sparse/0")
    with pytest.raises(InputError, match=r"hardly (farther|part)|few wrong"):
        mark(tmp_path)


def test_photos_are_turned_and_shrunk_with_their_depth(
    place: Path, capture: Capture
) -> None:
    upright = find_marked(mark(place))["2.png"]
    exif = Image.Exif()
    exif[0x0112] = 6
    rgb = capture.pictures["2.png"].rgb
    small = cv2.resize(rgb, (160, 120), interpolation=cv2.INTER_AREA)
    Image.fromarray(small).save(place / "photos/2.png", exif=exif)
    turned = find_marked(mark(place))["2.png"]
    expected = np.rot90(upright, -1)[::2, ::2]
    assert turned.shape == (160, 120) and (turned != expected).mean() < 0.02


def remove_model(place: Path) -> None:
    shutil.rmtree(place / "out/sparse/0")


def cut_model(place: Path) -> None:
    path = place / "out/sparse/0/points3D.bin"
    path.write_bytes(path.read_bytes()[:-100])


def rename_photos(place: Path) -> None:
    for path in (place / "photos").iterdir():
        path.rename(path.with_name(f"IMG_{path.name}"))


def move_photos(place: Path) -> None:
    (place / "photos").rename(place / "moved")
    (place / "moved").rename(place / "photos")
    (place / "photos/sub").mkdir()
    for path in (place / "photos").glob("*.png"):
        path.rename(path.parent / "sub" / path.name)


def exchange_photos(place: Path) -> None:
    for i in range(10):
        write_image(place / f"photos/{i}.png", make_texture((320, 240), i))


def turn_photos(place: Path) -> None:
    for i in range(10):
        write_image(place / f"photos/{i}.png", make_texture((240, 320), i))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (remove_model, "out: has no whole model"),
        (cut_model, "sparse/0: the model is damaged"),
        (rename_photos, r"out: was not made from these photos.*'0.png'.*'IMG_0.png'"),
        (move_photos, "out: was not made from these photos.*'sub/0.png'"),
        (exchange_photos, "made from other photos of the same names"),
        (turn_photos, "is 240 x 320, in the model 320 x 240"),
    ],
)
def test_what_does_not_fit_is_refused(
    place: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(place)
    with pytest.raises(InputError, match=message):
        mark(place)


def forget_points(model: Model) -> Model:
    """Empty a model but for its poses."""
    images = {
        name: replace(image, point_ids=np.full(len(image.point_ids), -1))
        for name, image in model.images.items()
    }
    return Model(
        images, np.zeros((0, 3)), np.zeros((0, 3), np.uint8), np.zeros(0), np.zeros(0)
    )


def test_a_model_without_points_is_refused(place: Path, capture: Capture) -> None:
    write_model(forget_points(capture.model), place / "out/sparse/0")
    with pytest.raises(InputError, match="out: its model has no points"):
        mark(place)


def test_photos_that_a_model_hardly_knows_are_named(
    place: Path, capture: Capture
) -> None:
    """Also: a second model counts for the photos that the first does not have."""
    images = dict(capture.model.images)
    few, missing = images["1.png"], images.pop("7.png")
    ids = np.where(np.arange(len(few.point_ids)) < 20, few.point_ids, -1)
    images["1.png"] = replace(few, point_ids=ids)
    write_model(replace(capture.model, images=images), place / "out/sparse/0")
    other = {"7.png": missing, "8.png": images["8.png"], "9.png": images["9.png"]}
    write_image(place / "photos/lonely.png", make_texture((320, 240)))
    found = mark(place)
    assert set(found.skipped) == {"1.png", "7.png", "lonely.png"}
    assert "points of the model are seen" in found.skipped["1.png"]
    assert "not registered" in found.skipped["7.png"]
    assert len(find_marked(found)) == 8 and len(found) == 11
    write_model(replace(capture.model, images=other), place / "out/sparse/1")
    assert set(mark(place).skipped) == {"1.png", "lonely.png"}


def test_what_cameras_look_at(capture: Capture) -> None:
    target = np.array([3.0, -2, 5])
    rng = np.random.default_rng(0)
    image = capture.model.images["0.png"]
    poses = [look_at(target + rng.normal(0, 4, 3), target) for _ in range(6)]

    def aim(poses: list) -> np.ndarray | None:
        views = {str(i): replace(image, cam_from_world=p) for i, p in enumerate(poses)}
        return find_aim(replace(capture.model, images=views))

    np.testing.assert_allclose(aim(poses), target, atol=1e-9)
    ahead = [look_at(np.array([i, 0, 0]), np.array([i, 9, 0])) for i in range(5)]
    assert aim(ahead) is None and aim(poses[:1]) is None
