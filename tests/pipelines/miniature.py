"""What the miniatures of data sets have in common."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from samples import write_image
from small_town import Photo

from sfm_features.geometry import rotation_angle_deg, rotation_from_quaternion
from sfm_features.types import Pose

HELD_OUT = (2, 5, 8, 11)
"""Stations whose photographs are queries; the others are the map."""
CPU = ["--device", "cpu"]


def write_photos(folder: Path, photos: Mapping[str, Photo]) -> None:
    """Write photographs under their names, JPEG or PNG."""
    for name, photo in photos.items():
        write_image(folder / name, photo.rgb)


def assert_close(pose: Pose, true: Pose, metres: float, degrees: float) -> None:
    """Check a pose against the truth."""
    assert np.linalg.norm(pose.centre - true.centre) < metres
    assert rotation_angle_deg(pose.rotation @ true.rotation.T) < degrees


def read_submission(path: Path) -> dict[str, Pose]:
    """Read `name qw qx qy qz tx ty tz`, cam_from_world, as the server would."""
    poses = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        name, *rest = line.split(" ")
        numbers = np.array(rest, float)
        assert len(numbers) == 7 and name not in poses
        rotation = rotation_from_quaternion(numbers[:4])
        poses[name] = Pose(rotation, numbers[4:])
    return poses


def read_rows(output: Path, name: str) -> list[dict[str, object]]:
    """Read the rows of a table that a pipeline wrote down."""
    found = json.loads((output / "results.json").read_text(encoding="utf-8"))
    return found["results"][name]["rows"]
