"""A made-up reconstruction, and a reader of the page about it."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from samples import make_texture, write_image

from sfm_features.extract import ExtractOptions
from sfm_features.geometry import look_at, project
from sfm_features.metrics import ModelErrors
from sfm_features.report import ReportData, write_report
from sfm_features.types import Camera, Model, RegisteredImage

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


def make_data(folder: Path) -> ReportData:
    """Make a model of four images, and one image for every way to stay outside."""
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
