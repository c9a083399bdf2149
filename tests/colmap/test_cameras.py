"""Which images share a camera, and what EXIF tells."""

from __future__ import annotations

from pathlib import Path

import pycolmap
import pytest
from exif_photos import write_photo

from sfm_features.colmap.cameras import CameraBook, CameraOptions, read_exif_camera
from sfm_features.errors import OptionError

SIZE = (64, 48)


def _groups(book: CameraBook, *names: str, size: tuple[int, int] = SIZE) -> int:
    return len({book.describe(name, size)[0] for name in names})


def test_frames_without_exif_share_a_camera_per_folder_and_size(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        write_photo(tmp_path / name, SIZE)
    book = CameraBook(CameraOptions(), tmp_path)
    assert _groups(book, "a/1.png", "a/2.png") == 1
    assert _groups(book, "a/1.png", "b/1.png") == 2
    assert book.describe("a/1.png", SIZE)[0] != book.describe("a/2.png", (48, 64))[0]
    prior = book.describe("a/1.png", SIZE)[1]
    assert not prior.has_prior
    assert prior.camera.params[0] == pytest.approx(1.2 * 64)
    assert prior.camera.params[1:3] == (32, 24)


def test_exif_makes_the_camera_and_its_focal_length(tmp_path: Path) -> None:
    write_photo(tmp_path / "a/1.jpg", SIZE, model="Z1", focal_35mm=36)
    write_photo(tmp_path / "b/2.jpg", SIZE, model="Z1", focal_35mm=36)
    write_photo(tmp_path / "b/3.jpg", SIZE, model="Z1", focal_35mm=72)
    write_photo(tmp_path / "b/4.jpg", SIZE, model="Q9", focal_35mm=36)
    book = CameraBook(CameraOptions(), tmp_path)
    assert _groups(book, "a/1.jpg", "b/2.jpg") == 1
    assert _groups(book, "a/1.jpg", "b/3.jpg", "b/4.jpg") == 3
    short, long = (book.describe(name, SIZE)[1] for name in ("a/1.jpg", "b/3.jpg"))
    assert short.has_prior and long.has_prior
    assert long.camera.params[0] == pytest.approx(2 * short.camera.params[0])
    inferred = pycolmap.infer_camera_from_image(tmp_path / "a/1.jpg")
    assert short.camera.params == pytest.approx(tuple(inferred.params))


def test_a_focal_length_that_no_camera_has_is_guessed(tmp_path: Path) -> None:
    write_photo(tmp_path / "1.jpg", SIZE, model="Z1", focal_35mm=65535)
    write_photo(tmp_path / "2.jpg", SIZE, model="Z1", focal_35mm=36)
    book = CameraBook(CameraOptions(camera_globs=("glob/*=PINHOLE",)), tmp_path)
    prior = book.describe("1.jpg", SIZE)[1]
    assert not prior.has_prior
    assert prior.camera.params[0] == pytest.approx(1.2 * 64)
    assert _groups(book, "1.jpg", "2.jpg") == 2
    assert read_exif_camera(tmp_path, "1.jpg", SIZE) is None
    assert read_exif_camera(tmp_path, "2.jpg", SIZE) is not None
    write_photo(tmp_path / "glob/1.jpg", SIZE, model="Z1", focal_35mm=65535)
    assert not book.describe("glob/1.jpg", SIZE)[1].has_prior


@pytest.mark.parametrize(
    ("sharing", "cameras"), [("single", 1), ("folder", 2), ("image", 3)]
)
def test_sharing_can_be_asked_for(sharing: str, cameras: int) -> None:
    book = CameraBook(CameraOptions(camera_sharing=sharing), None)
    assert _groups(book, "a/1.png", "a/2.png", "b/1.png") == cameras
    sizes = {book.describe("a/1.png", size)[0] for size in (SIZE, (48, 64))}
    assert len(sizes) == (1 if sharing == "image" else 2)


def test_globs_come_first_and_may_carry_parameters() -> None:
    globs = ("drone/*=PINHOLE:50,51,32,24", "*.jpg=OPENCV")
    book = CameraBook(CameraOptions(camera_globs=globs), None)
    assert _groups(book, "drone/1.jpg", "drone/2.png") == 1
    drone = book.describe("drone/1.jpg", SIZE)[1]
    assert drone.has_prior
    assert (drone.camera.model, drone.camera.params) == ("PINHOLE", (50, 51, 32, 24))
    assert book.describe("x/1.jpg", SIZE)[1].camera.model == "OPENCV"
    assert book.describe("x/1.png", SIZE)[1].camera.model == "SIMPLE_RADIAL"


def test_images_of_a_glob_share_a_camera_if_they_have_one_size() -> None:
    book = CameraBook(CameraOptions(camera_globs=("*.jpg=OPENCV",)), None)
    group = book.describe("a.jpg", SIZE)[0]
    assert group == book.describe("b.jpg", SIZE)[0]
    assert group != book.describe("b.jpg", SIZE[::-1])[0]


def test_given_parameters_are_priors() -> None:
    options = CameraOptions("PINHOLE", "70, 71, 32, 24")
    prior = CameraBook(options, None).describe("1.png", SIZE)[1]
    assert prior.has_prior and prior.camera.params == (70, 71, 32, 24)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"camera_model": "PINHOL"}, "SIMPLE_PINHOLE"),
        ({"camera_params": "1,2"}, "f, cx, cy, k"),
        ({"camera_params": "1,2,x,4"}, "f, cx, cy, k"),
        ({"camera_params": "900,nan,2,4"}, "f, cx, cy, k"),
        ({"camera_sharing": "all"}, "auto, single, folder, image"),
        ({"camera_globs": ("*.jpg",)}, "PATTERN=MODEL"),
        ({"camera_globs": ("*.jpg=PINHOLE:1,2",)}, "fx, fy, cx, cy"),
    ],
)
def test_mistakes_name_the_choices(options: dict[str, object], wanted: str) -> None:
    with pytest.raises(OptionError, match=wanted):
        CameraOptions(**options)


def test_parameters_that_are_not_in_pixels_are_refused() -> None:
    book = CameraBook(CameraOptions(camera_params="0.9,0.5,0.5,0"), None)
    with pytest.raises(OptionError, match="in pixels"):
        book.describe("1.png", (1024, 768))


def test_every_camera_model_can_be_made() -> None:
    for model in pycolmap.CameraModelId.__members__:
        if model != "INVALID":
            book = CameraBook(CameraOptions(camera_model=model), None)
            assert book.describe("1.png", SIZE)[1].camera.model == model
