"""Models for other programs, beside the truth that they were made from."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from samples import make_texture, note_calls, write_image
from small_models import SIMPLE, make_model

from sfm_features import colmap, drafts
from sfm_features import export as exporting
from sfm_features.cli import main
from sfm_features.errors import (
    ImageError,
    InputError,
    NameCollision,
    OptionError,
    OutputError,
)
from sfm_features.export import ExportOptions, export
from sfm_features.geometry import project
from sfm_features.images import decode, encode
from sfm_features.types import Camera, Model

NAMES = ["a.jpg", "b.jpg", "c d.jpg", "e.jpg"]
OPENCV = Camera(
    "OPENCV", 160, 120, (150.0, 152.0, 81.0, 59.0, 0.08, -0.01, 0.002, -0.001)
)
FULL = Camera("FULL_OPENCV", 160, 120, (150.0, 150.0, 80.0, 60.0, *[0.01] * 8))


def _write(
    folder: Path, model: Model, size: tuple[int, int] = (160, 120)
) -> tuple[Path, Path]:
    """Write an output of ours as far as it matters here; return it and the photos."""
    colmap.write_model(model, folder / "out/sparse/0")
    for i, name in enumerate(model.images):
        path = folder / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        encode(make_texture(size, seed=i), path)
    return folder / "out", folder / "photos"


def _read_ply(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a PLY file as its head says, which is not as we write it."""
    head, _, body = path.read_bytes().partition(b"end_header\n")
    kinds = {"double": "<f8", "uchar": "u1"}
    lines = [line.split() for line in head.decode().splitlines()]
    fields = [(line[2], kinds[line[1]]) for line in lines if line[0] == "property"]
    (count,) = [int(line[2]) for line in lines if line[0] == "element"]
    assert lines[0] == ["ply"] and lines[1] == ["format", "binary_little_endian", "1.0"]
    rows = np.frombuffer(body, np.dtype(fields))
    assert len(rows) == count
    xyz, colour = (
        np.stack([rows[n] for n in names], axis=1)
        for names in ("xyz", ("red", "green", "blue"))
    )
    return xyz, colour


def test_points_are_a_ply_file(tmp_path: Path) -> None:
    model = make_model(NAMES)
    model = replace(model, points=model.points + 5e6)  # as of a national grid
    out, _ = _write(tmp_path, model)
    output = tmp_path / "new" / "points.ply"
    made = export(out, output, ExportOptions("ply"))
    assert made.to_text() == f"{output}: 4 images, 40 points"
    xyz, colours = _read_ply(output)
    assert np.array_equal(xyz, model.points)
    assert np.array_equal(colours, model.colours)
    export(out, output, ExportOptions("ply"))  # over an earlier one
    assert [path.name for path in output.parent.iterdir()] == ["points.ply"]
    output.write_text("my own")
    with pytest.raises(OutputError, match="not an earlier export"):
        export(out, output, ExportOptions("ply"))
    assert output.read_text() == "my own"
    with pytest.raises(OutputError, match=r"is a folder.*points\.ply"):
        export(out, tmp_path / "new", ExportOptions("ply"))


def test_text_is_colmaps(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out, _ = _write(tmp_path, make_model(NAMES))
    export(out, tmp_path / "text", ExportOptions("text"))
    assert "1 images have spaces in their names, 'c d.jpg' first" in caplog.text
    again = colmap.read_model(tmp_path / "text")
    assert {*again.images} == {*NAMES, "c"} - {"c d.jpg"} and len(again.points) == 40
    export(tmp_path / "text", tmp_path / "p.ply", ExportOptions("ply"))  # it is a model


def _project_opengl(
    content: dict[str, float], matrix: np.ndarray, points: np.ndarray
) -> np.ndarray:
    """Project points as OpenCV does, with what transforms.json says."""
    cam_from_world = np.linalg.inv(matrix @ np.diag([1, -1, -1, 1]))
    k = [[content["fl_x"], 0, content["cx"]], [0, content["fl_y"], content["cy"]]]
    xy, _ = cv2.projectPoints(
        points,
        cv2.Rodrigues(cam_from_world[:3, :3])[0],
        cam_from_world[:3, 3],
        np.array([*k, [0, 0, 1]]),
        np.array([content[key] for key in ("k1", "k2", "p1", "p2")]),
    )
    return np.asarray(xy[:, 0] - 0.5)  # to our pixels


@pytest.mark.parametrize("several", [False, True])
def test_nerf_sees_each_point_where_the_model_has_it(
    tmp_path: Path, several: bool
) -> None:
    model = make_model(NAMES, {"b.jpg": OPENCV} if several else {})
    out, photos = _write(tmp_path, model)
    output = tmp_path / "deep" / "nerf"
    export(out, output, ExportOptions("nerf", photos))
    content = json.loads((output / "transforms.json").read_text())
    assert [Path(frame["file_path"]).name for frame in content["frames"]] == NAMES
    assert ("fl_x" in content) != several
    for frame in content["frames"]:
        assert ("fl_x" in frame) == several
        path = output / frame["file_path"]
        assert path.samefile(photos / path.name)
        known = frame if several else content
        assert (known["w"], known["h"]) == (160, 120)
        seen = _project_opengl(known, np.array(frame["transform_matrix"]), model.points)
        assert np.abs(seen - model.images[path.name].keypoints).max() < 1e-3
    xyz, _ = _read_ply(output / content["ply_file_path"])
    assert np.array_equal(xyz, model.points)
    # instant-ngp's cube: the things that are seen are in its middle.
    placed = model.points * content["scale"] + content["offset"]
    assert np.abs(np.median(placed, axis=0) - 0.5).max() < 1e-9


def test_nerf_refuses_what_it_cannot_say(tmp_path: Path) -> None:
    model = make_model(NAMES, {"b.jpg": FULL})
    out, photos = _write(tmp_path, model)
    with pytest.raises(InputError, match="FULL_OPENCV.*--format undistorted"):
        export(out, tmp_path / "nerf", ExportOptions("nerf", photos))
    image = replace(
        make_model(NAMES).images["a.jpg"],
        cam_from_world=replace(
            model.images["a.jpg"].cam_from_world, translation=np.full(3, np.nan)
        ),
    )
    model = replace(model, images={"a.jpg": image})
    with pytest.raises(InputError, match=r"a\.jpg: its pose"):
        exporting.make_transforms(model, {"a.jpg": "a.jpg"}, None)
    assert not (tmp_path / "nerf").exists()


def test_flat_images_are_what_the_flat_cameras_see(tmp_path: Path) -> None:
    """A photograph of dots shows them, after undistortion, where PINHOLE has them."""
    model = make_model(NAMES, {"b.jpg": OPENCV, "e.jpg": FULL}, points=12)
    out, photos = _write(tmp_path, model)
    for name, image in model.images.items():
        if name != "e.jpg":
            picture = np.zeros((120, 160, 3), np.uint8)
            grid = np.mgrid[:120, :160][::-1]
            for x, y in image.keypoints:
                near = (grid[0] - x) ** 2 + (grid[1] - y) ** 2
                dot = (255 * np.exp(-near / 2)).astype(np.uint8)
                picture = np.maximum(picture, dot[..., None])
            write_image(photos / name, picture)
    export(out, tmp_path / "flat", ExportOptions("undistorted", photos))
    flat = colmap.read_model(tmp_path / "flat/sparse/0")
    assert np.array_equal(flat.points, model.points)
    for name, image in flat.images.items():
        assert image.camera.model == "PINHOLE"
        picture = decode(tmp_path / "flat/images" / name)
        assert picture.size == (image.camera.width, image.camera.height)
        before = model.images[name].cam_from_world
        assert np.allclose(image.cam_from_world.translation, before.translation)
        if name == "e.jpg":
            continue
        rotated = model.points @ before.rotation.T + before.translation
        for x, y in project(image.camera, rotated):
            if 3 < x < image.camera.width - 4 and 3 < y < image.camera.height - 4:
                corner = round(x) - 2, round(y) - 2
                patch = picture.rgb[corner[1] :, corner[0] :, 0][:5, :5]
                assert patch[2, 2] > 100 and patch.max() > 150


def test_flat_images_in_the_layout_of_gaussian_splatting(tmp_path: Path) -> None:
    plain = Camera("SIMPLE_PINHOLE", 160, 120, (150.0, 80.0, 60.0))
    names = ["left/a.jpg", "right/a.jpg", "b.png", "c.pgm", "d.JPG"]
    out, photos = _write(tmp_path, make_model(names, dict.fromkeys(names[:2], plain)))
    export(out, tmp_path / "flat", ExportOptions("undistorted", photos))
    found = {p.name for p in (tmp_path / "flat/images").iterdir()}
    assert found == {"left-a.jpg", "right-a.jpg", "b.png", "c.pgm", "d.JPG"}
    assert {p.name for p in (tmp_path / "flat").iterdir()} == {
        *("images", "sparse", drafts.MARK)
    }
    # What was flat before is not compressed once more.
    made, before = tmp_path / "flat/images/left-a.jpg", photos / "left/a.jpg"
    assert made.read_bytes() == before.read_bytes()
    # As the loader of 3D Gaussian Splatting reads cameras.bin: all are PINHOLE (1).
    content = (tmp_path / "flat/sparse/0/cameras.bin").read_bytes()
    (count,) = struct.unpack_from("<Q", content)
    kinds, at = [], 8
    for _ in range(count):
        kinds.append(struct.unpack_from("<i", content, at + 4)[0])
        at += 24 + 8 * (4 if kinds[-1] == 1 else 3)
    assert {*kinds} <= {0, 1} and at == len(content)
    out, photos = _write(tmp_path / "2", make_model(["a/b.jpg", "a-b.jpg"]))
    with pytest.raises(NameCollision, match=r"'a/b\.jpg'|'a-b\.jpg'"):
        export(out, tmp_path / "n", ExportOptions("undistorted", photos))
    assert not (tmp_path / "n").exists()


def test_photographs_that_do_not_fit_are_named(tmp_path: Path) -> None:
    out, photos = _write(tmp_path, make_model(NAMES))
    output = tmp_path / "flat"
    write_image(photos / "b.jpg", make_texture((120, 160)))
    with pytest.raises(ImageError, match=r"b\.jpg: is 120 x 160 px.*160 x 120"):
        export(out, output, ExportOptions("undistorted", photos))
    (photos / "b.jpg").write_bytes((photos / "a.jpg").read_bytes()[:300])
    with pytest.raises(ImageError, match=r"b\.jpg: is cut off"):
        export(out, output, ExportOptions("undistorted", photos))
    for name in ("b.jpg", "e.jpg"):
        (photos / name).unlink()
    for kind in ("undistorted", "nerf"):
        wanted = r"lacks 2 of 4 photographs.*'b\.jpg', 'e\.jpg'"
        with pytest.raises(InputError, match=wanted):
            export(out, output, ExportOptions(kind, photos))  # type: ignore[arg-type]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "photos"]


def test_photographs_are_where_the_map_says(tmp_path: Path) -> None:
    out, photos = _write(tmp_path, make_model(NAMES))
    with pytest.raises(OptionError, match="--images"):
        export(out, tmp_path / "nerf", ExportOptions("nerf"))
    more = tmp_path / "more"
    more.mkdir()
    (photos / "a.jpg").rename(more / "a.jpg")
    folders = {"image_folders": [str(more), str(photos)]}
    (out / "summary.json").write_text(json.dumps(folders))
    export(out, tmp_path / "nerf", ExportOptions("nerf"))
    content = json.loads((tmp_path / "nerf/transforms.json").read_text())
    assert content["frames"][0]["file_path"] == "../more/a.jpg"


def test_an_input_is_never_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, photos = _write(tmp_path, make_model(NAMES))
    for output in (out, out / "sparse/0/new", photos / "new", tmp_path):
        with pytest.raises(InputError, match="choose another --output"):
            export(out, output, ExportOptions("nerf", photos))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "work.txt").touch()
    calls = note_calls(monkeypatch, exporting, "decode")
    for kind in ("text", "nerf", "undistorted"):
        with pytest.raises(OutputError, match=r"work\.txt"):
            export(out, tmp_path / "mine", ExportOptions(kind, photos))  # type: ignore[arg-type]
    assert not calls


def test_models_without_anything_to_show(tmp_path: Path) -> None:
    posed = colmap.make_posed_model(
        {"a.jpg": SIMPLE},
        {"a.jpg": make_model(["a.jpg"]).images["a.jpg"].cam_from_world},
    )
    out, photos = _write(tmp_path, posed)
    with pytest.raises(InputError, match="no points"):
        export(out, tmp_path / "p.ply", ExportOptions("ply"))
    export(out, tmp_path / "nerf", ExportOptions("nerf", photos))
    assert "ply_file_path" not in (tmp_path / "nerf/transforms.json").read_text()
    export(out, tmp_path / "flat", ExportOptions("undistorted", photos))
    colmap.write_model(colmap.make_posed_model({}, {}), tmp_path / "none")
    with pytest.raises(InputError, match="no images"):
        export(tmp_path / "none", tmp_path / "n", ExportOptions("nerf", photos))


def test_export_from_the_shell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, photos = _write(tmp_path, make_model(NAMES))
    output = str(tmp_path / "p.ply")
    assert main(["export", str(out), "--format", "ply", "--output", output]) == 0
    assert f"{output}: 4 images, 40 points" in capsys.readouterr().err
    given = ["export", str(out), "--format", "undistorted", "--images", str(photos)]
    assert main([*given, "--output", str(tmp_path / "flat")]) == 0
    assert main([*given, "--output", str(tmp_path / "flat")]) == 0
    assert main([*given, "--output", str(photos), "--model", "3"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith("error: ") and "no model 3" in said[-1]
    with pytest.raises(InputError, match="no such folder"):
        ExportOptions("nerf", tmp_path / "absent")
