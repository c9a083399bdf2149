"""Mapping, its interruptions and its files."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from colmap_scenes import Scene, empty_dir, make_scene, model_bytes, verified_rows

from sfm_features.colmap import (
    Cancellation,
    MapperOptions,
    VerifyOptions,
    adding,
    cameras,
    cancel_on_signals,
    find_snapshot,
    list_models,
    mapping,
    read_model,
    run_mapper,
    snapshots,
    verify_pairs,
)
from sfm_features.colmap.files import MODEL_FILES
from sfm_features.colmap.snapshots import (
    keep_as_snapshot,
    prune_snapshots,
    snapshots_dir,
)
from sfm_features.errors import (
    Cancelled,
    InputError,
    OptionError,
    OutputError,
    ReconstructionError,
)
from sfm_features.types import Matches


def _verified(scene: Scene, folder: Path) -> Path:
    database = scene.import_into(folder / "database.db")
    verify_pairs(database)
    return database


@pytest.mark.parametrize("mapper", ["incremental", "global", "hierarchical"])
def test_the_scene_comes_out_and_the_same_bytes_twice(
    tmp_path: Path, mapper: str
) -> None:
    scene = make_scene(tmp_path / "scene", noise_px=0.2)
    database = _verified(scene, tmp_path)
    before = verified_rows(database)
    images_dir = empty_dir(tmp_path / "images")
    options = MapperOptions(mapper, extract_colours=False, num_threads=4)
    outputs = [tmp_path / name for name in ("1/sparse", "2/sparse")]
    for output in outputs:
        paths = run_mapper(database, images_dir, output, options)
        assert paths == [output / "0"] == list_models(output)
        assert [path.name for path in output.parent.iterdir()] == ["sparse"]
    assert verified_rows(database) == before
    assert model_bytes(outputs[0]) == model_bytes(outputs[1])
    assert {path.name for path in paths[0].iterdir()} == set(MODEL_FILES)
    compared = pycolmap.compare_reconstructions(
        scene.truth, pycolmap.Reconstruction(paths[0]), alignment_error="proj_center"
    )
    assert len(compared["errors"]) == 10
    # The synthetic world is a few units wide.
    assert max(error.proj_center_error for error in compared["errors"]) < 0.02
    assert max(error.rotation_error_deg for error in compared["errors"]) < 0.1


def test_guessed_focal_lengths_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cameras, "_FOCAL_FACTOR", 0.9)  # 922 for a true 1280
    scene = make_scene(tmp_path / "scene", images=12, points=200, noise_px=0.1)
    guessed = scene.with_cameras("SIMPLE_RADIAL", "")
    database = tmp_path / "database.db"
    guessed.import_into(database)
    verify_pairs(database)
    for mapper in ("incremental", "global"):
        output = tmp_path / mapper
        options = MapperOptions(mapper, extract_colours=False)
        (path,) = run_mapper(database, empty_dir(tmp_path / "i"), output, options)
        model = read_model(path)
        assert len(model.images) == 12
        focal = next(iter(model.images.values())).camera.params[0]
        assert focal == pytest.approx(1280, rel=0.02)


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ("focal_length", [True, False, False, False]),
        ("principal_point", [False, True, True, False]),
        ("extra_params", [False, False, False, True]),
        (None, [False] * 4),
    ],
)
def test_what_is_refined_is_a_choice(
    tmp_path: Path, chosen: str | None, expected: list[bool]
) -> None:
    given = (1200.0, 500.0, 390.0, 0.0)
    scene = make_scene(tmp_path / "scene", images=5, noise_px=0.2)
    scene = scene.with_cameras("SIMPLE_RADIAL", ",".join(map(str, given)))
    options = MapperOptions(
        extract_colours=False,
        refine_focal_length=chosen == "focal_length",
        refine_principal_point=chosen == "principal_point",
        refine_extra_params=chosen == "extra_params",
    )
    database, images_dir = _verified(scene, tmp_path), empty_dir(tmp_path / "i")
    (path,) = run_mapper(database, images_dir, tmp_path / "sparse", options)
    camera = next(iter(read_model(path).images.values())).camera
    pairs = zip(camera.params, given, strict=True)
    assert [now != before for now, before in pairs] == expected


def test_all_models_are_kept_the_largest_first(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene", images=16, groups=2)
    dropped = scene.without([name for name in scene.names if "1_frame" in name][:3])
    database = _verified(dropped, tmp_path)
    paths = run_mapper(
        *(database, empty_dir(tmp_path / "i"), tmp_path / "sparse"),
        MapperOptions(extract_colours=False),
    )
    assert paths == [tmp_path / "sparse/0", tmp_path / "sparse/1"]
    assert [len(read_model(path).images) for path in paths] == [8, 5]


def test_the_largest_model_is_that_of_most_images(tmp_path: Path) -> None:
    wide = make_scene(tmp_path / "1", images=6, points=30).truth
    rich = make_scene(tmp_path / "2", images=4, points=300).truth
    output, options = tmp_path / "sparse", MapperOptions(max_runtime_s=7)
    run = mapping._Run(
        *(tmp_path / "d.db", tmp_path, output, options, 0, Cancellation())
    )
    snapshots.start_work(output, None)
    paths = mapping._publish({0: rich, 1: wide}, run)
    assert [len(read_model(path).images) for path in paths] == [6, 4]
    made = mapping._incremental_options(run)
    assert made.max_runtime_seconds == 7
    # It places photographs of other places, by chance matches and for minutes.
    assert not made.structure_less_registration_fallback
    assert not adding._pipeline_options(0).structure_less_registration_fallback


def _leave_half_to_one_pair(scene: Scene) -> Scene:
    """Keep matches of every second point in one pair only."""
    seen = {
        image.name: [point.point3D_id for point in image.points2D]
        for image in scene.truth.images.values()
    }
    matches = {}
    for number, (pair, found) in enumerate(scene.matches.items()):
        ids = np.array([seen[pair[0]][row] for row in found.indices[:, 0]])
        kept = (ids % 2 == 0) | (ids // 2 % len(scene.matches) == number)
        matches[pair] = Matches(found.indices[kept], found.scores[kept])
    return replace(scene, matches=matches)


def test_what_two_images_see_becomes_points_unless_unwanted(tmp_path: Path) -> None:
    scene = _leave_half_to_one_pair(make_scene(tmp_path / "scene", images=5))
    database = _verified(scene, tmp_path)
    lengths = []
    for keep in (True, False):
        (path,) = run_mapper(
            *(database, empty_dir(tmp_path / "i"), tmp_path / f"sparse{keep}"),
            MapperOptions(extract_colours=False, keep_two_view_tracks=keep),
        )
        lengths.append(read_model(path).track_lengths)
    assert (lengths[0] == 2).sum() > 60 and (lengths[1] == 2).sum() < 10
    assert (lengths[0] > 2).sum() > 65 and (lengths[1] > 2).sum() > 65


def test_models_without_points_are_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = make_scene(tmp_path / "1", images=4, points=100).truth
    empty = make_scene(tmp_path / "2", images=6, points=30).truth
    for point in list(empty.points3D)[5:]:
        empty.delete_point3D(point)
    database = _verified(make_scene(tmp_path / "scene", images=3), tmp_path)
    output, options = tmp_path / "sparse", MapperOptions()
    run = mapping._Run(database, tmp_path, output, options, 0, Cancellation())
    snapshots.start_work(output, None)
    (path,) = mapping._publish({0: empty, 1: good}, run)
    assert len(read_model(path).images) == 4
    assert "1 model dropped with fewer points than images" in caplog.text
    with pytest.raises(ReconstructionError, match="no model came out"):
        mapping._publish({0: empty}, run)


def test_small_models_are_dropped(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene", images=16, groups=2)
    scene = scene.without([name for name in scene.names if "1_frame" in name][:3])
    database, images_dir = _verified(scene, tmp_path), empty_dir(tmp_path / "i")
    options = MapperOptions(extract_colours=False, min_model_size=6)
    paths = run_mapper(database, images_dir, tmp_path / "sparse", options)
    assert [len(read_model(path).images) for path in paths] == [8]


def _at_next_snapshot(output: Path, act: Callable[[], object]) -> threading.Thread:
    """Act as soon as mapping has written another snapshot."""
    folder = snapshots_dir(output)
    before = {path.name for path in folder.glob("*")}

    def watch() -> None:
        while {path.name for path in folder.glob("*")} <= before:
            time.sleep(0.002)
        act()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def test_a_cancelled_mapping_goes_on(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene", images=20, points=300)
    database = _verified(scene, tmp_path)
    output = tmp_path / "sparse"
    images_dir = empty_dir(tmp_path / "i")
    options = MapperOptions(snapshot_images=3, extract_colours=False)
    assert find_snapshot(output) is None
    sizes = []
    for _ in range(2):  # the second time when it had itself been resumed
        cancellation = Cancellation()
        last = find_snapshot(output)
        watcher = _at_next_snapshot(output, cancellation.cancel)
        with pytest.raises(Cancelled, match=r"snapshots/\d+"):
            run_mapper(database, images_dir, output, options, 0, cancellation, last)
        watcher.join()
        assert not output.exists()
        snapshot = find_snapshot(output)
        assert snapshot is not None
        sizes.append(len(read_model(snapshot).images))
    assert 3 <= sizes[0] < sizes[1] < 20
    last = find_snapshot(output)
    run_mapper(database, images_dir, output, options, resume_from=last)
    assert len(read_model(output / "0").images) == 20
    assert find_snapshot(output) is None
    assert not list(tmp_path.glob(".sparse*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_cancel_and_are_given_back(tmp_path: Path, number: int) -> None:
    scene = make_scene(tmp_path / "scene", images=20, points=200)
    database = _verified(scene, tmp_path)
    output = tmp_path / "sparse"
    options = MapperOptions(snapshot_images=2, extract_colours=False)
    before = signal.signal(number, signal.default_int_handler)
    try:
        with cancel_on_signals() as cancellation, pytest.raises(Cancelled):
            assert signal.getsignal(number) is not signal.default_int_handler
            _at_next_snapshot(output, lambda: os.kill(os.getpid(), number))
            images = empty_dir(tmp_path / "i")
            run_mapper(database, images, output, options, cancellation=cancellation)
        assert find_snapshot(output) is not None
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)


def test_an_ignored_signal_stays_ignored() -> None:
    """As in a shell's background jobs, which Ctrl-C is not meant for."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with cancel_on_signals() as cancellation:
            os.kill(os.getpid(), signal.SIGINT)
        assert not cancellation.is_cancelled
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_only_whole_snapshots_are_used(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene")
    output = tmp_path / "sparse"
    whole = scene.write_truth(snapshots_dir(output) / "1000")
    for name in MODEL_FILES:
        for keep in (None, 0, 0.3, 0.9):
            newer = snapshots_dir(output) / "2000"
            for path in whole.iterdir():
                empty_dir(newer)
                (newer / path.name).write_bytes(path.read_bytes())
            content = (whole / name).read_bytes()
            if keep is None:
                (newer / name).unlink()
            else:
                # COLMAP writes the points last: what precedes a cut file is whole
                (newer / name).write_bytes(content[: int(len(content) * keep)])
                if name != "points3D.bin":
                    (newer / "points3D.bin").write_bytes(b"")
            assert find_snapshot(output) == whole, (name, keep)
    scene.write_truth(newer)
    assert find_snapshot(output) == newer


def _leave(scene: Scene, count: int) -> pycolmap.Reconstruction:
    """Return the true model with so many of its images, the first by name."""
    model = pycolmap.Reconstruction(scene.truth)
    for image in sorted(model.images.values(), key=lambda i: i.name)[count:]:
        model.deregister_frame(image.frame_id)
    return model


def test_snapshots_are_pruned_but_for_the_furthest_and_the_newest(
    tmp_path: Path,
) -> None:
    scene, output = make_scene(tmp_path / "scene"), tmp_path / "sparse"
    sizes = {"1000": 4, "2000": 9, "3000": 8, "4000": 7, "5000": 3}
    for name, count in sizes.items():
        _leave(scene, count).write_binary(empty_dir(snapshots_dir(output) / name))
    prune_snapshots(output)
    left = {path.name for path in snapshots_dir(output).iterdir()}
    assert left == {"2000", "3000", "5000"}


def test_of_a_stopped_mapping_the_largest_model_is_kept(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene")
    for name, count in (("0", 3), ("1", 10), ("2", 3)):
        _leave(scene, count).write_binary(empty_dir(tmp_path / "models" / name))
    kept = keep_as_snapshot(tmp_path / "models", tmp_path / "sparse")
    assert kept is not None and len(read_model(kept).images) == 10
    assert {path.name for path in kept.iterdir()} == set(MODEL_FILES)


def test_an_output_with_other_files_is_not_touched(tmp_path: Path) -> None:
    database = _verified(make_scene(tmp_path / "scene"), tmp_path)
    output = empty_dir(tmp_path / "sparse")
    (output / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="thesis.tex"):
        run_mapper(database, empty_dir(tmp_path / "i"), output, MapperOptions())
    assert (output / "thesis.tex").read_text() == "years of work"


def test_a_second_mapping_replaces_the_first(tmp_path: Path) -> None:
    database = _verified(make_scene(tmp_path / "scene"), tmp_path)
    output = tmp_path / "sparse"
    (empty_dir(output / "7") / "points3D.bin").write_text("an old model")
    options = MapperOptions(extract_colours=False)
    run_mapper(database, empty_dir(tmp_path / "i"), output, options)
    assert [path.name for path in output.iterdir()] == ["0"]
    (empty_dir(output / ".0.work") / "rest").write_text("of a killed triangulation")
    run_mapper(database, empty_dir(tmp_path / "i"), output, options)
    assert [path.name for path in output.iterdir()] == ["0"]


def test_failure_is_explained(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene", images=3, points=20)
    database = _verified(scene, tmp_path)
    images_dir = empty_dir(tmp_path / "i")
    with pytest.raises(ReconstructionError, match="3 images, 3 verified pairs"):
        run_mapper(database, images_dir, tmp_path / "sparse", MapperOptions())
    assert not (tmp_path / "sparse").exists()
    with pytest.raises(InputError, match="no such folder"):
        run_mapper(database, tmp_path / "absent", tmp_path / "s", MapperOptions())
    with pytest.raises(OptionError, match="incremental, global, hierarchical"):
        MapperOptions("quick")


@pytest.mark.parametrize(
    "make",
    [
        lambda: MapperOptions(min_model_size=-1),
        lambda: MapperOptions(min_matches=0),
        lambda: MapperOptions(num_threads=0),
        lambda: MapperOptions(snapshot_images=-1),
        lambda: VerifyOptions(max_error_px=0),
        lambda: VerifyOptions(max_error_px=float("nan")),
        lambda: VerifyOptions(min_inliers=-1),
        lambda: VerifyOptions(max_trials=0),
    ],
)
def test_values_without_sense_are_refused_at_once(make: Callable[[], object]) -> None:
    """COLMAP would raise its own error, after extraction and matching."""
    with pytest.raises(OptionError, match=r"^--[a-z-]+ [-\w.]+: must be "):
        make()


def test_pairs_that_failed_are_not_called_verified(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each match joins two points at random, so no pair passes."""
    caplog.set_level(logging.INFO)
    scene, rng = make_scene(tmp_path / "scene", images=3), np.random.default_rng(0)
    mixed = {
        pair: replace(found, indices=rng.permuted(found.indices, axis=0))
        for pair, found in scene.matches.items()
    }
    database = replace(scene, matches=mixed).import_into(tmp_path / "database.db")
    verify_pairs(database, VerifyOptions(min_inliers=40))
    assert " 0 of 3 pairs verified" in caplog.text
    with pytest.raises(ReconstructionError, match="3 images, 0 verified pairs"):
        run_mapper(
            database, empty_dir(tmp_path / "i"), tmp_path / "sparse", MapperOptions()
        )


@pytest.mark.parametrize("mapper", ["incremental", "global", "hierarchical"])
def test_images_without_matches_are_explained(tmp_path: Path, mapper: str) -> None:
    scene = replace(make_scene(tmp_path / "scene", images=4), matches={})
    database = _verified(scene, tmp_path)
    images_dir = empty_dir(tmp_path / "i")
    with pytest.raises(ReconstructionError, match="4 images, 0 verified pairs"):
        run_mapper(database, images_dir, tmp_path / "sparse", MapperOptions(mapper))


def test_colmap_writes_to_our_log_only(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    database = _verified(make_scene(tmp_path / "scene"), tmp_path)
    with caplog.at_level(logging.INFO):
        run_mapper(database, empty_dir(tmp_path / "i"), tmp_path / "s", MapperOptions())
    said = [r for r in caplog.records if "Could not read image" in r.message]
    assert len(said) == 1 and said[0].levelno == logging.WARNING
    out, err = capfd.readouterr()
    assert out == ""
    assert "Could not read image" not in err and ".cc:" not in err
    assert "map images" in err


def test_colours_come_from_the_images(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "scene")
    database = _verified(scene, tmp_path)
    images_dir = empty_dir(tmp_path / "images")
    for name in scene.names:
        pixels = np.full((768, 1024, 3), (200, 100, 50), np.uint8)
        pycolmap.Bitmap.from_array(pixels).write(images_dir / name)
    run_mapper(database, images_dir, tmp_path / "sparse", MapperOptions())
    colours = read_model(tmp_path / "sparse/0").colours
    assert np.abs(colours.astype(int) - (200, 100, 50)).max() <= 1
