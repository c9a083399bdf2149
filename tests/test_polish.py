"""A textured wall, seen by known cameras, with keypoints that are not exact."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from samples import make_texture, write_image

from sfm_features import align as align_module
from sfm_features import colmap
from sfm_features.align import Picture, align
from sfm_features.colmap import project_points, read_model, write_model
from sfm_features.errors import Cancelled, OutputError
from sfm_features.metrics import model_errors
from sfm_features.polish import polish
from sfm_features.tracks import Tracks, read_tracks
from sfm_features.types import (
    F32,
    F64,
    PIXEL_CENTRE,
    Camera,
    Model,
    Pose,
    RegisteredImage,
)

SIZE = (320, 240)
FOCAL = 300.0
CAMERA = Camera("SIMPLE_PINHOLE", *SIZE, (FOCAL, SIZE[0] / 2, SIZE[1] / 2))
WALL_PX = 900
NOISE_PX = 0.7


def look_at_wall(centre: tuple[float, float, float], roll_deg: float = 0) -> Pose:
    """Look at the middle of the wall, which is the square of side 2 in z = 0."""
    c = np.array(centre)
    ahead = -c / np.linalg.norm(c)
    right = np.cross(
        ahead, (np.sin(np.deg2rad(roll_deg)), -np.cos(np.deg2rad(roll_deg)), 0)
    )
    right /= np.linalg.norm(right)
    rotation = np.stack((right, np.cross(ahead, right), ahead))
    return Pose(rotation, -rotation @ c)


@dataclass(frozen=True)
class Wall:
    """Pictures of the wall, a model of noisy keypoints, and where they should be."""

    pictures: dict[str, F32]
    model: Model
    truth: dict[str, F64]

    def read(self, name: str) -> Picture | None:
        return Picture(self.pictures[name], np.ones(2))

    def write(self, folder: Path) -> tuple[Path, Path]:
        for name, grey in self.pictures.items():
            write_image(folder / "images" / name, np.repeat(grey[..., None], 3, 2))
        write_model(self.model, folder / "sparse/0")
        return folder / "images", folder / "sparse"

    def count_off(self, tracks: Tracks, xy: F64) -> F64:
        """Return how far each observation is from what its reference shows (O,)."""
        offs = []
        for row in range(len(tracks)):
            there = int(tracks.reference[row])
            names = [tracks.names[int(tracks.image[i])] for i in (row, there)]
            shown = self.carry(xy[there], names[1], names[0])
            offs.append(np.linalg.norm(xy[row] - shown))
        return np.array(offs)

    def carry(self, xy: F64, source: str, target: str) -> F64:
        """Carry a pixel along the wall from one picture to another."""
        both = [
            homography(self.model.images[n].cam_from_world) for n in (source, target)
        ]
        carried = both[1] @ np.linalg.inv(both[0]) @ np.append(xy, 1)
        return carried[:2] / carried[2]


def homography(pose: Pose) -> F64:
    """Return the map from the wall's x, y, 1 to pixels."""
    middle = np.subtract(SIZE, 1) / 2
    k = np.array([[FOCAL, 0, middle[0]], [0, FOCAL, middle[1]], [0, 0, 1]])
    return k @ np.column_stack((pose.rotation[:, :2], pose.translation))


def make_wall(poses: dict[str, Pose], seed: int = 0) -> Wall:
    rng = np.random.default_rng(seed)
    grey = cv2.cvtColor(make_texture((WALL_PX, WALL_PX), seed), cv2.COLOR_RGB2GRAY)
    grey = cv2.GaussianBlur(grey, (0, 0), 2.0).astype(np.float32)
    from_pixels = np.array([[2 / WALL_PX, 0, -1], [0, 2 / WALL_PX, -1], [0, 0, 1]])
    side = np.linspace(-0.55, 0.55, 12)
    points = np.stack([*np.meshgrid(side, side), np.zeros((12, 12))], 2).reshape(-1, 3)
    pictures, truth, images = {}, {}, {}
    for number, (name, pose) in enumerate(poses.items()):
        seen = cv2.warpPerspective(
            grey, homography(pose) @ from_pixels, SIZE, flags=cv2.INTER_CUBIC
        )
        dimmed = seen * (1 - 0.1 * number) + 8 * number
        pictures[name] = np.clip(np.rint(dimmed), 0, 255).astype(np.float32)
        truth[name] = project_points(points, pose, CAMERA)
        noisy = truth[name] + rng.normal(0, NOISE_PX, truth[name].shape)
        images[name] = RegisteredImage(
            *(name, CAMERA, pose, noisy.astype(np.float32), np.arange(len(points)))
        )
    colours = np.zeros((len(points), 3), np.uint8)
    lengths = np.full(len(points), len(poses))
    model = Model(images, points, colours, np.ones(len(points)), lengths)
    return Wall(pictures, model, truth)


@pytest.fixture(scope="module")
def wall() -> Wall:
    return make_wall(
        {
            "front.png": look_at_wall((0.1, 0.0, -2.0)),
            "left.png": look_at_wall((-0.9, 0.1, -1.9)),
            "right.png": look_at_wall((0.9, -0.2, -2.1), roll_deg=20),
            "above.png": look_at_wall((0.2, -0.8, -1.7)),
        }
    )


def test_what_shows_the_same_is_laid_upon_each_other(wall: Wall) -> None:
    """Though views differ by 60 degrees, and in brightness."""
    tracks = read_tracks(wall.model)
    aligned = align(tracks, wall.read)
    before = wall.count_off(tracks, tracks.xy)
    others = tracks.reference != np.arange(len(tracks))
    assert np.median(before[others]) > 0.8
    assert aligned.found.mean() > 0.9
    off = wall.count_off(tracks, aligned.xy)[others & aligned.found]
    assert np.median(off) < 0.05
    assert np.quantile(off, 0.95) < 0.2


def test_a_point_is_where_it_was_detected_on_average(wall: Wall) -> None:
    """Not where it was in the reference: new photographs know nothing of that one."""
    tracks = read_tracks(wall.model)
    aligned = align(tracks, wall.read)
    names = [tracks.names[i] for i in tracks.image]
    truth = np.array(
        [wall.truth[n][k] for n, k in zip(names, tracks.keypoint, strict=True)]
    )
    of_reference = tracks.reference == np.arange(len(tracks))
    before = (tracks.xy - truth)[of_reference].std()
    after = (aligned.xy - truth)[of_reference].std()
    assert before == pytest.approx(NOISE_PX, rel=0.1)
    assert after < 0.65 * before  # of four views it would be half at best


def test_what_is_held_stays_and_others_are_placed_by_it(wall: Wall) -> None:
    """As where a map is, whose keypoints are exact, and a new photograph's are not."""
    images = {
        name: replace(image, keypoints=wall.truth[name].astype(np.float32))
        for name, image in wall.model.images.items()
        if name != "left.png"
    }
    images["left.png"] = wall.model.images["left.png"]
    tracks = read_tracks(replace(wall.model, images=images))
    new = tracks.image == tracks.names.index("left.png")
    aligned = align(tracks, wall.read, held=~new)
    np.testing.assert_array_equal(aligned.xy[~new], tracks.xy[~new])
    assert aligned.found[new].mean() > 0.9
    found = new & aligned.found
    true = wall.truth["left.png"][tracks.keypoint[found]]
    assert np.median(np.linalg.norm(aligned.xy[found] - true, axis=1)) < 0.06
    freely = align(tracks, wall.read).xy[found]
    assert np.median(np.linalg.norm(freely - true, axis=1)) > 0.1


def test_pictures_may_be_smaller_than_their_images(wall: Wall) -> None:
    def read(name: str) -> Picture:
        half = cv2.resize(
            wall.pictures[name], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA
        )
        return Picture(half.astype(np.float32), np.array([0.5, 0.5]))

    tracks = read_tracks(wall.model)
    aligned = align(tracks, read)
    others = tracks.reference != np.arange(len(tracks))
    off = wall.count_off(tracks, aligned.xy)[others & aligned.found]
    assert aligned.found.mean() > 0.7
    assert np.median(off) < 0.12


def test_what_shows_something_else_stays(wall: Wall) -> None:
    other = cv2.cvtColor(make_texture(SIZE, 5), cv2.COLOR_RGB2GRAY).astype(np.float32)
    for picture in (
        Picture(other, np.ones(2)),
        Picture(0 * other + 90, np.ones(2)),
        None,
    ):

        def read(name: str, picture: Picture | None = picture) -> Picture | None:
            return picture if name == "left.png" else wall.read(name)

        tracks = read_tracks(wall.model)
        aligned = align(tracks, read)
        there = tracks.image == tracks.names.index("left.png")
        assert aligned.found[there].mean() < 0.06  # smooth ones happen to be alike
        stayed = (aligned.xy == tracks.xy).all(axis=1)
        assert stayed[there & ~aligned.found].all()
        assert aligned.found[~there].mean() > 0.9


def test_what_would_move_too_far_stays(wall: Wall) -> None:
    front = wall.model.images["front.png"]
    shift = np.array([6, 0], np.float32)
    images = {
        **wall.model.images,
        "front.png": replace(front, keypoints=front.keypoints + shift),
    }
    tracks = read_tracks(replace(wall.model, images=images))
    aligned = align(tracks, wall.read)
    assert np.linalg.norm(aligned.xy - tracks.xy, axis=1).max() < 4
    # All others are compared with the front one, as it looks most as all do.
    assert {tracks.names[i] for i in tracks.image[tracks.reference]} == {"front.png"}
    assert aligned.found.mean() < 0.1


def test_a_step_turns_and_grows_with_the_view() -> None:
    """At half the distance and on its side: twice as long, and turned."""
    near = look_at_wall((0, 0, -1.0), roll_deg=90)
    far = look_at_wall((0, 0, -2.0))
    model = make_wall({"far.png": far, "near.png": near}).model
    images = {
        name: replace(image, keypoints=image.keypoints[:1], point_ids=np.array([0]))
        for name, image in model.images.items()
    }
    tracks = read_tracks(replace(model, points=np.zeros((1, 3)), images=images))
    a, b = tracks.linear
    assert np.allclose(a, np.eye(2), atol=1e-6)  # the reference itself
    assert np.allclose(np.abs(b), [[0, 2], [2, 0]], atol=0.02)
    assert np.linalg.det(b) == pytest.approx(4, rel=0.01)


def test_a_model_without_points_has_no_tracks(wall: Wall) -> None:
    poses = {name: image.cam_from_world for name, image in wall.model.images.items()}
    cameras = {name: CAMERA for name in poses}
    tracks = read_tracks(colmap.make_posed_model(cameras, poses))
    assert len(tracks) == 0
    assert len(align(tracks, wall.read).xy) == 0


def measure(wall: Wall, sparse: Path) -> tuple[float, float]:
    truth = {n: image.cam_from_world for n, image in wall.model.images.items()}
    model = read_model(sparse / "0")
    found = {n: image.cam_from_world for n, image in model.images.items()}
    return model_errors(found, truth).median_rotation_error_deg, model.mean_error_px


def test_models_become_exact(wall: Wall, tmp_path: Path) -> None:
    """Poses that are a little off, too, come back to the truth."""
    rng = np.random.default_rng(3)
    images = {}
    for name, image in wall.model.images.items():
        turn = cv2.Rodrigues(rng.normal(0, 0.003, 3))[0]
        pose = image.cam_from_world
        images[name] = replace(
            image, cam_from_world=Pose(turn @ pose.rotation, turn @ pose.translation)
        )
    off = replace(wall, model=replace(wall.model, images=images))
    folder, sparse = off.write(tmp_path)
    fixed = colmap.MapperOptions(refine_focal_length=False, refine_extra_params=False)
    polish([folder], sparse, sparse, fixed, colmap.Cancellation())
    rotation_deg, error_px = measure(wall, sparse)
    assert rotation_deg < 0.03
    assert error_px < 0.15
    bare = tmp_path / "bare"
    _, sparse = off.write(bare)
    for picture in (bare / "images").iterdir():
        picture.unlink()
    polish([bare / "images"], sparse, sparse, fixed, colmap.Cancellation())
    only_adjusted_deg, only_adjusted_px = measure(wall, sparse)
    assert only_adjusted_deg > 3 * rotation_deg
    assert only_adjusted_px > 3 * error_px


def test_a_stop_leaves_the_models_as_they_are(wall: Wall, tmp_path: Path) -> None:
    images, sparse = wall.write(tmp_path)
    before = {p.name: p.read_bytes() for p in (sparse / "0").iterdir()}
    stop = colmap.Cancellation()
    stop.cancel()
    with pytest.raises(Cancelled, match="while keypoints were aligned"):
        polish([images], sparse, sparse, colmap.MapperOptions(), stop)
    assert {p.name: p.read_bytes() for p in (sparse / "0").iterdir()} == before


def test_what_is_not_ours_is_not_replaced(wall: Wall, tmp_path: Path) -> None:
    images, sparse = wall.write(tmp_path)
    (sparse / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="notes.txt"):
        polish([images], sparse, sparse, colmap.MapperOptions(), colmap.Cancellation())
    assert (sparse / "notes.txt").read_text() == "mine"


def test_what_a_mac_leaves_in_folders_is_no_obstacle(
    wall: Wall, tmp_path: Path
) -> None:
    images, sparse = wall.write(tmp_path)
    for folder in (sparse, sparse / "0"):
        (folder / ".DS_Store").touch()
    polish([images], sparse, sparse, colmap.MapperOptions(), colmap.Cancellation())
    assert [path.name for path in sparse.iterdir()] == ["0"]


def test_an_adjustment_that_goes_astray_is_not_kept(
    wall: Wall, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, sparse = wall.write(tmp_path)
    before = measure(wall, sparse)
    rng = np.random.default_rng(0)
    moved = {
        name: (np.arange(144), rng.uniform((0, 0), SIZE, (144, 2)))
        for name in wall.model.images
    }
    with caplog.at_level(logging.WARNING):
        colmap.adjust_models(
            *(sparse, sparse, [moved], 0.25),
            colmap.MapperOptions(),
            colmap.Cancellation(),
        )
    assert "not polished" in caplog.text
    assert measure(wall, sparse) == pytest.approx(before)


def test_an_image_may_have_more_patches_than_opencv_takes() -> None:
    grey = np.arange(12, dtype=np.float32).reshape(3, 4)
    places = np.tile([[[2.0, 1.0]]], (33_000, 1, 1))
    places[-1] = [0, 2]
    seen = align_module._look(grey, places)
    assert seen.shape == (33_000, 1)
    assert (seen[0], seen[-1]) == (6, 8)


def test_pixels_of_a_picture_are_those_of_its_image() -> None:
    picture = Picture(np.zeros((12, 20), np.float32), np.array([0.5, 0.25]))
    corner = np.array([[-PIXEL_CENTRE, -PIXEL_CENTRE], [39.5, 47.5]])
    assert np.allclose(picture.place(corner), [[-0.5, -0.5], [19.5, 11.5]])
    assert np.allclose(picture.place_back(picture.place(corner)), corner)
