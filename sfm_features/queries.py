"""Which images are to be localized, how, and what is known of their cameras."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from sfm_features import colmap
from sfm_features.errors import InputError, OptionError
from sfm_features.images import list_images, read_lines
from sfm_features.types import Camera


@dataclass(frozen=True)
class QueryOptions:
    """What is localized, and how it is written down."""

    images: Path | None = None
    """Folder of the images that a list names; default: where the list is."""
    names: Literal["basename", "path"] = "basename"
    """How poses.txt names images: file names, as visuallocalization.net wants it, or
    with their folders."""
    fallback: Literal["none", "retrieval"] = "none"
    """What a failed query gets: no pose, or that of the image that looks most like it,
    and is marked so."""


@dataclass(frozen=True)
class LocalizeOptions:
    """How a query is localized."""

    neighbours: int = 20
    """Images of the map that a query is matched with."""
    max_error_px: float = 8.0
    """Reprojection error up to which a match fits a pose."""
    min_inliers: int = 15
    """Matches that must fit, or the query fails."""
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
        if not self.max_error_px > 0:
            raise OptionError(
                f"--max-error-px {self.max_error_px}: must be more than 0"
            )


@dataclass(frozen=True)
class Query:
    """An image of a folder; its camera if that is given."""

    name: str
    camera: Camera | None = None


def list_queries(source: Path, images: Path | None) -> tuple[Path, list[Query]]:
    """Return a folder and what to localize of it.

    The source is that folder, or a text file in hloc's format: `name`, or `name MODEL
    width height parameters`, on each line; names are relative to `images`. A name that
    holds a space is followed by a tab.
    """
    if source.is_dir():
        return source, [Query(name) for name in list_images(source)]
    folder = images or source.parent
    queries = read_queries(source)
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


def read_queries(source: Path) -> list[Query]:
    """Read a list in hloc's format; whether the images are there does not matter."""
    return [_parse(line, source) for line in read_lines(source)]


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


def _parse(line: str, source: Path) -> Query:
    # As in a list of pairs, a tab sets off a name that holds a space.
    name, tab, numbers = line.partition("\t")
    rest = numbers.split()
    if not tab or not rest:
        name, *rest = line.split()
    if not rest:
        return Query(name)
    try:
        model, width, height, *params = rest
        values = colmap.parse_params(model, ",".join(params))
        size = int(width), int(height)
    except (ValueError, OptionError) as error:
        raise InputError(
            f"{source}: {line!r} is not `name MODEL width height parameters` ({error})"
        ) from error
    if not values or min(size) < 1:
        raise InputError(
            f"{source}: {line!r} lacks the parameters of its camera; write `name MODEL "
            "width height parameters`, or the name alone"
        )
    return Query(name, Camera(model, *size, values))
