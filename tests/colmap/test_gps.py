"""Positions from EXIF."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from exif_photos import write_photo

from sfm_features.colmap import choose_origin, gps_to_local_metres, read_gps


def test_positions_are_read_with_their_signs(tmp_path: Path) -> None:
    positions = {
        "north east.jpg": (47.5, 8.25, 512.5),
        "south west.jpg": (-33.9, -70.6, -3.0),
    }
    for name, position in positions.items():
        write_photo(tmp_path / name, (64, 48), "Z1", 35, position)
    write_photo(tmp_path / "none.jpg", (64, 48), "Z1", 35)
    write_photo(tmp_path / "no exif.png", (64, 48))
    write_photo(tmp_path / "no fix.jpg", (64, 48), "Z1", 35, (0.0, 0.0, 0.0))
    names = [path.name for path in tmp_path.iterdir()]
    found = read_gps(tmp_path, names)
    assert found.keys() == positions.keys()
    for name, position in positions.items():
        assert found[name] == pytest.approx(position, abs=1e-5)


def test_a_degree_is_as_long_as_it_should_be() -> None:
    local = gps_to_local_metres(
        {"a": (0.0, 10.0, 5.0), "b": (0.0, 10.001, 5.0), "c": (0.001, 10.0, 7.0)}
    )
    assert local["a"] == pytest.approx(np.zeros(3), abs=1e-6)
    assert local["b"] == pytest.approx([111.32, 0, 0], abs=0.01)
    assert local["c"] == pytest.approx([0, 110.57, 2], abs=0.01)
    assert gps_to_local_metres({}) == {}


def test_a_photo_without_an_altitude_is_beside_its_neighbours(tmp_path: Path) -> None:
    spot = (47.0, 8.0)
    for name, altitude in (("a", (500.0,)), ("b", ()), ("c", (510.0,))):
        write_photo(tmp_path / f"{name}.jpg", (64, 48), "Z1", 35, (*spot, *altitude))
    found = read_gps(tmp_path, ["a.jpg", "b.jpg", "c.jpg"])
    assert np.isnan(found["b.jpg"][2])
    local = gps_to_local_metres(found)
    assert local["b.jpg"] == pytest.approx([0, 0, 5], abs=0.01)
    nowhere = gps_to_local_metres({"a": (*spot, np.nan), "b": (*spot, np.nan)})
    assert nowhere["b"] == pytest.approx(np.zeros(3), abs=1e-6)


def test_the_origin_is_a_position_in_the_middle() -> None:
    far = {"f": (10.0, -60.0, 0.0)}
    row = {n: (47.0 + 0.001 * i, 8.0, 400.0) for i, n in enumerate("abcde")}
    assert choose_origin({**row, **far}) == pytest.approx(row["c"])
    date_line = {
        "a": (0.0, 179.999, 0.0),
        "b": (0.0, 180.0, 0.0),
        "c": (0, -179.999, 0),
    }
    assert choose_origin(date_line) == pytest.approx(date_line["b"])
    assert choose_origin({"a": (47.0, 8.0, np.nan)}) == (47.0, 8.0, 0.0)
    local = gps_to_local_metres(row, row["c"])
    assert local["c"] == pytest.approx(np.zeros(3), abs=1e-6)
    assert local["e"][1] == pytest.approx(222.4, abs=0.2)
