"""Aachen in miniature, from the files to what the server is sent."""

from __future__ import annotations

from pathlib import Path

import pytest
from miniature import CPU, assert_close, read_rows, read_submission
from miniature_aachen import write_aachen
from small_town import SmallTown

from pipelines import aachen


@pytest.mark.parametrize("version", ["1.1", "1"])
def test_poses_for_the_server_are_true(
    small_town: SmallTown, tmp_path: Path, version: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    truth = write_aachen(tmp_path / "aachen", small_town, version)
    output = tmp_path / "out"
    arguments = [str(tmp_path / "aachen"), "--version", version, *CPU]
    assert aachen.main([*arguments, "--output", str(output)]) == 0
    (sent,) = output.glob("Aachen_*eval_*.txt")
    assert ("v1_1" in sent.name) == (version == "1.1")
    poses = read_submission(sent)
    assert poses.keys() == truth.keys()
    for name, true in truth.items():
        assert_close(poses[name], true, 0.15, 0.5)
    own, *published = read_rows(output, "aachen")
    nights = len(truth) - 4
    assert own["day"] == "4 of 4 have a pose"
    assert own["night"] == f"{nights} of {nights} have a pose"
    assert len(published) > 3
    capsys.readouterr()
    assert aachen.main([*arguments, "--validate", str(sent)]) == 0
    assert "nothing is wrong" in capsys.readouterr().out


def test_the_validator_names_line_and_remedy(
    small_town: SmallTown, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = write_aachen(tmp_path / "aachen", small_town, "1.1")
    pose = "1 0 0 0 738.0 -6.1 -41.8"
    good = {name: f"{name} {pose}" for name in truth}
    first, second, third, *_ = good
    day = [line for name, line in good.items() if "IMG_5" not in name]
    for lines, complaint in (
        ([*good.values(), good[first]], f"line 8: names {first!r} again, as line 1"),
        ([f"query/day/{first} {pose}"], f"line 1: 'query/day/{first}' has a folder"),
        ([good[first], f"other.jpg {pose}"], "line 2: 'other.jpg' is in no list"),
        ([f"{first} 2 0 0 0 1 2 3"], "line 1: the quaternion has the length 2"),
        ([f"{first} 738 -6 -41 1 0 0 0"], "first four numbers are qw qx qy qz"),
        ([f"{first} 1 0 0 0 nan 2 3"], "line 1: has a number that is not finite"),
        ([f"{first} 1 0 0 0 a 2 3"], "line 1: has words that are no numbers"),
        ([good[first] + " 9"], "line 1: 9 words instead of 8"),
        ([good[first].replace(" ", "  ")], "with one space between"),
        ([good[first], "", good[second]], "line 2: 1 words instead of 8"),
        (list(good.values())[:4], "no line is of a night query"),
    ):
        path = tmp_path / "sent.txt"
        path.write_text("\n".join(lines) + "\n")
        given = [str(tmp_path / "aachen"), "--validate", str(path)]
        assert aachen.main(given) == 1
        assert complaint in capsys.readouterr().out
    path.write_text("\n".join(day[:-1]))  # what is left out only counts as failed
    assert aachen.main(given) == 0
    assert "4 of 4 day queries have a pose\n1 of 3 night" in capsys.readouterr().out
    path.write_text("".join(f"IMG_{i}.jpg {pose}\n" for i in range(1016)))
    assert aachen.main(["--validate", str(path)]) == 1
    assert "line 1016: more poses than the 1015 queries" in capsys.readouterr().out
    assert aachen.main(["--validate", str(tmp_path / "none")]) == 2
    assert aachen.main([]) == 2
    assert "which data set?" in capsys.readouterr().err
