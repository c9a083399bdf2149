"""Pairs of images that look alike, by descriptors of whole images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from sfm_features.errors import InputError
from sfm_features.photo_files import read_list
from sfm_features.ranking import Barred, rank_images
from sfm_features.types import Pair


def pair_similar(
    descriptors: Path,
    queries: Sequence[str],
    database: Sequence[str],
    neighbours: int,
    barred: Barred | None = None,
) -> list[Pair]:
    """Pair each query with its nearest ones of a database."""
    rankings = rank_images(descriptors, queries, database, neighbours, barred)
    return sorted({order_pair(r.query, name) for r in rankings for name in r.names})


def close_loops(
    descriptors: Path, names: Sequence[str], pairs: Iterable[Pair], neighbours: int
) -> list[Pair]:
    """Add what looks alike to pairs of a sequence, as a place may be passed again.

    Pairs that are there already leave room for others.
    """
    known = set(pairs)
    partners: defaultdict[str, list[str]] = defaultdict(list)
    for a, b in known:
        partners[a].append(b)
        partners[b].append(a)

    def bar_partners(part: Sequence[str]) -> Callable[[str], list[int]]:
        rows = {name: row for row, name in enumerate(part)}
        return lambda query: [rows[n] for n in partners[query] if n in rows]

    found = pair_similar(descriptors, names, names, neighbours, bar_partners)
    return sorted(known | set(found))


def select_names(names: Sequence[str], wanted: str, flag: str) -> list[str]:
    """Choose names by a prefix, or those that a text file lists; all by nothing."""
    if not wanted:
        return list(names)
    if not Path(wanted).is_file():
        chosen = [name for name in names if name.startswith(wanted)]
        if not chosen:
            raise InputError(
                f"{flag} {wanted}: is no file, and no image's name begins with it"
            )
        return chosen
    listed, known = read_list(Path(wanted)), set(names)
    missing = [name for name in listed if name not in known]
    if missing:
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(
            f"{wanted}: lists {missing[0]!r}, which is not described{more}; run "
            "`sfm-features describe` on features that have it"
        )
    return listed


def order_pair(a: str, b: str) -> Pair:
    """Return a pair in the order of its names."""
    return (a, b) if a < b else (b, a)
