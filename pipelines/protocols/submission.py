"""Files for the server of visuallocalization.net: written, and checked before sending.

A line is `name qw qx qy qz tx ty tz`: a unit quaternion and translation world to
camera, so t is not where the camera stands. What is left out counts as a failure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from pipelines.protocols.chain import Located
from pipelines.protocols.poses import write_pose
from sfm_features.errors import InputError
from sfm_features.journal import replace_text

_UNIT = 1e-3
"""How far from 1 the length of a quaternion may be."""
_FIELDS = 8

Naming = Callable[[str], str]


@dataclass(frozen=True)
class Verdict:
    """What is wrong with a file, and what is in it."""

    complaints: tuple[str, ...]
    summary: tuple[str, ...]

    def to_text(self) -> str:
        """Say it in lines."""
        if not self.complaints:
            return "\n".join([*self.summary, "nothing is wrong with it"])
        return "\n".join([*self.complaints, *self.summary])


def use_basename(name: str) -> str:
    """Return what Aachen and Extended CMU Seasons call an image: its bare file name."""
    return PurePosixPath(name).name


def use_camera_folder(name: str) -> str:
    """Return what RobotCar Seasons calls an image: `rear/1417178853389469.jpg`."""
    return "/".join(PurePosixPath(name).parts[-2:])


def refuse_equal_names(names: Iterable[str], naming: Naming = use_basename) -> None:
    """Raise InputError if the server could not tell two queries apart."""
    named: dict[str, str] = {}
    for name in names:
        other = named.setdefault(naming(name), name)
        if other != name:
            raise InputError(
                f"{name!r} and {other!r} would both be {naming(name)!r} in the file "
                "for the server; take one out of the lists of queries"
            )


def write_submission(
    path: Path, found: Mapping[str, Located], naming: Naming = use_basename
) -> None:
    """Write the poses that were found."""
    refuse_equal_names(found, naming)
    lines = [
        f"{naming(name)} {write_pose(located.pose)}\n"
        for name, located in found.items()
        if located.pose is not None
    ]
    replace_text(path, "".join(lines))


def validate(
    path: Path,
    expected: Mapping[str, int],
    groups: Mapping[str, str] | None = None,
) -> Verdict:
    """Check a file as the server would take it.

    `expected` tells how many queries of each group there are. `groups` tells the group
    of every name; without it names and groups cannot be checked.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the file to send")
    complaints: list[str] = []
    seen: dict[str, int] = {}
    text = path.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), 1):
        name, wrong = _check_line(line, groups)
        if name in seen:
            wrong = f"names {name!r} again, as line {seen[name]}; keep one of the two"
        elif name:
            seen[name] = number
        if wrong:
            complaints.append(f"{path}, line {number}: {wrong}")
    if groups is None:
        most = sum(expected.values())
        summary = [f"{len(seen)} poses of {most} queries"]
        if len(seen) > most:
            complaints.append(
                f"{path}, line {most + 1}: more poses than the {most} queries there "
                "are; take the poses of other images out"
            )
        return Verdict(tuple(complaints), tuple(summary))
    counts = Counter(groups[name] for name in seen if name in groups)
    summary = [
        f"{counts[g]} of {n} {g} queries have a pose" for g, n in expected.items()
    ]
    complaints += [
        f"{path}: no line is of a {group} query, so {group} will score 0 / 0 / 0; send "
        "all queries in one file"
        for group in expected
        if not counts[group]
    ]
    return Verdict(tuple(complaints), tuple(summary))


def _check_line(line: str, groups: Mapping[str, str] | None) -> tuple[str, str]:
    """Return the name in a line, if it has one, and what is wrong with the line."""
    words = line.split(" ")
    if len(words) != _FIELDS or "" in words:
        return "", (
            f"{len(words)} words instead of {_FIELDS}; write `name qw qx qy qz tx ty "
            "tz` with one space between"
        )
    name = words[0]
    try:
        numbers = np.array([float(word) for word in words[1:]])
    except ValueError:
        return name, "has words that are no numbers; write `name qw qx qy qz tx ty tz`"
    if not np.isfinite(numbers).all():
        return name, "has a number that is not finite; leave out what has no pose"
    length = float(np.linalg.norm(numbers[:4]))
    if abs(length - 1) > _UNIT:
        return name, (
            f"the quaternion has the length {length:.4g}; the first four numbers are "
            "qw qx qy qz, divide them by it"
        )
    if groups is not None and name not in groups:
        bare = use_basename(name)
        if bare in groups:
            return name, f"{name!r} has a folder; write {bare!r} alone"
        return name, f"{name!r} is in no list of queries; take the line out"
    return name, ""
