"""Small models made by hand, whose truth is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from sfm_features.geometry import look_at, project
from sfm_features.types import Camera, Model, RegisteredImage

SIMPLE = Camera("SIMPLE_RADIAL", 160, 120, (150.0, 81.0, 59.0, 0.08))


def make_model(
    names: Sequence[str],
    cameras: Mapping[str, Camera] | None = None,
    points: int = 40,
    seed: int = 0,
) -> Model:
    """Make a model of cameras on a bow, at different heights, that look at points."""
    rng = np.random.default_rng(seed)
    xyz = rng.uniform(-0.5, 0.5, (points, 3))
    images = {}
    for i, name in enumerate(names):
        angle = 0.35 * i
        centre = np.array([3 * np.cos(angle), 3 * np.sin(angle), 0.4 * (i % 3)])
        camera = (cameras or {}).get(name, SIMPLE)
        pose = look_at(centre, np.zeros(3))
        seen = xyz @ pose.rotation.T + pose.translation
        pinhole = replace(camera, model="PINHOLE", params=(150.0, 150.0, 80.0, 60.0))
        is_plain = camera.model in ("SIMPLE_RADIAL", "PINHOLE", "OPENCV")
        xy = project(camera if is_plain else pinhole, seen)
        images[name] = RegisteredImage(
            name, camera, pose, xy.astype(np.float32), np.arange(points)
        )
    return Model(
        images,
        xyz,
        rng.integers(0, 255, (points, 3)).astype(np.uint8),
        np.full(points, 0.5),
        np.full(points, len(names)),
    )
