"""NVM files of either program, and damaged ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from miniature import make_model, move
from nvm_files import SECOND_MODEL, write_nvm
from small_town import SmallTown, bend

from pipelines.protocols.nvm import read_nvm
from sfm_features.errors import InputError
from sfm_features.pairs import pair_by_covisibility

SMALL = """NVM_V3 FixedK 1 2 3 4

2
a"b.jpg\t900 0.5 -0.5 0.5 0.5 10 20 30 0.0810989 0
c.jpg 800 1 0 0 0 1 2 3 -0.1 0

1
1 2 3 9 9 9 2 0 4 5 6 1 7 8 9
"""


@pytest.mark.parametrize(("gap", "centred"), [(" ", False), ("\t", True)])
def test_what_was_written_is_read(
    small_town: SmallTown, tmp_path: Path, gap: str, centred: bool
) -> None:
    photos = {f"db/{i}.jpg": small_town.day[i] for i in range(6)}
    photos = {n: bend(move(p, (700, -60, 40)), -0.07) for n, p in photos.items()}
    model = make_model(photos)
    write_nvm(tmp_path / "a.nvm", model, gap, centred, SECOND_MODEL)
    found = read_nvm(tmp_path / "a.nvm")
    assert list(found.poses) == list(photos)
    for name, photo in photos.items():
        pose, true = found.poses[name], photo.cam_from_world
        np.testing.assert_allclose(pose.rotation, true.rotation, atol=1e-9)
        np.testing.assert_allclose(pose.translation, true.translation, atol=1e-6)
        assert found.radials[name] == 0.07  # minus COLMAP's k
        assert found.focals_px[name] == pytest.approx(1.3 * photo.camera.params[0])
    # An image twice in a track is one that sees the point.
    cameras = {name: photo.camera for name, photo in photos.items()}
    pairs = pair_by_covisibility(found.to_model(cameras), 2)
    assert pairs == pair_by_covisibility(model, 2)
    assert len(found.to_model({"db/1.jpg": cameras["db/1.jpg"]}).images) == 1


def test_the_dossier_of_a_file_by_hand(tmp_path: Path) -> None:
    """The convention, by a camera of Aachen whose translation is known."""
    line = (
        "db/1045.jpg 1084.59 -0.0305504 -0.212047 0.12058 0.969311 738.038 -6.17486 "
        "-41.8371 0.0810989 0"
    )
    (tmp_path / "a.nvm").write_text(f"NVM_V3\n\n1\n{line}\n\n0\n")
    (pose,) = read_nvm(tmp_path / "a.nvm").poses.values()
    expected = [652.833568, 84.705957, 336.335836]
    np.testing.assert_allclose(pose.translation, expected, atol=2e-3)
    (tmp_path / "a.nvm").write_text(SMALL)
    found = read_nvm(tmp_path / "a.nvm")
    assert list(found.poses) == ["a b.jpg", "c.jpg"]
    np.testing.assert_allclose(found.poses["a b.jpg"].centre, [10, 20, 30])
    assert {n: s.tolist() for n, s in found.seen.items()} == {
        "a b.jpg": [0],
        "c.jpg": [0],
    }


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (("NVM_V3", "NVM_V2"), "line 1: is not NVM_V3"),
        (("\n2\n", "\ntwo\n"), "line 3: 'two' is not a count"),
        (("c.jpg 800", "c.jpg"), "line 5: is not a camera"),
        (("800 1 0 0 0", "800 0 0 0 0"), "line 5: is not a camera"),
        (("c.jpg", 'a"b.jpg'), "cameras of one name twice"),
        (("9 2 0 4", "9 3 0 4"), "line 8: is not a point"),
        (("6 1 7", "6 2 7"), "line 8: names an image beyond the 2"),
        (("1 2 3 9 9 9 2 0 4 5 6 1 7 8 9\n", ""), "ends too early"),
    ],
)
def test_damage_is_named(
    tmp_path: Path, damage: tuple[str, str], complaint: str
) -> None:
    text = SMALL.replace(*damage)
    assert text != SMALL
    (tmp_path / "a.nvm").write_text(text)
    with pytest.raises(InputError, match=complaint):
        read_nvm(tmp_path / "a.nvm")
