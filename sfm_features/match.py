"""Features and pairs to matches: every image is loaded once per tile of pairs."""

from __future__ import annotations

import itertools
import logging
import mmap
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sfm_features.errors import (
    OptionError,
    PairsError,
    refuse_unused,
    require_other_file,
    suggest,
)
from sfm_features.recent import Recent
from sfm_features.registry import (
    DEFAULT_MATCHER,
    DEFAULT_RATIO,
    FOR_OBJECTS,
    build_matcher,
)
from sfm_features.still import OnlyMoving
from sfm_features.store import FeatureStore, MatchStore, refuse_collisions
from sfm_features.types import Features, Pair, RunOptions

logger = logging.getLogger(__name__)

T = TypeVar("T", bound=np.generic)

_CACHE_BYTES = 256 << 20
_TILE_IMAGES = 32  # images on a side of a tile; two tiles fit the cache at 8192 x 128


@dataclass(frozen=True)
class MatchOptions:
    """How features are matched."""

    matcher: str = "auto"
    """Method: nearest (mutual nearest neighbours, exact); agreeing (without those that
    move otherwise than all around them); auto: agreeing, for sift nearest."""
    ratio: float | None = None
    """Bound on best over second best distance; 1 = off; default: what suits the
    extractor (0.8 for sift, off for learned ones)."""
    min_similarity: float = -1.0
    """Least dot product of two matched descriptors."""
    turntable: bool = False
    """The camera stands still and the object turns: leave out matches that do not move.
    Not for a camera that moves: a slow video would lose its neighbouring frames."""
    keep_still: bool = False
    """Keep matches that do not move with evo-object, too, which leaves them out by
    itself: for a slow video of an object."""
    still_px: float = 0.0
    """For --turntable, how far a match may move and still count as standing still, in
    pixels of the photograph; 0 = 0.3 % of its longer side."""

    def __post_init__(self) -> None:
        if not -1 <= self.min_similarity <= 1:
            raise OptionError(
                f"--min-similarity {self.min_similarity}: must be from -1 to 1"
            )
        if not self.still_px >= 0:
            raise OptionError(f"still_px is {self.still_px}; it must be 0 or more")
        if self.still_px and not self.turntable:
            raise OptionError("--still-px needs --turntable; add it, or leave both out")
        if self.turntable and self.keep_still:
            raise OptionError(
                "--turntable leaves out what --keep-still keeps; give one of them"
            )


@dataclass(frozen=True)
class MatchSummary:
    """What was done: counts, skipped pairs with the reason, seconds."""

    written: int
    reused: int
    skipped: dict[Pair, str] = field(default_factory=dict)
    seconds: float = 0.0


def match(
    features: Path | str,
    pairs: Iterable[Pair],
    output: Path | str,
    options: MatchOptions = MatchOptions(),
    run: RunOptions = RunOptions(),
    overwrite: bool = False,
) -> MatchSummary:
    """Match pairs of a feature file into an HDF5 file, or complete it.

    `overwrite` starts the file anew, once all that is given was checked.
    """
    features, output = Path(features), Path(output)
    start = time.perf_counter()
    require_other_file(output, features)
    with FeatureStore.open(features) as feature_store:
        wanted, skipped = _split_known(pairs, feature_store, run.strict)
        refuse_collisions(name for pair in wanted for name in pair)
        settings = _resolve(options, feature_store)
        # Before the file is made: it would hold a misspelt name as its setting.
        matcher = build_matcher(device=run.device, **settings)
        if _drops_still(options, feature_store):
            matcher = OnlyMoving(matcher, options.still_px)
        config = describe(settings, options, feature_store)
        with MatchStore.append(output, config, overwrite) as store:
            names = {name for pair in wanted for name in pair}
            known = {name: feature_store.fingerprint(name) for name in names}
            missing = [
                (a, b)
                for a, b in wanted
                if not store.has_of((a, b), (known[a], known[b]))
            ]
            load = Recent(partial(_read, feature_store), _count_bytes, _CACHE_BYTES)
            for first, seconds in _show_progress(_in_tiles(missing), len(missing)):
                a, others = load(first), [load(second) for second in seconds]
                results = matcher.match_many(a, others)
                for second, matches in zip(seconds, results, strict=True):
                    fingerprints = known[first], known[second]
                    store.write((first, second), matches, len(a), fingerprints)
    summary = MatchSummary(
        written=len(missing),
        reused=len(wanted) - len(missing),
        skipped=skipped,
        seconds=time.perf_counter() - start,
    )
    _log(summary)
    if isinstance(matcher, OnlyMoving):
        matcher.tell(asked=options.turntable)
    return summary


def refuse_matching(given: Path | None, options: MatchOptions) -> None:
    """Raise OptionError if matches that were given would have to be made anew."""
    if given is not None:
        refuse_unused(
            options,
            vars(options),
            f"the matches of {given} are used as they are; leave out --matches, or "
            "make them by `sfm-features match` with this option",
        )


def describe(
    settings: dict[str, Any], options: MatchOptions, features: FeatureStore
) -> dict[str, Any]:
    """Return the settings that decide what matches look like, for the file."""
    made_from = {f"features.{key}": value for key, value in features.config.items()}
    # Not there at all if it is off: so files of before the option can be continued.
    dropped = _drops_still(options, features)
    still = {"turntable": options.still_px or True} if dropped else {}
    return {**settings, **made_from, **still}


def _drops_still(options: MatchOptions, features: FeatureStore) -> bool:
    """Tell whether matches that stand still are left out, asked or by the extractor."""
    of_objects = features.config.get("extractor") in FOR_OBJECTS
    return options.turntable or (of_objects and not options.keep_still)


def _resolve(options: MatchOptions, features: FeatureStore) -> dict[str, Any]:
    """Fill in what depends on the extractor."""
    extractor = features.config.get("extractor", "")
    ratio, name = options.ratio, options.matcher
    return {
        "name": DEFAULT_MATCHER.get(extractor, "agreeing") if name == "auto" else name,
        "ratio": DEFAULT_RATIO.get(extractor, 1.0) if ratio is None else ratio,
        "min_similarity": options.min_similarity,
    }


def _split_known(
    pairs: Iterable[Pair], features: FeatureStore, strict: bool
) -> tuple[list[Pair], dict[Pair, str]]:
    """Part the pairs whose images have features from the others; drop duplicates.

    Raise PairsError if that leaves none.
    """
    names = features.names()
    known, wanted = set(names), set[Pair]()
    skipped, unknown = dict[Pair, str](), list[str]()
    for pair in pairs:
        absent = [name for name in pair if name not in known]
        if absent:
            unknown += absent
            skipped[pair] = f"no features of {' and '.join(map(repr, absent))}"
            if strict:
                raise PairsError(
                    f"pair {pair[0]!r} {pair[1]!r}: {skipped[pair]}; extract them, or "
                    "leave out --strict to skip the pair"
                )
        elif pair[0] != pair[1]:
            wanted.add((min(pair), max(pair)))
    if skipped:
        first = f"the first without is {unknown[0]!r}{suggest(unknown[0], names)}"
        if not wanted:
            raise PairsError(
                f"{features.path}: 0 of {len(skipped)} pairs have features of both "
                f"images in it; {first}; extract them, or correct the pairs"
            )
        logger.warning(
            "skipped %d pairs of images without features; %s", len(skipped), first
        )
    return sorted(wanted), skipped


def _show_progress(
    rows: Iterable[tuple[str, list[str]]], total: int
) -> Iterator[tuple[str, list[str]]]:
    """Hand on rows of pairs beside a bar of the pairs; without any there is no bar."""
    if not total:
        return
    # `disable` is not passed: it would override TQDM_DISABLE in the environment.
    with tqdm(total=total, desc="match", unit="pair") as bar:
        for row in rows:
            yield row
            bar.update(len(row[1]))


def _in_tiles(pairs: Sequence[Pair]) -> Iterator[tuple[str, list[str]]]:
    """Group pairs by first image, in an order that reuses loaded images.

    Going through the pair matrix row by row would load every image once per row.
    """
    rank = {name: i for i, name in enumerate(sorted({n for p in pairs for n in p}))}

    def tile(pair: Pair) -> tuple[int, int, int, int]:
        i, j = rank[pair[0]], rank[pair[1]]
        return i // _TILE_IMAGES, j // _TILE_IMAGES, i, j

    ordered = sorted(pairs, key=tile)
    for _, group in itertools.groupby(ordered, lambda pair: tile(pair)[:3]):
        row = list(group)
        yield row[0][0], [second for _, second in row]


def _read(store: FeatureStore, name: str) -> Features:
    features = store.read(name)
    return replace(features, descriptors=_move_out(features.descriptors))


def _count_bytes(features: Features) -> int:
    return features.descriptors.nbytes


def _move_out(array: NDArray[T]) -> NDArray[T]:
    """Copy an array into pages of its own, which are the system's again once dropped.

    In malloc's heap small things that live longer settle where an array was, the next
    one finds no place there, and the heap grows without end.
    """
    pages = mmap.mmap(-1, max(1, array.nbytes))
    moved: NDArray[T] = np.frombuffer(pages, array.dtype, array.size)
    moved = moved.reshape(array.shape)
    moved[...] = array
    return moved


def _log(summary: MatchSummary) -> None:
    logger.info(
        "matches: %d pairs written, %d kept, %d skipped, %.1f s",
        summary.written,
        summary.reused,
        len(summary.skipped),
        summary.seconds,
    )
