"""One town, and a few of its views, for all tests of the scenes."""

from __future__ import annotations

import pytest

from sfm_features.scenes import Rendering, Town, View, build_town, render_view
from sfm_features.scenes import town_views as make_views

SIZE = (256, 192)


@pytest.fixture(scope="session")
def town() -> Town:
    """Build a town whose fronts are painted coarsely."""
    return build_town(seed=0, detail=0.4)


@pytest.fixture(scope="session")
def views() -> list[View]:
    """Return a round of the square."""
    return make_views(30, 0, SIZE)


@pytest.fixture(scope="session")
def day(town: Town, views: list[View]) -> list[Rendering]:
    """Photograph the first views by day."""
    return [
        render_view(town, v.camera, v.cam_from_world, "day", seed=i)
        for i, v in enumerate(views[:3])
    ]
