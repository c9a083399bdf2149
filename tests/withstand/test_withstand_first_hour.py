"""What a newcomer types in the first hour, typing errors included."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from withstand_scene import write_photos
from withstand_shell import Shell, open_shell

from sfm_features.cli import COMMANDS

SCRIPT = Path(sys.executable).with_name("sfm-features")


@pytest.fixture
def shell() -> Shell:
    return open_shell()


def _example(text: str) -> list[str]:
    """Return the words of the example line in a help text."""
    (line,) = [s for s in text.splitlines() if s.strip().startswith("$ sfm-features")]
    return shlex.split(line.strip())[2:]


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help(shell: Shell, command: str) -> None:
    text = shell.run(command, "--help").succeed().text
    assert _example(text)[0] == command
    assert "usage: sfm-features" in text and "default: " in text


def test_help_of_the_whole(shell: Shell) -> None:
    text = shell.run("--help").succeed().text
    for command in COMMANDS:
        assert command in text


def test_the_examples_run(
    tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The examples of the help, as they are, in a folder that has `photos`."""
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / "photos", 6)
    for command in ("extract", "pairs", "match", "reconstruct", "triangulate"):
        if command == "triangulate":
            Path("out/sparse/0").rename("known")
            Path("known").rename("known-model")
            Path("known").mkdir()
            Path("known-model").rename("known/sparse")
        words = _example(shell.run(command, "--help").text)
        running = shell.start(*words, folder=tmp_path)
        running.wait().succeed()
    assert Path("features.h5").exists() and Path("matches.h5").exists()
    assert Path("out/sparse/0/points3D.bin").exists()


MISTAKES = {
    "nothing": ("", "reconstruct"),
    "a misspelt command": ("extrct photos --output f.h5", "extract"),
    "an unknown option": ("extract photos --output f.h5 --colour", "--colour"),
    "a misspelt option": (
        "extract photos --output f.h5 --max-keypoint 9",
        "--max-keypoints",
    ),
    "no output": ("extract photos", "--output"),
    "no images": ("extract --output f.h5", "Folder of images"),
    "no pairs": ("match f.h5 --output m.h5", "--pairs"),
    "words for a number": (
        "extract photos --output f.h5 --max-keypoints lots",
        "--max-keypoints",
    ),
    "no keypoints": (
        "extract photos --output f.h5 --max-keypoints 0",
        "--max-keypoints 0",
    ),
    "a negative size": ("extract photos --output f.h5 --max-size -1", "--max-size"),
    "a misspelt extractor": (
        "extract photos --output f.h5 --extractor sfit",
        "did you mean 'sift'",
    ),
    "a misspelt matcher": (
        "match f.h5 --pairs p.txt --output m.h5 --matcher nearst",
        "did you mean 'nearest'",
    ),
    "a ratio of nothing": ("match f.h5 --pairs p.txt --output m.h5 --ratio 0", "0"),
    "a device that is none": (
        "extract photos --output f.h5 --extractor xfeat --device tpu",
        "tpu",
    ),
    "a misspelt mapper": ("reconstruct photos --output o --mapper inc", "incremental"),
    "a misspelt method": ("pairs --method all --output p.txt", "exhaustive"),
    "pairs of nothing": ("pairs --method exhaustive --output p.txt", "--features"),
    "swapped arguments": ("match p.txt --pairs f.h5 --output m.h5", "p.txt"),
    "output in place of images": ("extract out.h5 --output photos", "out.h5"),
    "a file for a folder": ("reconstruct f.h5 --output o", "f.h5"),
    "images for a model": ("triangulate photos photos --output o", "photos"),
    "a camera model that is none": (
        "reconstruct photos --output o --camera-model FISH",
        "FISH",
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, shell = tmp_path_factory.mktemp("first"), open_shell()
    photos = write_photos(folder / "photos", 3)
    shell.run("extract", photos, "--output", folder / "f.h5").succeed()
    names = ("--method", "exhaustive", "--images", photos)
    shell.run("pairs", *names, "--output", folder / "p.txt").succeed()
    return folder


@pytest.mark.parametrize("mistake", sorted(MISTAKES))
def test_mistakes(shell: Shell, folder: Path, mistake: str) -> None:
    line, hint = MISTAKES[mistake]
    words = line.replace("--output f.h5", "--output new.h5").split()
    result = shell.start(*words, folder=folder).wait()
    assert result.code == 2, result.text
    assert "Traceback" not in result.text
    assert hint in result.text, result.text


def test_a_corrected_mistake_just_works(
    tmp_path: Path, shell: Shell, folder: Path
) -> None:
    """A file that was begun with the misspelt name would refuse the right one."""
    features = ("extract", folder / "photos", "--output", tmp_path / "f.h5")
    shell.run(*features, "--extractor", "sfit").fail("did you mean 'sift'")
    shell.run(*features, "--device", "tpu").fail("tpu")
    shell.run(*features, "--weights", tmp_path / "no.safetensors").fail("no.safe")
    shell.run(*features).succeed()
    matches = ("match", folder / "f.h5", "--pairs", folder / "p.txt")
    matches += ("--output", tmp_path / "m.h5")
    shell.run(*matches, "--matcher", "nearst").fail("did you mean 'nearest'")
    shell.run(*matches, "--ratio", 0).fail("--ratio")
    shell.run(*matches).succeed()


def test_the_script_itself(tmp_path: Path) -> None:
    """The command as installed, with the interpreter's own start and end."""
    photos, out = write_photos(tmp_path / "photos", 3), tmp_path / "f.h5"
    run = [str(SCRIPT), "extract", str(photos), "--output", str(out)]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "", done.stderr
    assert "3 images written" in done.stderr
    other = subprocess.run([*run, "--seed", "1"], capture_output=True, text=True)
    assert other.returncode == 2 and other.stderr.startswith("error: ")
    assert len(other.stderr.splitlines()) == 1


def test_a_reader_that_leaves() -> None:
    with subprocess.Popen(
        [str(SCRIPT), "extract", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None and child.stderr is not None
        child.stdout.close()
        assert child.stderr.read() == ""
    assert child.returncode != 0
