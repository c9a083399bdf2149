"""Files that several machines made of parts of the images, joined into one."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sfm_features.errors import (
    InputError,
    OptionError,
    StaleStore,
    StoreError,
    require_other_file,
)
from sfm_features.store import (
    NamedStore,
    open_any,
    refuse_collisions,
    refuse_nested,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MergeSummary:
    """What was done: groups copied, groups that were there already, seconds."""

    written: int
    reused: int
    seconds: float


@dataclass(frozen=True)
class _Source:
    """A file to merge, looked at and closed again: there may be thousands."""

    path: Path
    kind: type[Any]
    config: dict[str, Any]
    keys: Sequence[str]


def merge(
    inputs: Sequence[Path], output: Path, overwrite: bool = False
) -> MergeSummary:
    """Join files of features, of matches or of global descriptors, all of one kind.

    What several of them have must be the same in each. Groups are copied as they are,
    one at a time; stopped and run again it goes on. `overwrite` starts the file anew,
    once all that is given was checked.
    """
    start = time.perf_counter()
    if not inputs:
        raise OptionError("there are no files to merge; give at least one")
    require_other_file(output, *inputs)
    sources = [_look_at(path) for path in inputs]
    for source in sources[1:]:
        _require_alike(sources[0], source)
    keys = {key for source in sources for key in source.keys}
    if not keys:
        raise InputError(
            f"{inputs[0]}: has nothing that is complete, nor have the others; give "
            "files that `sfm-features` or hloc wrote"
        )
    _refuse_names(sources[0].kind, keys)
    written = _copy_all(sources, keys, output, overwrite)
    total = sum(len(source.keys) for source in sources)
    logger.info(
        "%s: %d %ss copied, %d were there already",
        *(output, written, _name_unit(sources[0].kind), total - written),
    )
    return MergeSummary(written, total - written, time.perf_counter() - start)


def _look_at(path: Path) -> _Source:
    with open_any(path) as store:
        return _Source(path, type(store), dict(store.config), store.keys())


def _require_alike(first: _Source, other: _Source) -> None:
    """Raise StaleStore for a file of another kind, or made with other settings."""
    if other.kind is not first.kind:
        raise StoreError(
            f"{other.path}: holds {other.kind.kind}, but {first.path} holds "
            f"{first.kind.kind}; merge files of one kind"
        )
    if not first.config and not other.config:
        return
    for one, another in ((first, other), (other, first)):
        if not one.config:
            raise StaleStore(
                f"{one.path}: does not say how it was made, as it is of another tool, "
                f"and {another.path} does; merge files of one tool"
            )
    for field in sorted({*first.config, *other.config}):
        mine, its = first.config.get(field), other.config.get(field)
        if mine != its:
            raise StaleStore(
                f"{other.path}: made with {field} = {its!r}, but {first.path} with "
                f"{mine!r}; merge files that were made with the same settings"
            )


def _refuse_names(kind: type[Any], keys: set[str]) -> None:
    """Raise NameCollision for images that cannot be in one file."""
    if issubclass(kind, NamedStore):
        refuse_collisions(sorted(keys))
        refuse_nested(keys)


def _name_unit(kind: type[Any]) -> str:
    return "image" if issubclass(kind, NamedStore) else "pair"


def _copy_all(
    sources: Sequence[_Source], keys: set[str], output: Path, overwrite: bool
) -> int:
    """Copy what the output does not have; return how many groups that were."""
    kind, config = sources[0].kind, sources[0].config
    came_from: dict[str, Path] = {}
    written = 0
    total = sum(len(source.keys) for source in sources)
    with (
        kind.append(output, config, overwrite) as merged,
        tqdm(total=total, desc="merge", unit=_name_unit(kind)) as bar,
    ):
        _refuse_names(kind, {*keys, *merged.keys()})
        for source in sources:
            with kind.open(source.path) as store:
                for key in source.keys:
                    there = merged.find_key(key)
                    if there is None:
                        merged.copy(store, key)
                        written += 1
                    elif not merged.holds_same(store, key):
                        _refuse_other(source, key, came_from.get(there), output)
                    came_from.setdefault(there or key, source.path)
                    bar.update()
    return written


def _refuse_other(source: _Source, key: str, before: Path | None, output: Path) -> None:
    """Raise StoreError for a group that is there already and not the same."""
    where = f"the {_name_unit(source.kind)} {key!r}"
    what = f"{source.path}: its {source.kind.kind} of {where} are not those"
    if before is None:
        raise StoreError(
            f"{what} that {output} has of an earlier run; start anew with --overwrite"
        )
    raise StoreError(
        f"{what} of {before}; leave out one of the two files, or make it again for "
        "other images"
    )
