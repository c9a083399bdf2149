"""Which images to match: rules that choose pairs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from tqdm import tqdm

from sfm_features import colmap
from sfm_features.errors import (
    InputError,
    OptionError,
    refuse_unused,
    require_at_least,
    require_other_file,
)
from sfm_features.journal import explain_os_errors
from sfm_features.photo_files import list_images
from sfm_features.ranking import Barred
from sfm_features.similar import (
    close_loops,
    order_pair,
    pair_similar,
    select_names,
)
from sfm_features.store import FeatureStore, GlobalStore
from sfm_features.types import F64, I64, Model, Pair, Pose

logger = logging.getLogger(__name__)

_MANY_IMAGES = 1000
_HEAD_BYTES = 4096

PairMethod: TypeAlias = Literal[
    "exhaustive", "sequential", "retrieval", "gps", "poses", "covisibility"
]

_USED: Mapping[PairMethod, Sequence[str]] = {
    "exhaustive": ("images", "features"),
    "sequential": (
        *("images", "features", "descriptors", "overlap", "linear", "neighbours"),
    ),
    "retrieval": (
        *("images", "model", "descriptors", "queries", "database"),
        *("neighbours", "max_distance"),
    ),
    "gps": ("images", "neighbours", "max_distance"),
    "poses": ("model", "neighbours", "max_distance", "max_angle_deg"),
    "covisibility": ("model", "neighbours"),
}
"""The options that a method heeds."""

_ALONE = "an image alone has no partner; give more of them"
_REMEDIES: Mapping[PairMethod, str] = {
    "exhaustive": _ALONE,
    "sequential": _ALONE,
    "retrieval": "check --queries, --database and --max-distance",
    "gps": "check --max-distance, or choose another --method",
    "poses": "check --max-distance and --max-angle-deg",
    "covisibility": "no images of --model share a point; --method poses needs none",
}
"""What to do if a method finds no pair."""


@dataclass(frozen=True)
class PairOptions:
    """What to pair, and how far to go."""

    images: Path | None = None
    """Folder whose images are paired; needed for gps."""
    features: Path | None = None
    """Feature file whose images are paired."""
    model: Path | None = None
    """COLMAP model; needed for poses and covisibility; for retrieval only its images
    are paired with."""
    descriptors: Path | None = None
    """File of whole images' descriptors, as `describe` writes it; for retrieval, and
    for sequential to find places that are passed again."""
    queries: str = ""
    """Which images to find partners for, for retrieval: a prefix of their names, or a
    text file that lists them; default: all."""
    database: str = ""
    """Which images to pair them with, likewise; default: all, or those of --model."""
    overlap: int = 10
    """Images ahead, for sequential."""
    linear: bool = False
    """For sequential: leave out the steps 1, 2, 4, 8 ... further ahead."""
    neighbours: int = 20
    """Partners of an image, for retrieval, gps, poses and covisibility."""
    max_distance: float = float("inf")
    """Largest distance, in metres for gps, in the model's unit for poses; for retrieval
    in metres by the GPS of --images, or else in the model's unit by the poses of
    --model, where both images have one."""
    max_angle_deg: float = 60.0
    """Largest angle between two viewing directions, for poses."""

    def __post_init__(self) -> None:
        require_at_least(1, overlap=self.overlap, neighbours=self.neighbours)
        if not self.max_distance >= 0:
            raise OptionError(f"--max-distance {self.max_distance}: must be at least 0")
        if not 0 <= self.max_angle_deg <= 180:
            raise OptionError(
                f"--max-angle-deg {self.max_angle_deg}: must be from 0 to 180"
            )


def choose_pairs(method: PairMethod, options: PairOptions) -> list[Pair]:
    """List pairs by a rule; raise OptionError for an option that it does not use.

    Raise InputError if there are none.
    """
    _refuse_unused(method, options)
    chosen = _choose_pairs(method, options)
    if not chosen:
        raise InputError(f"--method {method}: finds no pair; {_REMEDIES[method]}")
    return chosen


def _choose_pairs(method: PairMethod, options: PairOptions) -> list[Pair]:
    if method in ("poses", "covisibility"):
        if options.model is None:
            raise OptionError(f"--method {method}: needs a --model")
        model = colmap.read_model(colmap.choose_model(options.model))
        if method == "covisibility":
            return pair_by_covisibility(model, options.neighbours)
        poses = {name: image.cam_from_world for name, image in model.images.items()}
        return pair_by_poses(
            poses, options.neighbours, options.max_distance, options.max_angle_deg
        )
    if method == "gps":
        if options.images is None:
            raise OptionError("--method gps: needs --images, whose EXIF tells where")
        centres = _locate(options.images, "get no pairs")
        return pair_by_distance(centres, options.neighbours, options.max_distance)
    if method == "retrieval":
        return _pair_by_retrieval(options)
    names = _list_names(options)
    if method == "sequential":
        pairs = pair_sequentially(names, options.overlap, not options.linear)
        if options.descriptors is None:
            return pairs
        return close_loops(options.descriptors, names, pairs, options.neighbours)
    return pair_exhaustively(names)


def _refuse_unused(method: PairMethod, options: PairOptions) -> None:
    unused = [name for name in vars(options) if name not in _USED[method]]
    refuse_unused(options, unused, f"--method {method} does not use it; leave it out")
    if options.features is not None and options.images is not None:
        raise OptionError("--features and --images: which images? give one of the two")
    if (
        method == "retrieval"
        and np.isfinite(options.max_distance)
        and options.images is None
        and options.model is None
    ):
        raise OptionError(
            "--max-distance: needs --images or --model, which tell where images are"
        )


def _locate(images: Path, otherwise: str) -> dict[str, F64]:
    """Tell where images were taken, in metres; warn of those that do not tell."""
    names = list_images(images)
    found = colmap.read_gps(images, names)
    absent = [name for name in names if name not in found]
    if not found:
        raise InputError(
            f"{images}: no image has a GPS position in its EXIF, to tell distances by; "
            "choose another --method, or, for retrieval, leave out --max-distance"
        )
    if absent:
        logger.warning(
            "%s: %d of %d images have no GPS position and %s; the first is %r",
            *(images, len(absent), len(names), otherwise, absent[0]),
        )
    return colmap.gps_to_local_metres(found)


def _list_names(options: PairOptions) -> list[str]:
    if options.features is not None:
        with FeatureStore.open(options.features) as store:
            return store.names()
    if options.images is not None:
        return list_images(options.images)
    raise OptionError("which images? give --features or --images")


def pair_exhaustively(names: Iterable[str]) -> list[Pair]:
    """Pair every image with every other."""
    return list(combinations(sorted(set(names)), 2))


def pair_sequentially(
    names: Sequence[str], overlap: int = 10, quadratic: bool = True
) -> list[Pair]:
    """Pair each image with the next `overlap`, in the order given.

    Quadratic: with those 1, 2, 4, 8 ... steps ahead too, `overlap` of them.
    """
    if overlap < 1:
        raise OptionError(f"--overlap {overlap}: must be at least 1")
    # Further ahead there is nothing, however far one is asked to look.
    steps = set(range(1, min(overlap, len(names)) + 1))
    if quadratic:
        steps |= {2**i for i in range(min(overlap, len(names).bit_length()))}
    found = {
        order_pair(names[i], names[i + step])
        for i in range(len(names))
        for step in steps
        if i + step < len(names)
    }
    return sorted(found)


def _pair_by_retrieval(options: PairOptions) -> list[Pair]:
    if options.descriptors is None:
        raise OptionError(
            "--method retrieval: needs --descriptors, a file that `sfm-features "
            "describe` writes"
        )
    with GlobalStore.open(options.descriptors) as store:
        names = store.names()
    database = select_names(names, options.database, "--database")
    poses: dict[str, Pose] = {}
    if options.model is not None:
        images = colmap.read_model(colmap.choose_model(options.model)).images
        poses = {name: image.cam_from_world for name, image in images.items()}
        database = [name for name in database if name in poses]
    if not database:
        raise InputError(
            f"{options.descriptors}: describes none of the images to pair with; check "
            "--database and --model"
        )
    queries = select_names(names, options.queries, "--queries")
    return pair_similar(
        options.descriptors,
        queries,
        database,
        options.neighbours,
        _gate(options, poses),
    )


def _gate(options: PairOptions, poses: Mapping[str, Pose]) -> Barred | None:
    """Bar what lies far away by GPS or by poses, where both images have it."""
    if not np.isfinite(options.max_distance):
        return None
    centres = {name: pose.centre for name, pose in poses.items()}
    if options.images is not None:
        centres = _locate(options.images, "are paired at any distance")
    nowhere = np.full(3, np.nan)  # which is not far from anything

    def bar_far(part: Sequence[str]) -> Callable[[str], I64]:
        points = np.array([centres.get(name, nowhere) for name in part])

        def list_far(query: str) -> I64:
            apart = np.linalg.norm(points - centres.get(query, nowhere), axis=1)
            return np.flatnonzero(apart > options.max_distance)

        return list_far

    return bar_far


def pair_by_distance(
    centres: Mapping[str, F64], neighbours: int = 20, max_distance: float = np.inf
) -> list[Pair]:
    """Pair each image with its nearest ones in space, in the centres' unit."""
    names = sorted(centres)
    return _pair_nearest(names, _distances(centres, names), neighbours, max_distance)


def pair_by_poses(
    poses: Mapping[str, Pose],
    neighbours: int = 20,
    max_distance: float = np.inf,
    max_angle_deg: float = 60.0,
) -> list[Pair]:
    """Pair each image with its nearest ones that look into a similar direction."""
    names = sorted(poses)
    # How a camera is rolled about its axis, as for a portrait, is no matter.
    axes = np.array([poses[name].rotation[2] for name in names]).reshape(-1, 3)
    least = np.cos(np.radians(max_angle_deg))
    distances = _distances({name: poses[name].centre for name in names}, names)
    costs = (
        np.where(axes @ axis >= least, row, np.inf)
        for axis, row in zip(axes, distances, strict=True)
    )
    return _pair_nearest(names, costs, neighbours, max_distance)


def pair_by_covisibility(
    model: Model, neighbours: int = 20, min_shared: int = 1
) -> list[Pair]:
    """Pair each image of a model with those it shares the most 3D points with."""
    names = sorted(model.images)
    shared = _count_shared(model, names)
    costs = (np.where(row >= min_shared, -row, np.inf) for row in shared)
    return _pair_nearest(names, costs, neighbours, np.inf)


def refuse_loss(path: Path, options: PairOptions) -> None:
    """Raise OptionError if a pairs file would overwrite what is no pairs file."""
    lists = (Path(options.queries), Path(options.database))
    require_other_file(path, options.features, options.descriptors, *lists)
    if not path.is_file():
        return
    with explain_os_errors(path), path.open("rb") as file:
        is_text = b"\0" not in file.read(_HEAD_BYTES)
    if not is_text:
        raise OptionError(
            f"{path}: is there already and not a text file; choose another --output"
        )


def _distances(centres: Mapping[str, F64], names: Sequence[str]) -> Iterator[F64]:
    points = np.array([centres[name] for name in names]).reshape(-1, 3)
    return (np.linalg.norm(points - point, axis=1) for point in points)


def _pair_nearest(
    names: Sequence[str], costs: Iterable[F64], neighbours: int, max_cost: float
) -> list[Pair]:
    """Pair each image with its `neighbours` cheapest finite ones.

    `costs`: N rows (N,), one at a time, as all at once would not fit for many images.
    """
    if neighbours < 1:
        raise OptionError(f"--neighbours {neighbours}: must be at least 1")
    found = set()
    for i, row in enumerate(costs):
        row[i] = np.inf
        for j in np.argsort(row, kind="stable")[:neighbours]:
            if np.isfinite(row[j]) and row[j] <= max_cost:
                found.add(order_pair(names[i], names[j]))
    return sorted(found)


def _count_shared(model: Model, names: Sequence[str]) -> Iterator[F64]:
    """Count, image by image, the points that it shares with each (N,), itself too."""
    seen = [np.unique(model.images[name].point_ids) for name in names]
    seen = [rows[rows >= 0] for rows in seen]
    points = np.concatenate([*seen, np.zeros(0, np.int64)])
    viewers = np.repeat(np.arange(len(names)), [len(rows) for rows in seen])
    viewers = viewers[np.argsort(points, kind="stable")]
    # Point p is seen by viewers[ends[p] - counts[p] : ends[p]].
    counts = np.bincount(points, minlength=1)
    ends = np.cumsum(counts)
    # `disable` is not passed: it would override TQDM_DISABLE.
    is_long = len(names) >= _MANY_IMAGES
    for rows in tqdm(seen, "covisible", unit="image") if is_long else seen:
        # The ranges of all its points, one after the other.
        total = np.cumsum(counts[rows])
        shift = np.repeat(ends[rows] - total, counts[rows])
        found = viewers[np.arange(len(shift)) + shift]
        yield np.bincount(found, minlength=len(names)).astype(np.float64)
