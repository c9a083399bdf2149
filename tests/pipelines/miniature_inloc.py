"""InLoc in small: photographs of the town as cutouts of scans in their own frames."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from miniature import write_photos
from small_town import SIZE, Photo

from sfm_features.geometry import unproject
from sfm_features.types import Pose

HOLE_PX = 24
"""Side of the squares that the scanner did not reach."""


def name_cutout(building: str, scan: int) -> str:
    """Name a cutout as InLoc does."""
    folder = f"database/cutouts/{building}/{scan:03d}"
    return f"{folder}/DUC_cutout_{scan:03d}_30_0.jpg"


def write_inloc(
    root: Path, scans: Mapping[tuple[str, int], Photo], queries: Mapping[str, Photo]
) -> None:
    """Write cutouts with their points and alignments, and queries.

    The first alignment of a file is a rough one, as there: nobody may use it.
    """
    write_photos(root / "query/iphone7", queries)
    rng = np.random.default_rng(5)
    for (building, scan), photo in scans.items():
        name = name_cutout(building, scan)
        write_photos(root, {name: photo})
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        turn *= np.sign(np.linalg.det(turn))
        to_building = Pose(turn, rng.uniform(-30, 30, 3))
        inside = (_find_points(photo) - to_building.translation) @ to_building.rotation
        inside[40 : 40 + HOLE_PX, 60 : 60 + HOLE_PX] = np.nan
        compressed = scan % 2 == 0
        content = make_mat({"RGBcut": photo.rgb, "XYZcut": inside}, compressed)
        (root / f"{name}.mat").write_bytes(content)
        folder = root / f"database/alignments/{building}/transformations"
        folder.mkdir(parents=True, exist_ok=True)
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = to_building.rotation, to_building.translation
        rough = matrix + 0.3
        lines = ["before", *_write_rows(rough), "", "after general ICP"]
        lines += _write_rows(matrix)
        path = folder / f"DUC_trans_{scan:03d}.txt"
        path.write_text("\n".join([lines[0], *lines[1:]]) + "\n")


def _write_rows(matrix: np.ndarray) -> list[str]:
    return [" ".join(f"{x:.12g}" for x in row) for row in matrix]


def _find_points(photo: Photo) -> np.ndarray:
    """Return where in the town each pixel is (H, W, 3); nan for the sky."""
    width, height = SIZE
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    xy = np.stack([columns.ravel(), rows.ravel()], 1).astype(float)
    depth = np.where(np.isfinite(photo.depth), photo.depth, np.nan).reshape(-1, 1)
    pose = photo.cam_from_world
    world = (unproject(photo.camera, xy) * depth - pose.translation) @ pose.rotation
    return world.reshape(height, width, 3)


def make_mat(arrays: Mapping[str, np.ndarray], compressed: bool) -> bytes:
    """Make a MATLAB file of version 5, or of 7, which compresses its elements."""
    header = b"MATLAB 5.0 MAT-file".ljust(124, b" ") + struct.pack("<H", 0x0100) + b"IM"
    parts = [_make_matrix(name, array) for name, array in arrays.items()]
    if compressed:
        packed = [zlib.compress(part) for part in parts]
        parts = [struct.pack("<II", 15, len(part)) + part for part in packed]
    return header + b"".join(parts)


def _make_matrix(name: str, array: np.ndarray) -> bytes:
    class_, kind = {"uint8": (9, 2), "float64": (6, 9), "float32": (7, 7)}[
        array.dtype.name
    ]
    body = _make_element(6, struct.pack("<II", class_, 0))
    body += _make_element(5, np.array(array.shape, "<i4").tobytes())
    body += _make_element(1, name.encode())
    body += _make_element(kind, array.tobytes(order="F"))
    return _make_element(14, body)


def _make_element(kind: int, body: bytes) -> bytes:
    if len(body) <= 4:  # the small form
        return struct.pack("<HH", kind, len(body)) + body.ljust(4, b"\0")
    return struct.pack("<II", kind, len(body)) + body + bytes(-len(body) % 8)
