"""Matching a pair list: hostile pairs, resuming, order of loading."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from samples import make_features

from sfm_features import match as stage
from sfm_features.errors import OptionError, PairsError, StaleStore
from sfm_features.match import MatchOptions, match
from sfm_features.matchers.nearest import Nearest
from sfm_features.pairs import pair_exhaustively
from sfm_features.store import FeatureStore, MatchStore
from sfm_features.types import RunOptions

NAMES = [f"{i:02d}.jpg" for i in range(9)]


@pytest.fixture
def features(tmp_path: Path) -> Path:
    path = tmp_path / "f.h5"
    with FeatureStore.append(path, {"extractor": "sift", "seed": 0}) as store:
        for i, name in enumerate(NAMES):
            store.write(name, make_features(0 if i == 8 else 40 + i, 16, seed=i))
    return path


def test_every_pair_as_the_matcher_alone_would(features: Path, tmp_path: Path) -> None:
    summary = match(
        features, pair_exhaustively(NAMES), tmp_path / "m.h5", MatchOptions(ratio=0.95)
    )
    assert summary.written == 36
    with FeatureStore.open(features) as f, MatchStore.open(tmp_path / "m.h5") as m:
        assert m.pairs(NAMES) == pair_exhaustively(NAMES)
        for a, b in m.pairs(NAMES):
            alone = Nearest(ratio=0.95).match(f.read(a), f.read(b))
            np.testing.assert_array_equal(m.read((a, b)).indices, alone.indices)
        assert len(m.read((NAMES[0], NAMES[8]))) == 0  # an image without keypoints


def test_absent_duplicate_and_reversed_pairs(features: Path, tmp_path: Path) -> None:
    a, b = NAMES[:2]
    pairs = [(a, b), (b, a), (a, b), (a, "no.jpg"), (a, a)]
    summary = match(features, pairs, tmp_path / "m.h5")
    assert summary.written == 1
    assert summary.skipped == {(a, "no.jpg"): "no features of 'no.jpg'"}
    with pytest.raises(PairsError, match=r"'no\.jpg'.*--strict"):
        match(features, pairs, tmp_path / "s.h5", run=RunOptions(strict=True))


def test_unknown_images_are_named(
    features: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = NAMES[:2]
    match(features, [(a, b), (a, "0l.jpg"), ("no", b)], tmp_path / "m.h5")
    assert (
        "2 pairs of images without features; the first without is '0l.j" in caplog.text
    )
    assert "'0l.jpg' (there is '0" in caplog.text
    with pytest.raises(
        PairsError, match=r"0 of 2 pairs have.* 'x/00\.jpg' \(there is '00"
    ):
        match(features, [("x/00.jpg", a), ("q.png", "p.png")], tmp_path / "s.h5")
    assert not (tmp_path / "s.h5").exists()
    assert match(features, [], tmp_path / "m.h5").written == 0  # none was asked for


def test_resuming_and_other_settings(features: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.h5"
    pairs = pair_exhaustively(NAMES[:5])
    match(features, pairs[:4], output)
    summary = match(features, pairs, output)
    assert (summary.written, summary.reused) == (6, 4)
    with pytest.raises(StaleStore, match=r"ratio = 0\.8, now asked for 1"):
        match(features, pairs, output, MatchOptions(ratio=1.0))
    # Matches of features that were extracted anew with other settings are stale.
    features.unlink()
    with FeatureStore.append(features, {"extractor": "sift", "seed": 1}) as store:
        store.write(NAMES[0], make_features())
    with pytest.raises(StaleStore, match=r"features\.seed = 0, now asked for 1"):
        match(features, [], output)


def test_same_input_same_bytes(features: Path, tmp_path: Path) -> None:
    for name in ("1.h5", "2.h5"):
        match(features, pair_exhaustively(NAMES), tmp_path / name)
    assert (tmp_path / "1.h5").read_bytes() == (tmp_path / "2.h5").read_bytes()


def test_images_are_loaded_about_once_per_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "_TILE_IMAGES", 4)
    names = [f"{i:03d}" for i in range(20)]
    order = [(a, b) for a, bs in stage._in_tiles(pair_exhaustively(names)) for b in bs]
    assert sorted(order) == pair_exhaustively(names)
    loads, kept = 0, dict.fromkeys(names[:0])
    for name in (name for pair in order for name in pair):
        if name not in kept:
            loads += 1
            if len(kept) == 8:  # two tiles' worth of images fit
                kept.pop(next(iter(kept)))
        kept[name] = kept.pop(name, None)
    assert loads <= 20 * 20 / 4  # row by row it would be about 20 * 20 / 2


def test_unknown_matcher_lists_the_choices(features: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"did you mean 'nearest'.*choose from"):
        match(features, [NAMES[:2]], tmp_path / "m.h5", MatchOptions(matcher="neerest"))


@pytest.mark.parametrize("value", [float("nan"), 7.0, -1.1])
def test_a_similarity_that_cannot_be_is_refused(value: float) -> None:
    with pytest.raises(OptionError, match="--min-similarity"):
        MatchOptions(min_similarity=value)
