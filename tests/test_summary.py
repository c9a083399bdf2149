"""What the summary says of a reconstruction, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from sfm_features.metrics import model_errors
from sfm_features.summary import Summary, explain_unregistered
from sfm_features.types import Pose

PAIRED = [("a", "q"), ("b", "q"), ("q", "z")]
MODELS = [["a", "b"], ["m", "n"]]


@pytest.mark.parametrize(
    "verified, models, reason",
    [
        ((31, 40, 500), MODELS, "shares only 40 verified matches with the model"),
        ((4321, 40, 9), MODELS, "was not placed despite 4361 verified matches"),
        ((0, 0, 500), MODELS, "1 verified pairs, none with an image of the model"),
        ((0, 0, 0), MODELS, "no verified pair"),
        ((31, 40, 500), [], "no model came out; its best pair has 500"),
        ((31, 40, 500), [["a", "b"], ["q", "z"]], "in another model, sparse/1"),
    ],
)
def test_why_an_image_is_left_out(
    verified: Sequence[int], models: Sequence[Sequence[str]], reason: str
) -> None:
    """Many matches are not called few, nor what is no model one."""
    counts = dict(zip(PAIRED, verified, strict=True))
    names = {"a": 9, "q": 9000, "blank": 0, "alone": 9}
    found = explain_unregistered(names, PAIRED, counts, models)
    assert reason in found["q"]
    assert "no keypoints" in found["blank"] and "not paired" in found["alone"]
    assert ("a" in found) == (not models)


@pytest.mark.parametrize("count", [2, 4])
def test_what_is_unknown_is_left_out(count: int, tmp_path: Path) -> None:
    """Two cameras cannot be aligned with the truth: their errors are not known."""
    poses = {
        f"{i}.jpg": Pose(np.eye(3), np.array([i, i * i, 0.0])) for i in range(count)
    }
    summary = Summary(count, [], errors=model_errors(poses, poses))
    summary.write(tmp_path)
    text = (tmp_path / "summary.txt").read_text()
    assert f"against the truth: {count} of {count} registered" in text
    assert "nan" not in text and ("too few cameras to align" in text) == (count == 2)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    content = (tmp_path / "summary.json").read_text()
    errors = json.loads(content, parse_constant=refuse)["errors"]
    assert (errors["median_centre_share"] is None) == (count == 2)
