"""kornia's networks as extractors: contract, pixel convention and weights.

Weights are random here: what is tested is our side, for which any weights will do.
"""

from __future__ import annotations

import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kornia.core.download
import kornia.feature
import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from sfm_features.errors import WeightsError
from sfm_features.extractors.kornia import Aliked, DeDoDe, Disk, KeyNetHardNet, XFeat
from sfm_features.extractors.kornia_base import KorniaExtractor
from sfm_features.types import Features

CLASSES: list[type[KorniaExtractor]] = [Aliked, Disk, XFeat, DeDoDe, KeyNetHardNet]
DIMENSIONS = {Aliked: 128, Disk: 128, XFeat: 64, DeDoDe: 256, KeyNetHardNet: 128}
by_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.method)
MAX_KEYPOINTS = 60


def make_state(cls: type[KorniaExtractor]) -> dict[str, torch.Tensor]:
    """Draw random weights for a class's network, such that it finds something."""
    torch.manual_seed(3)
    bare = cls.__new__(cls)
    bare._max_keypoints = MAX_KEYPOINTS
    net = bare._make_net()
    if cls is XFeat:
        # Random logits hardly differ, and then no pixel of a cell passes the threshold.
        net.net.keypoint_head[-1].weight.data *= 60
    if cls is KeyNetHardNet:
        # The response ends in a ReLU, which random signs may leave at zero everywhere.
        net.detector.model.last_conv[0].weight.data.abs_()
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


@pytest.fixture(scope="module")
def built(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[type[KorniaExtractor], tuple[KorniaExtractor, Path]]]:
    """Each class with its random weights' file, built when asked for."""
    folder = tmp_path_factory.mktemp("weights")

    class Built(dict[type[KorniaExtractor], tuple[KorniaExtractor, Path]]):
        def __missing__(
            self, cls: type[KorniaExtractor]
        ) -> tuple[KorniaExtractor, Path]:
            path = folder / f"random_{cls.method}.pth"
            state = make_state(cls)
            if cls is XFeat:
                state = {name.removeprefix("net."): t for name, t in state.items()}
            torch.save(state, path)
            self[cls] = build(cls, weights=path), path
            return self[cls]

    yield Built()


def build(cls: type[KorniaExtractor], **options: Any) -> KorniaExtractor:
    return cls(max_keypoints=MAX_KEYPOINTS, device="cpu", seed=0, **options)


def draw_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Draw smooth random texture: blurred noise, so that maxima are clear."""
    noise = np.random.default_rng(seed).normal(size=(height + 8, width + 8, 3))
    box = np.ones(5) / 5
    for axis in (0, 1):
        for _ in range(2):
            noise = np.apply_along_axis(np.convolve, axis, noise, box, "valid")
    stretched = 128 + 40 * noise / noise.std()
    return np.clip(stretched, 0, 255).astype(np.uint8)


def check_contract(features: Features, height: int, width: int, dim: int) -> None:
    assert features.image_size == (width, height)
    assert len(features) <= MAX_KEYPOINTS
    assert features.keypoints.dtype == np.float32
    assert features.scores.dtype == np.float32
    assert features.descriptors.dtype == np.float32
    assert features.descriptors.shape == (len(features), dim)
    assert (features.keypoints >= 0).all()
    assert (features.keypoints <= [width - 1, height - 1]).all()
    assert (np.diff(features.scores) <= 0).all()
    lengths = np.linalg.norm(features.descriptors, axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-5)


# --- contract ---


@by_class
def test_features_keep_the_contract(cls: type[KorniaExtractor], built: Any) -> None:
    extractor, _ = built[cls]
    assert extractor.descriptor_dim == DIMENSIONS[cls]
    image = draw_image(75, 101)
    features = extractor.extract(image)
    check_contract(features, 75, 101, DIMENSIONS[cls])
    assert len(features) > 10
    assert len(np.unique(features.keypoints, axis=0)) == len(features)
    again = extractor.extract(image)
    np.testing.assert_array_equal(again.keypoints, features.keypoints)
    np.testing.assert_array_equal(again.descriptors, features.descriptors)
    np.testing.assert_array_equal(again.scores, features.scores)


@by_class
def test_a_batch_is_its_images_one_by_one(
    cls: type[KorniaExtractor], built: Any
) -> None:
    extractor, _ = built[cls]
    images = [draw_image(64, 80, seed) for seed in range(3)]
    batch = extractor.extract_batch(images)
    assert len(batch) == 3
    for image, features in zip(images, batch, strict=True):
        alone = extractor.extract(image)
        np.testing.assert_allclose(features.scores, alone.scores, rtol=1e-3)
        same = np.abs(features.keypoints - alone.keypoints).max(axis=1) < 1e-3
        # Rounding may swap two equal scores.
        assert same.mean() > 0.9
        np.testing.assert_allclose(
            features.descriptors[same], alone.descriptors[same], atol=1e-3
        )
    assert extractor.extract_batch([]) == []


@by_class
@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (7, 9), (22, 23), (33, 65)])
def test_any_size_will_do(
    cls: type[KorniaExtractor], size: tuple[int, int], built: Any
) -> None:
    extractor, _ = built[cls]
    height, width = size
    features = extractor.extract(draw_image(height, width))
    check_contract(features, height, width, DIMENSIONS[cls])


@by_class
def test_a_blank_image_is_no_trouble(cls: type[KorniaExtractor], built: Any) -> None:
    extractor, _ = built[cls]
    features = extractor.extract(np.full((40, 48, 3), 90, np.uint8))
    check_contract(features, 40, 48, DIMENSIONS[cls])


@by_class
def test_the_best_keypoints_are_kept(cls: type[KorniaExtractor], built: Any) -> None:
    _, path = built[cls]
    image = draw_image(75, 101)
    few = cls(max_keypoints=5, device="cpu", seed=0, weights=path).extract(image)
    many = built[cls][0].extract(image)
    assert len(few) == 5
    np.testing.assert_allclose(few.scores, many.scores[:5], rtol=1e-5)


# --- pixel convention ---


def symmetrise(net: nn.Module) -> None:
    """Make every convolution mirror-symmetric, so that mirrored in is mirrored out."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            kernel = module.weight.data
            kernel = (kernel + kernel.flip(-1)) / 2
            module.weight.data = (kernel + kernel.flip(-2)) / 2


class Brightness(nn.Module):
    """A response whose maxima are the bright spots."""

    def forward(self, grey: torch.Tensor) -> torch.Tensor:
        return grey


@pytest.mark.parametrize("cls", [Disk, DeDoDe, KeyNetHardNet], ids=lambda c: c.method)
def test_turned_images_have_turned_keypoints(
    cls: type[KorniaExtractor], built: Any
) -> None:
    # An offset of d px would show as 2 d, for it does not turn with the image.
    extractor = build(cls, weights=built[cls][1])
    symmetrise(extractor._net)
    if cls is KeyNetHardNet:
        extractor._net.detector.model = Brightness()
    # Sizes that every stage halves evenly, without padding.
    height, width = 112, {Disk: 64, DeDoDe: 56, KeyNetHardNet: 144}[cls]
    image = draw_image(height, width, seed=5)
    found = extractor.extract(image).keypoints
    turned = extractor.extract(np.ascontiguousarray(image[::-1, ::-1])).keypoints
    expected = np.array([width - 1, height - 1]) - turned
    apart = np.linalg.norm(found[:, None] - expected, axis=2).min(axis=1)
    assert len(found) >= 30
    assert (apart < 0.01).mean() > 0.95


def dot_image(x: int, y: int) -> np.ndarray:
    image = np.full((64, 96, 3), 20, np.uint8)
    image[y, x] = 250
    return image


def test_xfeat_reports_the_pixel_it_saw(built: Any) -> None:
    extractor = build(XFeat, weights=built[XFeat][1])
    # The keypoint head becomes the identity: a pixel's logit is its own brightness.
    for layer in extractor._net.net.keypoint_head.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.dirac_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    for x, y in [(10, 10), (11, 30), (87, 61), (48, 7)]:
        features = extractor.extract(dot_image(x, y))
        np.testing.assert_array_equal(features.keypoints[0], [x, y])


def test_aliked_reports_the_pixel_it_saw(built: Any) -> None:
    extractor = build(Aliked, weights=built[Aliked][1])
    net = extractor._net
    # Only the path from the full resolution to the score is left, as an identity.
    for name in ("conv2", "conv3", "conv4"):
        nn.init.zeros_(getattr(net, name).weight)
    for layer in (net.block1.conv1, net.block1.conv2, net.conv1, *net.score_head):
        if isinstance(layer, nn.Conv2d):
            nn.init.dirac_(layer.weight)
    for x, y in [(10, 10), (11, 30), (87, 58), (48, 7)]:
        features = extractor.extract(dot_image(x, y))
        np.testing.assert_allclose(features.keypoints[0], [x, y], atol=1e-4)
    # With a neighbour almost as bright the keypoint moves half-way there.
    image = dot_image(30, 20)
    image[20, 31] = 249
    edge = extractor.extract(image).keypoints[0]
    assert 30.2 < edge[0] < 30.6
    assert edge[1] == pytest.approx(20, abs=1e-4)


def test_xfeat_pads_instead_of_shrinking(built: Any) -> None:
    extractor = build(XFeat, weights=built[XFeat][1])
    image = draw_image(64, 96)
    whole = extractor.extract(image)
    cut = extractor.extract(image[:50, :90])
    assert np.array_equal(cut.keypoints, np.round(cut.keypoints))
    assert cut.keypoints.max(axis=0).tolist() <= [89, 49]
    assert len(whole) > 0


# --- weights ---


@by_class
def test_without_weights_the_error_names_file_and_flags(
    cls: type[KorniaExtractor],
) -> None:
    with pytest.raises(WeightsError) as caught:
        build(cls)
    message = str(caught.value)
    for part in cls.parts:
        assert part.file_name in message
        assert all(url.startswith("https://") for url in part.urls)
    assert "--weights FILE" in message and "--download" in message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"nowhere\.pth: no such file"):
        build(XFeat, weights=tmp_path / "nowhere.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a_cut_off_file_is_named(suffix: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / f"cut{suffix}"
    state = kornia.feature.XFeat().net.state_dict()
    if suffix == ".pth":
        torch.save(state, path)
    else:
        safetensors.torch.save_file(state, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(WeightsError, match=rf"cut\{suffix}: cannot be read as weights"):
        build(XFeat, weights=path)


def test_safetensors_give_the_same_features(built: Any, tmp_path: Path) -> None:
    extractor, path = built[Disk]
    copy = tmp_path / "disk.safetensors"
    safetensors.torch.save_file(torch.load(path, weights_only=True), copy)
    image = draw_image(48, 64)
    again = build(Disk, weights=copy).extract(image)
    np.testing.assert_array_equal(again.keypoints, extractor.extract(image).keypoints)


def test_another_network_is_refused_by_its_first_differences(built: Any) -> None:
    _, path = built[Disk]
    with pytest.raises(WeightsError) as caught:
        build(XFeat, weights=path)
    message = str(caught.value)
    assert str(path) in message
    assert "skip1.1.weight is missing" in message
    assert "more" in message


def test_another_size_of_the_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "aliked-n32.pth"
    torch.save(kornia.feature.ALIKED("aliked-n32").state_dict(), path)
    with pytest.raises(WeightsError, match=r"agg_weights is \(32, 128, 128\) instead"):
        build(Aliked, weights=path)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return exec, (f"open({str(tmp_path / 'harm')!r}, 'w')",)

    path = tmp_path / "harmful.pth"
    torch.save({"state_dict": Harmful()}, path)
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        build(Disk, weights=path)
    assert not (tmp_path / "harm").exists()


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "numbers.pth"
    torch.save({"epoch": 3}, path)
    with pytest.raises(WeightsError, match="no plain table of tensors"):
        build(Disk, weights=path)


def test_published_layouts_load(built: Any, tmp_path: Path) -> None:
    # DISK nests its tensors, and ALIKED's file leaves out a constant of kornia's.
    disk, _ = built[Disk]
    nested = tmp_path / "depth-save.pth"
    torch.save({"extractor": disk._net.state_dict()}, nested)
    build(Disk, weights=nested)
    aliked, _ = built[Aliked]
    state = dict(aliked._net.state_dict())
    del state["dkd.hw_grid"]
    torch.save(state, tmp_path / "aliked-n16.pth")
    image = draw_image(48, 64)
    again = build(Aliked, weights=tmp_path / "aliked-n16.pth").extract(image)
    np.testing.assert_array_equal(again.keypoints, aliked.extract(image).keypoints)


def write_parts(extractor: KorniaExtractor, folder: Path) -> list[Path]:
    """Write a network the way it is published: a file for each part."""
    paths = []
    for part in extractor.parts:
        paths.append(folder / part.file_name)
        module = extractor._net.get_submodule(part.module)
        torch.save({"epoch": 1, "state_dict": module.state_dict()}, paths[-1])
    return paths


def test_one_part_finds_the_others_beside_it(built: Any, tmp_path: Path) -> None:
    extractor, _ = built[KeyNetHardNet]
    paths = write_parts(extractor, tmp_path)
    image = draw_image(64, 80)
    again = build(KeyNetHardNet, weights=paths[1]).extract(image)
    whole = extractor.extract(image)
    assert len(whole) > 0
    np.testing.assert_array_equal(again.keypoints, whole.keypoints)
    np.testing.assert_array_equal(again.descriptors, whole.descriptors)
    paths[2].unlink()
    with pytest.raises(WeightsError, match=rf"{paths[2].name}: no such file"):
        build(KeyNetHardNet, weights=paths[1])


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Cut the network off; returns the empty folder of kornia's downloads."""

    def refuse(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(kornia.core.download, "urlopen", refuse)
    monkeypatch.setattr(kornia.core.download.time, "sleep", lambda _: None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@by_class
def test_offline_download_says_so(cls: type[KorniaExtractor], offline: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        build(cls, download=True)
    message = str(caught.value)
    assert cls.parts[0].file_name in message
    assert "could not be downloaded" in message
    assert "Name or service not known" in message
    assert "--weights FILE" in message
    assert "\n" not in message


def test_an_earlier_download_serves_offline(built: Any, offline: Path) -> None:
    extractor, _ = built[KeyNetHardNet]
    write_parts(extractor, offline)
    image = draw_image(64, 80)
    again = build(KeyNetHardNet, download=True).extract(image)
    np.testing.assert_array_equal(again.keypoints, extractor.extract(image).keypoints)
