"""The report: a page that stands alone and says what the data says."""

from __future__ import annotations

import base64
import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from math import nan
from pathlib import Path

import cv2
import numpy as np
import pytest

from sfm_features.errors import MissingExtra, OutputError
from sfm_features.extract import ExtractOptions
from sfm_features.geometry import look_at, project
from sfm_features.metrics import ModelErrors
from sfm_features.report import ReportData, facts, page, pictures, scene, write_report
from sfm_features.types import Camera, Model, Pose, RegisteredImage
from tests.conftest import make_texture, write_image

NAMES = ["a/ünï 0.png", "a/1.png", "b/<script>alert(1)<!--.png", 'b/3 & "4".png']
LONER, OTHER, BLANK, BROKEN = "z/loner.png", "z/other.png", "z/blank.png", "z/no.jpg"
CAMERA = Camera("SIMPLE_RADIAL", 160, 120, (140.0, 80.0, 60.0, 0.0))
VOID = {"meta", "link", "img", "input", "br", "hr"}
OPTIONS = {"mapper": "incremental", "extract": ExtractOptions(max_keypoints=777)}


class Page(HTMLParser):
    """Collects a page's elements and text, and refuses tags that do not nest."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.feed(source)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {k: v or "" for k, v in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, (tag, self.open, self.getpos())
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif self.open and self.open[-1] != "style":
            self.texts.append(data)

    def find(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    @property
    def plots(self) -> dict:
        (at,) = [i for i, a in enumerate(self.find("script")) if a.get("id") == "data"]
        return json.loads(self.scripts[at])


def make_model(count: int = 300) -> Model:
    """Make points on a wall that four cameras see, tilted down and level."""
    rng = np.random.default_rng(1)
    points = rng.uniform([-2, -0.2, 0], [2, 0.2, 2], (count, 3))
    images = {}
    for i, name in enumerate(NAMES):
        centre = np.array([2.0 * i - 3, -6.0, 2.5])
        pose = look_at(centre, np.array([0.3 * i, 0.0, 1.0]))
        seen = rng.permutation(count)[: count // 2 + i]
        xy = project(CAMERA, points[seen] @ pose.rotation.T + pose.translation)
        ids = np.concatenate([seen, np.full(20 + i, -1)])
        stray = rng.uniform(0, 100, (20 + i, 2))
        images[name] = RegisteredImage(
            name, CAMERA, pose, np.concatenate([xy, stray]).astype(np.float32), ids
        )
    lengths = np.bincount(
        np.concatenate([im.point_ids[im.point_ids >= 0] for im in images.values()]),
        minlength=count,
    )
    colours = rng.integers(0, 255, (count, 3)).astype(np.uint8)
    return Model(images, points, colours, rng.gamma(2, 0.3, count), lengths)


@pytest.fixture
def data(tmp_path: Path) -> ReportData:
    """A model of four images, and one image for every way to stay outside."""
    folder = tmp_path / "town"
    model = make_model()
    for i, name in enumerate([*NAMES, LONER, OTHER, BLANK]):
        write_image(folder / name, make_texture(seed=i))
    rng = np.random.default_rng(0)
    loose = rng.uniform(0, 100, (50, 2)).astype(np.float32)
    keypoints = {name: image.keypoints for name, image in model.images.items()}
    keypoints |= {LONER: loose, OTHER: loose, BLANK: loose[:0]}
    line = np.stack([np.arange(90), np.arange(90)], 1).astype(np.int32)
    a, b, c, d = NAMES
    verified = {(a, b): line, (b, c): line[:60], (a, c): line[:31], (c, d): line[:17]}
    verified |= {(d, OTHER): line[:12], (a, LONER): line[:0]}
    matches = {(b, a): line[::-1, ::-1], (a, LONER): line[:9]}
    return ReportData(
        folder,
        keypoints,
        verified,
        matches,
        model,
        other_models=[{OTHER, "gone.png"}],
        skipped={BROKEN: "is cut off before its end; copy it again"},
        seconds={"extract": 12.34, "match": 75.0},
        options=OPTIONS,
        errors=ModelErrors(4, 5, 9.0, {}, {}, 0.09, 0.25, 0.0123),
    )


def read_page(data: ReportData) -> Page:
    path = write_report(data.images.parent / "report.html", data)
    return Page(path.read_text(encoding="utf-8"))


def test_page_stands_alone(data: ReportData) -> None:
    report = read_page(data)
    for tag, attributes in report.elements:
        for key in ("src", "href", "srcset", "data", "poster", "action"):
            assert attributes.get(key, "data:").startswith("data:"), (tag, attributes)
    style = (Path(page.__file__).parents[1] / "templates/report.css").read_text()
    assert "url(" not in style and "@import" not in style
    (policy,) = [m["content"] for m in report.find("meta") if "http-equiv" in m]
    assert policy.startswith("default-src 'none'") and "http" not in policy
    assert sum("root.Plotly" in s or len(s) > 1e6 for s in report.scripts) == 1


def test_numbers_are_those_of_the_data(data: ReportData) -> None:
    assert data.model is not None
    text = read_page(data).text
    assert "4 of 8 images are registered in the largest model; 4 are not." in text
    assert "one smaller model besides, of 2 images" in text
    assert "Registered images 4 of 8" in text and "3D points 300" in text
    assert f"{data.model.mean_track_length:.2f} images" in text
    assert f"{data.model.mean_error_px:.2f} px" in text
    assert "extract 12 s" in text and "match 75 s" in text
    assert "1.23 %" in text and "0.25°" in text and "4 of 5" in text
    assert "150 of 170 triangulated" in text and "153 of 176 triangulated" in text
    assert "5 verified pairs" in text
    assert "max_keypoints 777" in text and "mapper incremental" in text
    assert "numpy" not in facts.PACKAGES and "pycolmap 4." in text


def test_absences_have_their_reasons(data: ReportData) -> None:
    graph = facts.build_view_graph(data)
    assert facts.explain_absences(data, graph) == {
        LONER: "no verified pair",
        OTHER: "in another model, of 2 images",
        BLANK: "no keypoints found",
    }
    alone = replace(data, other_models=())
    assert facts.explain_absences(alone, graph)[OTHER] == "only 12 verified matches"
    assert data.model is not None
    images = {k: v for k, v in data.model.images.items() if k != NAMES[3]}
    smaller = replace(alone, model=replace(data.model, images=images))
    reasons = facts.explain_absences(smaller, graph)
    assert reasons[NAMES[3]] == "only 29 verified matches, 17 in the best pair"
    assert reasons[OTHER] == "verified only with images that are not registered either"
    told = replace(data, unregistered={LONER: "is a picture of the sea"})
    assert facts.explain_absences(told, graph)[LONER] == "is a picture of the sea"
    text = read_page(data).text
    assert f"{LONER} no verified pair" in text
    assert f"{BROKEN} is cut off before its end" in text


def test_names_cannot_break_the_page(data: ReportData) -> None:
    report = read_page(data)
    source = (data.images.parent / "report.html").read_text(encoding="utf-8")
    for name in NAMES:
        assert name in report.text
        assert name in report.plots["graph"]["names"]
    assert "<script>alert" not in source
    assert any(NAMES[3] in image["alt"] for image in report.find("img"))


def test_pictures_decode_and_say_what_they_show(data: ReportData) -> None:
    found = [image for image in read_page(data).find("img") if "src" in image]
    # Seven images that can be read, five verified pairs.
    assert len(found) == 7 + 5
    for image in found:
        assert image["alt"]
        content = base64.b64decode(image["src"].removeprefix("data:image/jpeg;base64,"))
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        assert pixels.shape[:2] == (int(image["height"]), int(image["width"]))


def test_triangulated_keypoints_are_green_and_the_others_red() -> None:
    grey = np.full((60, 80, 3), 90, np.uint8)
    upright = pictures.Upright(grey, 1, (160, 120))
    xy = np.array([[40.5, 40.5], [120.5, 80.5]], np.float32)
    drawn = _decode(pictures.draw_keypoints(upright, xy, np.array([True, False])))
    green, red = drawn[20, 20].astype(int), drawn[40, 60].astype(int)
    assert green[1] > green[0] + 40 and red[0] > red[1] + 20
    assert np.abs(drawn[5:12, 5:12].astype(int) - 90).max() < 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_keypoints_follow_a_picture_that_is_turned(
    tmp_path: Path, orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = np.zeros((60, 100, 3), np.uint8)
    stored[40:44, 80:84] = 255
    write_image(tmp_path / "a.png", stored)
    decoded = replace(pictures.decode(tmp_path / "a.png"), orientation=orientation)
    monkeypatch.setattr(pictures, "decode", lambda path: decoded)
    upright = pictures.load_upright(tmp_path / "a.png", 50)
    x, y = upright.place(np.array([[81.5, 41.5]], np.float32))[0]
    rows, columns = np.nonzero(upright.rgb[..., 0] > 200)
    assert np.allclose([x, y], [columns.mean(), rows.mean()], atol=0.01)


def test_lines_end_at_the_keypoints(data: ReportData) -> None:
    a = pictures.Upright(np.zeros((40, 60, 3), np.uint8), 1, (60, 40))
    b = pictures.Upright(np.zeros((80, 60, 3), np.uint8), 1, (120, 160))
    xy_a = np.array([[10, 20]], np.float32)
    xy_b = np.array([[100.5, 20.5]], np.float32)
    none = np.zeros((0, 2), np.float32)
    drawn = _decode(pictures.draw_pair(a, b, (xy_a, xy_b), (none, none))).astype(int)
    # The first image is centred beside the taller one; a gap of 6 px lies between.
    for x, y in [(10, 40), (66 + 50, 10)]:
        assert drawn[y, x, 1] > drawn[y, x, 0] + 30
    assert drawn[70:, :60].max() < 60


def test_rejected_matches_are_those_that_were_not_verified() -> None:
    xy = np.arange(20, dtype=np.float32).reshape(10, 2)
    matches = np.array([[0, 1], [2, 3], [4, 5]], np.int32)
    inliers, rejected = pictures.split_matches((xy, xy), matches[1:2], matches)
    assert np.array_equal(inliers[0], xy[[2]]) and np.array_equal(inliers[1], xy[[3]])
    assert np.array_equal(rejected[0], xy[[0, 4]])
    assert np.array_equal(rejected[1], xy[[1, 5]])


def test_scene_stands_upright_whatever_the_world(data: ReportData) -> None:
    model = make_model()
    turn = look_at(np.array([1.0, 2, 3]), np.array([5.0, -1, 0])).rotation
    turned = replace(
        model,
        points=model.points @ turn.T,
        images={
            name: replace(
                image,
                cam_from_world=Pose(
                    image.cam_from_world.rotation @ turn.T,
                    image.cam_from_world.translation,
                ),
            )
            for name, image in model.images.items()
        },
    )
    for each in (model, turned):
        arranged = scene.arrange_scene(each, {})
        points = _unpack(arranged["points"])
        frusta = _unpack(arranged["frusta"]).reshape(-1, 5, 3)
        # Heights order as in the world, where z was up; cameras stand in front.
        height = model.points[:, 2]
        assert np.corrcoef(height, points[:, 2])[0, 1] > 0.999
        assert frusta[:, 0, 1].max() < points[:, 1].min()
        assert np.linalg.norm(points, axis=1).max() < 1.5
        # They look at the points: corners lie nearer than centres, the top is higher.
        assert (frusta[:, 1:, 1] > frusta[:, :1, 1]).all()
        assert (frusta[:, 1:3, 2].min(1) > frusta[:, 3:, 2].max(1)).all()


def test_camera_held_upright_counts_as_level() -> None:
    model = make_model()
    # The sensor's x axis points down: EXIF says 6, turn clockwise to see it upright.
    roll = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    images = {
        name: replace(
            image,
            cam_from_world=Pose(
                roll @ image.cam_from_world.rotation,
                roll @ image.cam_from_world.translation,
            ),
        )
        for name, image in model.images.items()
    }
    arranged = scene.arrange_scene(
        replace(model, images=images), dict.fromkeys(images, 6)
    )
    heights = _unpack(arranged["points"])[:, 2]
    assert np.corrcoef(model.points[:, 2], heights)[0, 1] > 0.999


def test_far_points_do_not_shrink_the_scene(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(400)
    points = model.points.copy()
    points[:7] *= 1e6
    monkeypatch.setattr(scene, "MAX_POINTS", 100)
    arranged = scene.arrange_scene(replace(model, points=points), {})
    assert (arranged["far"], arranged["near"], arranged["shown"]) == (7, 393, 100)
    assert len(_unpack(arranged["points"])) == 100
    assert np.ptp(_unpack(arranged["points"])[:, 0]) > 0.3


def test_no_model_is_said_plainly(data: ReportData) -> None:
    report = read_page(replace(data, model=None, errors=None, other_models=()))
    assert "No model came out of 8 images." in report.text
    assert "the strongest pair has 90 verified ones" in report.text
    assert report.plots["scene"] is None
    assert len(report.plots["graph"]["edges"]) == 5
    assert "Against ground truth" not in report.text
    assert "triangulated" not in report.text


def test_failure_names_what_is_wrong(data: ReportData) -> None:
    def explain(**changes: object) -> str:
        failed = replace(data, model=None, **changes)
        return " ".join(facts.explain_failure(failed, facts.build_view_graph(failed)))

    a, b, c, d = NAMES
    many = np.zeros((150, 2), np.int32)
    assert "None of 2 pairs passed" in explain(verified={})
    assert "No pair passed" in explain(verified={}, matches={})
    assert "Only 1 image of 8 has keypoints" in explain(
        keypoints={a: data.keypoints[a], b: np.zeros((0, 2), np.float32)}
        | {name: np.zeros((0, 2), np.float32) for name in (c, d, LONER, OTHER, BLANK)}
    )
    split = explain(verified={(a, b): many, (c, d): many})
    assert "2 groups" in split and "largest has 2 of 8" in split
    assert "Too few" not in split
    assert "turned on one spot" in explain(verified={(a, b): many})


@pytest.mark.parametrize("names", [[], ["alone.png"]])
def test_next_to_nothing_still_makes_a_page(tmp_path: Path, names: list[str]) -> None:
    keypoints = {name: np.zeros((0, 2), np.float32) for name in names}
    report = read_page(ReportData(tmp_path / "images", keypoints, {}))
    assert f"No model came out of {len(names)} image" in report.text
    assert "No pair of images was matched." in report.text
    assert report.text.count("The file is missing") == len(names)


def test_model_without_points_or_truth_to_align(data: ReportData) -> None:
    assert data.model is not None
    empty = Model(
        {
            name: replace(image, point_ids=np.full(len(image.point_ids), -1))
            for name, image in data.model.images.items()
        },
        np.zeros((0, 3)),
        np.zeros((0, 3), np.uint8),
        np.zeros(0),
        np.zeros(0, np.int64),
    )
    errors = ModelErrors(2, 5, 9.0, {}, {}, nan, nan, nan)
    report = read_page(replace(data, model=empty, errors=errors))
    assert report.plots["scene"]["shown"] == 0
    assert "nan" not in report.text and "too few cameras to align" in report.text


def test_many_images_are_capped_and_said(
    data: ReportData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "MAX_THUMBNAILS", 5)
    report = read_page(data)
    assert "5 of 7 images are shown" in report.text
    cards = [f for f in report.find("figure") if f["class"].startswith("card")]
    assert len(cards) == 5
    assert [f["class"] for f in cards].count("card out") >= 1


def test_histograms_count_every_point() -> None:
    lengths = np.array([2, 2, 3, 7, 40, 90])
    tracks = facts.count_track_lengths(lengths)
    assert sum(tracks["counts"]) == 6 and tracks["labels"][0] == "2"
    assert tracks["labels"][-1] == "25+" and tracks["counts"][-1] == 2
    errors = facts.count_errors(np.append(np.linspace(0, 1, 999), 50.0))
    assert sum(errors["counts"]) + errors["beyond"] == 1000
    assert errors["edges"][-1] < 1.1


def test_missing_extra_has_its_remedy(
    data: ReportData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(MissingExtra, match=re.escape("'sfm-features[report]'")):
        read_page(data)


def test_page_that_cannot_be_written_is_an_output_error(data: ReportData) -> None:
    with pytest.raises(OutputError, match=r"report\.html"):
        write_report(data.images / "absent" / "report.html", data)


def test_seconds_are_written_for_people() -> None:
    seconds = [0.04, 9.96, 61.0, 150.4, 3599.7, 7325.0]
    texts = [page._format_seconds(s) for s in seconds]
    assert texts == ["0.0 s", "10 s", "61 s", "2 min 30 s", "1 h 0 min", "2 h 2 min"]


def _decode(picture: pictures.Picture) -> np.ndarray:
    content = base64.b64decode(picture.uri.split(",")[1])
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def _unpack(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4").reshape(-1, 3)
