"""A camera that stands still before a thing that turns, and one that moves slowly."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from samples import make_features, make_texture, write_image

from sfm_features.colmap import CameraOptions, MapperOptions
from sfm_features.errors import OptionError, ReconstructionError, StaleStore
from sfm_features.extract import ExtractOptions, extract
from sfm_features.match import MatchOptions, match
from sfm_features.pairs import pair_exhaustively
from sfm_features.reconstruct import ReconstructOptions, reconstruct
from sfm_features.scenes.turntable import build_turntable
from sfm_features.still import OnlyMoving
from sfm_features.store import FeatureStore, MatchStore
from sfm_features.summary import Summary
from sfm_features.triangulate import TriangulateOptions, triangulate
from sfm_features.types import Features, Matcher, Matches, Pose

SIFT = ExtractOptions(extractor="sift", max_keypoints=1000)
TURNTABLE = MatchOptions(turntable=True)
SIZE = (320, 240)
STEP = np.radians(8)


@dataclass(frozen=True)
class Turn:
    """Photographs of a part of a turn, and the camera as the thing sees it."""

    images: Path
    poses: dict[str, Pose]

    def reconstruct(self, output: Path, matching: MatchOptions) -> Summary:
        camera = f"{1.15 * SIZE[0]},{SIZE[0] / 2},{SIZE[1] / 2}"
        return reconstruct(
            *(self.images, output, ReconstructOptions(), SIFT, matching),
            cameras=CameraOptions("SIMPLE_PINHOLE", camera),
            mapping=MapperOptions(refine_focal_length=False),
            truth=self.poses,
        )


@pytest.fixture(scope="module")
def turn(tmp_path_factory: pytest.TempPathFactory) -> Turn:
    folder = tmp_path_factory.mktemp("turn") / "images"
    table, poses = build_turntable(0, SIZE), {}
    for i in range(8):
        name = f"{i}.png"
        write_image(folder / name, table.photograph(STEP * i, i).rgb)
        poses[name] = table.cam_from_thing(STEP * i)
    return Turn(folder, poses)


def test_the_room_wins_unless_still_matches_are_left_out(
    turn: Turn, tmp_path: Path
) -> None:
    with pytest.raises(ReconstructionError, match="run again with --turntable"):
        turn.reconstruct(tmp_path / "plain", MatchOptions())
    for name in ("summary.txt", "summary.json", "report.html"):
        assert "--turntable" in (tmp_path / "plain" / name).read_text(encoding="utf-8")
    summary = turn.reconstruct(tmp_path / "out", TURNTABLE)
    assert (
        summary.hint
        == ""
        == json.loads((tmp_path / "out" / "summary.json").read_text())["hint"]
    )
    assert summary.errors is not None
    assert summary.errors.registered == len(turn.poses)
    assert summary.errors.median_centre_share < 0.02
    # What was matched in one way is not continued in the other.
    with pytest.raises(StaleStore, match="turntable = True, now asked for None"):
        turn.reconstruct(tmp_path / "out", MatchOptions())
    with pytest.raises(StaleStore, match="turntable = None, now asked for True"):
        turn.reconstruct(tmp_path / "plain", TURNTABLE)


def test_given_matches_are_not_silently_used(tmp_path: Path) -> None:
    given = tmp_path / "m.h5"
    given.touch()
    with pytest.raises(OptionError, match="leave out --matches"):
        reconstruct(
            *(tmp_path, tmp_path / "o", ReconstructOptions(given, given)),
            matching=TURNTABLE,
        )
    with pytest.raises(OptionError, match="leave out --matches"):
        triangulate(
            *(tmp_path, tmp_path, tmp_path / "o", TriangulateOptions(matches=given)),
            matching=TURNTABLE,
        )
    assert not (tmp_path / "o").exists()
    for options in ({"still_px": 3.0}, {"turntable": True, "still_px": float("nan")}):
        with pytest.raises(OptionError, match="still"):
            MatchOptions(**options)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="give one of them"):
        MatchOptions(turntable=True, keep_still=True)


def test_features_of_objects_leave_out_what_stands_still(
    turn: Turn, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    extract(turn.images, tmp_path / "f.h5", ExtractOptions(extractor="evo-object"))
    pairs = [("0.png", "3.png")]

    def count(name: str, options: MatchOptions) -> int:
        match(tmp_path / "f.h5", pairs, tmp_path / name, options)
        with MatchStore.open(tmp_path / name) as store:
            return len(store.read(pairs[0]))

    caplog.set_level("INFO")
    unasked = count("m.h5", MatchOptions())
    assert "left out; --keep-still keeps them" in caplog.text
    assert count("m.h5", TURNTABLE) == unasked  # the same file goes on
    assert 0 < unasked < count("kept.h5", MatchOptions(keep_still=True))
    with pytest.raises(StaleStore, match="turntable"):
        count("kept.h5", MatchOptions())


def test_a_moving_camera_loses_little(town_photos: Path, tmp_path: Path) -> None:
    counts = _count_matches(town_photos / "images", tmp_path)
    assert sum(counts[True].values()) > 0.98 * sum(counts[False].values())


def test_a_slow_video_keeps_its_frames_that_are_far_apart(tmp_path: Path) -> None:
    scene = make_texture((480, 320), seed=2)
    for i in range(8):
        write_image(tmp_path / f"i/{i}.png", scene[40:280, 40 + i : 360 + i])
    counts = _count_matches(tmp_path / "i", tmp_path)
    for pair, whole in counts[False].items():
        frames = abs(int(pair[0][0]) - int(pair[1][0]))  # each moves by a pixel
        assert whole > 100
        if frames <= 1:
            assert counts[True][pair] < 0.1 * whole
        elif frames >= 2:
            assert counts[True][pair] > 0.9 * whole


def _count_matches(images: Path, folder: Path) -> dict[bool, dict[tuple, int]]:
    """Count the matches of all pairs, with --turntable and without."""
    extract(images, folder / "f.h5", SIFT)
    counts = {}
    with FeatureStore.open(folder / "f.h5") as store:
        names = store.names()
    for turntable in (False, True):
        output = folder / f"{turntable}.h5"
        options = MatchOptions(turntable=turntable)
        match(folder / "f.h5", pair_exhaustively(names), output, options)
        with MatchStore.open(output) as store:
            counts[turntable] = {p: len(store.read(p)) for p in store.pairs(names)}
    return counts


class _ByRow(Matcher):
    def match(self, a: Features, b: Features) -> Matches:
        rows = np.arange(min(len(a), len(b)), dtype=np.int32)
        return Matches(np.stack([rows, rows], 1), rows.astype(np.float32))


def test_only_what_moves_is_left() -> None:
    rng = np.random.default_rng(5)
    angle, moved = rng.uniform(0, 2 * np.pi, 200), rng.uniform(0, 10, 200)
    xy = rng.uniform(0, 600, (200, 2))
    there = xy + moved[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)

    def pack(points: np.ndarray, size: tuple[int, int]) -> Features:
        blank = np.zeros((len(points), 4), np.float32)
        scores = np.zeros(len(points), np.float32)
        return Features(points.astype(np.float32), blank, scores, size)

    def match_both(size: tuple[int, int], other: tuple[int, int], px: float) -> list:
        matcher = OnlyMoving(_ByRow(), px)
        found = matcher.match(pack(xy, size), pack(there, other))
        assert (found.scores == found.indices[:, 0]).all()
        return found.indices[:, 0].tolist()

    sizes = {(2000, 1000): 6.0, (600, 1000): 3.0, (64, 48): 1.5}
    for size, most in sizes.items():
        assert match_both(size, size, 0) == np.flatnonzero(moved > most).tolist()
    size = (2000, 1000)
    assert match_both(size, size, 4.5) == np.flatnonzero(moved > 4.5).tolist()
    assert match_both(size, size[::-1], 0) == list(range(200))


def test_how_far_still_matches_may_move_is_a_setting(tmp_path: Path) -> None:
    """A match that moves by so many pixels still stands still; the file says so."""
    features, output = tmp_path / "f.h5", tmp_path / "m.h5"
    one = make_features(30, 16)
    moved = one.keypoints + np.float32([20, 0])
    with FeatureStore.append(features, {"extractor": "sift"}) as store:
        store.write("a", one)
        store.write("b", replace(one, keypoints=moved))

    def count(still_px: float, path: Path) -> int:
        options = replace(TURNTABLE, still_px=still_px)
        match(features, [("a", "b")], path, options)
        with MatchStore.open(path) as store:
            return len(store.read(("a", "b")))

    assert count(0.0, output) == 30 and count(25.0, tmp_path / "n.h5") == 0
    with pytest.raises(StaleStore, match=r"turntable = True, now asked for 25\.0"):
        count(25.0, output)
