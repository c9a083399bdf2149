"""A scene of ETH3D in small: undistorted photographs and their model as text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from miniature import write_photos
from small_town import Photo

from sfm_features.geometry import quaternion_wxyz, unproject
from sfm_features.scenes import correspond

_FOLDER = "dslr_images_undistorted"
_STEP_PX = 40


def name_image(station: int) -> str:
    """Name a photograph as the model does."""
    return f"{_FOLDER}/DSC_{600 + station:04d}.JPG"


def write_scene(root: Path, photos: Mapping[int, Photo]) -> None:
    """Write images and dslr_calibration_undistorted; ids count from 0, as there.

    The last photograph has no points: its second line is empty.
    """
    write_photos(root / "images", {name_image(i): p for i, p in photos.items()})
    (root / "images" / _FOLDER).mkdir(exist_ok=True)
    seen: dict[int, list[str]] = {i: [] for i in photos}
    points = []
    *with_points, _ = photos
    for i in with_points:
        for xyz, views in _find_tracks(photos, i, with_points):
            for k, (x, y) in views.items():
                seen[k].append(f"{x + 0.5:.6f} {y + 0.5:.6f} {len(points)}")
            elements = " ".join(f"{k} {len(seen[k]) - 1}" for k in views)
            points.append(
                f"{len(points)} {xyz[0]} {xyz[1]} {xyz[2]} 9 9 9 0.5 {elements}"
            )
    lines = {"cameras": [], "images": [], "points3D": points}  # fmt: skip
    for i, photo in photos.items():
        focal, x, y = photo.camera.params
        size = f"{photo.camera.width} {photo.camera.height}"
        lines["cameras"].append(f"{i} PINHOLE {size} {focal} {focal} {x} {y}")
        pose = photo.cam_from_world
        pose_numbers = [*quaternion_wxyz(pose.rotation), *pose.translation]
        text = " ".join(f"{number:.17g}" for number in pose_numbers)
        lines["images"] += [f"{i} {text} {i} {name_image(i)}", " ".join(seen[i])]
    folder = root / "dslr_calibration_undistorted"
    folder.mkdir(parents=True)
    for name, body in lines.items():
        head = f"# {name} list\n# Number of entries: many\n"
        (folder / f"{name}.txt").write_text(head + "\n".join(body) + "\n")


def _find_tracks(
    photos: Mapping[int, Photo], i: int, others: list[int]
) -> list[tuple[np.ndarray, dict[int, np.ndarray]]]:
    """Find points on a grid of a photograph, and where the others see them."""
    photo = photos[i]
    height, width = photo.depth.shape
    columns, rows = np.meshgrid(
        np.arange(20, width, _STEP_PX), np.arange(20, height, _STEP_PX)
    )
    xy = np.stack([columns.ravel(), rows.ravel()], 1).astype(float)
    depth = photo.depth[rows.ravel(), columns.ravel()].astype(float)
    pose = photo.cam_from_world
    rays = unproject(photo.camera, xy) * np.where(np.isfinite(depth), depth, 1)[:, None]
    world = (rays - pose.translation) @ pose.rotation
    views: list[dict[int, np.ndarray]] = [{i: here} for here in xy]
    for k in others:
        if k == i:
            continue
        there, visible = correspond(photo.depth, photo, photos[k].depth, photos[k], xy)
        for row in np.flatnonzero(visible):
            views[row][k] = there[row]
    return [(w, v) for w, v in zip(world, views, strict=True) if len(v) > 1]
