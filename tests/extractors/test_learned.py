"""Our networks as extractors: one contract, whatever the picture."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from samples import make_texture

from sfm_features.errors import OptionError, WeightsError
from sfm_features.extractors import learned
from sfm_features.extractors.learned import Evo, EvoFine, NetExtractor, Sekd
from sfm_features.nets import weights
from sfm_features.nets.blocks import has_bf16
from sfm_features.nets.decode import describe_places
from sfm_features.nets.evo import EvoNet
from sfm_features.nets.peaks import DecodeOptions
from sfm_features.nets.weights import Card, build_net, save_weights
from sfm_features.registry import build_extractor, build_matcher
from sfm_features.scenes.turntable import build_turntable

METHODS = {"evo": Evo, "evo-fine": EvoFine, "sekd": Sekd}


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put untrained weights where the package keeps its own."""
    for name in ("evo", "sekd"):
        torch.manual_seed(0)
        save_weights(build_net(name), tmp_path / f"{name}.safetensors", Card(name))
    monkeypatch.setattr(weights, "BUNDLED", tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("size", [(160, 96), (131, 75), (33, 60)])
def test_contract(bundled: Path, name: str, size: tuple[int, int]) -> None:
    method = METHODS[name](max_keypoints=40)
    features = method.extract(make_texture(size))
    assert 0 < len(features) <= 40
    assert features.image_size == size
    assert features.keypoints.dtype == features.descriptors.dtype == np.float32
    assert features.descriptors.shape == (len(features), method.descriptor_dim)
    np.testing.assert_allclose(
        np.linalg.norm(features.descriptors, axis=1), 1, atol=1e-5
    )
    assert (np.diff(features.scores) <= 0).all() and (features.scores > 0).all()
    assert (features.keypoints >= 0).all()
    assert (features.keypoints <= np.array(size) - 1).all()


@pytest.mark.parametrize("name", METHODS)
def test_repeats_batches_and_grey(bundled: Path, name: str) -> None:
    method = METHODS[name](max_keypoints=60)
    grey = make_texture((120, 90))[..., 0]
    rgb = np.dstack([grey] * 3)
    a, b = method.extract(rgb), METHODS[name](max_keypoints=60).extract(rgb)
    c = method.extract(grey)
    for other in (b, c):
        assert (a.keypoints == other.keypoints).all()
        assert (a.descriptors == other.descriptors).all()
        assert (a.scores == other.scores).all()
    pictures = [rgb, make_texture((120, 90), 5), rgb[::-1].copy()]
    together = method.extract_batch(pictures)
    for picture, found in zip(pictures, together, strict=True):
        alone = method.extract(picture)
        assert len(alone) == len(found)
        np.testing.assert_allclose(alone.keypoints, found.keypoints, atol=0.02)
        cosine = (alone.descriptors * found.descriptors).sum(1)
        assert cosine.min() > 0.999
    assert method.extract_batch([]) == []


def test_a_picture_twice_as_large_is_the_same_at_half_the_scale(bundled: Path) -> None:
    small = make_texture((120, 90))
    large = small.repeat(2, axis=0).repeat(2, axis=1)
    wanted = Evo(max_keypoints=50, scales=[1.0]).extract(small)
    found = Evo(max_keypoints=50, scales=[0.5]).extract(large)
    assert found.image_size == (240, 180)
    # The middle of pixel 0 lies between pixels 0 and 1 of the large one.
    np.testing.assert_allclose(found.keypoints, 2 * wanted.keypoints + 0.5, atol=1e-3)
    np.testing.assert_array_equal(found.descriptors, wanted.descriptors)


def test_the_best_of_all_scales_are_kept(bundled: Path) -> None:
    picture = make_texture((160, 120))
    parts = [Evo(max_keypoints=40, scales=[s]).extract(picture) for s in (1.5, 0.75)]
    together = Evo(max_keypoints=40, scales=[1.5, 0.75]).extract(picture)
    scores = np.concatenate([part.scores for part in parts])
    assert together.scores.tolist() == sorted(scores.tolist(), reverse=True)[:40]
    known = {tuple(xy) for part in parts for xy in part.keypoints.tolist()}
    assert {tuple(xy) for xy in together.keypoints.tolist()} < known
    assert len(Evo(max_keypoints=10, scales=[0.1, 4]).extract(picture[:9, :9])) <= 10


def test_fine_descriptors_are_those_of_the_picture_and_of_it_enlarged(
    bundled: Path,
) -> None:
    picture = make_texture((120, 90))[..., 0]
    coarse = Evo(max_keypoints=200, scales=[1.0, 0.5]).extract(picture)
    fine = EvoFine(max_keypoints=200).extract(picture)
    np.testing.assert_array_equal(fine.keypoints, coarse.keypoints)
    np.testing.assert_array_equal(fine.scores, coarse.scores)
    own, closer = fine.descriptors[:, :128], fine.descriptors[:, 128:]
    np.testing.assert_allclose(own, coarse.descriptors * 0.5**0.5, atol=1e-5)
    # Keypoints of half the size are described once more where those of the whole are.
    whole = Evo(max_keypoints=200, scales=[1.0])
    seen = whole._look([picture], 1.0)
    xy = torch.from_numpy(fine.keypoints)
    maps = seen.dense.descriptors
    there = describe_places(whole._net, maps, xy).numpy() * 0.5**0.5
    of_half = np.abs(closer - there).max(axis=1) < 1e-3
    only_whole = {tuple(xy) for xy in whole.extract(picture).keypoints.tolist()}
    is_whole = np.array([tuple(xy) in only_whole for xy in fine.keypoints.tolist()])
    assert 10 < of_half.sum() < 190
    np.testing.assert_array_equal(of_half, ~is_whole)


def test_fine_descriptors_lie_where_the_keypoints_are(bundled: Path) -> None:
    """An enlarged picture at half the scale is the picture itself: twice the same."""
    picture = make_texture((128, 96))
    fine = EvoFine(max_keypoints=100, scales=[1.0])
    fine._enlarged = 1.0
    own, closer = np.split(fine.extract(picture).descriptors, 2, axis=1)
    np.testing.assert_allclose(own, closer, atol=1e-4)


def test_fine_has_fewer_near_misses(town_photos: Path) -> None:
    """Bundled weights on a picture and the same one turned, darkened and noisy."""
    rng = np.random.default_rng(0)
    turn = cv2.getRotationMatrix2D((256, 192), 20, 0.9)
    right, near = np.zeros(2), np.zeros(2)
    for path in sorted((town_photos / "images").iterdir())[:3]:
        picture = cv2.imread(str(path))
        turned = cv2.warpAffine(picture, turn, (512, 384))
        dark = turned * 0.4 + rng.normal(0, 6, turned.shape)
        other = np.asarray(dark.clip(0, 255), np.uint8)
        for i, name in enumerate(("evo", "evo-fine")):
            method = build_extractor(name, max_keypoints=600, device="cpu")
            a, b = method.extract(picture), method.extract(other)
            found = build_matcher("nearest", device="cpu").match(a, b).indices
            moved = a.keypoints[found[:, 0]] @ turn[:, :2].T + turn[:, 2]
            off = np.linalg.norm(moved - b.keypoints[found[:, 1]], axis=1)
            right[i] += (off < 3).sum()
            near[i] += ((off > 3) & (off < 20)).sum()
    assert right[0] > 300 and right[1] > 0.9 * right[0]
    assert near[0] > 30 and near[1] < 0.8 * near[0]


def test_given_weights_go_before_bundled_ones(bundled: Path, tmp_path: Path) -> None:
    torch.manual_seed(7)
    path = tmp_path / "mine.safetensors"
    save_weights(build_net("evo"), path, Card("evo"))
    picture = make_texture((96, 64))
    mine = Evo(max_keypoints=20, weights=path).extract(picture)
    theirs = Evo(max_keypoints=20).extract(picture)
    assert mine.scores.tolist() != theirs.scores.tolist()
    with pytest.raises(WeightsError, match="holds weights of evo, not of sekd"):
        Sekd(max_keypoints=20, weights=path)


def test_nothing_bundled_and_nothing_to_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "BUNDLED", tmp_path)
    with pytest.raises(WeightsError, match=r"evo: .*--weights FILE"):
        Evo(max_keypoints=10)
    with pytest.raises(OptionError, match="leave out --download"):
        Sekd(max_keypoints=10, download=True)


def test_a_network_in_training_can_be_tried() -> None:
    torch.manual_seed(0)
    net = build_net("evo").train()
    method = NetExtractor(net, "cpu", DecodeOptions(30, least_probability=0))
    assert len(method.extract(make_texture((96, 96)))) == 30
    assert net.training and all(p.dtype == torch.float32 for p in net.parameters())


def test_the_tiniest_pictures(bundled: Path) -> None:
    for size in [(1, 1), (7, 300), (9, 9)]:
        features = Evo(max_keypoints=10).extract(
            make_texture((320, 320))[: size[1], : size[0]]
        )
        assert features.image_size == size
        assert features.descriptors.shape == (len(features), EvoNet.descriptor_dim)


def test_bfloat16_only_where_there_is_hardware() -> None:
    assert not has_bf16("meta")
    assert has_bf16("cpu") == any(
        torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16")
    )
    assert learned.Evo.options.nms_radius_px == 2


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc only")
def test_memory_is_kept_between_images() -> None:
    """The second image must not ask the system for its pages again."""
    code = (
        "import resource, numpy, torch\n"
        "from sfm_features.extractors.learned import NetExtractor\n"
        "from sfm_features.nets.peaks import DecodeOptions\n"
        "from sfm_features.nets.evo import EvoNet\n"
        "torch.set_num_threads(1)\n"
        "method = NetExtractor(EvoNet(), 'cpu', DecodeOptions(100))\n"
        "picture = numpy.zeros((480, 640, 3), numpy.uint8)\n"
        "count = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(6): method.extract(picture)\n"
        "before = count()\n"
        "for _ in range(4): method.extract(picture)\n"
        "print((count() - before) // 4)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert int(result.stdout) < 300  # over 2000 without


def test_the_object_preset_keeps_to_the_object() -> None:
    """Bundled weights, on a turn that none of them was trained on, without masks."""
    picture = build_turntable(0).photograph(0.5)
    shares = []
    for name in ("evo", "evo-object"):
        found = build_extractor(name, max_keypoints=2048, device="cpu")
        features = found.extract(picture.rgb)
        columns, rows = np.rint(features.keypoints).astype(int).T
        shares.append((picture.tags[rows, columns] > 0).mean())
    assert len(features) > 200
    assert shares[1] > 0.85 and shares[1] > 2 * shares[0]
