"""VisualSfM's NVM_V3: cameras, where they stand, and which points they see.

A camera's line is `name focal qw qx qy qz Cx Cy Cz radial 0`: the rotation is world to
camera, C the camera's centre. COLMAP parts the name with a space, VisualSfM with a tab,
and writes a space inside a name as a quotation mark. A point's line is `X Y Z R G B n`
and n times `image feature x y`, where images count from 0 in the order of their lines.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pipelines.protocols.poses import pose_from_centre
from sfm_features.errors import InputError
from sfm_features.types import I64, Camera, Model, Pose, RegisteredImage

logger = logging.getLogger(__name__)

_CAMERA_NUMBERS, _POINT_NUMBERS, _SEEN_NUMBERS = 10, 7, 4


@dataclass(frozen=True)
class Nvm:
    """The first model of a file: by image name, poses, optics and rows of points seen.

    A radial of VisualSfM's acts on the bent picture: it is about minus COLMAP's k.
    """

    poses: Mapping[str, Pose]
    focals_px: Mapping[str, float]
    radials: Mapping[str, float]
    seen: Mapping[str, I64]
    num_points: int

    def rename(self, change: Callable[[str], str]) -> Nvm:
        """Give images other names, as the files have them."""
        return Nvm(
            {change(name): pose for name, pose in self.poses.items()},
            {change(name): focal for name, focal in self.focals_px.items()},
            {change(name): radial for name, radial in self.radials.items()},
            {change(name): rows for name, rows in self.seen.items()},
            self.num_points,
        )

    def to_model(self, cameras: Mapping[str, Camera]) -> Model:
        """Make a model whose points say only who sees them; images without camera go.

        Where they are is left out: they are made anew by triangulation.
        """
        images = {
            name: RegisteredImage(
                name, cameras[name], pose,
                np.zeros((len(self.seen[name]), 2), np.float32), self.seen[name],
            )
            for name, pose in self.poses.items()
            if name in cameras
        }  # fmt: skip
        nothing = np.zeros(self.num_points)
        return Model(
            images,
            np.zeros((self.num_points, 3)),
            np.zeros((self.num_points, 3), np.uint8),
            nothing,
            nothing.astype(np.int64),
        )


def read_nvm(path: Path) -> Nvm:
    """Read the first model of a file; others, of other places, are told of."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; unpack the 3D models of the data set")
    with path.open(encoding="utf-8") as file:
        lines = _Lines(path, file)
        if not lines.next().startswith("NVM_V3"):
            raise lines.complain("is not NVM_V3")
        cameras = [lines.read_camera() for _ in range(lines.read_count())]
        names = [name for name, _ in cameras]
        if len(set(names)) < len(names):
            raise lines.complain("has cameras of one name twice above")
        seen = [array("q") for _ in names]
        count = lines.read_count()
        for row in tqdm(range(count), f"read {path.name}", unit="point", leave=False):
            for image in lines.read_viewers(len(names)):
                seen[image].append(row)
        lines.tell_of_more()
    return Nvm(
        {name: pose_from_centre(n[1:5], n[5:8]) for name, n in cameras},
        {name: numbers[0] for name, numbers in cameras},
        {name: numbers[8] for name, numbers in cameras},
        {n: np.array(s, np.int64) for n, s in zip(names, seen, strict=True)},
        count,
    )


class _Lines:
    """The lines of a file that are not blank, and the number of the last one."""

    def __init__(self, path: Path, file: Iterator[str]) -> None:
        self.path, self._file, self.number = path, file, 0

    def next(self, default: str | None = None) -> str:
        for line in self._file:
            self.number += 1
            if line.strip():
                return line.strip()
        if default is not None:
            return default
        raise self.complain("ends too early")

    def complain(self, what: str) -> InputError:
        return InputError(
            f"{self.path}, line {self.number}: {what}; unpack the file again"
        )

    def read_count(self, default: str | None = None) -> int:
        line = self.next(default)
        if not line.isdigit():
            raise self.complain(f"{line[:40]!r} is not a count")
        return int(line)

    def read_camera(self) -> tuple[str, list[float]]:
        name, *numbers = self.next().rsplit(None, _CAMERA_NUMBERS)
        try:
            values = [float(number) for number in numbers]
        except ValueError:
            values = []
        if len(values) != _CAMERA_NUMBERS or not any(values[1:5]):
            raise self.complain(
                "is not a camera, `name focal qw qx qy qz Cx Cy Cz radial 0`"
            )
        return name.replace('"', " "), values

    def read_viewers(self, num_images: int) -> list[int]:
        words = self.next().split()
        try:
            count = int(words[_POINT_NUMBERS - 1])
            images = [int(word) for word in words[_POINT_NUMBERS::_SEEN_NUMBERS]]
        except (ValueError, IndexError):
            count, images = -1, []
        if len(words) != _POINT_NUMBERS + _SEEN_NUMBERS * count:
            raise self.complain("is not a point, `X Y Z R G B n (image feature x y)`")
        if any(not 0 <= image < num_images for image in images):
            raise self.complain(f"names an image beyond the {num_images} of the model")
        return images

    def tell_of_more(self) -> None:
        line = self.next("0")
        if line.isdigit() and int(line):
            logger.warning(
                "%s: holds a second model of %s images, which is left out",
                *(self.path, line),
            )
