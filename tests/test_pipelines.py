"""The benchmarks at tiny sizes, and the tables they write."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from samples import make_texture, write_image

from pipelines import benchmark, bundle
from pipelines.benchmarks import results
from pipelines.benchmarks.ablation import (
    PARTS,
    RECIPES,
    SHOWN,
    Scale,
    measure_ablation,
)
from pipelines.benchmarks.accuracy import measure_accuracy
from pipelines.benchmarks.extraction import measure_extract
from pipelines.benchmarks.matching import measure_match, measure_memory
from pipelines.benchmarks.pairs import list_pairs
from pipelines.benchmarks.results import Check, Provenance, Result
from pipelines.benchmarks.rivals import _build_pg2sd, measure_rivals
from pipelines.benchmarks.strategies import FACTORS, STRATEGIES, measure_strategies
from pipelines.benchmarks.strecha import read_cameras
from sfm_features.errors import InputError
from sfm_features.extract import ExtractOptions
from sfm_features.geometry import warp_points
from sfm_features.nets.weights import Card, build_net, read_card, save_weights
from sfm_features.registry import build_extractor
from sfm_features.scenes import read_truth
from sfm_features.types import U8, Extractor, Features

RUN = Provenance("python -m x", "abc", 3, "a CPU, 2 cores", {"python": "3.11"})


def test_extract_compares_the_stage_with_its_extractor(photos: Path) -> None:
    result = measure_extract(photos, 1, ExtractOptions(max_keypoints=50))
    (check,) = result.checks
    assert result.details["ratios"] == [pytest.approx(check.value)]
    assert result.rows[1]["ratio"] == check.value > 0
    assert "6 images" in result.title


def test_match_and_memory_compare_with_what_is_bare() -> None:
    result = measure_match(images=4, keypoints=64, pairs=5, repeats=1)
    ratios = [row["ratio"] for row in result.rows]
    assert min(ratios[:2]) == 1  # the faster product is the measure
    assert ratios[2] == result.checks[0].value > 0
    memory = measure_memory(images=6, keypoints=64, pairs=12)
    loaded, peak = (row["peak GiB"] for row in memory.rows)
    assert 0.05 < loaded <= 1.05 * peak < 1  # no parent's memory is in it


def test_peak_memory_leaves_out_the_parent() -> None:
    code = "from pipelines.benchmarks.peak import read_peak; print(read_peak())"
    ballast = np.ones(1 << 26)  # 512 MiB
    command = [sys.executable, "-c", code]
    child = subprocess.run(
        command, cwd=results.ROOT, capture_output=True, text=True, check=True
    )
    assert int(child.stdout) < ballast.nbytes / 2


def test_markdown_says_verdict_and_origin(tmp_path: Path) -> None:
    rows = [{"what": "a", "ratio": 1.23456}, {"what": "b", "points": 12}]
    checks = [Check("good", 1.0, 1.15), Check("bad", 1.2, 1.15)]
    result = Result("Title", rows, checks, {"n": float("nan")}, (0.5, 1.5))
    text = results.to_markdown(result, RUN)
    assert "**good: 1.00** (at most 1.15: met)" in text
    assert "**bad: 1.20** (at most 1.15: MISSED)" in text
    assert "| what | ratio | points |\n| --- | --- | --- |" in text
    assert "| a | 1.235 | - |\n| b | - | 12 |" in text
    assert "`python -m x` at commit abc, seed 3; a CPU, 2 cores, load 0.5" in text
    results.write_json(tmp_path / "r.json", {"x": result}, RUN)
    written = json.loads((tmp_path / "r.json").read_text())
    assert written["results"]["x"]["details"] == {"n": None}
    assert written["run"]["seed"] == 3


def test_filling_a_document_keeps_the_rest(tmp_path: Path) -> None:
    document = tmp_path / "d.md"
    document.write_text("top\n<!-- begin a -->\nold\n<!-- end a -->\nrest\n")
    results.fill_sections(document, {"a": "new"})
    results.fill_sections(document, {"a": "newer"})
    expected = "top\n<!-- begin a -->\nnewer\n<!-- end a -->\nrest\n"
    assert document.read_text() == expected
    with pytest.raises(InputError, match="no section 'b'"):
        results.fill_sections(document, {"b": "new"})


def test_rivals_are_as_described_and_slower() -> None:
    heads = 2 * (128 + 1)
    assert sum(p.numel() for p in _build_pg2sd().parameters()) + heads == 484_258
    result = measure_rivals(threads=1, repeats=1, size=(160, 128))
    assert [check.limit for check in result.checks] == [1 / 8, 1 / 20]
    fine, sekd, pg2sd = (row["over evo"] for row in result.rows[1:])
    assert 1 < fine < pg2sd
    assert 1 < sekd < pg2sd


def test_every_benchmark_has_its_section() -> None:
    text = (results.ROOT / "docs" / "benchmarks.md").read_text()
    for name in {*benchmark.NAMES, *benchmark.ON_REQUEST} - {"images"}:
        assert text.count(f"<!-- begin {name} -->\n") == 1
        assert text.count(f"\n<!-- end {name} -->") == 1


def test_folders_of_this_machine_stay_out(tmp_path: Path) -> None:
    run = results.describe_run(
        "pipelines.benchmark", [f"--images=x={tmp_path / 'photos'}", "--seed", "1"], 1
    )
    assert run.command == "python -m pipelines.benchmark --images=x=photos --seed 1"
    assert run.versions["torch"]


def test_strecha_cameras(tmp_path: Path) -> None:
    rotation = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    turned = "\n".join(" ".join(map(str, row)) for row in rotation)
    text = f"9 0 5\n0 9 4\n0 0 1\n0 0 0\n{turned}\n3 4 5\n10 8\n"
    (tmp_path / "a.jpg.camera").write_text(text)
    (pose,) = read_cameras(tmp_path).values()
    np.testing.assert_allclose(pose.rotation, rotation.T)  # the file is camera-to-world
    np.testing.assert_allclose(pose.centre, [3, 4, 5])
    (tmp_path / "b.jpg.camera").write_text("1 2 3")
    with pytest.raises(InputError, match="has 3 numbers instead of 26"):
        read_cameras(tmp_path)
    with pytest.raises(InputError, match=r"no \.camera files"):
        read_cameras(tmp_path / "none")


def test_the_command_runs_what_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"what": "x", "ratio": 2.0}
    monkeypatch.setattr(benchmark, "measure_match", lambda **_: Result("M", [row]))
    document = tmp_path / "d.md"
    document.write_text("<!-- begin match -->\n<!-- end match -->\n")
    output = tmp_path / "out"
    arguments = ["--only", "match", "--output", str(output), "--write", str(document)]
    assert benchmark.main(arguments) == 0
    assert "### M" in capsys.readouterr().out
    assert "| x | 2 |" in document.read_text()
    assert json.loads((output / "results.json").read_text())["results"]["match"]
    assert benchmark.main(["--only", "images", "--output", str(output)]) == 2
    assert "--images NAME=FOLDER" in capsys.readouterr().err


def test_bundle_keeps_the_weights_and_adds_to_the_card(tmp_path: Path) -> None:
    run, package = tmp_path / "run/weights.safetensors", tmp_path / "package"
    run.parent.mkdir()
    save_weights(build_net("evo"), run, Card("", data="9 photos", metrics={"a": 1.0}))
    arguments = [str(run), "evo", "--folder", str(package), "--commit", "abc"]
    assert bundle.main([*arguments, "--figure", "castle AUC@5=0.9"]) == 0
    assert (package / "evo.safetensors").read_bytes() == run.read_bytes()
    card = read_card(package / "evo.safetensors")
    assert (card.data, card.commit) == ("9 photos", "abc")
    assert card.metrics == {"a": 1.0, "castle AUC@5": 0.9}
    assert bundle.main([str(run), "sekd", "--folder", str(package)]) == 2
    assert bundle.main([str(run), "evo-object", "--folder", str(package)]) == 0
    assert read_card(package / "evo-object.safetensors").architecture == "evo"


def test_every_variant_of_the_ablation_can_be_trained() -> None:
    for net, variants in (("sekd", PARTS), ("evo", RECIPES)):
        made = [Scale().make_options(net, [Path("p")], v) for v in variants.values()]
        for options in made:
            options.check()
        assert len(set(made)) == len(made)


def test_the_ablation_keeps_what_is_done_and_shows_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP_NUM_THREADS", "TQDM_DISABLE"):
        monkeypatch.setenv(name, "")  # the ablation sets them; put back afterwards
    for seed, score in ((0, 0.2), (1, 0.4)):
        measured = [dict.fromkeys(SHOWN, value) for value in (0.0, score)]
        done = tmp_path / f"sekd/full/{seed}/measured.json"
        done.parent.mkdir(parents=True)
        done.write_text(json.dumps(measured))
    table, rounds = measure_ablation(
        "Title", "sekd", {"full": {}}, [tmp_path], tmp_path, seeds=(0, 1), processes=1
    )
    assert table.rows[0]["matching score"] == "0.300 ± 0.141"
    assert [row["after round"] for row in rounds.rows] == ["(before)", 0]


def test_a_recipe_that_finds_nothing_is_a_row_beside_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain walls have no corners, but random points are there."""
    for name in ("OMP_NUM_THREADS", "TQDM_DISABLE"):
        monkeypatch.setenv(name, "")
    photos, output = tmp_path / "photos", tmp_path / "out"
    for i in range(5):
        write_image(photos / f"{i}.png", np.full((120, 140, 3), 40 * i, np.uint8))
    stopped_before = output / "evo/random/1"
    stopped_before.mkdir(parents=True)
    (stopped_before / "measured.json").write_text("[]")
    (stopped_before / "stopped.txt").write_text("no keypoints were found in `round 7`")
    scale = Scale(
        steps=2, rounds=1, batch=1, crop_px=64, points=32, views=1, validation_photos=1
    )
    variants = {"corners": RECIPES["joint, softmax, corners only"], "random": {}}
    given = ("Title", "evo", variants, [photos], output, scale, (0, 1), 1)
    table, rounds = measure_ablation(*given)
    corners, points = table.rows
    nothing = "no keypoints were found in `round 0`"
    assert corners["stopped"] == f"seed 0: {nothing}; seed 1: {nothing}"
    assert points["stopped"] == "seed 1: no keypoints were found in `round 7`"
    for figure in (key.replace("_", " ") for key in SHOWN):
        assert corners[figure] is None
        # Of the one run that ended, so without a spread.
        assert 0 <= float(str(points[figure])) <= 1
    assert len(rounds.rows) == 1
    results.publish({"recipes": table}, RUN, output)
    assert (
        "| corners | - | - | - | - | - | - | seed 0"
        in (output / "results.md").read_text()
    )
    # What stopped is not tried again, no more than what ended.
    shutil.rmtree(photos)
    assert measure_ablation(*given)[0] == table


def test_strategies_are_compared_by_difficulty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs that are done are measured on fifths of pairs, and on known ones."""
    for name in ("OMP_NUM_THREADS", "TQDM_DISABLE"):
        monkeypatch.setenv(name, "")
    photos, webcams, output = (tmp_path / name for name in ("photos", "cams", "out"))
    for i in range(12):
        write_image(photos / f"{i}.png", make_texture((200, 180), i))
    for name in ("day_0", "night_0"):
        write_image(webcams / f"camera/{name}.png", make_texture((200, 180)))
    for seed in (0, 1):
        done = output / f"evo/none/{seed}"
        done.mkdir(parents=True)
        save_weights(build_net("evo"), done / "weights.safetensors", Card("evo"))
        (done / "measured.json").write_text("[]")
    fifths, pairs = measure_strategies(
        "evo", {"none": STRATEGIES["none"]}, [photos], output, 9, (0, 1), 1, [webcams]
    )
    (row,) = fifths.rows
    assert list(row)[1:] == [
        f"{figure} {i}" for figure in ("matching", "repeatability") for i in range(1, 6)
    ]
    assert "±" in str(row["matching 1"])
    (row,) = pairs.rows
    assert list(row) == ["strategy", "cams MHA@3"]
    (done / "stopped.txt").write_text("no keypoints were found in `round 1`")
    with pytest.raises(InputError, match=r"none, seed 1: no keypoints .* --steps"):
        measure_strategies(
            "evo", {"none": STRATEGIES["none"]}, [photos], output, 9, (0, 1), 1, []
        )


def test_the_published_factor_is_swept() -> None:
    assert [o.constraint for o in FACTORS.values()] == [0.01, 0.1, 1.0]
    assert all(o.form == "published" and o.constrains for o in FACTORS.values())


def test_accuracy_on_planes_and_cameras(tmp_path: Path) -> None:
    """Exact warps are found, and a folder of nothing known is refused."""
    scene = make_texture((360, 300))
    warp = np.array([[0.95, 0.1, 5.0], [-0.1, 0.95, 30.0], [0, 0, 1]])
    for k in range(1, 7):
        picture = cv2.warpPerspective(scene, warp, (360, 300)) if k > 1 else scene
        write_image(tmp_path / f"planes/i_scene/{k}.png", picture)
        np.savetxt(tmp_path / f"planes/i_scene/H_1_{k}", warp)
    for name in ("day_0", "night_0"):
        write_image(tmp_path / f"webcams/camera/{name}.png", scene)
    builds = {"sift": lambda n: build_extractor("sift", max_keypoints=n)}
    for folder, count in (("planes", 5), ("webcams", 20)):
        found = measure_accuracy(tmp_path / folder, builds, draws=2)
        assert found.title == f"{folder}: {count} pairs"
        (row,) = found.rows
        assert row["MHA@1"] == 1 and row["MMA@3"] > 0.7 and row["time"] == 1
        assert row["near misses"] < 0.05 and row["MHA@3 without"] == 1
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match="neither homographies"):
        measure_accuracy(tmp_path / "nothing", builds)


def test_near_misses_are_counted_and_left_out(tmp_path: Path) -> None:
    """A third of the matches is 5 px off, one is anywhere."""
    for name in ("day_0", "night_0"):
        write_image(tmp_path / f"camera/{name}.png", make_texture((360, 300)))
    rng = np.random.default_rng(0)
    xy = rng.uniform(10, 290, (31, 2)).astype(np.float32)
    unit = np.eye(31, 32, dtype=np.float32)
    first = next(iter(list_pairs(tmp_path)))

    class Fixed(Extractor):
        """Finds the same points in both, some of them off in the second."""

        descriptor_dim = 32

        def extract(self, image: U8) -> Features:
            if np.array_equal(image, first.a):
                found = xy
            else:
                pair = next(p for p in list_pairs(tmp_path) if (p.b == image).all())
                found = warp_points(pair.b_from_a, xy).astype(np.float32)
                found[:10, 0] += 5
                found[30, 0] += 100
            return Features(found, unit, np.ones(31, np.float32), (360, 300))

    half, row = measure_accuracy(
        tmp_path, {"fixed": lambda n: Fixed()}, shares=(20 / 1024, 1.0)
    ).rows
    assert half["keypoints"] == half["matches"] == 20 and row["keypoints"] == 1024
    assert half["near misses"] == pytest.approx(10 / 10) and half["MMA@3"] == 0.5
    assert row["matches"] == 31 and row["MMA@3"] == pytest.approx(20 / 31)
    assert row["near misses"] == pytest.approx(10 / 20) and row["MHA@3 without"] == 1


def test_accuracy_of_poses(town_photos: Path, tmp_path: Path) -> None:
    """The town, written as Strecha's cameras and as calibrated tourist photos."""
    truth = read_truth(town_photos)
    for name in sorted(truth.cameras)[:6:2]:
        camera, pose = truth.cameras[name], truth.poses[name]
        focal, x, y = camera.params[:3]
        k = np.array([[focal, 0, x], [0, focal, y], [0, 0, 1]])
        for scene in ("strecha", "tourists"):
            copy = tmp_path / scene / "images" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(town_photos / "images" / name, copy)
        numbers = [*k.ravel(), 0, 0, 0, *pose.rotation.T.ravel(), *pose.centre]
        path = tmp_path / f"strecha/gt_dense_cameras/{name}.camera"
        path.parent.mkdir(exist_ok=True)
        path.write_text(" ".join(map(str, [*numbers, camera.width, camera.height])))
        path = tmp_path / f"tourists/calibration/calibration_{Path(name).stem}.h5"
        path.parent.mkdir(exist_ok=True)
        with h5py.File(path, "w") as file:
            file["K"], file["R"], file["T"] = k, pose.rotation, pose.translation
    builds = {"sift": lambda n: build_extractor("sift", max_keypoints=n)}
    for scene in ("strecha", "tourists"):
        (row,) = measure_accuracy(tmp_path / scene, builds).rows
        # The town's lens is bent, which these formats cannot say: no exact poses.
        assert row["AUC@20"] > 0.8 and row["inliers"] > 0.1
