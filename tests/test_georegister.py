"""Models in metres, beside positions that are known."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from exif_photos import write_photo
from samples import note_calls
from small_models import make_model

from sfm_features import colmap
from sfm_features import georegister as georegistering
from sfm_features.cli import main
from sfm_features.errors import InputError, OptionError, OutputError
from sfm_features.export import ExportOptions, export
from sfm_features.geometry import Similarity, rotation_from_quaternion
from sfm_features.georegister import GeoregisterOptions, georegister
from sfm_features.types import F64, Model

NAMES = [f"{i:02}.jpg" for i in range(9)]
TRUTH = Similarity(
    25.0, rotation_from_quaternion([0.8, 0.2, -0.3, 0.4]), np.array([12.0, -7.0, 3.0])
)
ZURICH = (47.0, 8.5, 430.0)


def _centres(model: Model) -> dict[str, F64]:
    return {name: image.cam_from_world.centre for name, image in model.images.items()}


def _truth(model: Model) -> dict[str, F64]:
    """Tell where the cameras are in metres."""
    return {n: TRUTH.apply(c[None])[0] for n, c in _centres(model).items()}


def _to_degrees(metres: F64) -> tuple[float, float, float]:
    """Convert metres east, north and up of ZURICH by the radii of the WGS 84."""
    a, e2 = 6378137.0, 6.69437999014e-3
    sine = np.sin(np.radians(ZURICH[0]))
    across = a / np.sqrt(1 - e2 * sine**2)
    along = across * (1 - e2) / (1 - e2 * sine**2)
    latitude = ZURICH[0] + np.degrees(metres[1] / (along + ZURICH[2]))
    radius = (across + ZURICH[2]) * np.cos(np.radians(ZURICH[0]))
    longitude = ZURICH[1] + np.degrees(metres[0] / radius)
    return float(latitude), float(longitude), float(ZURICH[2] + metres[2])


def _write_photos(folder: Path, positions: Mapping[str, F64]) -> Path:
    for name, metres in positions.items():
        write_photo(folder / name, (160, 120), "Z1", 35, _to_degrees(metres))
    return folder


def _write_map(folder: Path, model: Model) -> Path:
    colmap.write_model(model, folder / "sparse/0")
    return folder


def _write_reference(
    path: Path, positions: Mapping[str, Sequence[float] | F64]
) -> Path:
    lines = [f"{n} {' '.join(map(str, xyz))}" for n, xyz in positions.items()]
    path.write_text("# name x y z\n" + "\n".join(lines) + "\n")
    return path


def test_gps_puts_a_model_into_metres_east_north_and_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_model(NAMES)
    out, truth = _write_map(tmp_path / "out", model), _truth(model)
    moved = {**truth, "03.jpg": truth["03.jpg"] + [800, 0, 0]}  # a bad fix
    photos = _write_photos(tmp_path / "photos", moved)
    write_photo(photos / "05.jpg", (160, 120), "Z1", 35)  # without
    output = tmp_path / "metres"
    given = ["georegister", str(out), str(photos), "--output", str(output)]
    assert main(given) == 0
    said = capsys.readouterr().err
    assert "7 positions used, 1 rejected; median residual" in said
    assert "1 unit of the model is 25.0" in said or "is 24.9" in said
    assert "rejected: 03.jpg (800 m)" in said and "several metres" in said

    content = json.loads((output / "georegistration.json").read_text())
    assert content["scale"] == pytest.approx(25, rel=2e-3)
    assert content["rejected"] == ["03.jpg"] and content["used"] == 7
    assert content["residuals"].keys() == {*NAMES} - {"05.jpg"}
    assert content["residuals"]["03.jpg"] == pytest.approx(800, abs=1)
    assert content["median_residual"] < 0.2  # the millionth degree of the EXIF
    # Where the origin is, is where one of the photographs is.
    origin = [content["origin"][k] for k in ("latitude", "longitude", "altitude")]
    near = [n for n in truth if np.allclose(_to_degrees(truth[n]), origin, atol=2e-6)]
    assert len(near) == 1
    placed = colmap.read_model(output / "sparse/0")
    for name, centre in _centres(placed).items():
        assert np.abs(centre - (truth[name] - truth[near[0]])).max() < 0.3
    rotation, shift = np.array(content["rotation"]), content["translation"]
    again = content["scale"] * model.points @ rotation.T + shift
    assert np.allclose(again, placed.points)
    # Other commands take it, and it is made anew over itself.
    export(output, tmp_path / "p.ply", ExportOptions("ply"))
    assert main(given) == 0


def test_photographs_are_where_the_map_says(tmp_path: Path) -> None:
    model = make_model(NAMES)
    out, truth = _write_map(tmp_path / "out", model), _truth(model)
    with pytest.raises(InputError, match="does not tell where its photographs are"):
        georegister(out, None, tmp_path / "new")
    halves = [dict(list(truth.items())[start::2]) for start in (0, 1)]
    folders = [_write_photos(tmp_path / f"p{i}", half) for i, half in enumerate(halves)]
    known = {"image_folders": [str(folder) for folder in folders]}
    (out / "summary.json").write_text(json.dumps(known))
    found = georegister(out, None, tmp_path / "new")
    assert len(found.residuals) == len(NAMES) and not found.rejected
    assert not (tmp_path / "new/summary.json").exists()  # of no use without features
    with pytest.raises(InputError, match=r"stays as it is"):
        georegister(out, None, folders[1] / "new")


def test_a_reference_may_have_any_unit(tmp_path: Path) -> None:
    model = make_model(["a b.jpg", *NAMES])
    out = _write_map(tmp_path / "out", model)
    grid = {n: xyz + [2_600_000, 1_200_000, 0] for n, xyz in _truth(model).items()}
    grid["01.jpg"] = grid["01.jpg"] + 77
    reference = _write_reference(tmp_path / "ref.txt", {**grid, "other.jpg": [1, 2, 3]})
    output = tmp_path / "new"
    found = georegister(out, None, output, GeoregisterOptions(reference))
    assert found.rejected == ["01.jpg"] and found.origin is None
    assert found.median_residual < 1e-6 and found.move.scale == pytest.approx(25)
    assert "9 positions used, 1 rejected" in found.to_text()
    assert "units of ref.txt" in found.to_text() and "GPS" not in found.to_text()
    for name, centre in _centres(colmap.read_model(output / "sparse/0")).items():
        if name != "01.jpg":
            assert np.abs(centre - grid[name]).max() < 1e-5
    content = json.loads((output / "georegistration.json").read_text())
    assert content["origin"] is None and content["unit"] == "units of ref.txt"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("00.jpg 1 2", "NAME X Y Z"),
        ("00.jpg 1 2 x", "NAME X Y Z"),
        ("00.jpg 1 2 nan", "NAME X Y Z"),
        ("1 2 3", "NAME X Y Z"),
        ("01.jpg 1 2 3", "'01.jpg' twice"),
    ],
)
def test_a_reference_that_cannot_be_read_is_named(
    tmp_path: Path, line: str, said: str
) -> None:
    model = make_model(NAMES)
    out = _write_map(tmp_path / "out", model)
    reference = _write_reference(tmp_path / "r.txt", _truth(model))
    reference.write_text(reference.read_text() + line + "\n")
    with pytest.raises(InputError, match=said):
        georegister(out, None, tmp_path / "new", GeoregisterOptions(reference))
    assert not (tmp_path / "new").exists()


def test_one_distance_gives_the_scale(tmp_path: Path) -> None:
    model = make_model(NAMES)
    out = _write_map(tmp_path / "out", model)
    centres = _centres(model)
    apart = np.linalg.norm(centres["00.jpg"] - centres["06.jpg"])
    given = ["georegister", str(out), "--output", str(tmp_path / "new")]
    given += ["--distance", "00.jpg", "06.jpg", "12.5"]
    assert main(given) == 0
    placed = colmap.read_model(tmp_path / "new/sparse/0")
    for name, centre in _centres(placed).items():
        assert np.allclose(centre, centres[name] * 12.5 / apart)
    before, after = model.images["00.jpg"], placed.images["00.jpg"]
    assert np.allclose(before.cam_from_world.rotation, after.cam_from_world.rotation)
    assert np.allclose(before.keypoints, after.keypoints)
    content = json.loads((tmp_path / "new/georegistration.json").read_text())
    assert content["residuals"] == {} and content["median_residual"] is None
    assert main([*given, "--distance", "00.jpg", "01.jpg", "1"]) == 2  # given twice
    for options in (("00.jpg", "no.jpg", 1.0), ("no.jpg", "00.jpg", 1.0)):
        with pytest.raises(InputError, match=r"'no\.jpg' is not an image of the model"):
            georegister(out, None, tmp_path / "n", GeoregisterOptions(distance=options))
    for bad in (("a", "a", 1.0), ("a", "b", 0.0), ("a", "b", float("nan"))):
        with pytest.raises(OptionError, match="two different images"):
            GeoregisterOptions(distance=bad)
    reference = _write_reference(tmp_path / "r.txt", {})
    with pytest.raises(OptionError, match="leave out one"):
        GeoregisterOptions(reference, ("a", "b", 1.0))
    with pytest.raises(InputError, match="no such file"):
        GeoregisterOptions(tmp_path / "absent.txt")


def test_too_few_positions_or_all_on_a_line(tmp_path: Path) -> None:
    model = make_model(NAMES)
    out, truth = _write_map(tmp_path / "out", model), _truth(model)
    output = tmp_path / "new"
    for count in (0, 2):
        photos = _write_photos(
            tmp_path / f"p{count}", dict(list(truth.items())[:count])
        )
        photos.mkdir(exist_ok=True)
        said = rf"p{count}: has positions of {count} of the model's 9 images, and 3"
        with pytest.raises(InputError, match=said + ".*not on a line.*--distance"):
            georegister(out, photos, output)
    line = {n: np.array([i, 2.0 * i, 0]) for i, n in enumerate(NAMES)}
    same = {n: np.array([5.0, 2.0, 0]) for n in NAMES}
    for where in (line, same):
        reference = _write_reference(tmp_path / "line.txt", where)
        with pytest.raises(InputError, match="on a line, or at one place"):
            georegister(out, None, output, GeoregisterOptions(reference))
    pose = model.images["00.jpg"].cam_from_world
    turning = {  # a panorama from one spot
        n: replace(image, cam_from_world=pose) for n, image in model.images.items()
    }
    spot = _write_map(tmp_path / "spot", replace(model, images=turning))
    reference = _write_reference(tmp_path / "good.txt", truth)
    with pytest.raises(InputError, match="on a line, or at one place"):
        georegister(spot, None, output, GeoregisterOptions(reference))
    assert not output.exists()


def test_what_positions_cannot_tell_is_said(tmp_path: Path) -> None:
    model = make_model(NAMES)
    rng = np.random.default_rng(1)
    table = {n: xyz / 25 + rng.normal(size=3) * 4 for n, xyz in _truth(model).items()}
    reference = _write_reference(tmp_path / "r.txt", table)
    out = _write_map(tmp_path / "out", model)
    options = GeoregisterOptions(reference)
    found = georegister(out, None, tmp_path / "new", options)
    assert "caution: " in found.to_text() and "the scale is a guess" in found.to_text()
    street = {}
    for i, (name, image) in enumerate(model.images.items()):
        centre = np.array([3.0 * i, 0.02 * (i % 2), 0.02 * (i % 3)])
        pose = image.cam_from_world
        moved = replace(pose, translation=-pose.rotation @ centre)
        street[name] = replace(image, cam_from_world=moved)
    model = replace(model, images=street)
    walk = {n: xyz + rng.normal(size=3) for n, xyz in _truth(model).items()}
    _write_reference(reference, walk)
    out = _write_map(tmp_path / "street", model)
    found = georegister(out, None, tmp_path / "new", options)
    assert "turned about it is a guess" in found.to_text()
    assert found.move.scale == pytest.approx(25, rel=0.05)


def test_nothing_else_is_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(NAMES)
    out = _write_map(tmp_path / "out", model)
    options = GeoregisterOptions(_write_reference(tmp_path / "r.txt", _truth(model)))
    for output in (out, out / "new", tmp_path):
        with pytest.raises(InputError, match="choose another --output"):
            georegister(out, None, output, options)
    export(out, tmp_path / "text", ExportOptions("text"))
    calls = note_calls(monkeypatch, georegistering.colmap, "transform_model")
    with pytest.raises(OutputError, match="sfm-features georegister"):
        georegister(out, None, tmp_path / "text", options)
    assert not calls
    with pytest.raises(OptionError, match="--seed -1"):
        georegister(out, None, tmp_path / "new", options, seed=-1)
