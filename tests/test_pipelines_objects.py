"""Data sets of keypoints in miniature, and the comparison with and without depth."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from object_capture import SIZE, Capture
from samples import make_features, make_texture, write_image

from pipelines import object_datasets, object_keypoints
from pipelines.benchmarks import object_photos as photos_benchmark
from pipelines.benchmarks import results, turntable
from pipelines.benchmarks.keypoint_sets import SETS, measure_set
from pipelines.benchmarks.matfile import read_matrix
from pipelines.benchmarks.objects import (
    DEPTH,
    LEAST_GAIN,
    RGB,
    Scale,
    measure_objects,
)
from sfm_features.colmap import write_model
from sfm_features.errors import InputError, ReconstructionError
from sfm_features.extract import ExtractOptions
from sfm_features.images import decode
from sfm_features.nets.autolink import KeypointNet, save_keypoint_net
from sfm_features.nets.weights import Card
from sfm_features.objects import ObjectDetector
from sfm_features.scenes import read_truth
from sfm_features.store import FeatureStore
from sfm_features.types import Model, RegisteredImage, RunOptions

TINY = Scale(
    images=12,
    tested=8,
    render_px=48,
    size_px=32,
    width=4,
    batch=3,
    steps=2,
    keypoints=4,
)


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> tuple[ObjectDetector, Path]:
    """A detector that was never trained but looks at the image."""
    import torch

    torch.manual_seed(3)
    net = KeypointNet(6, 4, 32).eval()
    with torch.no_grad():
        net.head.weight.mul_(20)
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    recipe = {"keypoints": 6, "width": 4, "size_px": 32}
    save_keypoint_net(net, path, Card("autolink", recipe=recipe))
    return ObjectDetector(path, "cpu"), path


def relate(detector: ObjectDetector, path: Path, joints: int, constant: float = 0.0):
    """Write an image and return joints that are a linear function of its keypoints."""
    seen = detector.detect(decode(path).rgb)
    share = ((seen.xy + 0.5) / seen.image_size).ravel()
    linear = np.random.default_rng(8).normal(size=(share.size, 2 * joints))
    return (share @ linear / share.size + constant).reshape(joints, 2)


def write_mat(path: Path, name: str, values: np.ndarray, packed: bool) -> None:
    """Write a matrix as MATLAB does."""

    def element(kind: int, content: bytes) -> bytes:
        if len(content) <= 4:
            return struct.pack("<HH", kind, len(content)) + content.ljust(4, b"\0")
        return (
            struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)
        )

    body = element(6, struct.pack("<II", 6, 0))
    body += element(5, struct.pack("<ii", *values.shape))
    body += element(1, name.encode())
    body += element(9, values.astype("<f8").tobytes(order="F"))
    matrix = struct.pack("<II", 14, len(body)) + body
    if packed:
        small = zlib.compress(matrix)
        matrix = struct.pack("<II", 15, len(small)) + small
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"MATLAB 5.0".ljust(124) + b"\0\1IM" + matrix)


def make_human36m(root: Path, detector: ObjectDetector) -> None:
    for subject, count in ((1, 16), (8, 14), (11, 24)):
        for i in range(count):
            action = ("Directions", "Walking 1", "WalkDog")[i % 3]
            place = f"{action}/{subject}_{i}"
            image = root / f"S{subject}/WithBackground/{place}.jpg"
            write_image(image, make_texture((64, 64), 100 * subject + i))
            mask = np.full((64, 64, 3), 255, np.uint8)
            mask[:, :10] = 0
            write_image(root / f"S{subject}/BackgroudMask/{place}.png", mask)
            joints = relate(detector, image, 32)
            mat = root / f"S{subject}/Landmarks/{place}.mat"
            write_mat(mat, "keypoints_2d", joints, packed=i % 2 == 0)
    for subject in (5, 6, 7, 9):
        (root / f"S{subject}/WithBackground").mkdir(parents=True)


def make_taichi(root: Path, detector: ObjectDetector) -> None:
    for split, count in (("train", 30), ("test", 12)):
        names, joints = [], []
        for i in range(count):
            names.append(f"{i:03d}.png")
            image = root / f"eval_images/taichi-256/{split}/{names[-1]}"
            write_image(image, make_texture((64, 64), i + count))
            pixels = 60 + 50 * relate(detector, image, 18)
            pixels[i % 18] = -1
            joints.append(pixels.tolist())
        columns = {"file_name": names, "value": joints}
        content = {k: dict(enumerate(v)) for k, v in columns.items()}
        path = root / f"landmark/taichi_{split}_gt.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))


def make_deepfashion(root: Path, detector: ObjectDetector) -> None:
    for split, count in (("train", 30), ("test", 12)):
        lines, joints = [",filename"], []
        for i in range(count):
            image = root / f"img/{split}/{i}.jpg"
            write_image(image, make_texture((64, 64), i + count))
            lines.append(f"{i},{split}/{i}.jpg")
            joints.append({"keypoints": (255 * relate(detector, image, 16)).tolist()})
        (root / f"data_{split}.csv").write_text("\n".join(lines) + "\n")
        (root / f"data_{split}.json").write_text(json.dumps(joints))


@pytest.mark.parametrize(
    ("name", "make", "most", "least"),
    [
        ("human36m", make_human36m, 2e-3, 0.0),
        ("taichi", make_taichi, 0.1, 0.0),
        ("deepfashion", make_deepfashion, 100.0, 100.0),
    ],
)
def test_data_sets_whose_joints_follow_from_keypoints(
    name: str,
    make: Callable[[Path, ObjectDetector], None],
    most: float,
    least: float,
    detector: tuple[ObjectDetector, Path],
    tmp_path: Path,
) -> None:
    net, weights = detector
    make(tmp_path, net)
    ours, published = measure_set(name, tmp_path, weights, "cpu").rows
    figure = SETS[name].figure
    assert least <= float(str(ours[figure])) <= most
    assert published[figure] == SETS[name].published
    count = {"human36m": "21 + 16", "taichi": "30 + 12", "deepfashion": "30 + 12"}
    assert ours["images"] == count[name]


def test_the_person_is_cut_out(
    detector: tuple[ObjectDetector, Path], tmp_path: Path
) -> None:
    net, weights = detector
    make_human36m(tmp_path, net)
    # Joints followed from whole images: cut out, they do so no more.
    whole, cut = (
        float(str(measure_set(name, tmp_path, weights, "cpu").rows[0][figure]))
        for name in ("human36m", "human36m-cut-out")
        for figure in ("mean L2 error (%)",)
    )
    assert cut > 10 * whole


def test_the_list_of_a_data_set_is_what_training_reads(
    detector: tuple[ObjectDetector, Path], tmp_path: Path
) -> None:
    make_deepfashion(tmp_path / "set", detector[0])
    names = tmp_path / "names.txt"
    arguments = ["deepfashion", str(tmp_path / "set"), "--list", str(names)]
    arguments += ["--output", str(tmp_path / "out")]
    assert object_datasets.main(arguments) == 0
    listed = names.read_text().splitlines()
    assert len(listed) == 30 and all((tmp_path / "set" / n).exists() for n in listed)
    assert object_datasets.main(arguments[:2]) == 2


def test_broken_data_sets_are_named(
    detector: tuple[ObjectDetector, Path], tmp_path: Path
) -> None:
    for name, words in (
        ("human36m", "give the root of Human3.6M"),
        ("taichi", "pandas.read_pickle"),
        ("deepfashion", "give the root of DeepFashion"),
    ):
        with pytest.raises(InputError, match=words):
            SETS[name].read(tmp_path, "train")
    make_deepfashion(tmp_path, detector[0])
    short = json.loads((tmp_path / "data_train.json").read_text())[1:]
    (tmp_path / "data_train.json").write_text(json.dumps(short))
    with pytest.raises(InputError, match="30 images and joints of 29"):
        SETS["deepfashion"].read(tmp_path, "train")


@pytest.mark.parametrize("shape", [(32, 2), (2, 3), (1, 1)])
def test_matrices_of_matlab(tmp_path: Path, shape: tuple[int, int]) -> None:
    values = np.random.default_rng(0).normal(size=shape)
    for packed in (True, False):
        write_mat(tmp_path / "a.mat", "x", values, packed)
        np.testing.assert_array_equal(read_matrix(tmp_path / "a.mat", "x"), values)
    with pytest.raises(InputError, match="no matrix 'y'"):
        read_matrix(tmp_path / "a.mat", "y")
    whole = (tmp_path / "a.mat").read_bytes()
    for content in (b"", whole[:140], b"nonsense" * 40):
        (tmp_path / "b.mat").write_bytes(content)
        with pytest.raises(InputError, match="b.mat"):
            read_matrix(tmp_path / "b.mat", "x")


def test_variants_are_trained_measured_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variants: Sequence[tuple[str, ...]] = (("up2",), ("up1", "logits"))
    found = measure_objects(tmp_path, TINY, (0, 1), variants)["mannequin"]
    names = [row["variant"] for row in found.rows[1:]]
    assert names == [RGB, DEPTH, "Distill-DKP at up2", "Distill-DKP at up1+logits"]
    assert all("±" in str(row["mean L2 error (%)"]) for row in found.rows[1:])
    assert found.checks[0].limit == LEAST_GAIN
    assert (tmp_path / "skeletons.jpg").stat().st_size > 1000
    students = [tmp_path / f"seed0/{n}/log.jsonl" for n in ("rgb", "up2")]
    steps = [json.loads(p.read_text().splitlines()[-1])["step"] for p in students]
    assert steps == [TINY.steps, TINY.steps]  # the teacher's steps are its own

    def refuse(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("pipelines.benchmarks.objects.train_object", refuse)
    again = measure_objects(tmp_path, TINY, (0, 1), variants)["mannequin"]
    assert again.rows == found.rows


def test_depth_alone_teaches_where_the_body_is(tmp_path: Path) -> None:
    """A few seconds of training: better than the mean pose, and most are on the body.

    The figure covers about a tenth of the image, and no keypoint was ever shown.
    """
    scale = Scale(
        images=200, tested=60, render_px=64, size_px=32, width=8, batch=8, steps=250,
        thickness=0.01, levels=1, keypoints=8,
    )  # fmt: skip
    found = measure_objects(tmp_path, scale, (0,), (), only=(DEPTH,))["mannequin"]
    mean_pose, taught = (float(str(r["mean L2 error (%)"])) for r in found.rows)
    assert taught < 0.75 * mean_pose
    assert float(str(found.rows[1]["on background (%)"])) < 60


def test_a_turn_is_reconstructed_with_masks_and_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turntable, "VIEWS", 3)
    found = turntable.measure_turntable(tmp_path, ["sift"], mappings=2)
    bare, turning, masked = found.rows
    assert [row["masks"] for row in found.rows] == ["-", "-", "true ones"]
    still = [row["matches that stand still"] for row in found.rows]
    assert still == ["kept", "left out", "kept"]
    assert turning["keypoints on the thing"] == bare["keypoints on the thing"]
    assert [check.what for check in found.checks] == [
        "sift: views missing at worst",
        "sift: median rotation error, deg",
    ]
    assert masked["keypoints on the thing"] == "100%"
    assert float(str(bare["keypoints on the thing"]).rstrip("%")) < 40
    # A third of a turn apart, views share nothing of the thing: that is no model.
    assert (masked["registered"], masked["right within 5 deg"]) == ("0 0", "0 0")
    jpeg = np.frombuffer(turntable.draw_turntable(tmp_path, ["sift"] * 2), np.uint8)
    picture = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
    assert picture is not None and picture.shape == (360, 960, 3)
    blue, green, red = picture.astype(np.int64).transpose(2, 0, 1)
    off, on = (red > blue + 120).sum(), (green > blue + 90).sum()
    assert off > on > 0  # as most keypoints are in the room


def test_a_turn_is_judged_by_the_worst_of_its_mappings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chance must not pick the run that is shown."""
    seen = {5: 4, 6: 3, 7: 4}

    def reconstruct(images: Path, output: Path, *_: object, run: RunOptions) -> None:
        truth = read_truth(images.parent)
        names = sorted(truth.poses)[: seen[run.seed]]
        registered = {
            name: RegisteredImage(
                *(name, truth.cameras[name], truth.poses[name]),
                *(np.zeros((0, 2), np.float32), np.zeros(0, np.int64)),
            )
            for name in names
        }
        output.mkdir()
        (output / "matches.h5").touch()
        with FeatureStore.append(output / "features.h5", {}) as store:
            for name in names:
                store.write(name, make_features(9))
        xyz, numbers = np.zeros((0, 3)), np.zeros(0, np.int64)
        model = Model(registered, xyz, xyz.astype(np.uint8), xyz[:, 0], numbers)
        write_model(model, output / "sparse/0")

    monkeypatch.setattr(turntable, "VIEWS", 4)
    monkeypatch.setattr(turntable, "LEAST_VIEWS", 3)
    monkeypatch.setattr(turntable, "reconstruct", reconstruct)
    found = turntable.measure_turntable(tmp_path, ["sift"], seed=5, mappings=3)
    assert {row["right within 5 deg"] for row in found.rows} == {"4 3 4"}
    missing, error = found.checks
    assert (missing.value, missing.limit) == (1, 1)
    assert error.value == pytest.approx(0, abs=1e-4)


def test_keypoints_on_real_things_are_told_from_those_behind(
    tmp_path: Path, capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Truth says how many: of one kind half are on the thing, of the other few are."""
    share = {"evo": 0.5, "evo-object": 0.9}

    def reconstruct(
        images: Path, output: Path, _: object, extraction: ExtractOptions, **__: object
    ) -> None:
        output.mkdir()
        names = (output.parent / "images.txt").read_text().split()
        rng = np.random.default_rng(0)
        with FeatureStore.append(output / "features.h5", {}) as store:
            for name in names:
                room, thing = capture.find_room(name), capture.pictures[name].tags == 1
                count = round(200 * share[extraction.extractor])
                xy = [choose(thing, count, rng), choose(room, 200 - count, rng)]
                features = make_features(200)
                store.write(name, replace(
                    features, keypoints=np.concatenate(xy), image_size=SIZE
                ))  # fmt: skip
        if extraction.extractor != "evo":
            raise ReconstructionError("nothing came out")
        kept = {name: capture.model.images[name] for name in names}
        write_model(replace(capture.model, images=kept), output / "sparse/0")

    monkeypatch.setattr(photos_benchmark, "reconstruct", reconstruct)
    found = photos_benchmark.measure_object_photos(
        [capture.write_photos(tmp_path / "thing")], tmp_path / "out",
        ("evo", "evo-object"), limit=9, picture=tmp_path / "shown.jpg",
    )  # fmt: skip
    assert decode(tmp_path / "shown.jpg").size == (960, 360)
    plain, trained = found.rows
    assert (plain["registered"], trained["registered"]) == ("9 of 9", "0 of 9")
    for row, of_thing in ((plain, 0.5), (trained, 0.9)):
        on_object, behind, elsewhere = (
            float(str(row[key]).rstrip("%")) / 100
            for key in ("on the object", "on the background", "elsewhere")
        )
        assert on_object + behind + elsewhere == pytest.approx(1, abs=0.002)
        assert 0.85 * of_thing < on_object < of_thing + 0.05
        assert 0.5 * (1 - of_thing) < behind < 1 - of_thing + 0.1 * of_thing
    with pytest.raises(InputError, match="two folders have one name"):
        photos_benchmark.measure_object_photos([tmp_path, tmp_path], tmp_path / "out")


def choose(mask: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Choose pixels (N, 2) of a mask."""
    rows, columns = np.nonzero(mask)
    chosen = rng.choice(len(rows), count, replace=False)
    return np.stack([columns[chosen], rows[chosen]], 1).astype(np.float32)


def test_every_table_has_its_section() -> None:
    text = (results.ROOT / "docs" / "objects.md").read_text()
    for name in (
        "mannequin",
        "mannequin-plain",
        "turntable",
        "object-photos",
        "turntable-pile",
        *(f"objects-{name}" for name in SETS),
    ):
        assert text.count(f"<!-- begin {name} -->\n") == 1
        assert text.count(f"\n<!-- end {name} -->") == 1


def test_taps_can_be_joined_and_misspelt_ones_are_refused() -> None:
    args = object_keypoints.parse_args(["--taps", "up1+up2", "logits", "--steps", "9"])
    assert (args.taps, args.steps) == (["up1+up2", "logits"], 9)
    with pytest.raises(SystemExit):
        object_keypoints.parse_args(["--taps", "up3"])
    assert replace(Scale(), steps=9).make_options().steps == 9
