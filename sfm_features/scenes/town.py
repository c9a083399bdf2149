"""The town: a square with its houses, streets, props, hills, and its lights."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from sfm_features.scenes import layout, props
from sfm_features.scenes.buildings import add_house
from sfm_features.scenes.facades import WALLS, Front, House, Plan, paint_front
from sfm_features.scenes.land import add_hills, add_land
from sfm_features.scenes.landmarks import add_church
from sfm_features.scenes.light import (
    SUN_CELLS,
    Samples,
    ShadowMap,
    cast_parallel,
    gather_lamps,
    gather_sky,
    place_samples,
)
from sfm_features.scenes.materials import to_f32
from sfm_features.scenes.mesh import Builder, Frame, Lamp, Surfaces, Texture
from sfm_features.scenes.shade import Look
from sfm_features.scenes.sky import paint_sky
from sfm_features.scenes.stock import fill_stock
from sfm_features.types import F32, F64, U8

REACH = 62.0
"""Metres around the middle in which shadows are cast."""


@dataclass
class Town:
    """A built town: what `render_view` takes. Lights are computed when first needed."""

    seed: int
    surfaces: Surfaces
    textures: list[Texture]
    lamps: list[Lamp]
    blocks: F64
    """Rectangles (B, 6) on the ground: middle, direction to the right, half sizes."""
    sky_day: U8
    sky_night: U8
    _looks: dict[str, Look] = field(default_factory=dict)
    _samples: Samples | None = None
    _sky_share: F32 | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def is_blocked(self, place: F64) -> bool:
        """Tell whether a place (3,) is in a house or so near a thing as to be in it."""
        x, y = (place[:2] - self.blocks[:, :2]).T
        rx, ry = self.blocks[:, 2:4].T
        along, out = np.abs(x * rx + y * ry), np.abs(x * ry - y * rx)
        return bool(((along < self.blocks[:, 4]) & (out < self.blocks[:, 5])).any())

    def get_look(self, lighting: str) -> Look:
        """Return the lights of day or night."""
        with self._lock:
            if lighting not in self._looks:
                self._looks[lighting] = self._make_look(lighting)
            return self._looks[lighting]

    def _make_look(self, lighting: str) -> Look:
        if self._samples is None:
            self._samples = place_samples(self.surfaces)
            self._sky_share = gather_sky(
                self.surfaces, self.textures, self._samples, REACH
            )
        assert self._sky_share is not None
        share = self._samples.split(self._sky_share)
        towards = _find_sun(self.seed)
        if lighting == "day":
            shadows: ShadowMap | None = cast_parallel(
                self.surfaces, self.textures, -towards, SUN_CELLS, REACH
            )
            sky, sun = to_f32([0.52, 0.6, 0.72]), to_f32([1.75, 1.58, 1.3])
            glow = np.zeros(3, np.float32)
            return Look(sky, sun, towards, share, None, glow, shadows)
        light = gather_lamps(self.surfaces, self.textures, self._samples, self.lamps)
        sky, sun = to_f32([0.045, 0.055, 0.095]), np.zeros(3, np.float32)
        glow = to_f32([1.9, 1.25, 0.62])
        lamps = self._samples.split(light)
        return Look(sky, sun, towards, share, lamps, glow, None)


def _find_sun(seed: int) -> F64:
    """Return the direction towards the sun: a friendly afternoon."""
    rng = np.random.default_rng([seed, 7])
    azimuth, height = np.deg2rad([rng.uniform(205, 245), rng.uniform(46, 54)])
    flat = np.cos(height)
    return np.array([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(height)])


def build_town(seed: int = 0, detail: float = 1.0, workers: int = 2) -> Town:
    """Build the town of a seed; `detail` scales the resolution of its fronts."""
    builder = Builder(np.random.default_rng([seed, 1]))
    fill_stock(builder)
    add_land(builder, layout.SQUARE, detail)
    _build_houses(builder, seed, detail, workers)
    _place_props(builder)
    add_hills(builder)
    day, night = paint_sky(np.random.default_rng([seed, 2]))
    return Town(
        seed,
        builder.finish(),
        builder.textures,
        builder.lamps,
        np.array(builder.blocks),
        day,
        night,
    )


@dataclass(frozen=True)
class Site:
    """A plot: where its front starts, its size, and how it may be built on."""

    frame: Frame
    width: float
    depth: float
    near: bool


def _row(
    rng: np.random.Generator,
    start: tuple[float, float],
    end: tuple[float, float],
    near: bool = True,
) -> list[Site]:
    """Cut a street side into plots; houses face right of the way from end to start."""
    a, b = np.array([*start, 0.0]), np.array([*end, 0.0])
    length = float(np.linalg.norm(b - a))
    right = (b - a) / length
    count = max(round(length / 7.2), 1)
    shares = rng.uniform(0.8, 1.25, count)
    widths = shares / shares.sum() * length
    sites, x = [], 0.0
    for width in widths.tolist():
        back = float(rng.uniform(0, 0.7))
        frame = Frame(a, right)
        origin = frame.at(x + 0.02, -back, 0)
        depth = float(rng.uniform(6.5, 8.5))
        sites.append(Site(Frame(origin, right), width - 0.04, depth, near))
        x += width
    return sites


def _lay_out(rng: np.random.Generator) -> list[Site]:
    """Place all plots: four sides of the square, then the streets that leave it."""
    sx, sy = layout.SQUARE
    sites: list[Site] = []
    for start, end in (
        ((-26.0, sy + 1), (2.5, sy + 1)),
        ((7.5, sy + 1), (26.0, sy + 1)),
        ((26.0, -sy - 1), (-3.5, -sy - 1)),
        ((-8.5, -sy - 1), (-26.0, -sy - 1)),
        ((sx + 2, sy - 3.0), (sx + 2, -sy + 3.0)),
        ((-sx - 2, -sy + 3.0), (-sx - 2, sy - 3.0)),
    ):
        sites += _row(rng, start, end)
    for start, end in (
        ((2.0, 23.0), (2.0, 40.0)),
        ((8.0, 40.0), (8.0, 23.0)),
        ((-2.0, 43.0), (12.0, 43.0)),
        ((-3.0, -23.0), (-3.0, -40.0)),
        ((-9.0, -40.0), (-9.0, -23.0)),
        ((2.0, -43.0), (-14.0, -43.0)),
        ((34.0, 20.0), (34.0, -20.0)),
        ((-34.0, -20.0), (-34.0, 20.0)),
    ):
        sites += _row(rng, start, end, near=False)
    return sites


def _build_houses(builder: Builder, seed: int, detail: float, workers: int) -> None:
    sites = _lay_out(np.random.default_rng([seed, 3]))
    streams = [np.random.default_rng([seed, 4, i]) for i in range(len(sites))]
    plans = [_plan(r, s, detail) for r, s in zip(streams, sites, strict=True)]
    with ThreadPoolExecutor(workers) as pool:
        painted = pool.map(_paint_house, streams, plans, sites)
        bar = tqdm(painted, "building the town", len(sites), unit="house")
        for site, (plan, roof), fronts in zip(sites, plans, bar, strict=True):
            house = House(site.frame, site.width, site.depth, plan.height, roof)
            add_house(builder, house, plan, fronts[0], fronts[1:])


def _plan(rng: np.random.Generator, site: Site, detail: float) -> tuple[Plan, str]:
    """Decide what is built on a plot."""
    storeys = int(rng.choice([2, 3, 3, 4] if site.near else [2, 2, 3]))
    wall = str(
        rng.choice(["brick", "plaster", "plaster", "ashlar", "rubble", "timber"])
    )
    colour = WALLS[wall][int(rng.integers(len(WALLS[wall])))]
    height = storeys * float(rng.uniform(2.75, 3.15)) + 0.2
    shop = site.near and bool(rng.random() < 0.65)
    roof = str(rng.choice(["ridge", "ridge", "ridge", "gable", "hip", "flat"]))
    ppm = (88.0 if site.near else 44.0) * detail
    return Plan(site.width, height, storeys, wall, colour, ppm, shop), roof


def _paint_house(
    rng: np.random.Generator, planned: tuple[Plan, str], site: Site
) -> list[Front]:
    """Paint the front and the three other walls of a house."""
    plan = planned[0]
    fronts = [paint_front(rng, plan)]
    for width in (site.depth, site.depth, site.width):
        ppm = plan.ppm * (0.6 if site.near else 0.7)
        wall = plan.wall if plan.wall != "timber" else "plaster"
        side = Plan(
            width, plan.height, plan.storeys, wall, plan.colour, ppm, front=False
        )
        fronts.append(paint_front(rng, side))
    return fronts


def _place_props(builder: Builder) -> None:
    """Furnish the square."""
    props.add_fountain(builder, *layout.FOUNTAIN)
    add_church(builder, props.stand(27.5, 2.4, -90))
    posts = layout.LAMPS[:4]
    for start, end in ((posts[0], posts[3]), (posts[2], posts[1])):
        props.add_bunting(builder, start, end)
    for x, y, height in layout.FAR_TREES:
        props.add_tree(builder, x, y, height)
    for x, y in layout.LAMPS:
        props.add_lamp(builder, x, y)
    for x, y, height in layout.TREES:
        props.add_tree(builder, x, y, height)
    for x, y in layout.BUSHES:
        props.add_bush(builder, x, y, 1.0)
    for x, y, turn in layout.BENCHES:
        props.add_bench(builder, x, y, turn)
    for x, y, turn in layout.CRATES:
        props.add_crates(builder, x, y, turn)
    for number, (x, y, turn) in enumerate(layout.CARTS):
        props.add_cart(builder, x, y, turn, f"awning{number}")
    for number, (x, y, turn) in enumerate(layout.CARS):
        props.add_car(builder, x, y, turn, number)
