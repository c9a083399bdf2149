"""Whole images: what their descriptors are, and what they find."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from samples import make_texture, write_image

from pipelines import codebook
from sfm_features import ranking
from sfm_features.cli import main
from sfm_features.colmap import write_poses
from sfm_features.errors import InputError, WeightsError
from sfm_features.extract import ExtractOptions, extract
from sfm_features.nets.vlad import Vlad, load_vlad, save_vlad
from sfm_features.nets.weights import Card
from sfm_features.pair_files import read_pairs
from sfm_features.pairs import PairOptions, choose_pairs
from sfm_features.retrieve import describe, has_codebook
from sfm_features.store import FeatureStore, GlobalStore
from sfm_features.training.codebook import _sample, fit_vlad
from sfm_features.types import Camera, Features, Pose


def _describe(count: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, 8)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A codebook of descriptors of 8 numbers."""
    photos = [_describe(50, seed) for seed in range(20)]
    vlad = fit_vlad(photos, 4, 6, np.random.default_rng(0))
    path = tmp_path / "small.safetensors"
    save_vlad(vlad, path, Card("vlad", recipe={"extractor": "toy"}))
    return path


def _write_features(path: Path, extractor: str = "toy", dim: int = 8) -> Path:
    with FeatureStore.append(path, {"extractor": extractor}) as store:
        for i in range(3):
            rows = _describe(40 * (i > 0), i)[:, :dim]
            zeros = np.zeros((len(rows), 2), np.float32)
            store.write(f"{i}.jpg", Features(zeros, rows, zeros[:, 0], (9, 9)))
    return path


def test_sums_do_not_care_about_order_or_repetition() -> None:
    vlad = Vlad(4, 8, 6)
    vlad.codebook.copy_(torch.from_numpy(_describe(4, 9)))
    rows = torch.from_numpy(_describe(30, 1))
    whole = vlad.aggregate(rows)
    assert whole.norm().item() == pytest.approx(1)
    torch.testing.assert_close(vlad.aggregate(rows.flip(0)), whole)
    torch.testing.assert_close(vlad.aggregate(rows.repeat(3, 1)), whole)
    assert not vlad.aggregate(rows[:0]).any()


def test_whitened_descriptors_are_evenly_spread(small: Path) -> None:
    vlad, card = load_vlad(small)
    assert card.recipe["extractor"] == "toy" and vlad.dim == 6
    rows = np.stack(
        [vlad(torch.from_numpy(_describe(50, seed))).numpy() for seed in range(20)]
    )
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    variance = rows.var(axis=0)
    assert variance.max() < 4 * variance.min()


def test_describing_goes_on_and_says_what_does_not_fit(
    small: Path, tmp_path: Path
) -> None:
    features, output = _write_features(tmp_path / "f.h5"), tmp_path / "g.h5"
    first = describe(features, output, small)
    assert (first.written, first.reused) == (3, 0)
    assert (describe(features, output, small).written) == 0
    with GlobalStore.open(output) as store:
        rows = store.read_many(store.names())
    assert rows.shape == (3, 6) and not rows[0].any() and rows[1].any()
    other = _write_features(tmp_path / "other.h5", "sift")
    with pytest.raises(InputError, match=r"pipelines\.codebook"):
        describe(other, tmp_path / "h.h5", small)
    content = small.read_bytes()
    small.write_bytes(content[:-9] + b"123456789")
    with pytest.raises(WeightsError, match="SHA-256"):
        describe(features, tmp_path / "i.h5", small)


def test_the_codebook_of_evo_fits_what_begins_alike(tmp_path: Path) -> None:
    """Images are found by evo-fine's features just as by evo's."""
    photos, rows = tmp_path / "photos", []
    for i in range(3):
        write_image(photos / f"{i}.png", make_texture((160, 120), i))
    for name in ("evo", "evo-fine"):
        features, output = tmp_path / f"{name}.h5", tmp_path / f"{name}-global.h5"
        extract(photos, features, ExtractOptions(extractor=name, max_keypoints=100))
        assert has_codebook(features)
        describe(features, output)
        with GlobalStore.open(output) as store:
            rows.append(store.read_many(store.names()).astype(np.float32))
    alike = rows[0] @ rows[1].T
    assert alike.diagonal().min() > 0.999  # but for rounding
    assert (alike - 2 * np.eye(3)).max() < 0.9  # which another image is far from
    short = _write_features(tmp_path / "short.h5", "evo-fine")
    assert not has_codebook(short)  # 8 numbers do not begin with 128


def test_the_same_place_is_found_from_the_shell(tmp_path: Path) -> None:
    """Photos of four places, each cut out of it twice: partners find each other."""
    photos = tmp_path / "photos"
    for place in range(4):
        scene = make_texture((420, 340), place)
        for view, left in enumerate((0, 60)):
            cut = np.ascontiguousarray(scene[:, left : left + 340])
            write_image(photos / f"{place}-{view}.png", cut)
    features, described = tmp_path / "f.h5", tmp_path / "g.h5"
    extract(photos, features, ExtractOptions(max_keypoints=500))
    assert main(["describe", str(features), "--output", str(described)]) == 0
    command = ["pairs", "--method", "retrieval", "--neighbours", "1"]
    pairs = tmp_path / "pairs.txt"
    given = ["--descriptors", str(described), "--output", str(pairs)]
    assert main([*command, *given]) == 0
    assert read_pairs(pairs) == [(f"{i}-0.png", f"{i}-1.png") for i in range(4)]
    assert main([*command, *given, "--queries", "2", "--database", "2"]) == 0
    assert read_pairs(pairs) == [("2-0.png", "2-1.png")]
    assert main([*command, *given, "--queries", "nothing"]) == 2
    listed = tmp_path / "list.txt"
    listed.write_text("# comment\r\n0-0.png\r\n", encoding="utf-8", newline="")
    assert main([*command, *given, "--queries", str(listed)]) == 0
    assert read_pairs(pairs) == [("0-0.png", "0-1.png")]
    listed.write_text("7-0.png\n", encoding="utf-8")
    assert main([*command, *given, "--queries", str(listed)]) == 2
    assert main([*command, "--output", str(pairs)]) == 2


@pytest.mark.parametrize("chunk", [2, 100])
def test_poses_keep_what_looks_alike_but_lies_far_away_apart(
    chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four images at x = 0, 1, 2 and 9 look alike; a fifth has no pose."""
    monkeypatch.setattr(ranking, "_CHUNK_ROWS", chunk)
    described, known = tmp_path / "g.h5", tmp_path / "known"
    camera = Camera("PINHOLE", 9, 9, (9, 9, 4.5, 4.5))
    poses = {
        name: Pose(np.eye(3), np.array([-x, 0.0, 0]))
        for name, x in zip("abcd", (0, 1, 2, 9), strict=True)
    }
    write_poses(dict.fromkeys(poses, camera), poses, known)
    with GlobalStore.append(described, {}) as store:
        for name in "abcde":
            store.write(name, np.ones(2, np.float32))
    near = PairOptions(
        descriptors=described, model=known, neighbours=9, max_distance=1.5
    )
    asked = [(q, n) for q, n in choose_pairs("retrieval", near) if "e" not in (q, n)]
    assert asked == [("a", "b"), ("b", "c")]
    anywhere = replace(near, max_distance=float("inf"))
    assert len(choose_pairs("retrieval", anywhere)) == 10
    queries = replace(near, queries="e")  # nothing tells where it was taken
    assert len(choose_pairs("retrieval", queries)) == 4


def test_a_codebook_is_made_from_photos(tmp_path: Path) -> None:
    photos, output = tmp_path / "photos", tmp_path / "mine.safetensors"
    for i in range(16):
        write_image(photos / f"{i}.png", make_texture((160, 120), i))
    arguments = [str(photos), "--output", str(output), "--words", "4", "--dim", "8"]
    assert codebook.main(arguments) == 0
    vlad, card = load_vlad(output)
    assert (vlad.dim, card.recipe["photos"]) == (8, 16)
    (photos / "0.png").write_bytes(b"no picture")
    assert codebook.main(arguments) == 2


def test_descriptors_are_drawn_evenly_from_all_photos() -> None:
    photos = [np.full((n, 2), i, np.float16) for i, n in enumerate((1000, 10, 3000))]
    photos[1][:, 1] = np.arange(10)
    few = _sample(photos, 2000, np.random.default_rng(0))
    assert few.dtype == np.float32 and len(few) == 2000
    shares = np.bincount(few[:, 0].astype(int)) / 2000
    assert np.allclose(shares, (0.25, 0.0025, 0.75), atol=0.03)
    every = _sample(photos, 9999, np.random.default_rng(0))
    assert (every == np.concatenate(photos)).all()
