"""Backgrounds: told from depth or masks, warped with the photos, and left alone."""

from __future__ import annotations

import weakref
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from samples import make_texture, write_image
from training_kit import make_photo

from sfm_features.depths import DepthMap
from sfm_features.errors import InputError
from sfm_features.geometry import warp_points
from sfm_features.images import decode
from sfm_features.nets.dense import DenseNet, pad_to_stride
from sfm_features.scenes.turntable import build_turntable
from sfm_features.training import backgrounds
from sfm_features.training.backgrounds import add_backgrounds
from sfm_features.training.crops import Surface, draw_crop
from sfm_features.training.losses import suppress_background
from sfm_features.training.networks import read_net
from sfm_features.training.options import AdaptOptions, DepthOptions
from sfm_features.training.photometric import LightRanges
from sfm_features.training.photos import Photo, PhotoSet, load_photos
from sfm_features.training.targets import KEYPOINT
from sfm_features.training.train import adapt
from sfm_features.training.turntables import TurntablePairs
from sfm_features.training.warps import sample_homography
from sfm_features.types import RunOptions

PLAIN = LightRanges(0, 0, 0, 0, 0, 0, 0, 0, 0)
SIZE = (200, 150)
CROP_PX = 96


def make_marked_photo() -> Photo:
    """Make a photo of which a slanting half, and a hole in the other, is background."""
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    behind = (x + y < 170) | (np.hypot(x - 140, y - 90) < 14)
    return replace(make_photo(SIZE), background=behind)


def test_labels_on_background_vanish_under_every_warp() -> None:
    """Also: what a crop calls background is what its photo does, pixel by pixel."""
    photo = make_marked_photo()
    y, x = np.mgrid[4 : SIZE[1] - 4 : 3, 4 : SIZE[0] - 4 : 3]
    labels = np.stack([x.ravel(), y.ravel()], 1).astype(np.float32)
    rng = np.random.default_rng(0)
    kept = of_thing = 0
    for _ in range(20):
        warp = sample_homography(rng, np.array(SIZE) / 2, CROP_PX)
        crop = draw_crop(
            PhotoSet([photo]), {0: labels}, [Surface(0, warp)], CROP_PX, rng, PLAIN
        )
        back = np.linalg.inv(warp)
        assert photo.keeps(warp_points(back, crop.keypoints)).all()
        landed = warp_points(warp, labels[photo.keeps(labels)].astype(np.float64))
        of_thing += ((landed >= 0) & (landed <= CROP_PX - 1)).all(1).sum()
        kept += len(crop.keypoints)
        assert (crop.target == KEYPOINT).sum() <= len(crop.keypoints)
        grid = np.stack(np.meshgrid(*[np.arange(CROP_PX)] * 2), 2).reshape(-1, 2)
        source = warp_points(back, grid.astype(np.float64))
        inside = ((source > -0.4) & (source < np.array(SIZE) - 0.6)).all(1)
        inside &= crop.heat.ravel() == 0
        expected = ~photo.keeps(source[inside])
        wrong = crop.background.ravel()[inside] != expected
        # Only where a source lies between two pixels may they round differently.
        assert wrong.mean() < 0.02
        assert not crop.knows(grid[crop.background.ravel()].astype(np.float64)).any()
    # The light of a crop may hide a few.
    assert 0.99 * of_thing < kept <= of_thing and kept > 1000


def test_nothing_is_suppressed_where_something_hangs_in_front() -> None:
    photos = PhotoSet([make_marked_photo(), make_photo(SIZE, 1)])
    outline = np.array([[20.0, 20], [120, 20], [120, 120], [20, 120]])
    surfaces = [Surface(0, np.eye(3)), Surface(1, np.eye(3), outline)]
    nothing = {i: np.zeros((0, 2), np.float32) for i in range(2)}
    rng = np.random.default_rng(0)
    crop = draw_crop(photos, nothing, surfaces, CROP_PX, rng, PLAIN)
    assert crop.background[:15].all() and not crop.background[30:, 30:].any()


@pytest.mark.parametrize("cell_px", [1, 8])
def test_suppression_acts_on_background_alone(cell_px: int) -> None:
    p = torch.full((2, 1, 32, 32), 0.004, requires_grad=True)
    background = torch.zeros(2, 32, 32, dtype=torch.bool)
    assert not suppress_background(p, background, cell_px).any()
    background[0, :, 4:20] = True
    loss = suppress_background(p, background, cell_px)
    loss.backward()  # type: ignore[no-untyped-call]  # torch's own
    assert p.grad is not None
    assert (p.grad[:, 0][background] > 0).all()
    assert (p.grad[:, 0][~background] == 0).all()
    # Whole cells hold 64 pixels that exclude each other, the two at the rim 32.
    cells = (64, 32, 32) if cell_px == 8 else (1,)
    expected = np.mean([-np.log(1 - 0.004 * n) for n in cells])
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-3)
    sure = torch.ones(2, 1, 32, 32)
    assert suppress_background(sure, background, cell_px).isfinite()


@pytest.mark.parametrize("kind", ["distance", "nearness", "mask"])
def test_depth_tells_a_thing_on_a_table_from_the_room(
    tmp_path: Path, kind: str
) -> None:
    table = build_turntable(0, (320, 240))
    masks = {}
    (tmp_path / "depth").mkdir()
    for i in range(2):
        picture = table.photograph(1.7 * i)
        write_image(tmp_path / f"photos/{i}.png", picture.rgb)
        far = 1000 * np.minimum(picture.depth, 60)
        near = 1e5 / far
        mask = np.uint8(255) * (picture.tags > 0)
        shown = {"distance": far, "nearness": near, "mask": mask}[kind]
        depth = cv2.resize(shown, (160, 120), interpolation=cv2.INTER_NEAREST)
        kept = depth.astype(np.uint8 if kind == "mask" else np.uint16)
        assert cv2.imwrite(str(tmp_path / f"depth/{i}.png"), kept)
        masks[f"{i}.png"] = picture.tags > 0
    photos = load_photos([tmp_path / "photos"])
    picture_path = tmp_path / "run/backgrounds.jpg"
    found = add_backgrounds(
        photos, [tmp_path / "photos"], tmp_path / "depth", "auto", picture_path
    )
    assert decode(picture_path).size[0] == 320
    for photo in found.photos:
        thing, behind = masks[photo.name], photo.background
        assert behind is not None
        assert (photo.nearness is None) == (kind == "mask")
        if photo.nearness is not None:
            near = photo.nearness.grey.astype(float)
            assert near[thing].mean() > near[~thing].mean() + 50
        # The table is as near as what stands on it; a mask knows better.
        inner = cv2.erode(thing.astype(np.uint8), np.ones((5, 5))) > 0
        assert behind[inner].mean() < 0.01
        assert behind[~thing].mean() > (0.99 if kind == "mask" else 0.6)


def test_maps_are_not_kept_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of hundreds of photos of a phone would fill it, whatever they mean."""
    near = np.ones((120, 160), np.float32)
    near[40:80, 50:110] = 3
    (tmp_path / "depth").mkdir()
    for i in range(6):
        write_image(tmp_path / f"photos/{i}.png", make_texture((160, 120), i))
        np.save(tmp_path / f"depth/{i}.npy", near)
    photos = load_photos([tmp_path / "photos"])
    read: list[weakref.ref[object]] = []
    most: list[int] = []
    read_map = backgrounds._read_map

    def watch(*paths: Path) -> DepthMap | np.ndarray:
        seen = read_map(*paths)
        read.append(weakref.ref(seen))
        most.append(sum(one() is not None for one in read))
        return seen

    monkeypatch.setattr(backgrounds, "_read_map", watch)
    found = add_backgrounds(
        photos, [tmp_path / "photos"], tmp_path / "depth", "auto", tmp_path / "x.jpg"
    )
    assert len(most) == 6 and max(most) <= 2
    assert all(photo.background is not None for photo in found.photos)


def test_odd_depth_leaves_its_photo_as_it_was(tmp_path: Path) -> None:
    for name in ("good", "flat", "nan", "tall", "missing"):
        write_image(tmp_path / f"photos/{name}.png", make_texture((160, 120)))
    depths = tmp_path / "depth"
    depths.mkdir()
    near = np.ones((120, 160), np.float32)
    near[40:80, 50:110] = 3
    np.save(depths / "good.npy", near)
    slope = np.linspace(1, 1.5, 160, dtype=np.float32)
    np.save(depths / "flat.npy", np.tile(1 / slope, (120, 1)))
    np.save(depths / "nan.npy", np.full((120, 160), np.nan, np.float32))
    np.save(depths / "tall.npy", near.T.copy())
    photos = load_photos([tmp_path / "photos"])
    folders, picture = [tmp_path / "photos"], tmp_path / "x.jpg"
    found = add_backgrounds(photos, folders, depths, "nearness", picture)
    marked = {p.name: p.background for p in found.photos if p.background is not None}
    assert list(marked) == ["good.png"]
    assert not marked["good.png"][45:75, 55:105].any()
    assert marked["good.png"][:35].all()
    assert len(found.skipped) == 3
    (depths / "good.npy").unlink()
    with pytest.raises(InputError, match=r"depth: has no depth map.*masks"):
        add_backgrounds(photos, folders, depths, "nearness", picture)


def test_a_background_falls_silent_and_the_object_does_not(tmp_path: Path) -> None:
    """A round mosaic before chequers: masks teach `evo` which is the object."""
    y, x = np.mgrid[:160, :200]
    masks = {}
    for i in range(6):
        cells = ((x + 3 * i) // 11 + (y + 5 * i) // 11) % 2 * np.uint8(170) + 40
        mask = np.hypot(x - 70 - 10 * i, y - 80) < 45
        tiles = np.random.default_rng(i).integers(0, 256, (20, 25, 1), np.uint8)
        thing = tiles.repeat(8, 0).repeat(8, 1)
        shown = np.where(mask[..., None], thing, cells[..., None].astype(np.uint8))
        write_image(tmp_path / f"photos/{i}.png", shown)
        write_image(tmp_path / f"masks/{i}.png", np.uint8(255) * mask)
        masks[f"{i}.png"] = mask
    options = AdaptOptions(
        steps=120, rounds=1, batch=2, crop_px=128, views=1, validations=1,
        validation_photos=2, learning_rate=1e-3, layer_share=0.0, night_share=0.0,
    )  # fmt: skip
    run = RunOptions(device="cpu")
    depth = DepthOptions(tmp_path / "masks", background_weight=2.0)
    summary = adapt(tmp_path / "photos", tmp_path / "run", "evo", options, run, depth)
    assert (tmp_path / "run/backgrounds.jpg").exists()
    assert summary.last["on_background"] < summary.first["on_background"]
    photo = load_photos([tmp_path / "photos"]).photos[0]
    thing, behind = masks[photo.name], ~masks[photo.name]
    before, after = (
        detect_everywhere(read_net(start), photo)
        for start in ("evo", str(summary.weights))
    )
    assert before[behind].sum() > before[thing].sum()
    assert after[behind].sum() < 0.4 * before[behind].sum()
    assert after[thing].sum() > 0.6 * before[thing].sum()


def detect_everywhere(net: DenseNet, photo: Photo) -> np.ndarray:
    """Return the detector's probability of each pixel (H, W)."""
    with torch.no_grad():
        image = torch.from_numpy(photo.grey.copy())[None, None].float() / 255
        p = net.probability(net(pad_to_stride(image, net.stride)).logits)
    return np.asarray(p[0, 0, : photo.size[1], : photo.size[0]])


def test_pairs_of_a_turn_are_exact_and_of_the_thing_alone(tmp_path: Path) -> None:
    turns = TurntablePairs(tmp_path, 1, seed=0, first=5)
    photos = turns.extend(PhotoSet([make_photo(seed=i) for i in range(5)])).photos
    rng = np.random.default_rng(0)
    moved: list[float] = []
    returned = 0
    for _ in range(20):
        first, second, centre, landed = turns.choose(rng)
        anywhere = rng.uniform(0, (479, 359), (300, 2))
        here, there = turns.relate(first, second, np.vstack([centre[None], anywhere]))
        assert photos[first].keeps(here).all() and photos[second].keeps(there).all()
        if first == second:
            continue
        np.testing.assert_allclose(there[0], landed)
        back, again = turns.relate(second, first, there)
        returned += len(back)
        errors = np.linalg.norm(again[:, None] - here[None], axis=2).min(1)
        assert np.median(errors) < 0.2
        moved.append(np.median(np.linalg.norm(there - here, axis=1)))
    assert len(moved) > 8 and min(moved) > 3 and returned > 60
    few = turns.among([7, 8])
    assert {i for _ in range(9) for i in few.choose(rng)[:2]} == {7, 8}
