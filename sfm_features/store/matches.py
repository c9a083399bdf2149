"""Matches by pair of image names, as hloc and deep-image-matching store them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import h5py
import numpy as np

from sfm_features.errors import InputError, NameCollision, StoreError
from sfm_features.journal import hold_interrupts
from sfm_features.store.base import Store, explain_damage, read_array, read_number
from sfm_features.types import Matches, Pair

if TYPE_CHECKING:
    from typing_extensions import Self

_MOST_INDEX = 2**31 - 1

Fingerprints: TypeAlias = tuple[int, int]
"""What `FeatureStore.fingerprint` says of both images of a pair."""


class MatchStore(Store):
    """Matches by pair of image names; either order finds them."""

    kind = "matches"
    _groups_per_commit = 64
    _required = ("matches0",)

    @hold_interrupts()
    def __contains__(self, pair: Pair) -> bool:
        return self._find(pair) is not None

    @hold_interrupts()
    def pairs(self, names: Iterable[str]) -> list[Pair]:
        """List the complete pairs among these names, sorted, as they are stored.

        Of one that is stored both ways, as other tools do, only the first.
        """
        name_of = {name_key(name): name for name in names}
        found = []
        with explain_damage(self.path, self._ours):
            for first in self._file:
                group = self._file[first]
                if not isinstance(group, h5py.Group):
                    continue
                if first in name_of:
                    found += [
                        (name_of[first], name_of[second])
                        for second in group
                        if second in name_of and self._has_matches(group[second])
                    ]
                if "matches0" in group:
                    found += _split_old_key(first, name_of)
        both_ways: dict[Pair, Pair] = {}
        for pair in sorted(found):
            both_ways.setdefault(min(pair, pair[::-1]), pair)
        return list(both_ways.values())

    @hold_interrupts()
    def read(self, pair: Pair) -> Matches:
        """Read the matches of a pair, in the order asked for."""
        with explain_damage(self.path, self._ours):
            found = self._find(pair)
            if found is None:
                raise InputError(
                    f"{self.path}: has no matches of {pair[0]!r} and {pair[1]!r}; run "
                    "`sfm-features match` again, it adds what is missing"
                )
            group, is_reversed = found
            try:
                matches = _read_matches(group)
            except OverflowError as error:
                raise StoreError(
                    f"{self.path}: {pair[0]!r} and {pair[1]!r} have negative indices, "
                    "as when 16 bits overflow; match them again with this tool"
                ) from error
        return matches.reversed() if is_reversed else matches

    @hold_interrupts()
    def has_of(self, pair: Pair, fingerprints: Fingerprints) -> bool:
        """Tell whether a pair is there, and made of the features that these tell."""
        found = self._find(pair)
        if found is None:
            return False
        group, is_reversed = found
        made_of = read_number(group, "fingerprints")
        if made_of is None:
            return True  # nothing tells
        return made_of == _join(fingerprints[::-1] if is_reversed else fingerprints)

    @hold_interrupts()
    def write(
        self,
        pair: Pair,
        matches: Matches,
        count0: int,
        fingerprints: Fingerprints | None = None,
    ) -> None:
        """Write the matches of a pair whose first image has `count0` keypoints."""
        vector = np.full(count0, -1, np.int32)
        scores = np.zeros(count0, np.float16)
        vector[matches.indices[:, 0]] = matches.indices[:, 1]
        scores[matches.indices[:, 0]] = matches.scores
        datasets = {"matches0": vector, "matching_scores0": scores}
        group = self._write_group(match_key(pair), datasets)
        if fingerprints is not None:
            group.attrs["fingerprints"] = np.uint64(_join(fingerprints))
        self._finish_group(group)

    @hold_interrupts()
    def keys(self) -> list[str]:
        """List where the complete pairs are, sorted; the names are not known."""
        found = []
        with explain_damage(self.path, self._ours):
            for first, group in self._file.items():
                if not isinstance(group, h5py.Group):
                    continue
                if "matches0" in group:  # hloc's old key, which has no folder
                    found += [first] if self._has_matches(group) else []
                    continue
                seconds = [n for n in group if self._has_matches(group[n])]
                found += [f"{first}/{second}" for second in seconds]
        return sorted(found)

    @hold_interrupts()
    def find_key(self, key: str) -> str | None:
        """Return the key of a pair that is there, whichever way round."""
        return super().find_key(key) or super().find_key(_turn_key(key))

    @hold_interrupts()
    def holds_same(self, other: Self, key: str) -> bool:
        """Tell whether both files have the same matches, whichever way round."""
        if super().find_key(key):
            return super().holds_same(other, key)
        with explain_damage(self.path, self._ours):
            try:
                return _is_turned(self._file[_turn_key(key)], other._file[key])
            except OverflowError:
                return False

    def _find(self, pair: Pair) -> tuple[Any, bool] | None:
        back = (pair[1], pair[0])
        for key, is_reversed in (
            (match_key(pair), False),
            (match_key(back), True),
            (_old_match_key(pair), False),
            (_old_match_key(back), True),
        ):
            group = self._file.get(key)
            if group is not None and self._has_matches(group):
                return group, is_reversed
        return None

    def _has_matches(self, group: Any) -> bool:
        with explain_damage(self.path, self._ours):
            if _is_list(group):
                return self._is_complete(group, ())
            if not isinstance(group, h5py.Group):
                raise ValueError(
                    f"{group.name.strip('/')} is neither a group with matches0 in it "
                    "nor an array of two indices each"
                )
            return self._is_complete(group, self._required)


def _is_list(item: Any) -> bool:
    """Tell an array (K, 2) of indices: deep-image-matching has it, where hloc has a
    group.
    """
    return (
        isinstance(item, h5py.Dataset)
        and item.ndim == 2
        and item.shape[1] == 2
        and item.dtype.kind in "iu"
    )


def _read_matches(item: Any) -> Matches:
    """Read the matches of a pair as they are stored; OverflowError if indices are."""
    if isinstance(item, h5py.Dataset):
        listed = item[()]
        if len(listed) and int(listed.max()) > _MOST_INDEX:
            raise ValueError(f"{item.name.strip('/')}: has an index of {listed.max()}")
        indices = np.ascontiguousarray(listed, dtype=np.int32)
        if (indices < 0).any():
            raise OverflowError
        return Matches(indices, np.ones(len(indices), np.float32))
    vector = read_array(item, "matches0", 1).astype(np.int64)
    if (vector < -1).any():
        raise OverflowError
    first = np.flatnonzero(vector >= 0)
    indices = np.stack([first, vector[first]], 1).astype(np.int32)
    scores = np.ones(len(first), np.float32)
    if "matching_scores0" in item:
        all_scores = read_array(item, "matching_scores0", 1)
        if len(all_scores) != len(vector):
            name = item.name.strip("/")
            raise ValueError(f"{name}: matches and scores differ in number")
        scores = all_scores.astype(np.float32)[first]
    return Matches(indices, scores)


def _is_turned(a: Any, b: Any) -> bool:
    """Tell whether a pair is another the other way round, with the same matches."""
    made_of = [read_number(item, "fingerprints") for item in (a, b)]
    if made_of[1] is not None:
        made_of[1] = _join((made_of[1] & 0xFFFFFFFF, made_of[1] >> 32))
    rows = []
    for matches in (_read_matches(a), _read_matches(b).reversed()):
        order = np.lexsort(matches.indices.T)
        rows.append((matches.indices[order], matches.scores[order]))
    same = all(np.array_equal(*both) for both in zip(*rows, strict=True))
    return same and made_of[0] == made_of[1]


def _join(fingerprints: Fingerprints) -> int:
    """Make one number of two, of 32 bits each: it is faster to read."""
    first, second = fingerprints
    return first << 32 | second


def name_key(name: str) -> str:
    """Turn an image name into hloc's key."""
    return name.replace("/", "-")


def match_key(pair: Pair) -> str:
    """Turn a pair into hloc's key."""
    return f"{name_key(pair[0])}/{name_key(pair[1])}"


def refuse_collisions(names: Iterable[str]) -> None:
    """Raise NameCollision when two names would share one key."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name_key(name), name)
        if other != name:
            raise NameCollision(
                f"{other!r} and {name!r} share the key {name_key(name)!r} in hloc's "
                "match files; rename one of them"
            )


def _turn_key(key: str) -> str:
    """Turn a pair's key round; an old one does not tell where its names end."""
    return "/".join(reversed(key.split("/")))


def _old_match_key(pair: Pair) -> str:
    return f"{name_key(pair[0])}_{name_key(pair[1])}"


def _split_old_key(key: str, name_of: Mapping[str, str]) -> list[Pair]:
    """Find the two names in hloc's old key `n0_n1`; names may hold `_` themselves."""
    cuts = [i for i, letter in enumerate(key) if letter == "_"]
    return [
        (name_of[key[:i]], name_of[key[i + 1 :]])
        for i in cuts
        if key[:i] in name_of and key[i + 1 :] in name_of
    ]
