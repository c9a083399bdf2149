"""hloc's HDF5 layout, written so that a kill loses nothing. The only door to h5py.

Features: one group per image name with `keypoints` (N, 2) f32, `descriptors` (D, N)
f16, `scores` (N,) f32, `image_size` (2,) i64. Matches: one group per pair at
`match_key`, with `matches0` (N0,) i32 (-1 = none) and `matching_scores0` (N0,) f16.
In a file of ours a group counts when its `complete` attribute, written last, is there;
in anybody else's file when it has its datasets.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

import h5py
import numpy as np

from sfm_features.errors import (
    BusyStore,
    DamagedStore,
    InputError,
    NameCollision,
    StaleStore,
    StoreError,
)
from sfm_features.journal import JournaledFile, recover
from sfm_features.types import F32, Features, Matches, Pair

if TYPE_CHECKING:
    from typing_extensions import Self

Config = Mapping[str, Any]

_FORMAT = "sfm-features"
_FORMAT_VERSION = 1
_LIBVER = ("v108", "v108")  # compact groups without the flag that "latest" leaves set
_HDF5_ERRORS = (OSError, RuntimeError, KeyError, ValueError)  # as h5py raises them


class _Store:
    """One HDF5 file: open it to read, or append to it inside a `with`."""

    kind: ClassVar[str]
    # By number and not by time, so that the same work makes the same bytes.
    _groups_per_commit: ClassVar[int]

    def __init__(self, path: Path, file: Any, journaled: JournaledFile | None) -> None:
        self.path = path
        self._file = file
        self._journaled = journaled
        self._uncommitted = 0
        self._ours = file.attrs.get("format") == _FORMAT

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a file to read; raise DamagedStore when it is not readable HDF5."""
        if not path.is_file():
            raise InputError(f"{path}: no such file; make it with `sfm-features`")
        recover(path)
        if path.stat().st_size == 0:
            raise InputError(
                f"{path}: is empty, as nothing was finished before its making was "
                "stopped; make it again"
            )
        with _explain_open_errors(path):
            store = cls(path, h5py.File(path, "r"), None)
            store._check_kind()
        return store

    @classmethod
    def append(cls, path: Path, config: Config) -> Self:
        """Create a file, or continue one that was made with the same config."""
        journaled = JournaledFile(path)
        try:
            is_new = journaled.is_new
            with _explain_open_errors(path):
                mode = "w" if is_new else "r+"
                file = h5py.File(journaled, mode, libver=_LIBVER)
                store = cls(path, file, journaled)
                if is_new:
                    store._write_header(config)
                    store.commit()
                store._check_kind()
                store._check_config(config)
        except BaseException:
            journaled.close()
            raise
        return store

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Commit and close."""
        try:
            if self._file and self._journaled:
                self._file.flush()
            self._file.close()
            if self._journaled:
                self._journaled.commit()
        finally:
            if self._journaled:
                self._journaled.close()

    def commit(self) -> None:
        """Make everything written so far permanent."""
        assert self._journaled is not None, "opened to read"
        self._file.flush()
        self._journaled.commit()
        self._uncommitted = 0

    @property
    def config(self) -> Config:
        """The settings the file was made with; empty in a file that is not ours."""
        settings: Config = json.loads(self._file.attrs.get("config", "{}"))
        return settings

    def _write_header(self, config: Config) -> None:
        self._file.attrs["format"] = _FORMAT
        self._file.attrs["format_version"] = _FORMAT_VERSION
        self._file.attrs["kind"] = self.kind
        self._file.attrs["config"] = json.dumps(config, sort_keys=True)

    def _check_kind(self) -> None:
        kind = self._file.attrs.get("kind", self.kind)
        if kind != self.kind:
            raise StoreError(
                f"{self.path}: holds {kind}, not {self.kind}; give the other file"
            )
        version = self._file.attrs.get("format_version", _FORMAT_VERSION)
        if version > _FORMAT_VERSION:
            raise StoreError(
                f"{self.path}: written by a newer version (format {version}); "
                "upgrade sfm-features"
            )

    def _check_config(self, wanted: Config) -> None:
        if not self._ours:
            return  # another tool's file says nothing of how it was made
        stored = self.config
        for field in sorted({*stored, *wanted}):
            if stored.get(field) != json.loads(json.dumps(wanted.get(field))):
                raise StaleStore(
                    f"{self.path}: made with {field} = {stored.get(field)!r}, now "
                    f"asked for {wanted.get(field)!r}; use --overwrite or another "
                    "--output"
                )

    def _write_group(self, key: str, datasets: Mapping[str, Any]) -> Any:
        with _explain_damage(self.path):
            if key in self._file:
                del self._file[key]  # left by another tool or half-written
            group = self._file.create_group(key)
            for name, value in datasets.items():
                group.create_dataset(name, data=value)
        return group

    def _finish_group(self, group: Any) -> None:
        group.attrs["complete"] = True
        self._uncommitted += 1
        if self._uncommitted == self._groups_per_commit:
            self.commit()

    def _is_complete(self, group: Any, required: Iterable[str]) -> bool:
        if self._ours:
            return bool(group.attrs.get("complete", False))
        return all(name in group for name in required)


class FeatureStore(_Store):
    """Features by image name."""

    kind = "features"
    _groups_per_commit = 8
    _required = ("keypoints", "descriptors", "image_size")

    def __contains__(self, name: str) -> bool:
        group = self._file.get(name)
        return isinstance(group, h5py.Group) and self._is_complete(
            group, self._required
        )

    def names(self) -> list[str]:
        """List the images whose features are complete, sorted."""
        with _explain_damage(self.path):
            return sorted(self._walk(self._file, ""))

    def _walk(self, group: Any, prefix: str) -> Iterator[str]:
        if "keypoints" in group:
            if self._is_complete(group, self._required):
                yield prefix
            return
        for key in group:
            if isinstance(group.get(key, getclass=True), type) and isinstance(
                child := group[key], h5py.Group
            ):
                yield from self._walk(child, f"{prefix}/{key}" if prefix else key)

    def read(self, name: str) -> Features:
        """Read the features of one image, descriptors as f32 rows."""
        with _explain_damage(self.path):
            if name not in self:
                raise InputError(
                    f"{self.path}: has no complete features of {name!r}; run "
                    "`sfm-features extract` again, it adds what is missing"
                )
            group = self._file[name]
            keypoints = group["keypoints"]
            scores = group.get("scores", group.get("keypoint_scores"))
            descriptors = _rows(group["descriptors"][()])
            if len(descriptors) != len(keypoints):
                raise ValueError(f"{name}: keypoints and descriptors differ in number")
            return Features(
                keypoints=keypoints[()].astype(np.float32)[:, :2],
                descriptors=descriptors,
                scores=np.ones(len(keypoints), np.float32)
                if scores is None
                else scores[()].astype(np.float32).ravel(),
                image_size=self.read_size(name),
                uncertainty_px=float(keypoints.attrs.get("uncertainty", 1.0)),
            )

    def read_keypoints(self, name: str) -> F32:
        """Read only the keypoints (N, 2) of one image."""
        with _explain_damage(self.path):
            keypoints: F32 = self._file[name]["keypoints"][()].astype(np.float32)
        return keypoints[:, :2]

    def read_size(self, name: str) -> tuple[int, int]:
        """Read only the width and height of one image."""
        with _explain_damage(self.path):
            width, height = (int(side) for side in self._file[name]["image_size"][()])
        return width, height

    def write(self, name: str, features: Features) -> None:
        """Write the features of one image; they are permanent after the next commit."""
        group = self._write_group(
            name,
            {
                "keypoints": features.keypoints,
                "descriptors": np.ascontiguousarray(
                    features.descriptors.T, dtype=np.float16
                ),
                "scores": features.scores,
                "image_size": np.array(features.image_size, np.int64),
            },
        )
        group["keypoints"].attrs["uncertainty"] = features.uncertainty_px
        self._finish_group(group)


class MatchStore(_Store):
    """Matches by pair of image names; either order finds them."""

    kind = "matches"
    _groups_per_commit = 64
    _required = ("matches0",)

    def __contains__(self, pair: Pair) -> bool:
        return self._find(pair) is not None

    def pairs(self, names: Iterable[str]) -> list[Pair]:
        """List the complete pairs among these names, sorted, as they are stored."""
        name_of = {name_key(name): name for name in names}
        found = []
        with _explain_damage(self.path):
            for first in self._file:
                group = self._file[first]
                if first in name_of:
                    found += [
                        (name_of[first], name_of[second])
                        for second in group
                        if second in name_of
                        and self._is_complete(group[second], self._required)
                    ]
                if "matches0" in group:
                    found += _split_old_key(first, name_of)
        return sorted(found)

    def read(self, pair: Pair) -> Matches:
        """Read the matches of a pair, in the order asked for."""
        with _explain_damage(self.path):
            found = self._find(pair)
            if found is None:
                raise InputError(
                    f"{self.path}: has no matches of {pair[0]!r} and {pair[1]!r}; run "
                    "`sfm-features match` again, it adds what is missing"
                )
            group, is_reversed = found
            vector = group["matches0"][()].astype(np.int64)
            if (vector < -1).any():
                raise StoreError(
                    f"{self.path}: {pair[0]!r} and {pair[1]!r} have negative indices, "
                    "as when 16 bits overflow; match them again with this tool"
                )
            first = np.flatnonzero(vector >= 0)
            indices = np.stack([first, vector[first]], 1).astype(np.int32)
            scores = np.ones(len(first), np.float32)
            if "matching_scores0" in group:
                scores = group["matching_scores0"][()].astype(np.float32)[first]
        matches = Matches(indices, scores)
        return matches.reversed() if is_reversed else matches

    def write(self, pair: Pair, matches: Matches, count0: int) -> None:
        """Write the matches of a pair whose first image has `count0` keypoints."""
        vector = np.full(count0, -1, np.int32)
        scores = np.zeros(count0, np.float16)
        vector[matches.indices[:, 0]] = matches.indices[:, 1]
        scores[matches.indices[:, 0]] = matches.scores
        datasets = {"matches0": vector, "matching_scores0": scores}
        self._finish_group(self._write_group(match_key(pair), datasets))

    def _find(self, pair: Pair) -> tuple[Any, bool] | None:
        back = (pair[1], pair[0])
        for key, is_reversed in (
            (match_key(pair), False),
            (match_key(back), True),
            (_old_match_key(pair), False),
            (_old_match_key(back), True),
        ):
            group = self._file.get(key)
            if group is not None and self._is_complete(group, self._required):
                return group, is_reversed
        return None


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


def _rows(columns: Any) -> F32:
    rows: F32 = np.ascontiguousarray(columns.T, dtype=np.float32)
    return rows


@contextlib.contextmanager
def _explain_open_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except BlockingIOError as error:
        raise BusyStore(
            f"{path}: another process is writing it; wait for it to end"
        ) from error
    except _HDF5_ERRORS as error:
        raise DamagedStore(
            f"{path}: not a readable HDF5 file ({_first_line(error)}); delete it and "
            "run the same command again, or choose another --output"
        ) from error


@contextlib.contextmanager
def _explain_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except _HDF5_ERRORS as error:
        raise DamagedStore(
            f"{path}: part of it cannot be read ({_first_line(error)}); delete it and "
            "run the same command again"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip("'\"").splitlines()[0] if str(error) else repr(error)
