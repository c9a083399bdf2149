"""A small town to photograph, with known poses and depth, by day and by night."""

from __future__ import annotations

from sfm_features.scenes.correspond import correspond
from sfm_features.scenes.render import Rendering, render_depth, render_view
from sfm_features.scenes.town import Town, build_town
from sfm_features.scenes.truth import Truth, read_truth, render_town
from sfm_features.scenes.views import View, town_views

__all__ = [
    "Rendering",
    "Town",
    "Truth",
    "View",
    "build_town",
    "correspond",
    "read_truth",
    "render_depth",
    "render_town",
    "render_view",
    "town_views",
]
