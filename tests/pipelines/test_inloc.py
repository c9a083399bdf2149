"""InLoc's pipeline on a miniature; MATLAB's files; points between pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from miniature import CPU, assert_close, read_rows, read_submission
from miniature_inloc import make_mat, name_cutout, write_inloc
from PIL import Image
from small_town import SIZE, SmallTown

from pipelines import inloc
from pipelines.protocols.matlab import read_matrix
from pipelines.protocols.scans import interpolate, make_camera
from sfm_features.errors import InputError
from sfm_features.types import Pose

QUERIES = {"IMG_0731.JPG": 2, "IMG_0732.JPG": 4}
PORTRAIT, PORTRAIT_STATION = "IMG_0733.JPG", 4
TURN = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
"""What a quarter turn against the clock does to a camera's axes."""


@pytest.fixture(scope="module")
def dataset(small_town: SmallTown, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("inloc")
    day = small_town.day
    scans = {("DUC1", i): day[i] for i in (1, 3, 5)} | {("DUC2", 12): day[12]}
    write_inloc(root, scans, {name: day[i] for name, i in QUERIES.items()})
    # Stored lying on its side, and marked so, as a telephone does with portraits.
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = Image.fromarray(np.rot90(day[PORTRAIT_STATION].rgb).copy())
    lying.save(root / "query/iphone7" / PORTRAIT, "JPEG", quality=95, exif=exif)
    return root


def test_queries_are_localized(
    dataset: Path,
    small_town: SmallTown,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Points come from the scans; the telephone's camera is the town's here."""
    assert make_camera((3024, 4032)).params == (3136, 1512, 2016)
    focal = small_town.day[0].camera.params[0]
    monkeypatch.setattr("pipelines.protocols.scans._FOCAL_SHARE", focal / SIZE[0])
    given = [str(dataset), "--output", str(tmp_path), *CPU]
    given += ["--max-error-px", "8"]  # 48 px are for 4032 px
    assert inloc.main(given) == 0
    poses = read_submission(tmp_path / "InLoc_eval.txt")
    assert set(poses) == {*QUERIES, PORTRAIT}
    for name, station in QUERIES.items():
        true = small_town.day[station].cam_from_world
        assert_close(poses[name], true, metres=0.1, degrees=0.5)
    # In the frame of the stored file, where keypoints and camera are, too.
    upright = small_town.day[PORTRAIT_STATION].cam_from_world
    lying = Pose(TURN @ upright.rotation, TURN @ upright.translation)
    assert_close(poses[PORTRAIT], lying, metres=0.1, degrees=0.5)
    ours, *published = read_rows(tmp_path, "inloc")
    assert ours["with a pose"] == 3 and ours["median inliers"] > 50 and published
    ledger = (tmp_path / "poses.jsonl").read_text()
    assert inloc.main(given) == 0  # all is there already
    assert (tmp_path / "poses.jsonl").read_text() == ledger
    listed = tmp_path / "pairs.txt"
    wrong = name_cutout("DUC2", 12)
    listed.write_text("".join(f"query/iphone7/{name} {wrong}\n" for name in QUERIES))
    given[2] = str(tmp_path / "other")
    assert inloc.main([*given, "--pairs", str(listed)]) == 0
    capsys.readouterr()
    (dataset / f"{wrong}.mat").write_bytes(b"")
    given[2] = str(tmp_path / "third")
    assert inloc.main([*given, "--pairs", str(listed), "--least-matches", "1"]) == 2
    assert "DUC_cutout_012_30_0.jpg.mat: cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("compressed", [False, True])
def test_matlab_files_come_back(tmp_path: Path, compressed: bool) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "RGBcut": rng.integers(0, 255, (3, 5, 3)).astype(np.uint8),
        "XYZcut": rng.normal(size=(3, 5, 3)),
        "x": np.array([[1.5, np.nan]], np.float32),
    }
    path = tmp_path / "a.mat"
    path.write_bytes(make_mat(arrays, compressed))
    for name, array in arrays.items():
        np.testing.assert_array_equal(read_matrix(path, name), array)
    with pytest.raises(InputError, match="has no array 'other'"):
        read_matrix(path, "other")
    whole = path.read_bytes()
    for content in (b"", whole[:100], whole[: len(whole) // 2], b"x" * 500):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"a\.mat: cannot be read"):
            read_matrix(path, "x")


def test_a_file_that_matlab_itself_wrote_is_read(tmp_path: Path) -> None:
    """Byte by byte as MATLAB's documentation describes `x = [1 2; 3 4]`."""
    header = b"MATLAB 5.0 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\1IM"
    body = bytes.fromhex(
        "06000000080000000600000000000000"  # flags: double
        "05000000080000000200000002000000"  # 2 x 2
        "0100010078000000"  # its name, x, in the small form
        "02000400" "01030204"  # numbers as bytes, columns first, in the small form
    )  # fmt: skip
    path = tmp_path / "x.mat"
    path.write_bytes(header + b"\x0e\0\0\0" + bytes([len(body), 0, 0, 0]) + body)
    np.testing.assert_array_equal(read_matrix(path, "x"), [[1, 2], [3, 4]])


def test_points_between_pixels_avoid_holes() -> None:
    """A plane is exact between pixels; beside a hole the nearest pixel stands in."""
    y, x = np.mgrid[0:6, 0:8].astype(float)
    plane = np.stack([2 * x - y, 3 * y + 1, np.ones_like(x)], axis=-1)
    plane[2, 3] = np.nan
    asked = [[5.25, 4.5], [2.2, 2.0], [2.6, 2.0], [7, 5], [0, 0], [4.0, 2.0]]
    values, known = interpolate(plane, np.array(asked, np.float32))
    assert known.tolist() == [True, True, False, True, True, True]
    np.testing.assert_allclose(values[0], [6, 14.5, 1], atol=1e-5)
    np.testing.assert_allclose(values[1], plane[2, 2])  # the nearest
    np.testing.assert_allclose(
        values[5], plane[2, 4]
    )  # a hole beside it weighs nothing
