"""The shell: every command explains itself, mistakes are one line and exit code 2."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sfm_features import __version__, cli
from sfm_features.cli import COMMANDS, main
from sfm_features.pair_files import read_pairs
from sfm_features.store import FeatureStore, MatchStore


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main([command, "--help"])
    assert leaving.value.code == 0
    assert f"$ sfm-features {command}" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["train", "adapt"])
def test_depth_has_a_group_of_its_own(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    before, _, rest = capsys.readouterr().out.partition(" depth options ")
    group, _, after = rest.partition(" run options ")
    assert " options options " in before and "--device" in after
    flags = re.findall(r"^[^\w-]*(--[a-z][a-z-]*)", group, re.MULTILINE)
    assert flags == [
        *("--depth", "--depth-kind", "--background-weight", "--distillation"),
        *("--taps", "--teacher-steps", "--turntables", "--turntable-share"),
    ]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"sfm-features {__version__}\n"
    command = [sys.executable, "-m", "sfm_features", "--version"]
    assert subprocess.run(command, capture_output=True, text=True).stdout.endswith(
        f" {__version__}\n"
    )


def test_a_demo_of_no_size_leaves_its_folder_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for size in (["0", "0"], ["640", "-480"]):
        assert main(["demo", "--output", str(tmp_path), "--size", *size]) == 2
        assert "at least 16 px" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_stages_by_hand(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features, pairs, matches = (
        str(tmp_path / name) for name in ("f.h5", "p.txt", "m.h5")
    )
    assert main(["extract", str(photos), "--output", features]) == 0
    how = ["--method", "sequential", "--overlap", "2", "--linear"]
    assert main(["pairs", *how, "--features", features, "--output", pairs]) == 0
    assert main(["match", features, "--pairs", pairs, "--output", matches]) == 0
    with FeatureStore.open(Path(features)) as f, MatchStore.open(Path(matches)) as m:
        wanted = read_pairs(Path(pairs), f.names())
        assert len(wanted) == 5 + 4
        assert {frozenset(p) for p in m.pairs(f.names())} == {*map(frozenset, wanted)}
    capsys.readouterr()
    limited = ["extract", str(photos), "--output", features, "--max-keypoints", "9"]
    assert main(limited) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert said[0].startswith("error: ") and "max_keypoints = 2048" in said[0]
    assert main([*limited, "--overwrite"]) == 0
    with FeatureStore.open(Path(features)) as f:
        assert max(len(f.read(name)) for name in f.names()) == 9


def test_overwriting_waits_until_all_is_checked(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features, pairs, matches = (
        str(tmp_path / name) for name in ("f.h5", "p.txt", "m.h5")
    )
    extraction = ["extract", str(photos), "--output", features, "--overwrite"]
    assert main(extraction) == 0
    how = ["pairs", "--method", "exhaustive", "--features", features]
    assert main([*how, "--output", pairs]) == 0
    matching = ["match", features, "--pairs", pairs, "--overwrite", "--output"]
    assert main([*matching, matches]) == 0
    photo = str(next(path for path in photos.rglob("*") if path.is_file()))
    used = [*tmp_path.iterdir(), Path(photo)]
    before = {path: path.read_bytes() for path in used if path.is_file()}
    mistakes = {
        ("extract", f"{photos}s", *extraction[2:]): "no such folder",
        (*extraction, "--extractor", "sfit"): "did you mean",
        (*extraction, "--weights", pairs): "p.txt",
        (*extraction, "--image-list", features): "f.h5",
        (*matching, matches, "--ratio", "7"): "ratio",
        (*matching, features): "would be overwritten",
        (*matching, pairs): "would be overwritten",
        ("describe", features, "--output", features, "--overwrite"): "would be over",
        (*how, "--output", features): "would be overwritten",
        (*how, "--output", matches): "not a text file",
        ("describe", features, "--output", matches, "--overwrite")
        + ("--codebook", pairs): "p.txt",
        (*extraction[:3], matches, "--overwrite"): "holds matches",
        (*extraction[:3], photo, "--overwrite"): "something else than HDF5",
    }
    for arguments, words in mistakes.items():
        capsys.readouterr()
        assert main(arguments) == 2, arguments
        assert words in capsys.readouterr().err
    with FeatureStore.append(Path(features), {}, anew=True):
        assert main(extraction) == 2  # another process is writing it
        before[Path(features)] = Path(features).read_bytes()
    assert "another process" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in before}
    assert main(extraction) == 0
    assert main([*matching, matches]) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pairs", "--method", "poses", "--output", "p.txt"], "needs a --model"),
        (["pairs", "--method", "gps", "--output", "p.txt"], "needs --images"),
        (["pairs", "--method", "exhaustive", "--output", "p.txt"], "--features or"),
        (["extract", "no/where", "--output", "f.h5"], "no such folder"),
        (["match", "no.h5", "--pairs", "p.txt", "--output", "m.h5"], "no such file"),
        (
            ["train", "a", "--output", "o", "--more-photos", "b", "--more-photos=c"],
            "--more-photos is given 2 times",
        ),
        (
            ["adapt", "a", "--from", "evo", "--output", "o", "--taps", "b", "--taps=c"],
            "--taps is given 2 times",
        ),
        (
            ["reconstruct", "a", "--output", "o", "--camera-globs", "x/*=OPENCV"]
            + ["--camera-globs", "y/*=PINHOLE"],
            "--camera-globs is given 2 times",
        ),
        (["reconstruct", "a", "--output", "o", "--pairs", "p"], "check --pairs"),
        (
            ["reconstruct", "a", "--output", "o", "--min-inliers", "0"],
            "--min-inliers 0: must",
        ),
        (["reconstruct", "a", "--output", "o", "--seed", "-1"], "--seed -1: must"),
        (
            ["extract", "a", "--output", "o", "--seed", "3000000000"],
            "--seed 3000000000: must be at most 2147483647",
        ),
        *(
            (["reconstruct", "a", "--output", "o", f"--{flag}", "99999999999"], flag)
            for flag in ("min-inliers", "max-trials", "max-runtime-s", "min-matches")
            + ("min-model-size", "snapshot-images", "num-threads", "max-keypoints")
        ),
    ],
)
def test_mistakes(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said
    assert len(said.strip().splitlines()) == 1


def test_a_stop_while_an_object_is_deleted_is_not_lost(
    capfd: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    """Python prints and forgets what is raised in `__del__`."""

    class Bar:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    before = sys.unraisablehook
    # A shell starts what it runs in the background with Ctrl-C ignored.
    ignored = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, ignored))
    with pytest.raises(KeyboardInterrupt), cli._interrupt_when_terminated():
        Bar()
        for _ in range(100):
            time.sleep(0.05)
    assert sys.unraisablehook is before
    assert "ignored" not in capfd.readouterr().err

    class Faulty:
        def __del__(self) -> None:
            raise ValueError("a fault of another kind")

    seen = []
    sys.unraisablehook = seen.append
    try:
        with cli._interrupt_when_terminated():
            Faulty()
    finally:
        sys.unraisablehook = before
    assert len(seen) == 1
