"""Photographs added to a map of the town whose poses are the true ones."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from samples import make_texture, write_image

from sfm_features import colmap
from sfm_features import map_add as stage
from sfm_features.atlas import Atlas
from sfm_features.cli import main
from sfm_features.errors import InputError, NameCollision, OptionError
from sfm_features.extract import ExtractOptions
from sfm_features.geometry import project
from sfm_features.map_add import add_to_map
from sfm_features.metrics import align_poses, rotation_angle_deg
from sfm_features.queries import AddOptions
from sfm_features.scenes import Truth, read_truth
from sfm_features.store import FeatureStore
from sfm_features.summary import AddSummary
from sfm_features.triangulate import TriangulateOptions, triangulate
from sfm_features.types import Model, RunOptions

CPU = RunOptions(device="cpu")
FIRST, THEN = ("view0003.jpg", "view0008.jpg"), ("view0006.jpg", "view0010.jpg")


@dataclass(frozen=True)
class Scene:
    """A map with true poses, and what was added to it: two photos, then two more."""

    truth: Truth
    photos: Path
    map: Path
    before: dict[Path, bytes]
    larger: Path
    summary: AddSummary
    largest: Path


@pytest.fixture(scope="module")
def scene(town_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Add two photographs and three that cannot be, then two more to what came out."""
    folder, photos = tmp_path_factory.mktemp("adding"), town_photos / "images"
    made, larger, largest = (folder / name for name in ("map", "larger", "largest"))
    truth = read_truth(town_photos)
    poses = {n: p for n, p in truth.poses.items() if n not in (*FIRST, *THEN)}
    colmap.write_poses(truth.cameras, poses, folder / "posed")
    triangulate(
        *(folder / "posed", photos, made, TriangulateOptions(neighbours=5)),
        ExtractOptions(extractor="sift", max_keypoints=1000),
        run=CPU,
    )
    before = _read_files(made)
    first = _copy(photos, FIRST, folder / "first")
    write_image(first / "blank.png", np.full((300, 400, 3), 128, np.uint8))
    write_image(first / "elsewhere.png", make_texture((512, 384), 77))
    (first / "broken.jpg").write_bytes(b"\xff\xd8 not a picture")
    shutil.copy(first / "blank.png", os.fsencode(first) + b"/not\xe9text.png")
    summary = add_to_map(made, first, larger, run=CPU)
    then = _copy(photos, [*THEN, FIRST[0]], folder / "then")
    shutil.copy(first / "blank.png", then)
    words = ["map-add", str(larger), str(then), "--output", str(largest)]
    assert main([*words, "--device", "cpu"]) == 0
    return Scene(truth, photos, made, before, larger, summary, largest)


def test_new_photos_are_where_they_were_taken(scene: Scene) -> None:
    model = _read(scene.largest)
    assert set(model.images) == set(scene.truth.poses)
    for name in (*FIRST, *THEN):
        pose, true = model.images[name].cam_from_world, scene.truth.poses[name]
        off = np.linalg.norm(pose.centre - true.centre)
        assert off < 0.005 * scene.truth.diameter, name
        assert rotation_angle_deg(pose.rotation @ true.rotation.T) < 0.5, name
        assert (model.images[name].point_ids >= 0).sum() > 60


def test_the_map_does_not_move_by_a_bit(scene: Scene) -> None:
    assert _read_files(scene.map) == scene.before
    old, larger, largest = map(_read, (scene.map, scene.larger, scene.largest))
    assert len(old.points) < len(larger.points) < len(largest.points)
    for names, source in ((old.images, old), (FIRST, larger)):
        for name in names:
            one, two = source.images[name], largest.images[name]
            for part in ("rotation", "translation"):
                np.testing.assert_array_equal(
                    getattr(one.cam_from_world, part), getattr(two.cam_from_world, part)
                )
            assert one.camera == two.camera
            placed = one.point_ids >= 0  # by an earlier polish; others only now
            np.testing.assert_array_equal(one.keypoints[placed], two.keypoints[placed])


def test_a_larger_map_is_polished(scene: Scene, tmp_path: Path) -> None:
    """What a stopped run had added is polished by the next, and once is enough."""
    photos, output = _copy(scene.photos, FIRST, tmp_path / "photos"), tmp_path / "out"
    rough = add_to_map(scene.map, photos, output, AddOptions(polish=False), run=CPU)
    assert rough.after.mean_error_px > 1.15 * rough.before.mean_error_px
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stage, "polish", _interrupt)
        add_to_map(scene.map, photos, output, run=CPU)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(colmap, "add_images", None)
        exact = add_to_map(scene.map, photos, output, run=CPU)
        patch.setattr(stage, "polish", None)
        again = add_to_map(scene.map, photos, output, run=CPU)
    assert not (output / "unpolished").exists()
    assert again.after == exact.after
    grown = [s.after.mean_error_px - s.before.mean_error_px for s in (exact, rough)]
    assert grown[0] < 0.5 * grown[1]


def test_the_larger_map_is_a_map(scene: Scene) -> None:
    atlas = Atlas(scene.largest)  # it compares keypoints with the features
    atlas.close()
    model = atlas.model
    assert atlas.names == sorted(scene.truth.poses)
    for name, image in model.images.items():
        seen = image.point_ids >= 0
        true = scene.truth.poses[name]
        depths = (model.points[image.point_ids[seen]] @ true.rotation.T)[:, 2]
        assert (depths + true.translation[2] > 0).all()
    assert model.errors_px.mean() < 0.6 and model.colours.any(axis=1).mean() > 0.99
    stored = json.loads((scene.largest / "summary.json").read_text())
    assert len(stored["image_folders"]) == 3 and stored["known"] == 1
    assert set(stored["unregistered"]) == {"blank.png"}


def test_the_report_shows_old_and_new_photos(scene: Scene) -> None:
    page = (scene.largest / "report.html").read_text()
    assert "12 of 13 images" in page and "with an image that was added" in page


def test_what_could_not_be_added_has_a_reason(scene: Scene) -> None:
    summary = scene.summary
    assert set(summary.added) == set(FIRST) and summary.images == 6
    assert set(summary.skipped) == {"broken.jpg", "not\\udce9text.png"}
    assert set(summary.unregistered) == {"blank.png", "elsewhere.png"}
    assert "no keypoints" in summary.unregistered["blank.png"]
    assert "2 of 6 new images added" in summary.to_text()


def test_the_same_camera_is_taken_over_and_all_is_refined(
    scene: Scene, tmp_path: Path
) -> None:
    photos = _copy(scene.photos, FIRST, tmp_path / "photos")
    add_to_map(scene.map, photos, tmp_path / "out", AddOptions(same_camera=True))
    old, fixed = _read(scene.map), _read(tmp_path / "out")
    cameras = {fixed.images[name].camera for name in fixed.images}
    assert cameras == {old.images["view0000.jpg"].camera}
    options = AddOptions(same_camera=True, refine=True)
    add_to_map(scene.map, photos, tmp_path / "out", options)
    refined = _read(tmp_path / "out")
    assert _measure_squares(refined) < 0.99 * _measure_squares(fixed)
    one, two = (
        [model.images[name].cam_from_world for name in old.images]
        for model in (refined, old)
    )
    back = align_poses(one, two)  # the frame has not changed
    assert back.scale == pytest.approx(1) and np.abs(back.translation).max() < 1e-6
    for a, b in zip(one, two, strict=True):
        apart = np.linalg.norm(a.centre - b.centre)
        assert 0 < apart < 0.02 * scene.truth.diameter
    small = make_texture((200, 200), 5)
    write_image(photos / "small.png", small)
    with pytest.raises(InputError, match=r"small\.png.*0 cameras.*--same-camera"):
        add_to_map(scene.map, photos, tmp_path / "out", options)


def test_another_photo_of_a_known_name_is_refused(scene: Scene, tmp_path: Path) -> None:
    known, new = "view0000.jpg", FIRST[0]
    photos = _copy(scene.photos, [known], tmp_path / "photos")
    with pytest.raises(InputError, match="all of its 1 images"):
        add_to_map(scene.map, photos, tmp_path / "out")
    shutil.copy(scene.photos / new, photos / known)
    with pytest.raises(InputError, match="another photograph of this name"):
        add_to_map(scene.map, photos, tmp_path / "out")
    write_image(tmp_path / "keys/a/b.png", make_texture())
    write_image(tmp_path / "keys/a-b.png", make_texture())
    with pytest.raises(NameCollision):
        add_to_map(scene.map, tmp_path / "keys", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folders_that_cannot_be_written_to_are_refused(
    scene: Scene, tmp_path: Path
) -> None:
    photos = _copy(scene.photos, FIRST, tmp_path / "photos")
    for output, message in (
        (scene.map, "is the map itself"),
        (scene.largest, "was not begun from"),
        (photos, "was not begun from"),
    ):
        with pytest.raises(InputError, match=message):
            add_to_map(scene.map, photos, output)
    with pytest.raises(OptionError, match="neighbours"):
        add_to_map(scene.map, photos, tmp_path / "out", AddOptions(neighbours=0))
    masks = tmp_path / "masks"
    for name in FIRST:
        write_image(masks / f"{name}.png", make_texture((8, 8)))
    with pytest.raises(InputError, match="was made without masks; leave out --masks"):
        add_to_map(scene.map, photos, tmp_path / "out", AddOptions(masks=masks))
    assert not (tmp_path / "out").exists()
    assert _read_files(scene.map) == scene.before


def test_one_mask_serves_old_and_new_photos(
    scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = np.full((384, 512, 3), 255, np.uint8)
    mask[280:] = 0  # as of a camera that always sees its car
    write_image(tmp_path / "mask.png", mask)
    triangulate(
        *(scene.map.parent / "posed", scene.photos, tmp_path / "map"),
        TriangulateOptions(neighbours=3, polish=False, report=False),
        ExtractOptions("sift", max_keypoints=600, masks=tmp_path / "mask.png"),
        run=CPU,
    )
    photos = _copy(scene.photos, FIRST, tmp_path / "photos")
    options = AddOptions(masks=tmp_path / "mask.png", polish=False, report=False)
    summary = add_to_map(tmp_path / "map", photos, tmp_path / "out", options, run=CPU)
    assert set(summary.added) == set(FIRST)
    with FeatureStore.open(tmp_path / "out/features.h5") as store:
        for name in FIRST:
            assert 250 < store.read_keypoints(name)[:, 1].max() < 280
    with pytest.raises(SystemExit):
        main(["map-add", "--help"])
    assert "one PNG file" in " ".join(capsys.readouterr().out.split())


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _copy(photos: Path, names: Iterable[str], folder: Path) -> Path:
    """Copy some photographs to a folder of their own."""
    folder.mkdir(parents=True)
    for name in names:
        shutil.copy(photos / name, folder)
    return folder


def _read(folder: Path) -> Model:
    return colmap.read_model(folder / "sparse/0")


def _measure_squares(model: Model) -> float:
    """Return the mean square of all reprojection errors, in pixels."""
    squares = []
    for image in model.images.values():
        seen, pose = image.point_ids >= 0, image.cam_from_world
        world = model.points[image.point_ids[seen]]
        xy = project(image.camera, world @ pose.rotation.T + pose.translation)
        squares.append(((xy - image.keypoints[seen]) ** 2).sum(axis=1))
    return float(np.concatenate(squares).mean())


def _read_files(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
