"""The report of a localization: what it says, what it draws, and its limits."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from report_pages import NAMES, Page, make_model
from samples import make_texture, write_image

from sfm_features.query_report import _read_matches, pack_matches
from sfm_features.report import (
    LocalizationData,
    QueryMatches,
    QueryResult,
    evidence,
    localization,
    write_localization_report,
)
from sfm_features.report.pictures import UNSEEN, Picture, Upright
from sfm_features.types import Localization

GOOD, WEAK, FAILED, GONE = "new/<b>good.png", "new/weak.png", "new/failed.png", "no.png"


@pytest.fixture
def data(tmp_path: Path) -> LocalizationData:
    """Queries that stand where images of a map stand: found, weak, failed, gone."""
    model = make_model()
    for i, name in enumerate([GOOD, WEAK, FAILED]):
        write_image(tmp_path / "queries" / name, make_texture(seed=10 + i))
    for i, name in enumerate(NAMES):
        write_image(tmp_path / "map" / name, make_texture(seed=i))
    image = model.images[NAMES[1]]
    known = {"pose": image.cam_from_world, "camera": image.camera}
    known |= {"retrieved": tuple(NAMES), "milliseconds": {"extract": 30.0, "pose": 5.0}}
    rows = np.flatnonzero(image.point_ids >= 0)
    fits = np.arange(len(rows)) < 100
    shared = [(NAMES[1], 100), (NAMES[0], 50)]
    seen = QueryMatches(image.keypoints[rows], image.point_ids[rows], fits, shared)
    matches = {GOOD: seen, WEAK: seen, FAILED: replace(seen, inliers=fits & False)}

    def read(names: Sequence[str]) -> Mapping[str, QueryMatches]:
        return {name: matches[name] for name in names if name in matches}

    results = [
        QueryResult(GOOD, "localized", "all well", 100, len(rows), **known),
        QueryResult(WEAK, "localized", "just so", 17, len(rows), **known),
        QueryResult(FAILED, "few inliers", "5 of 9 fit", 5, 9, retrieved=tuple(NAMES)),
        QueryResult(GONE, "unreadable", "no.png: is empty"),
    ]
    return LocalizationData(
        tmp_path / "queries", [tmp_path / "map"], model, results, read, {"seed": 7}
    )


def _read(data: LocalizationData) -> Page:
    path = write_localization_report(data.images.parent / "report.html", data)
    return Page(path.read_text(encoding="utf-8"))


def test_the_page_says_what_came_out(data: LocalizationData) -> None:
    page = _read(data)
    assert "2 of 4 images are localized in a map of 4 photographs" in page.text
    assert "1 pose rests on fewer than 30 inliers" in page.text
    assert "1 Few inliers" in page.text or "Few inliers 1" in page.text
    assert "seed 7" in page.text and "The file is missing or damaged." in page.text
    names = [GONE, FAILED, WEAK, GOOD]  # the worst first
    places = [page.text.index(f"{name} ") for name in names]
    assert places == sorted(places)
    targets = {a["href"].removeprefix("#") for a in page.find("a")}
    assert targets == {a["id"] for a in page.find("article")} and len(targets) == 4
    values = [float(cell["data-value"]) for cell in page.find("td") if "class" in cell]
    assert values[::3] == [0, 5, 17, 100]
    for tag, attributes in page.elements:
        for key in ("src", "href", "srcset", "action"):
            assert attributes.get(key, "data:").startswith(("data:", "#")), tag


def test_a_stage_that_few_need_is_not_in_the_median(data: LocalizationData) -> None:
    """A second look of 5 s at one image of 100; those unreadable took no time."""
    good, gone = data.results[0], data.results[3]
    usual, slow = {"pose": 100.0}, {"pose": 100.0, "second look": 5000.0}
    many = [replace(good, milliseconds=usual)] * 99
    results = [*many, replace(good, milliseconds=slow), gone]
    page = _read(replace(data, results=results))
    assert "Median time of an image 0.1 s mean" in page.text
    assert localization._median_seconds(results) == 0.1
    stages = localization._average_seconds(results)
    assert stages == pytest.approx({"pose": 0.1, "second look": 0.05})


def test_queries_stand_in_the_scene_by_how_sure_they_are(
    data: LocalizationData,
) -> None:
    fallback = replace(data.results[2], fallback=NAMES[0])
    pose = data.model.images[NAMES[0]]
    fallback = replace(fallback, pose=pose.cam_from_world, camera=pose.camera)
    scene = _read(replace(data, results=[*data.results, fallback])).plots["scene"]
    kinds = {kind["label"]: kind["cameras"] for kind in scene["kinds"]}
    assert [len(cameras) for cameras in kinds.values()] == [4, 1, 1, 1]
    assert [scene["names"][i] for i in kinds["Localized"]] == [GOOD]
    assert [scene["names"][i] for i in kinds["By fewer than 30 inliers"]] == [WEAK]
    frusta = np.frombuffer(base64.b64decode(scene["frusta"]), "<f4").reshape(-1, 5, 3)
    there = scene["names"].index(NAMES[1])
    np.testing.assert_allclose(frusta[there], frusta[kinds["Localized"][0]], atol=1e-6)


def test_matches_are_drawn_beside_the_image_that_sees_most(
    data: LocalizationData, tmp_path: Path
) -> None:
    matches = data.read_matches([GOOD, FAILED])
    drawn = evidence.draw_evidence(data, data.results[0], matches[GOOD])
    assert drawn.beside == NAMES[1] and drawn.shared[0] == (NAMES[1], 100)
    assert drawn.matched is not None and drawn.matched.width > 2 * 160
    failed = evidence.draw_evidence(data, data.results[2], matches[FAILED])
    assert failed.projected is None and failed.matched is not None
    assert (np.abs(_decode(failed.matched) - np.array(UNSEEN)) < 60).all(2).sum() > 50
    gone = replace(data, map_images=[tmp_path / "nowhere"])
    alone = evidence.draw_evidence(gone, data.results[0], matches[GOOD])
    assert alone.beside == "" and alone.matched is not None
    assert alone.matched.width == 160 and alone.projected is not None


def test_all_inliers_are_counted_not_those_kept(
    data: LocalizationData, tmp_path: Path
) -> None:
    """Of 1,500 inliers 500 are kept for the picture."""
    image, count = data.model.images[NAMES[1]], 1500
    images = {
        NAMES[0]: replace(image, point_ids=np.arange(700)),
        NAMES[1]: replace(image, point_ids=np.arange(count)),
    }
    model = replace(data.model, images=images)
    found = Localization(
        *("localized", "all well", image.cam_from_world, image.camera),
        retrieved=(NAMES[0], NAMES[1]),
        xy=np.zeros((2 * count, 2), np.float32),
        point_rows=np.arange(2 * count),
        inliers=np.arange(2 * count) < count,
    )
    record = {"name": GOOD, "retrieved": list(found.retrieved)}
    packed = pack_matches(found, model)
    assert packed["fitting"] == 500
    journal = tmp_path / "queries.jsonl"
    journal.write_text(json.dumps({**record, "matched": packed}) + "\n")
    ((_, matches),) = _read_matches(journal, [GOOD], model)
    assert list(matches.shared) == [(NAMES[1], 1500), (NAMES[0], 700)]
    packed.pop("shared")  # as journals were
    journal.write_text(json.dumps({**record, "matched": packed}) + "\n")
    ((_, matches),) = _read_matches(journal, [GOOD], model)
    assert matches.shared[0] == (NAMES[1], 500)


def test_points_are_drawn_where_the_pose_sees_them(data: LocalizationData) -> None:
    image = data.model.images[NAMES[1]]
    black = Upright(np.zeros((120, 160, 3), np.uint8), 1, (160, 120))
    picture = evidence._project(black, data.model, [NAMES[1]], data.results[0])
    assert picture is not None
    bright = _decode(picture).max(2) > 60
    xy = image.keypoints[image.point_ids >= 0].round().astype(int)
    xy = xy[((xy >= 0) & (xy < [160, 120])).all(1)]
    assert len(xy) > 100 and bright[xy[:, 1], xy[:, 0]].mean() > 0.98
    assert bright.mean() < 0.5


def test_keypoints_are_found_by_their_points() -> None:
    rng = np.random.default_rng(0)
    ids = np.where(rng.random(200) < 0.5, rng.permutation(1000)[:200], -1)
    wanted = rng.integers(0, 1000, 500)
    found, index = evidence._find_keypoints(ids, wanted)
    assert found.tolist() == np.isin(wanted, ids).tolist() and found.any()
    assert (ids[index[found]] == wanted[found]).all()
    assert not evidence._find_keypoints(ids[:0], wanted)[0].any()


def test_a_thousand_queries_are_shortened_and_that_is_said(
    data: LocalizationData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(localization, "MAX_DETAILED", 12)
    monkeypatch.setattr(localization, "MAX_ROWS", 700)
    good, failed = data.results[0], data.results[2]
    many = [replace(good, inliers=100 + i) for i in range(500)]
    many += [replace(failed, name=FAILED, inliers=i) for i in range(500)]
    page = _read(replace(data, results=many))
    shown = [
        b["class"] for b in page.find("span") if b.get("class", "").startswith("b")
    ]
    assert len(page.find("article")) == 12 and len(shown) == 700 + 12
    assert shown[700:] == ["badge bad"] * 8 + ["badge good"] * 4
    assert "12 of 1,000 images are shown" in page.text
    # All with a pose are drawn: 500, beside the 4 of the map.
    assert len(page.plots["scene"]["names"]) == 504
    assert "are drawn, evenly" not in page.text
    assert "The 700 worst of 1,000 are listed" in page.text
    monkeypatch.setattr(localization, "MAX_ROWS", 300)
    page = _read(replace(data, results=many))
    assert len(page.plots["scene"]["names"]) == 304
    assert "300 of 500 images that have a pose are drawn" in page.text
    monkeypatch.setattr(localization, "MAX_PICTURE_BYTES", 200_000)
    page = _read(replace(data, results=many))
    sizes = [len(image.get("src", "")) for image in page.find("img")]
    assert 0 < sum(sizes) < 200_000 and len(page.find("article")) < 12


def _decode(picture: Picture) -> np.ndarray:
    content = base64.b64decode(picture.uri.split(",")[1])
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    return pixels[..., ::-1].astype(int)
