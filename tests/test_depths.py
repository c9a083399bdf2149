"""Depth maps of any origin: read, judged, brought to one scale."""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from samples import write_image

from sfm_features.depths import (
    find_depth,
    fit_depth,
    read_depth,
    scale_nearness,
    vote_kind,
)
from sfm_features.errors import ImageError
from sfm_features.scenes.mannequin import Figure, render_figure


@pytest.fixture(scope="module")
def figure() -> Figure:
    return render_figure(5, 0, "busy", 96)


def test_every_format_tells_the_same(figure: Figure, tmp_path: Path) -> None:
    """Millimetres in 16 bits, metres in floats, relative nearness in 8 bits."""
    metres = figure.depth
    near = (1 / metres - 1 / metres.max()) / (1 / metres.min() - 1 / metres.max())
    cv2.imwrite(str(tmp_path / "mm.png"), (1000 * metres).astype(np.uint16))
    np.save(tmp_path / "m.npy", metres.astype(np.float64))
    np.save(tmp_path / "m3.npy", metres[..., None])
    byte = (1 + 254 * near).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "near.png"), byte)
    write_image(tmp_path / "near3.png", np.repeat(byte[..., None], 3, axis=2))
    kinds = {"mm.png": "distance", "m.npy": "distance", "m3.npy": "distance"}
    kinds |= {"near.png": "nearness", "near3.png": "nearness"}
    scaled = {
        name: scale_nearness(read_depth(tmp_path / name), kind, 48)  # type: ignore[arg-type]
        for name, kind in kinds.items()
    }
    for name, found in scaled.items():
        assert found.shape == (48, 48) and found.min() == -1 and found.max() == 1
        # Averages of distances are not those of nearness, but nearly so.
        assert np.abs(found - scaled["near.png"]).mean() < 0.05, name


def test_the_kind_is_seen_from_the_maps() -> None:
    for backdrop in ("plain", "busy"):
        for index in range(4):
            depth = render_figure(5, index, backdrop, 64).depth  # type: ignore[arg-type]
            map_ = _as_map(depth)
            assert vote_kind(map_) < -0.25
            assert vote_kind(_as_map(1 / depth)) > 0.25


def _as_map(values: np.ndarray):
    from sfm_features.depths import DepthMap

    return DepthMap(values.astype(np.float32), np.isfinite(values))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros((20, 30)), "is zero everywhere"),
        (np.full((20, 30), np.nan), "is not a number everywhere"),
        (np.full((20, 30), 2.5), "is 2.5 everywhere"),
        (np.where(np.arange(600).reshape(20, 30) < 60, 1.5, 0), "knows 10% of its"),
        (np.linspace(-1, 1, 600).reshape(20, 30), "negative values"),
        (np.ones((20, 30, 5)), "one number for each pixel"),
        (np.ones(30), "one number for each pixel"),
        (np.full((20, 30), "far"), "one number for each pixel"),
    ],
)
def test_maps_that_tell_nothing_are_refused(
    tmp_path: Path, values: np.ndarray, words: str
) -> None:
    np.save(tmp_path / "d.npy", values)
    with pytest.raises(ImageError, match=words):
        read_depth(tmp_path / "d.npy")


def test_files_that_are_no_maps_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    write_image(tmp_path / "colour.png", rng.integers(0, 255, (20, 30, 3), np.uint8))
    with pytest.raises(ImageError, match="picture in colour"):
        read_depth(tmp_path / "colour.png")
    (tmp_path / "text.png").write_text("depth")
    with pytest.raises(ImageError, match="not an image that can be decoded"):
        read_depth(tmp_path / "text.png")
    whole = (tmp_path / "colour.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match="cut off"):
        read_depth(tmp_path / "cut.png")


def test_pickles_are_never_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[object]]:
            return (tmp_path / "bang").touch, ()

    (tmp_path / "plain.npy").write_bytes(pickle.dumps(Bomb()))
    np.save(tmp_path / "array.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    for name in ("plain.npy", "array.npy"):
        with pytest.raises(ImageError, match=r"numpy\.save"):
            read_depth(tmp_path / name)
    assert not (tmp_path / "bang").exists()


def test_holes_take_the_nearest_value_and_wild_pixels_set_no_scale() -> None:
    values = np.tile(np.linspace(1, 3, 64, dtype=np.float32), (64, 1))
    clean = scale_nearness(_as_map(values), "distance", 32)
    holed = values.copy()
    holed[20:30, 20:30] = np.nan
    holed[5, 60] = 1e-4  # a wild pixel, nearer than anything
    found = scale_nearness(_as_map(holed), "distance", 32)
    keep = np.ones((32, 32), np.bool_)
    keep[2, 30] = False
    assert np.abs(found - clean)[keep].max() < 0.25
    assert np.abs(found - clean)[keep].mean() < 0.02
    sky = np.where(np.arange(64)[:, None] < 20, np.inf, values)
    above = scale_nearness(_as_map(sky), "distance", 32)
    assert np.isfinite(above).all()


def test_maps_of_other_size_fit_and_of_other_shape_do_not(tmp_path: Path) -> None:
    depth = _as_map(np.tile(np.linspace(1, 3, 60), (40, 1)))
    path = tmp_path / "d.npy"
    assert fit_depth(depth, (640, 427), 1, path).values.shape == (40, 60)
    # Stored sideways: the map is turned as the photo is.
    assert fit_depth(depth, (640, 427), 6, path).values.shape == (60, 40)
    # A photo stored upright in its file, with a map made after turning it.
    assert fit_depth(depth, (427, 640), 6, path).values.shape == (40, 60)
    with pytest.raises(ImageError, match="must show the same section"):
        fit_depth(depth, (640, 640), 1, path)


def test_maps_are_found_by_the_name_of_their_image(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("a/one.png", "two.jpg.npy", "three.tif"):
        (tmp_path / name).touch()
    pairs = {
        "a/one.jpg": "a/one.png",
        "two.jpg": "two.jpg.npy",
        "three.png": "three.tif",
    }
    for image, depth in pairs.items():
        assert find_depth(tmp_path, image) == tmp_path / depth
    assert find_depth(tmp_path, "one.jpg") is None
