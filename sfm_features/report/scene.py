"""What the browser draws itself: the model in 3D and the view graph, as plain data."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfm_features.orientation import turn_back
from sfm_features.report.data import ReportData
from sfm_features.report.facts import ViewGraph
from sfm_features.report.pictures import choose_rows
from sfm_features.types import F64, U8, Camera, Model, Pose, RegisteredImage

MAX_POINTS = 30_000
MAX_EDGES = 3_000
# A frustum's size, as a share of the distance to the next camera and of the scene.
_FRUSTUM_OF_GAP, _FRUSTUM_OF_SCENE = 0.45, 0.06
_WIDEST_TANGENT = 1.2
_DARKEST = 44
_SPREAD_HEADINGS = 0.05


@dataclass(frozen=True)
class Viewer:
    """A camera to draw, and what is said of it."""

    name: str
    camera: Camera
    cam_from_world: Pose
    note: str


@dataclass(frozen=True)
class Viewers:
    """Cameras of one kind, which are drawn in one colour and can be hidden."""

    label: str
    colour: str
    members: Sequence[Viewer]


def arrange_scene(
    model: Model,
    orientations: Mapping[str, int],
    others: Sequence[Viewers] = (),
    colour: str = "#ffab4a",
    label: str = "Cameras",
) -> dict[str, Any]:
    """Turn a model up and towards the viewer, in a frame of about unit size.

    Up is +z, the cameras' side is -y. EXIF orientations by name say how cameras were
    held; absent ones count as 1. The model alone decides on the frame: `others` are
    drawn into it.
    """
    cameras = sorted(model.images.values(), key=lambda image: image.name)
    centres = np.reshape([c.cam_from_world.centre for c in cameras], (-1, 3))
    near = _find_near(model.points, centres)
    middle = np.median(model.points[near] if near.any() else centres, axis=0)
    frame = _orient_scene(cameras, orientations, centres.mean(axis=0) - middle)
    points = (model.points[near] - middle) @ frame.T
    spots = (centres - middle) @ frame.T
    corner_low, corner_high = _bound(points, spots)
    centre = (corner_low + corner_high) / 2
    radius = float(np.linalg.norm(corner_high - corner_low)) / 2 or 1.0
    size = _choose_frustum_size(spots, radius)
    kinds = [Viewers(label, colour, [_describe_viewer(c) for c in cameras]), *others]
    kinds = [kind for kind in kinds if kind.members]
    viewers = [viewer for kind in kinds for viewer in kind.members]
    frusta = [(_shape_frustum(v, size) - middle) @ frame.T - centre for v in viewers]
    chosen = choose_rows(len(points), MAX_POINTS)
    return {
        "points": _pack(((points[chosen] - centre) / radius).astype("<f4")),
        "colours": _pack(_brighten(model.colours[near][chosen])),
        "frusta": _pack((np.reshape(frusta, (-1, 3)) / radius).astype("<f4")),
        "names": [viewer.name for viewer in viewers],
        "notes": [viewer.note for viewer in viewers],
        "kinds": _number_kinds(kinds),
        "extent": ((corner_high - corner_low) / radius).round(4).tolist(),
        "shown": len(chosen),
        "near": int(near.sum()),
        "far": int((~near).sum()),
    }


def _describe_viewer(image: RegisteredImage) -> Viewer:
    seen = int((image.point_ids >= 0).sum())
    note = f"{seen:,} point{'' if seen == 1 else 's'}"
    return Viewer(image.name, image.camera, image.cam_from_world, note)


def _number_kinds(kinds: Sequence[Viewers]) -> list[dict[str, Any]]:
    """Tell which of all viewers, one kind after the other, are of each kind."""
    starts = np.cumsum([0, *(len(kind.members) for kind in kinds)]).tolist()
    return [
        {
            "label": kind.label,
            "colour": kind.colour,
            "cameras": list(range(start, start + len(kind.members))),
        }
        for kind, start in zip(kinds, starts, strict=False)
    ]


def arrange_graph(data: ReportData, graph: ViewGraph) -> dict[str, Any]:
    """Place images on a circle and, where the model has them, as seen from above."""
    names = data.names
    index = {name: i for i, name in enumerate(names)}
    angles = np.pi / 2 - 2 * np.pi * np.arange(len(names)) / max(len(names), 1)
    pairs = graph.strongest_first[:MAX_EDGES]
    return {
        "names": names,
        "registered": [name in data.registered for name in names],
        "partners": [len(graph.neighbours.get(name, ())) for name in names],
        "circle": np.stack([np.cos(angles), np.sin(angles)], 1).round(4).tolist(),
        "above": _place_from_above(data),
        "edges": [[index[a], index[b], graph.counts[a, b]] for a, b in pairs],
        "hidden": len(graph.counts) - len(pairs),
    }


def _place_from_above(data: ReportData) -> list[list[float]] | None:
    """Place registered images by their camera, the others in rows underneath."""
    if data.model is None or len(data.registered) < 3:
        return None
    cameras = [data.model.images[name] for name in sorted(data.model.images)]
    centres = np.array([camera.cam_from_world.centre for camera in cameras])
    middle = np.median(centres, axis=0)
    scene = np.median(data.model.points, axis=0) if len(data.model.points) else middle
    frame = _orient_scene(cameras, {}, middle - scene)
    flat = ((centres - middle) @ frame.T)[:, :2]
    flat /= np.abs(flat).max() or 1.0
    placed = {c.name: xy for c, xy in zip(cameras, flat.tolist(), strict=True)}
    outside = [name for name in data.names if name not in placed]
    bottom = float(flat[:, 1].min()) - 0.35
    for i, name in enumerate(outside):
        placed[name] = [-1 + 0.1 * (i % 21), bottom - 0.12 * (i // 21)]
    return [[round(x, 4), round(y, 4)] for x, y in (placed[n] for n in data.names)]


def _brighten(colours: U8) -> U8:
    """Lift dark colours (P, 3) so that they can be told from a dark ground."""
    if not colours.any():
        # Some tools do not colour their points.
        return np.full_like(colours, 200)
    middle = float(np.clip(np.median(colours.max(axis=1)) / 255, 0.01, 0.99))
    gamma = np.clip(np.log(0.65) / np.log(middle), 0.5, 1)
    bright: U8 = np.rint(_DARKEST + (255 - _DARKEST) * (colours / 255) ** gamma).astype(
        np.uint8
    )
    return bright


def _find_near(points: F64, centres: F64) -> NDArray[np.bool_]:
    """Mark (P,) the points near the scene: a few far ones would shrink all the rest."""
    if not len(points):
        return np.zeros(0, np.bool_)
    distances = np.linalg.norm(points - np.median(points, axis=0), axis=1)
    to_cameras = np.linalg.norm(centres - np.median(points, axis=0), axis=1)
    limit = max(1.6 * np.percentile(distances, 90), 1.1 * np.median(to_cameras))
    near: NDArray[np.bool_] = distances <= limit
    return near


def _bound(points: F64, spots: F64) -> tuple[F64, F64]:
    """Return opposite corners (3,) of a box around all but the outermost points."""
    low, high = spots.min(axis=0), spots.max(axis=0)
    if len(points):
        low = np.minimum(low, np.percentile(points, 2, axis=0))
        high = np.maximum(high, np.percentile(points, 98, axis=0))
    return low, high


def _orient_scene(
    cameras: list[RegisteredImage], orientations: Mapping[str, int], to_cameras: F64
) -> F64:
    """Return a rotation (3, 3): its rows are right, away from the viewer, and up."""
    up = _guess_up(cameras, orientations)
    away = -(to_cameras - (to_cameras @ up) * up)
    if np.linalg.norm(away) < 0.2 * np.linalg.norm(to_cameras):
        # The cameras are all around, or overhead: look along with the first one.
        ahead = cameras[0].cam_from_world.rotation[2]
        away = ahead - (ahead @ up) * up
    if np.linalg.norm(away) < 1e-6:
        away = np.eye(3)[np.argmin(np.abs(up))]
        away = away - (away @ up) * up
    away = away / np.linalg.norm(away)
    return np.stack([np.cross(away, up), away, up])


def _guess_up(cameras: list[RegisteredImage], orientations: Mapping[str, int]) -> F64:
    """Guess the world's up (3,) from how people hold cameras: level, y down.

    Where they look in several directions, up is what is square to all their x axes:
    unlike the mean of the y axes it does not care how far they are tilted.
    """
    axes = np.array(
        [
            _find_upright_axes(orientations.get(camera.name, 1))
            @ camera.cam_from_world.rotation[:2]
            for camera in cameras
        ]
    )
    mean = -axes[:, 1].mean(axis=0)
    if np.linalg.norm(mean) < 0.3:
        # Headings cancel out, as in a flight to and fro: the cameras look down.
        mean = -np.mean([c.cam_from_world.rotation[2] for c in cameras], axis=0)
    mean /= np.linalg.norm(mean) or 1.0
    spread, directions = np.linalg.eigh(axes[:, 0].T @ axes[:, 0] / len(axes))
    square = directions[:, 0] * np.sign(directions[:, 0] @ mean)
    clear = spread[1] > _SPREAD_HEADINGS and spread[0] < spread[1] / 4
    up: F64 = square if clear and square @ mean > 0.5 else mean
    return up if up.any() else np.array([0.0, 0.0, 1.0])


def _find_upright_axes(orientation: int) -> F64:
    """Return (2, 2): the upright picture's x and y axes in the stored image."""
    corners = np.array([[0, 0], [1, 0], [0, 1]], np.float32)
    origin, right, down = turn_back(corners, orientation, (1, 1))
    return np.stack([right - origin, down - origin]).astype(np.float64)


def _choose_frustum_size(spots: F64, radius: float) -> float:
    gaps = [
        float(np.sort(np.linalg.norm(spots - spot, axis=1))[1])
        for spot in spots[:: max(1, len(spots) // 200)]
        if len(spots) > 1
    ]
    gap = float(np.median(gaps)) if gaps else radius
    small = 0.3 * _FRUSTUM_OF_SCENE * radius
    return max(min(_FRUSTUM_OF_GAP * gap, _FRUSTUM_OF_SCENE * radius), small)


def _shape_frustum(viewer: Viewer, size: float) -> F64:
    """Return a camera's centre and its four corners, clockwise, in the world (5, 3)."""
    pose, camera = viewer.cam_from_world, viewer.camera
    # Every model of COLMAP starts with a focal length; lenses bend too little to see.
    focal = max(camera.params[0], 1e-9)
    wide = min(camera.width / (2 * focal), _WIDEST_TANGENT)
    high = min(camera.height / (2 * focal), _WIDEST_TANGENT)
    corners = [(-wide, -high), (wide, -high), (wide, high), (-wide, high)]
    rays = np.array([(0, 0, 0), *((x, y, 1.0) for x, y in corners)])
    return size * rays @ pose.rotation + pose.centre


def _pack(array: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
