"""From photographs of the town to a model that agrees with the truth."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pycolmap
import pytest
from samples import make_features, make_texture, write_image

from sfm_features import colmap, modelling, reporting
from sfm_features import reconstruct as stage
from sfm_features.atlas import Atlas
from sfm_features.colmap import CameraOptions, MapperOptions
from sfm_features.demo import DemoOptions, run_demo
from sfm_features.errors import (
    BusyStore,
    Cancelled,
    InputError,
    MissingExtra,
    OptionError,
    OutputError,
    PairsError,
    ReconstructionError,
)
from sfm_features.extract import ExtractOptions, extract
from sfm_features.journal import claim
from sfm_features.localize import localize
from sfm_features.localizer import Localizer
from sfm_features.map_add import add_to_map
from sfm_features.match import MatchOptions, match
from sfm_features.pair_files import read_pairs
from sfm_features.pairs import PairOptions, choose_pairs, pair_exhaustively
from sfm_features.reconstruct import ReconstructOptions, reconstruct
from sfm_features.scenes import read_truth
from sfm_features.store import FeatureStore
from sfm_features.summary import Summary
from sfm_features.training.codebook import train_codebook
from sfm_features.triangulate import triangulate
from sfm_features.types import RunOptions

QUICK = ReconstructOptions(report=False)
# What is tested here comes after extraction, so it should not change with our weights.
EXTRACTION = ExtractOptions(extractor="sift", max_keypoints=1000)


@pytest.fixture(scope="module")
def done(
    town_photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Summary]:
    """One whole reconstruction, with its report."""
    output = tmp_path_factory.mktemp("out")
    truth = read_truth(town_photos).poses
    summary = reconstruct(
        town_photos / "images", output, extraction=EXTRACTION, truth=truth
    )
    return output, summary


def read_model_bytes(output: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((output / "sparse/0").iterdir())}


def test_paths_may_be_strings(tmp_path: Path) -> None:
    """A path is made of them before anything else, in every stage."""
    absent, output = str(tmp_path / "no"), str(tmp_path / "out")
    for call in (
        *(lambda: reconstruct(absent, output), lambda: extract(absent, output)),
        *(lambda: match(absent, [], output), lambda: localize(absent, absent, output)),
        *(lambda: triangulate(absent, absent, output), lambda: Localizer(absent)),
        lambda: add_to_map(absent, absent, output),
    ):
        with pytest.raises(InputError, match="/no: (no such|has no model)"):
            call()


def test_agrees_with_the_truth(done: tuple[Path, Summary]) -> None:
    """At half the demo's resolution: half its bound on rotations, 0.4 degrees."""
    output, summary = done
    errors = summary.errors
    assert errors is not None
    assert errors.registered == errors.expected == 12
    assert errors.median_centre_share < 0.005
    assert errors.median_rotation_error_deg < 0.4
    (model,) = summary.models
    assert model.points > 400
    assert model.mean_track_length > 2.5
    assert model.mean_error_px < 0.5
    written = json.loads((output / "summary.json").read_text())
    assert written["models"][0]["registered"] == 12
    assert "12 of 12 images registered" in (output / "summary.txt").read_text()
    assert "<html" in (output / "report.html").read_text()


def test_our_own_network_registers_every_view(
    town_photos: Path, tmp_path: Path
) -> None:
    truth = read_truth(town_photos).poses
    summary = reconstruct(
        town_photos / "images", tmp_path, QUICK, ExtractOptions("evo"), truth=truth
    )
    assert summary.errors is not None
    assert summary.errors.registered == summary.errors.expected == 12


def test_running_again_does_nothing_anew_even_elsewhere(
    done: tuple[Path, Summary], town_photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_model_bytes(done[0])
    output, summary = done[0].with_name("moved"), done[1]
    done[0].rename(output)
    for name in ("import_features_and_matches", "verify_pairs", "run_mapper"):
        monkeypatch.setattr(colmap, name, None)
    again = reconstruct(town_photos / "images", output, QUICK, extraction=EXTRACTION)
    output.rename(done[0])
    assert again.models == summary.models
    assert read_model_bytes(done[0]) == before


def test_pairs_from_the_model(done: tuple[Path, Summary]) -> None:
    options = PairOptions(model=done[0] / "sparse/0", neighbours=2)
    for method in ("covisibility", "poses"):
        chosen = choose_pairs(method, options)
        assert {name for pair in chosen for name in pair} == {
            f"view{i:04d}.jpg" for i in range(12)
        }
        # Views next to each other on the walk share the most and stand the closest.
        steps = [abs(int(a[4:8]) - int(b[4:8])) for a, b in chosen]
        assert sum(step <= 3 for step in steps) > 0.7 * len(steps)


def test_same_seed_same_files(
    done: tuple[Path, Summary], town_photos: Path, tmp_path: Path
) -> None:
    output, _ = done
    reconstruct(town_photos / "images", tmp_path, QUICK, extraction=EXTRACTION)
    for name in ("features.h5", "matches.h5"):
        assert (tmp_path / name).read_bytes() == (output / name).read_bytes()
    assert read_model_bytes(tmp_path) == read_model_bytes(output)


def test_new_settings_redo_only_what_they_touch(
    done: tuple[Path, Summary], town_photos: Path, tmp_path: Path
) -> None:
    shutil.copytree(done[0], tmp_path / "out")
    matches = (tmp_path / "out" / "matches.h5").stat().st_mtime_ns
    summary = reconstruct(
        town_photos / "images",
        tmp_path / "out",
        QUICK,
        extraction=EXTRACTION,
        cameras=CameraOptions(camera_model="RADIAL"),
        mapping=MapperOptions(mapper="global"),
    )
    assert (tmp_path / "out" / "matches.h5").stat().st_mtime_ns == matches
    assert summary.models[0].registered == 12
    model = colmap.read_model(tmp_path / "out/sparse/0")
    assert {image.camera.model for image in model.images.values()} == {"RADIAL"}


def test_other_bounds_verify_again(
    done: tuple[Path, Summary], town_photos: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(done[0], output)

    def count() -> int:
        return sum(map(len, colmap.read_verified(output / "database.db").values()))

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before, strict = count(), colmap.VerifyOptions(max_error_px=0.5)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(colmap, "run_mapper", stop)
        reconstruct(
            *(town_photos / "images", output, QUICK, EXTRACTION), verification=strict
        )
    assert count() < 0.95 * before


def test_files_of_hloc_serve_as_well(
    done: tuple[Path, Summary], town_photos: Path, tmp_path: Path
) -> None:
    """Rewrite both files as hloc does: float16, int16, nothing of ours in them."""
    output, summary = done
    for name in ("features.h5", "matches.h5"):
        with h5py.File(output / name) as ours, h5py.File(tmp_path / name, "w") as hloc:

            def copy(key: str, item: object, hloc: h5py.File = hloc) -> None:
                if isinstance(item, h5py.Dataset):
                    kinds = {"f": np.float16, "i": np.int16}
                    hloc[key] = item[()].astype(kinds[item.dtype.kind])

            ours.visititems(copy)
    options = ReconstructOptions(
        features=tmp_path / "features.h5", matches=tmp_path / "matches.h5", report=False
    )
    again = reconstruct(town_photos / "images", tmp_path / "out", options)
    assert again.models[0].registered == 12
    # float16 rounds keypoints to a quarter or half of a pixel; polishing undoes that.
    exact = summary.models[0].mean_error_px
    assert again.models[0].mean_error_px == pytest.approx(exact, rel=0.1)


def test_every_image_left_out_has_a_reason(town_photos: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(town_photos / "images", images)
    write_image(images / "blank.png", np.full((384, 512, 3), 128, np.uint8))
    write_image(images / "other.png", make_texture((512, 384), seed=9))
    (images / "broken.jpg").write_bytes(b"\xff\xd8")
    summary = reconstruct(images, tmp_path / "out", QUICK, extraction=EXTRACTION)
    assert summary.images == 15
    assert summary.models[0].registered == 12
    assert set(summary.skipped) == {"broken.jpg"}
    assert set(summary.unregistered) == {"blank.png", "other.png"}
    assert "no keypoints" in summary.unregistered["blank.png"]
    assert "no verified pair" in summary.unregistered["other.png"]
    text = (tmp_path / "out" / "summary.txt").read_text()
    assert "blank.png: has no keypoints" in text


def test_no_model_is_an_error_with_a_report(tmp_path: Path) -> None:
    for i in range(3):
        write_image(tmp_path / "i" / f"{i}.png", make_texture((256, 192), seed=i))
    with pytest.raises(ReconstructionError, match="no model came out"):
        reconstruct(tmp_path / "i", tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["models"] == []
    assert len(summary["unregistered"]) == 3
    assert (tmp_path / "out" / "report.html").exists()


def test_fewer_images_than_a_model_has_are_refused(tmp_path: Path) -> None:
    photos, output = tmp_path / "photos", tmp_path / "out"
    for i in range(2):
        write_image(photos / f"{i}.png", make_texture((256, 192), seed=i))
    with pytest.raises(
        InputError, match=r"photos: has 2 images, .* at least 3 \(--min"
    ):
        reconstruct(photos, output, QUICK, EXTRACTION)
    (photos / "broken.jpg").write_bytes(b"\xff\xd8")
    with pytest.raises(InputError, match=r"1 of 3 images are of no use.*broken\.jpg"):
        reconstruct(photos, output, QUICK, EXTRACTION)
    with pytest.raises(ReconstructionError, match="no model came out of 2 images"):
        reconstruct(
            *(photos, output, QUICK, EXTRACTION),
            mapping=MapperOptions(min_model_size=2),
        )


def test_a_camera_that_pairs_cannot_tell_is_named(tmp_path: Path) -> None:
    for i in range(3):
        write_image(tmp_path / "i" / f"{i}.png", make_texture((256, 192), seed=i))
    for model, params, told in (
        ("OPENCV_FISHEYE", "", True),
        ("OPENCV_FISHEYE", "90,90,128,96,0,0,0,0", False),
        ("OPENCV", "", False),
    ):
        cameras = CameraOptions(camera_model=model, camera_params=params)
        with pytest.raises(ReconstructionError, match="no model came out") as failure:
            reconstruct(tmp_path / "i", tmp_path / "out", QUICK, cameras=cameras)
        assert ("OPENCV_FISHEYE" in str(failure.value)) == told
        assert ("--camera-params" in str(failure.value)) == told


def test_pairs_of_a_file(town_photos: Path, tmp_path: Path) -> None:
    names = [f"view{i:04d}.jpg" for i in range(12)]
    listed = tmp_path / "pairs.txt"
    lines = [f"{a} {b}\n" for a, b in zip(names, names[1:], strict=False)]
    listed.write_text("".join(lines) + "view0000.jpg absent.jpg\n")
    options = ReconstructOptions(pairs=listed, report=False)
    summary = reconstruct(town_photos / "images", tmp_path / "out", options, EXTRACTION)
    assert 2 <= summary.models[0].registered <= 12
    with pytest.raises(PairsError, match=r"absent\.jpg"):
        reconstruct(
            *(town_photos / "images", tmp_path / "strict", options, EXTRACTION),
            run=RunOptions(strict=True),
        )


def test_only_what_is_asked_for_is_used(
    done: tuple[Path, Summary], town_photos: Path, tmp_path: Path
) -> None:
    """A folder that an earlier run filled with more images and more pairs."""
    output, photos = tmp_path / "out", town_photos / "images"
    shutil.copytree(done[0], output)
    names = [f"view{i:04d}.jpg" for i in range(12)]
    listed, pairs = tmp_path / "list.txt", tmp_path / "pairs.txt"
    listed.write_text("".join(f"{name}\n" for name in names[:6]))
    few = replace(EXTRACTION, image_list=listed)
    assert reconstruct(photos, output, QUICK, few).images == 6
    assert reconstruct(photos, output, QUICK, EXTRACTION).images == 12
    pairs.write_text(f"{names[0]} {names[1]}\n{names[1]} {names[2]}\n")
    chain = replace(QUICK, pairs=pairs)
    summary = reconstruct(photos, output, chain, EXTRACTION)
    used = colmap.read_verified(output / "database.db")
    assert used and set(used) <= {(names[0], names[1]), (names[1], names[2])}
    assert "was not paired" in summary.unregistered[names[5]]
    features = replace(QUICK, features=output / "features.h5")
    listing = ExtractOptions(image_list=listed)
    assert reconstruct(photos, tmp_path / "given", features, listing).images == 6


def test_more_images_without_more_pairs_are_imported(
    done: tuple[Path, Summary], town_photos: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(done[0], output)
    names = [f"view{i:04d}.jpg" for i in range(12)]
    listed, pairs = tmp_path / "list.txt", tmp_path / "pairs.txt"
    pairs.write_text("".join(f"{names[i]} {names[i + 1]}\n" for i in range(3)))
    options = replace(QUICK, pairs=pairs, polish=False)
    for count in (6, 12):
        listed.write_text("".join(f"{name}\n" for name in names[:count]))
        few = replace(EXTRACTION, image_list=listed)
        reconstruct(town_photos / "images", output, options, few)
        with pycolmap.Database.open(output / "database.db") as handle:
            assert handle.num_images() == count


def test_a_database_that_was_deleted_is_verified_again(
    done: tuple[Path, Summary], town_photos: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(done[0], output)
    before = colmap.read_verified(output / "database.db")
    (output / "database.db").unlink()
    summary = reconstruct(town_photos / "images", output, QUICK, EXTRACTION)
    assert summary.models == done[1].models
    assert colmap.read_verified(output / "database.db").keys() == before.keys()


def test_a_failure_does_not_show_an_earlier_model(
    done: tuple[Path, Summary], town_photos: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(done[0], output)
    model = read_model_bytes(output)
    with pytest.raises(ReconstructionError, match="an earlier run made"):
        reconstruct(
            *(town_photos / "images", output, QUICK, EXTRACTION),
            mapping=MapperOptions(min_matches=100_000),
        )
    summary = json.loads((output / "summary.json").read_text())
    assert summary["models"] == [] and len(summary["unregistered"]) == 12
    assert read_model_bytes(output) == model


def test_a_stopped_verification_vouches_for_nothing(
    done: tuple[Path, Summary], town_photos: Path, tmp_path: Path
) -> None:
    """What was verified before is gone when a verification with others begins."""
    output, photos = tmp_path / "out", town_photos / "images"
    shutil.copytree(done[0], output)
    verify = colmap.verify_pairs

    def stop(
        database: Path, options: colmap.VerifyOptions, *_: object, **__: object
    ) -> None:
        stopped = colmap.Cancellation()
        stopped.cancel()
        verify(database, options, cancellation=stopped)

    stricter = colmap.VerifyOptions(max_error_px=2)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Cancelled):
        patch.setattr(colmap, "verify_pairs", stop)
        reconstruct(photos, output, QUICK, EXTRACTION, verification=stricter)
    assert not colmap.read_verified(output / "database.db")
    fewer = MapperOptions(min_matches=16)
    again = reconstruct(photos, output, QUICK, EXTRACTION, mapping=fewer)
    assert again.models[0].registered == 12


def test_only_a_snapshot_of_the_same_settings_is_gone_on_from(
    done: tuple[Path, Summary], town_photos: Path, tmp_path: Path
) -> None:
    """The note of a mapping that began counts only with snapshots made since."""
    output, resumed = tmp_path / "out", []
    shutil.copytree(done[0], output)
    snapshot = output / ".unpolished.work/snapshots/1000"

    def die(*given: object) -> None:
        resumed.append(given[-1])
        raise KeyboardInterrupt

    shutil.copytree(output / "sparse/0", output / ".sparse.work/snapshots/1000")
    for is_put_there, min_matches in ((True, 16), (False, 16), (True, 16), (False, 17)):
        if is_put_there:
            shutil.copytree(output / "sparse/0", snapshot)
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(colmap, "run_mapper", die)
            reconstruct(
                *(town_photos / "images", output, QUICK, EXTRACTION),
                mapping=MapperOptions(min_matches=min_matches),
            )
    assert resumed == [None, None, snapshot, None]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(colmap, "run_mapper", die)
        reconstruct(
            *(town_photos / "images", output, replace(QUICK, polish=False), EXTRACTION),
            mapping=MapperOptions(min_matches=17),
        )
    assert resumed[4] is None


def test_a_model_is_polished_last_and_once(
    done: tuple[Path, Summary], town_photos: Path, tmp_path: Path
) -> None:
    """Stopped before, it goes on with the mapper's; without, that is made again."""
    output, photos = tmp_path / "out", town_photos / "images"
    truth = read_truth(town_photos).poses
    rough = ReconstructOptions(report=False, polish=False)
    before = reconstruct(photos, output, rough, EXTRACTION, truth=truth)
    assert before.errors is not None and done[1].errors is not None
    exact, off = (e.median_rotation_error_deg for e in (done[1].errors, before.errors))
    assert exact < 0.7 * off
    with pytest.MonkeyPatch.context() as patch:
        for name in ("verify_pairs", "run_mapper"):
            patch.setattr(colmap, name, None)
        reconstruct(photos, output, QUICK, EXTRACTION)
        assert read_model_bytes(output) == read_model_bytes(done[0])
        patch.setattr(modelling, "polish", None)
        reconstruct(photos, output, QUICK, EXTRACTION)
    again = reconstruct(photos, output, rough, EXTRACTION)
    assert again.models == before.models


def test_a_map_knows_that_its_model_is_of_other_features(
    done: tuple[Path, Summary], town_photos: Path, tmp_path: Path
) -> None:
    output, other = tmp_path / "out", tmp_path / "other.h5"
    shutil.copytree(done[0], output)
    photos = town_photos / "images"
    extract(photos, other, replace(EXTRACTION, max_keypoints=900))
    match(other, read_pairs(output / "pairs.txt"), tmp_path / "matches.h5")
    given = replace(QUICK, features=other, matches=tmp_path / "matches.h5")
    reconstruct(photos, output, given)
    with pytest.raises(InputError, match="features"):
        Atlas(output)


@pytest.mark.parametrize("name", ["database.db", "sparse/0/points3D.bin"])
def test_the_project_of_another_tool_is_not_overwritten(
    name: str, town_photos: Path, tmp_path: Path
) -> None:
    """As COLMAP lays it out, the images beside it."""
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"hours of work")
    with pytest.raises(OutputError, match="not of an earlier run of sfm-features"):
        reconstruct(town_photos / "images", tmp_path, QUICK, EXTRACTION)
    assert path.read_bytes() == b"hours of work"
    assert [p.name for p in tmp_path.iterdir()] == [name.split("/")[0]]


def test_a_second_run_on_one_output_is_refused(
    town_photos: Path, tmp_path: Path
) -> None:
    with (
        claim(tmp_path),
        pytest.raises(BusyStore, match="another process is using it"),
    ):
        reconstruct(town_photos / "images", tmp_path, QUICK, EXTRACTION)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_sequential_pairs_are_fewer(town_photos: Path, tmp_path: Path) -> None:
    options = ReconstructOptions(pairing="sequential", overlap=2, report=False)
    reconstruct(
        *(town_photos / "images", tmp_path, options, EXTRACTION),
        matching=MatchOptions(ratio=0.8),
    )
    assert len((tmp_path / "pairs.txt").read_text().splitlines()) == 11 + 10


def test_many_images_are_paired_by_what_looks_alike(
    town_photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Features that no codebook fits are matched as few images are: all with all."""
    monkeypatch.setattr(stage, "_MOST_EXHAUSTIVE", 5)
    options = ReconstructOptions(overlap=1, neighbours=3, report=False)
    for extractor, least, most in (("evo", 20, 50), ("sift", 66, 66)):
        output = tmp_path / extractor
        extraction = ExtractOptions(extractor=extractor, max_keypoints=1000)
        summary = reconstruct(town_photos / "images", output, options, extraction)
        assert least <= len(read_pairs(output / "pairs.txt")) <= most
        assert summary.models[0].registered == 12
        assert ("--codebook" in caplog.text) == (extractor == "sift")
    mine = tmp_path / "mine.safetensors"
    photos = town_photos / "images"
    train_codebook([photos, photos], mine, "sift", words=4, dim=8)
    caplog.clear()
    options = replace(options, codebook=mine)
    summary = reconstruct(photos, output, options, extraction)
    assert 20 <= len(read_pairs(output / "pairs.txt")) <= 50
    assert summary.models[0].registered == 12 and "--codebook" not in caplog.text


def test_without_the_report_extra_the_model_is_kept(
    done: tuple[Path, Summary],
    town_photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(*_: object) -> None:
        raise MissingExtra("pip install 'sfm-features[report]'")

    monkeypatch.setattr(reporting, "write_report", refuse)
    reconstruct(town_photos / "images", done[0], extraction=EXTRACTION)
    assert "pip install" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_demo_meets_its_bounds(tmp_path: Path, seed: int) -> None:
    errors = run_demo(tmp_path, DemoOptions(), RunOptions(seed=seed)).errors
    assert errors is not None
    assert errors.registered == errors.expected == 30
    assert errors.median_centre_share < 0.005
    assert errors.median_rotation_error_deg < 0.2


def test_matches_of_other_features_are_refused(
    town_photos: Path, tmp_path: Path
) -> None:
    """As many keypoints elsewhere: all matches would be wrong, none out of range."""
    names = [f"view000{i}.jpg" for i in range(3)]
    paths = [tmp_path / name for name in ("mine.h5", "other.h5")]
    for seed, path in enumerate(paths):
        with FeatureStore.append(path, {}) as store:
            for i, name in enumerate(names):
                store.write(name, make_features(seed=3 * seed + i))
    match(paths[0], pair_exhaustively(names), tmp_path / "m.h5")
    options = replace(QUICK, features=paths[1], matches=tmp_path / "m.h5")
    with pytest.raises(InputError, match=r"m\.h5.*'view0000\.jpg'.*other\.h5"):
        reconstruct(town_photos / "images", tmp_path / "out", options)


def test_a_wrong_folder_of_photographs_is_told_once(
    done: tuple[Path, Summary],
    town_photos: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With features and matches of them, a model would come out all the same."""
    given = ReconstructOptions(
        features=done[0] / "features.h5", matches=done[0] / "matches.h5"
    )
    photos = tmp_path / "photos"
    write_image(photos / "sub/view0000.jpg", make_texture())
    words = r"photos: has none of the 12 .* 'view0000\.jpg' first \(there is 'sub/"
    for call in (
        lambda: reconstruct(photos, tmp_path / "out", given),
        lambda: triangulate(done[0] / "sparse/0", photos, tmp_path / "posed"),
    ):
        with pytest.raises(InputError, match=words):
            call()
    for path in sorted((town_photos / "images").iterdir())[3:]:
        shutil.copy(path, photos)
    caplog.clear()
    reconstruct(photos, tmp_path / "out", given)
    warnings = [r for r in caplog.records if r.levelname == "WARNING"]
    # COLMAP, which colours points, names one more of them.
    told = [r.getMessage() for r in warnings if r.name != "sfm_features.colmap"]
    assert len(told) == 1
    assert "lacks 3 of 12 photographs, 'view0000.jpg' first" in told[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"matches": "m.h5", "pairs": "p.txt"}, "--pairs: the pairs that .*m.h5"),
        ({"matches": "m.h5", "pairing": "sequential"}, "--pairing: the pairs that"),
        ({"pairs": "p.txt", "overlap": 3}, r"--overlap: the pairs of .*p\.txt"),
        ({"pairing": "exhaustive", "overlap": 3}, "--overlap: has no .*exhaustive"),
        ({"pairing": "sequential", "neighbours": 9}, "--neighbours: .*sequential"),
        ({"pairing": "sequential", "codebook": "p.txt"}, "--codebook: .*sequential"),
        ({"features": "f.h5", "extractor": "sift"}, r"--extractor: .* of .*f\.h5"),
        ({"features": "f.h5", "max_keypoints": 9}, "--max-keypoints: the features"),
        ({"matches": "m.h5", "ratio": 0.8}, "--ratio: .*leave out --matches, or make"),
    ],
)
def test_what_would_have_no_effect_is_refused(
    tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    for name in ("f.h5", "m.h5", "p.txt"):
        (tmp_path / name).touch()
    given: list[dict[str, Any]] = [{}, {}, {}]
    kinds = (ReconstructOptions, ExtractOptions, MatchOptions)
    for name, value in options.items():
        is_file = name in ("features", "matches", "pairs", "codebook")
        kind = next(i for i, made in enumerate(kinds) if hasattr(made, name))
        given[kind][name] = tmp_path / value if is_file else value
    made = [kind(**part) for kind, part in zip(kinds, given, strict=True)]
    with pytest.raises(OptionError, match=words):
        reconstruct(tmp_path, tmp_path / "out", *made)
    assert not (tmp_path / "out").exists()


def test_a_file_without_features_is_named(town_photos: Path, tmp_path: Path) -> None:
    """As hloc's matches are, which say nothing of what they hold."""
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["a.jpg/b.jpg/matches0"] = np.zeros(3, np.int32)
    options = replace(QUICK, features=tmp_path / "m.h5")
    with pytest.raises(InputError, match=r"m\.h5: has no features of any image"):
        reconstruct(town_photos / "images", tmp_path / "out", options)
