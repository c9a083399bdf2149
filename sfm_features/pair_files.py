"""The text file that lists which images to match.

A line is `name0 name1` with one space, as hloc and COLMAP read it; more space is read,
too. Only a name that holds a space itself is set off by a tab instead, which those two
cannot read. A line whose first name starts with # is indented, as it is no comment;
COLMAP passes it over.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from sfm_features.errors import InputError, PairsError
from sfm_features.types import Pair

logger = logging.getLogger(__name__)


def write_pairs(path: Path, pairs: Iterable[Pair]) -> None:
    """Write a pairs file; it is there whole or not at all."""
    lines = [_write_line(pair) for pair in pairs]
    part = path.with_name(path.name + ".part")
    part.write_text("".join(lines), encoding="utf-8")
    part.replace(path)


def read_pairs(path: Path, known: Iterable[str] = ()) -> list[Pair]:
    """Read a pairs file; `known` names help to part names that hold spaces.

    Blank lines and lines starting with # are passed over, duplicates and reversed
    duplicates are dropped, an image paired with itself is an error.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; make it with `sfm-features pairs`")
    names = set(known)
    found: dict[Pair, None] = {}
    repeated = 0
    try:
        # Some editors on Windows begin a file with a mark, which is no part of a name.
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise PairsError(
            f"{path}: is not text in UTF-8; write `name0 name1` on each line"
        ) from error
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        pair = _split_line(line.strip(), names)
        if pair is None or pair[0] == pair[1]:
            raise PairsError(
                f"{path}, line {number}: {line.strip()!r} is not two different image "
                "names; write `name0 name1` with one space (or a tab) between"
            )
        if pair in found or pair[::-1] in found:
            repeated += 1
            continue
        found[pair] = None
    if repeated:
        logger.info("%s: %d repeated pairs dropped", path, repeated)
    if not found:
        raise PairsError(f"{path}: lists no pair; write `name0 name1` on each line")
    return list(found)


def _write_line(pair: Pair) -> str:
    line = ("\t" if " " in "".join(pair) else " ").join(pair) + "\n"
    return f" {line}" if line.startswith("#") else line


def _split_line(line: str, known: set[str]) -> Pair | None:
    if "\t" in line:
        first, _, second = line.partition("\t")
        return first.strip(), second.strip()
    words = line.split(" ")
    if len(words) == 2:
        return words[0], words[1]
    splits = {
        (" ".join(words[:i]).strip(), " ".join(words[i:]).strip())
        for i in range(1, len(words))
    }
    fitting = [pair for pair in splits if set(pair) <= known]
    if len(fitting) == 1:
        return fitting[0]
    words = line.split()
    return (words[0], words[1]) if len(words) == 2 else None
