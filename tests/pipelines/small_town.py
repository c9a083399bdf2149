"""A few small photographs of the rendered town, from which data sets are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np

from sfm_features.geometry import project, unproject
from sfm_features.scenes import Town, build_town, render_view, town_views
from sfm_features.types import F32, U8, Camera, Pose

SIZE = (480, 360)
FOCAL_PX = 384.0
STATIONS = 15
BY_NIGHT = (5, 8, 11)


@dataclass(frozen=True)
class Photo:
    """A photograph: rgb (H, W, 3), depth (H, W) in metres along z, inf for the sky."""

    rgb: U8
    depth: F32
    camera: Camera
    cam_from_world: Pose


@dataclass(frozen=True)
class SmallTown:
    """Photographs by station (0, 1, 2 ...): all by day, some from there by night.

    Neighbours overlap, and all have one camera: a pinhole with a centred principal
    point, SIMPLE_PINHOLE f cx cy.
    """

    day: Mapping[int, Photo]
    night: Mapping[int, Photo]


def photograph_town() -> SmallTown:
    """Render the photographs; takes 15 seconds."""
    town = build_town(seed=0, detail=0.4, workers=1)
    stations = range(STATIONS)
    return SmallTown(
        {i: _photograph(town, i, "day") for i in stations},
        {i: _photograph(town, i, "night") for i in BY_NIGHT},
    )


def _photograph(town: Town, station: int, lighting: str) -> Photo:
    pose = town_views(30, 0, SIZE)[station].cam_from_world
    width, height = SIZE
    camera = Camera("SIMPLE_PINHOLE", *SIZE, (FOCAL_PX, width / 2, height / 2))
    made = render_view(town, camera, pose, lighting, seed=station)
    return Photo(made.rgb, made.depth, camera, pose)


def crop(photo: Photo, left: int, top: int, width: int, height: int) -> Photo:
    """Cut a part out; its principal point is then off its middle."""
    part = np.s_[top : top + height, left : left + width]
    focal, x, y = photo.camera.params[:3]
    camera = Camera(
        photo.camera.model, width, height,
        (focal, x - left, y - top, *photo.camera.params[3:]),
    )  # fmt: skip
    return replace(photo, rgb=photo.rgb[part], depth=photo.depth[part], camera=camera)


def bend(photo: Photo, *k: float) -> Photo:
    """Photograph the same with a lens that bends: SIMPLE_RADIAL (k) or RADIAL (k1, k2).

    Both have the parameters f cx cy and then these.
    """
    given = photo.camera
    model = "SIMPLE_RADIAL" if len(k) == 1 else "RADIAL"
    camera = replace(given, model=model, params=(*given.params, *k))
    columns, rows = np.meshgrid(np.arange(given.width), np.arange(given.height))
    pixels = np.stack([columns.ravel(), rows.ravel()], 1).astype(np.float64)
    # Where the pixels of the new picture are in the old one; both centre on (0, 0).
    source = project(given, unproject(camera, pixels)).astype(np.float32)
    x, y = source.T.reshape(2, given.height, given.width)
    rgb = cv2.remap(photo.rgb, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    depth = cv2.remap(
        photo.depth, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE
    )
    return replace(photo, rgb=rgb, depth=depth, camera=camera)


def calibration(photo: Photo) -> np.ndarray:
    """Return K (3, 3) of a photograph in COLMAP's pixels: the middle is (w/2, h/2)."""
    focal, x, y = photo.camera.params[:3]
    return np.array([[focal, 0, x], [0, focal, y], [0, 0, 1]])
