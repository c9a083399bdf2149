"""New images for a map: which are localized, or added, and how."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from sfm_features import colmap
from sfm_features.errors import InputError, OptionError
from sfm_features.geometry import rotation_from_quaternion
from sfm_features.photo_files import SUFFIXES, list_images, read_lines
from sfm_features.types import F64, Camera, Pose


@dataclass(frozen=True)
class QueryOptions:
    """What is localized, and how it is written down."""

    images: Path | None = None
    """Folder of the images that a list names; default: where the list is."""
    priors: Path | None = None
    """Text file that tells about where queries were taken, `name x y z` or a line of
    poses.txt for each: the map is searched only near there."""
    names: Literal["basename", "path"] = "basename"
    """How poses.txt names images: file names, as visuallocalization.net wants it, or
    with their folders."""
    fallback: Literal["none", "retrieval"] = "none"
    """What a failed query gets: no pose, or that of the image that looks most like it,
    and is marked so; that needs a codebook that fits the map's features."""
    report: bool = True
    """Write report.html."""
    map_images: Path | None = None
    """Folder of the map's images, for the report; default: where it was made from."""


@dataclass(frozen=True)
class LocalizeOptions:
    """How a query is localized."""

    neighbours: int = 20
    """Images of the map that a query is matched with."""
    max_error_px: float = 8.0
    """Reprojection error up to which a match fits a pose, less in an image whose longer
    side is below 1024 px."""
    min_inliers: int = 15
    """Matches that must fit, or the query fails."""
    covisibility: bool = False
    """Split the images that a query is matched with into groups that share points, and
    keep the pose of the group that explains most: for places that look alike."""
    max_distance: float = float("inf")
    """How far from a query's prior images of the map may lie, in the map's unit;
    default: only the nearest are searched."""
    guided: bool = True
    """Look again for points near where a weak first pose sees them."""
    codebook: Path | None = None
    """Codebook for retrieval, if the map's features are not evo's."""
    weights: Path | None = None
    """Weights of the map's features, if they are not those of the package."""

    def check(self) -> None:
        """Raise OptionError for a value that makes no sense."""
        for name, least in (("neighbours", 1), ("min_inliers", 4)):
            if getattr(self, name) < least:
                flag = name.replace("_", "-")
                raise OptionError(
                    f"--{flag} {getattr(self, name)}: must be at least {least}"
                )
        for name in ("max_error_px", "max_distance"):
            if not getattr(self, name) > 0:
                flag = name.replace("_", "-")
                raise OptionError(f"--{flag} {getattr(self, name)}: must be above 0")


@dataclass(frozen=True)
class AddOptions:
    """How images are added to a map."""

    neighbours: int = 20
    """Images of the map that a new one is matched with, and so many of the new ones;
    all, where no codebook fits the features."""
    same_camera: bool = False
    """The new images were taken with the map's camera of their size, which stays as it
    is; else they get cameras of their own."""
    refine: bool = False
    """Bundle-adjust the larger map; without it, poses and cameras of the map stay
    exactly as they are."""
    polish: bool = True
    """In the end place new keypoints anew by what the photographs show around them, and
    adjust the points and the new images to that; with --refine all of the map."""
    report: bool = True
    """Write report.html."""
    masks: Path | None = None
    """Folder of masks named NAME.png, or one PNG file for all images, if the map was
    made with masks."""
    codebook: Path | None = None
    """Codebook for retrieval, if the map's features are not evo's."""
    weights: Path | None = None
    """Weights of the map's features, if they are not those of the package."""

    def check(self) -> None:
        """Raise OptionError for a value that makes no sense."""
        if self.neighbours < 1:
            raise OptionError(f"--neighbours {self.neighbours}: must be at least 1")


@dataclass(frozen=True)
class Query:
    """An image of a folder; its camera, and about where it was taken, if given."""

    name: str
    camera: Camera | None = None
    prior: Pose | None = None


def list_queries(source: Path, images: Path | None) -> tuple[Path, list[Query]]:
    """Return a folder and what to localize of it.

    The source is that folder, or one image, or a text file in hloc's format: `name`, or
    `name MODEL width height parameters`, on each line; names are relative to `images`.
    A name that holds a space is followed by a tab.
    """
    if source.is_dir():
        return source, [Query(name) for name in list_images(source)]
    if source.is_file() and source.suffix.lower() in SUFFIXES:
        return source.parent, [Query(source.name)]
    folder = images or source.parent
    queries = read_queries(source, folder)
    for query in queries:
        if not (folder / query.name).is_file():
            raise InputError(
                f"{source}: names {query.name!r}, which is not in {folder}; names are "
                "relative to it, or to the folder given with --images"
            )
    repeated = [name for name, n in Counter(q.name for q in queries).items() if n > 1]
    if repeated:
        raise InputError(f"{source}: names {repeated[0]!r} twice; leave one out")
    return folder, queries


def read_queries(source: Path, folder: Path | None = None) -> list[Query]:
    """Read a list in hloc's format; whether the images are there does not matter.

    Where there is a file of that name in the folder, a whole line is its name.
    """
    return [_parse(line, source, folder) for line in read_lines(source)]


def add_priors(queries: Sequence[Query], path: Path) -> list[Query]:
    """Add about where queries were taken, by a list; those not in it have no prior."""
    names = {query.name for query in queries}
    known = dict(_parse_prior(line, path, names) for line in read_lines(path))
    found = [replace(query, prior=known.get(query.name)) for query in queries]
    if not any(query.prior for query in found):
        raise InputError(
            f"{path}: names none of the queries; write their names with their folders, "
            f"as {queries[0].name!r}"
        )
    return found


def _parse_prior(line: str, path: Path, names: Collection[str]) -> tuple[str, Pose]:
    """Parse a name, which may hold spaces, and 7 or 3 numbers after it."""
    fits: dict[str, Pose] = {}
    for count in (7, 3):
        name, *words = line.rsplit(maxsplit=count)
        numbers = _parse_numbers(words)
        if len(numbers) == 7 == count and numbers[:4].any():
            fits[name] = Pose(rotation_from_quaternion(numbers[:4]), numbers[4:])
        elif len(numbers) == 3 == count:
            fits[name] = Pose(np.eye(3), -numbers)
    for name in fits:
        if name in names:
            return name, fits[name]
    for name in fits:
        # Another name that ends in a number has rather too few or too many of them.
        if not len(_parse_numbers(name.split()[-1:])):
            return name, fits[name]
    raise InputError(
        f"{path}: {line!r} is neither `name x y z` nor `name qw qx qy qz tx ty tz`"
    )


def _parse_numbers(words: Sequence[str]) -> F64:
    """Return words as numbers; none if one of them is not, or not finite."""
    try:
        numbers = np.array(words, np.float64)
    except ValueError:
        return np.zeros(0)
    return numbers if np.isfinite(numbers).all() else np.zeros(0)


def refuse_equal_basenames(queries: Sequence[Query]) -> None:
    """Raise InputError if two queries would be one in a list of bare file names."""
    seen: dict[str, str] = {}
    for query in queries:
        name = PurePosixPath(query.name).name
        other = seen.setdefault(name, query.name)
        if other != query.name:
            raise InputError(
                f"{other!r} and {query.name!r} have one file name, and poses.txt holds "
                "file names only, as visuallocalization.net wants it; give --names "
                "path to keep their folders"
            )


def _parse(line: str, source: Path, folder: Path | None) -> Query:
    if folder is not None and (folder / line).is_file():  # its name may have spaces
        return Query(line)
    # As in a list of pairs, a tab sets off a name that holds a space.
    name, tab, numbers = line.partition("\t")
    rest = numbers.split()
    if not tab or not rest:
        name, *rest = line.split()
    if not rest:
        return Query(name)
    try:
        model, width, height, *params = rest
        if not params:
            raise OptionError("its parameters are missing")
        values = colmap.parse_params(model, ",".join(params))
        camera = Camera(model, int(width), int(height), values)
        colmap.check_camera(camera)
    except (ValueError, OptionError) as error:
        raise InputError(
            f"{source}: {line!r} is not `name MODEL width height parameters` "
            f"({error}); write it so, or the name alone"
        ) from error
    return Query(name, camera)
