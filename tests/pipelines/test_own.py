"""Localization measured on one's own images, and the measures themselves."""

from __future__ import annotations

from math import inf
from pathlib import Path

import numpy as np
import pytest
from miniature import CPU, HELD_OUT, assert_close, read_rows, write_photos
from small_town import Photo, SmallTown

from pipelines import own
from pipelines.protocols import chain
from pipelines.protocols.chain import Located
from pipelines.protocols.recall import (
    OUTDOORS,
    PoseError,
    Threshold,
    make_row,
    measure_errors,
    parse_threshold,
    share_within,
)
from sfm_features.colmap import write_poses
from sfm_features.errors import OptionError
from sfm_features.geometry import look_at
from sfm_features.types import Camera, Pose


@pytest.fixture
def posed(small_town: SmallTown, tmp_path: Path) -> dict[str, Photo]:
    """Write photographs and their poses; one of them is blank."""
    by_name = {f"day {i:02}.jpg": photo for i, photo in small_town.day.items()}
    by_name |= {f"night/{i:02}.jpg": photo for i, photo in small_town.night.items()}
    first = by_name["day 00.jpg"]
    by_name["blank.png"] = Photo(
        np.full_like(first.rgb, 90), first.depth, first.camera, first.cam_from_world
    )
    write_photos(tmp_path / "photos", by_name)
    write_poses(
        {name: photo.camera for name, photo in by_name.items()},
        {name: photo.cam_from_world for name, photo in by_name.items()},
        tmp_path / "model",
    )
    return by_name


def test_two_settings_are_compared_and_nothing_is_done_twice(
    posed: dict[str, Photo], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held_out = [f"day {i:02}.jpg" for i in HELD_OUT]
    held_out += [name for name in posed if not name.startswith("day")]
    (tmp_path / "held.txt").write_text("# by day and night\n" + "\n".join(held_out))
    arguments = [str(tmp_path / "photos"), str(tmp_path / "model"), *CPU]
    arguments += ["--queries", str(tmp_path / "held.txt")]
    arguments += ["--output", str(tmp_path / "out"), "--thresholds", "0.1:0.5", "2%:2"]
    compare = ["--compare", "evo=", "sift=--extractor sift --max-keypoints 1000"]
    assert own.main([*arguments, *compare]) == 0
    centres = np.array([photo.cam_from_world.centre for photo in posed.values()])
    diameter = np.linalg.norm(centres[:, None] - centres, axis=2).max()
    rows = read_rows(tmp_path / "out", "own")
    for row, name in zip(rows, ("evo", "sift"), strict=True):
        assert (row["setting"], row["queries"], row["localized"]) == (name, 8, 7)
        assert row["% in 0.1 m, 0.5 deg"] == 100 * 7 / 8  # the blank one cannot be
        assert row["% in 2 %, 2 deg"] == 100 * 7 / 8
        assert row["median cm"] < 4 and row["median deg"] < 0.1
        assert row["median %"] == pytest.approx(row["median cm"] / diameter)
        assert row["failed"] == "1 no features"
    made = [*(tmp_path / "out").glob("*/map/sparse/0/*")]
    made += (tmp_path / "out").glob("*/poses/queries.jsonl")
    assert len(made) > 6
    before = [path.stat().st_mtime_ns for path in made]
    assert own.main([*arguments, *compare]) == 0
    assert before == [path.stat().st_mtime_ns for path in made]
    (tmp_path / "held.txt").write_text("\n".join(held_out[1:]))
    assert own.main([*arguments, *compare]) == 2
    assert "another --output" in capsys.readouterr().err


def test_what_cannot_be_held_out_is_refused(
    posed: dict[str, Photo], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "held.txt").write_text("day 00.jpg\nelsewhere.jpg\n")
    (tmp_path / "all.txt").write_text("\n".join(posed))
    given = [str(tmp_path / "photos"), str(tmp_path / "model")]
    given += ["--output", str(tmp_path / "out")]
    for options, complaint in (
        (["--every", "1"], "--every 1: must be at least 2"),
        (["--queries", str(tmp_path / "held.txt")], "names 'elsewhere.jpg'"),
        (["--queries", str(tmp_path / "all.txt")], "leave 0 for the map"),
        (["--compare", "extractor sift"], "write NAME=OPTIONS"),
        (["--retrieval", "0"], "--retrieval 0: must be at least 1"),
        (["--thresholds", "5"], "threshold '5': write METRES:DEGREES"),
    ):
        assert own.main([*given, *options]) == 2
        assert complaint in capsys.readouterr().err


def test_errors_are_of_camera_centres_and_thresholds_strict() -> None:
    true = look_at(np.array([300.0, -40.0, 2.0]), np.array([310.0, -20.0, 1.0]))
    c, s = np.cos(np.radians(1)), np.sin(np.radians(1))
    turned = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ true.rotation
    moved = -true.rotation @ (true.centre + [0, 0, 0.25])
    found = {
        "exact": Located("localized", "", true),
        "turned": Located("localized", "", Pose(turned, -turned @ true.centre)),
        "moved": Located("localized", "", Pose(true.rotation, moved)),
        "failed": Located("few matches", "", None),
    }
    errors = measure_errors(found, dict.fromkeys([*found, "left out"], true))
    assert errors["exact"] == PoseError(0, 0)
    # A turn about the camera moves its translation by metres, and its centre by none.
    assert errors["turned"].metres == pytest.approx(0, abs=1e-9)
    assert errors["turned"].degrees == pytest.approx(1)
    assert errors["moved"].metres == pytest.approx(0.25)
    assert errors["failed"] == errors["left out"] == PoseError(inf, inf)
    given = [PoseError(*e) for e in ((0.25, 0), (0, 2), (0.2, 1.9), (inf, inf))]
    shares = [share_within(given, threshold) for threshold in OUTDOORS]
    assert shares == [1 / 4, 3 / 4, 3 / 4]
    assert share_within(given, Threshold(0.01, 5, is_share=True), diameter=24) == 1 / 2
    row = make_row({}, errors, OUTDOORS, found)
    assert (row["queries"], row["localized"]) == (5, 3)
    assert row["median cm"] == pytest.approx(25)


def test_thresholds_are_written_as_they_are_read() -> None:
    assert parse_threshold("0.25:2").to_text() == "0.25 m, 2 deg"
    assert parse_threshold("0.05:5").to_text() == "5 cm, 5 deg"
    assert parse_threshold("0.5%:2").to_text() == "0.5 %, 2 deg"
    for text in ("0:5", "1:-1", "a:b", "%:1", ""):
        with pytest.raises(OptionError, match="METRES:DEGREES"):
            parse_threshold(text)


def test_a_run_stopped_at_any_stage_goes_on(
    posed: dict[str, Photo], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    given = [str(tmp_path / "photos"), str(tmp_path / "model"), *CPU]
    given += ["--output", str(tmp_path / "out"), "--max-keypoints", "1000"]
    for stage in ("write_poses", "write_pairs", "triangulate", "describe", "localize"):
        with monkeypatch.context() as patch:
            patch.setattr(chain, stage, stop)
            assert own.main(given) == 130
        assert not (tmp_path / "out/results.json").exists()
    assert own.main(given) == 0
    (row,) = read_rows(tmp_path / "out", "own")
    assert row["queries"] == 4 and row["% in 1 %, 2 deg"] == 100


def test_poses_of_strechas_benchmark(posed: dict[str, Photo], tmp_path: Path) -> None:
    """Their calibration may be meant for larger images than the files."""
    for name in list(posed)[:3]:
        photo = posed[name]
        focal, x, y = 2 * np.array(photo.camera.params)
        pose = photo.cam_from_world
        numbers = [focal, 0, x, 0, focal, y, 0, 0, 1, 0, 0, 0, *pose.rotation.T.ravel()]
        width, height = 2 * photo.camera.width, 2 * photo.camera.height
        path = tmp_path / f"cameras/{name}.camera"
        path.parent.mkdir(exist_ok=True)
        path.write_text(" ".join(map(str, [*numbers, *pose.centre, width, height])))
    model = own.read_posed(tmp_path / "cameras", tmp_path / "photos")
    assert len(model.images) == 3 and not len(model.points)
    for name, image in model.images.items():
        assert_close(image.cam_from_world, posed[name].cam_from_world, 1e-6, 1e-6)
        assert image.camera == Camera("PINHOLE", 480, 360, (384.0, 384.0, 240.0, 180.0))
