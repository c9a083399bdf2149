"""The report: a page that stands alone and says what the data says."""

from __future__ import annotations

import base64
import re
import sys
from dataclasses import replace
from math import nan
from pathlib import Path

import cv2
import numpy as np
import pytest
from report_pages import (
    BLANK,
    BROKEN,
    LONER,
    NAMES,
    OTHER,
    make_data,
    read_page,
)

from sfm_features.errors import MissingExtra, OutputError
from sfm_features.metrics import ModelErrors
from sfm_features.report import ReportData, facts, page, rendering, write_report
from sfm_features.types import Model


@pytest.fixture
def data(tmp_path: Path) -> ReportData:
    """A model of four images, and one image for every way to stay outside."""
    return make_data(tmp_path / "town")


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
    """In the words of the summary, of which they are a part."""
    graph = facts.build_view_graph(data)
    found = facts.explain_absences(data, graph)
    assert set(found) == {LONER, OTHER, BLANK}
    assert "no verified pair" in found[LONER]
    assert "in another model, sparse/1" in found[OTHER]
    assert "no keypoints" in found[BLANK]
    told = replace(data, unregistered={LONER: "is a picture of the sea"})
    assert facts.explain_absences(told, graph)[LONER] == "is a picture of the sea"
    text = read_page(data).text
    assert f"{LONER} has 50 keypoints but no verified pair" in text
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
    said = "5 of 7 images are shown: 1 of 3 outside the model, the others evenly spread"
    assert said in report.text
    cards = [f for f in report.find("figure") if f["class"].startswith("card")]
    assert len(cards) == 5
    assert [f["class"] for f in cards].count("card out") == 1
    failed = read_page(replace(data, model=None, errors=None, other_models=()))
    assert "5 of 7 images are shown, evenly spread" in failed.text


def test_histograms_count_every_point() -> None:
    lengths = np.array([2, 2, 3, 7, 40, 90])
    tracks = facts.count_track_lengths(lengths)
    assert sum(tracks["counts"]) == 6 and tracks["labels"][0] == "2"
    assert tracks["labels"][-1] == "25+" and tracks["counts"][-1] == 2
    errors = facts.count_errors(np.append(np.linspace(0, 1, 999), 50.0))
    assert sum(errors["counts"]) + errors["beyond"] == 1000
    assert errors["edges"][-1] < 1.1


def test_errors_that_were_not_computed_are_told_apart(data: ReportData) -> None:
    """COLMAP marks them by -1, and other tools leave them so."""
    assert data.model is not None
    model = replace(data.model, errors_px=np.full(300, -1.0))
    text = read_page(replace(data, model=model)).text
    assert "not known of 300 points" in text
    assert "worst 1 %" not in text and "-1.00" not in text
    assert "Mean reprojection error –" in text
    some = np.where(np.arange(300) < 100, -1.0, 0.5)
    errors = facts.count_errors(some)
    assert sum(errors["counts"]) + errors["beyond"] == 200
    assert (errors["unknown"], errors["median"]) == (100, 0.5)
    assert replace(model, errors_px=some).mean_error_px == 0.5


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
    seconds = [0.0, 0.04, 9.96, 61.0, 150.4, 3599.7, 7325.0]
    texts = [rendering.format_seconds(s) for s in seconds]
    assert texts == [
        "0.0 s",
        "40 ms",
        "10 s",
        "61 s",
        "2 min 30 s",
        "1 h 0 min",
        "2 h 2 min",
    ]
