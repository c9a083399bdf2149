"""What was measured survives a kill, and nothing else gets in."""

from __future__ import annotations

from math import inf
from pathlib import Path

import pytest

from pipelines.protocols.ledger import Ledger
from sfm_features.errors import DamagedStore, StaleStore


def test_a_ledger_goes_on_after_a_cut_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "measured.jsonl"
    first = Ledger(path, "ransac at 3 px")
    figures = {"a\tb": {"error": 0.1 + 0.2}, "a\tc": {"error": inf}}
    for key, value in figures.items():
        first.add(key, value)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        again = Ledger(path, "ransac at 3 px")
        for key, value in figures.items():
            if key not in again:
                again.add(key, value)
            assert again[key] == value
        assert path.read_bytes() == whole


def test_other_settings_and_damage_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "measured.jsonl"
    Ledger(path, "one").add("a", {"error": 1.0})
    with pytest.raises(StaleStore, match="another --output"):
        Ledger(path, "other")
    path.write_bytes(path.read_bytes() + b"no json\n")
    with pytest.raises(DamagedStore, match=r"measured\.jsonl.*delete the file"):
        Ledger(path, "one")
