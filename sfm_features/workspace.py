"""An output folder: where its files lie and which of them are still good.

A stage's product carries a stamp, a digest of all it was made from. On the next run
it is kept if the stamp still fits, and made again if not, as `make` would.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from sfm_features import colmap
from sfm_features.errors import InputError, OutputError
from sfm_features.journal import LOCK, claim, explain_os_errors, journal_path
from sfm_features.similar import order_pair
from sfm_features.store import FeatureStore, MatchStore
from sfm_features.types import Pair

_BLOCK_BYTES = 16 << 20


@dataclass(frozen=True)
class Workspace:
    """The files of an output folder."""

    root: Path

    @property
    def features(self) -> Path:
        return self.root / "features.h5"

    @property
    def descriptors(self) -> Path:
        return self.root / "global.h5"

    @property
    def pairs(self) -> Path:
        return self.root / "pairs.txt"

    @property
    def matches(self) -> Path:
        return self.root / "matches.h5"

    @property
    def database(self) -> Path:
        return self.root / "database.db"

    @property
    def verification(self) -> Path:
        """What verified matches are called; they are in the database."""
        return self.root / "verification"

    @property
    def used(self) -> Path:
        """What the stamp of a model's features is beside."""
        return self.root / "sparse.features"

    @property
    def sparse(self) -> Path:
        return self.root / "sparse"

    @property
    def unpolished(self) -> Path:
        """Models on their way to `sparse`."""
        return self.root / "unpolished"

    @property
    def report(self) -> Path:
        return self.root / "report.html"


@contextmanager
def claim_output(workspace: Workspace) -> Iterator[None]:
    """Hold an output folder, unless what would be replaced in it is somebody else's."""
    marks = (
        workspace.root / LOCK,
        *map(_stamp_path, (workspace.database, workspace.sparse)),
    )
    if not any(mark.exists() for mark in marks):
        for path in (workspace.database, workspace.sparse):
            if path.exists():
                raise OutputError(
                    f"{path}: is not of an earlier run of sfm-features, and would be "
                    "replaced; choose another --output"
                )
    for models in (workspace.sparse, workspace.unpolished):
        colmap.refuse_foreign(models)  # told now, not when they are to be replaced
    with claim(workspace.root):
        yield


def refuse_map_itself(output: Path, map_folder: Path) -> None:
    """Raise InputError for an output folder that is the map, which is only read."""
    if output.resolve() == map_folder.resolve():
        raise InputError(
            f"{output}: is the map itself, which stays as it is; choose another "
            "--output"
        )


class Stopwatch:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Measure what happens inside a `with`."""
        start = time.perf_counter()
        yield
        self.seconds[stage] = round(time.perf_counter() - start, 3)


def digest(*parts: object) -> str:
    """Digest values whose repr says everything: options, numbers, strings."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def file_state(path: Path) -> tuple[int, int]:
    """Tell a file's state as `make` does: by its size and time of change."""
    status = path.stat()  # not the path: a folder that was moved is still good
    return status.st_size, status.st_mtime_ns


def has_stamp(product: Path, stamp: str) -> bool:
    """Whether a product was made from what the stamp says."""
    path = _stamp_path(product)
    return path.is_file() and path.read_text() == stamp


def write_stamp(product: Path, stamp: str) -> None:
    """Stamp a product; only now does it count as done."""
    path = _stamp_path(product)
    with explain_os_errors(path):
        path.write_text(stamp)


def forget_stamp(product: Path) -> None:
    """Unstamp a product before it is made again."""
    _stamp_path(product).unlink(missing_ok=True)


def import_database(
    workspace: Workspace,
    images: Path,
    features: Path,
    matches: Path,
    cameras: colmap.CameraOptions,
    names: Sequence[str],
    pairs: Sequence[Pair],
    reference: Path | None = None,
    same_camera: bool = False,
) -> str:
    """Make the database of these images and pairs if need be; return its stamp.

    The files may hold more, from earlier runs that were asked for more.
    """
    made_from = (cameras, _model_state(reference), names, pairs, same_camera)
    stamp = digest(file_state(features), file_state(matches), *made_from)
    if workspace.database.exists() and has_stamp(workspace.database, stamp):
        return stamp
    forget_stamp(workspace.database)
    forget_stamp(workspace.verification)  # what was verified was in the old one
    with FeatureStore.open(features) as f, MatchStore.open(matches) as m:
        _refuse_other_features(f, m, pairs)
        colmap.import_features_and_matches(
            workspace.database,
            images,
            names,
            cameras,
            ((name, f.read_keypoints(name), f.read_size(name)) for name in names),
            ((pair, m.read(pair)) for pair in pairs),
            reference,
            same_camera,
            len(pairs),
        )
    write_stamp(workspace.database, stamp)
    return stamp


def _refuse_other_features(
    features: FeatureStore, matches: MatchStore, pairs: Sequence[Pair]
) -> None:
    """Raise InputError for matches that tell that they were made of other features."""
    names = {name for pair in pairs for name in pair}
    known = {name: features.fingerprint(name) for name in names}
    for pair in pairs:
        if not matches.has_of(pair, (known[pair[0]], known[pair[1]])):
            raise InputError(
                f"{matches.path}: its matches of {pair[0]!r} and {pair[1]!r} are of "
                f"other features than those of {features.path}; give the features "
                "that were matched, or match these"
            )


def _model_state(model: Path | None) -> list[tuple[str, tuple[int, int]]]:
    """Tell a model from another in its place."""
    if model is None:
        return []
    files = (path for path in model.iterdir() if path.suffix in (".bin", ".txt"))
    return [(path.name, file_state(path)) for path in sorted(files)]


def list_matched(
    matches: Path, names: Iterable[str], among: Iterable[Pair] | None = None
) -> list[Pair]:
    """List the pairs of a match file, as it has them; only those asked for, if any."""
    with MatchStore.open(matches) as store:
        found = store.pairs(names)
    if among is None:
        return found
    asked = {order_pair(*pair) for pair in among}
    return [pair for pair in found if order_pair(*pair) in asked]


def stamp_features(workspace: Workspace, features: Path, names: Iterable[str]) -> None:
    """Note which features of its images the largest model was made of."""
    with FeatureStore.open(features) as store:
        write_stamp(workspace.used, _digest_features(store, names))


def has_used(workspace: Workspace, store: FeatureStore, names: Iterable[str]) -> bool:
    """Tell whether a model was made of these features; yes, if nothing tells."""
    known = _stamp_path(workspace.used).is_file()
    return not known or has_stamp(workspace.used, _digest_features(store, names))


def _digest_features(store: FeatureStore, names: Iterable[str]) -> str:
    return digest([(name, store.fingerprint(name)) for name in sorted(names)])


def copy_features(source: Workspace, target: Workspace) -> bool:
    """Copy what `localize` wants beside a model; False if there is nothing to copy.

    And where the photographs are, which the summary tells.
    """
    if not source.features.is_file():
        return False
    for store in ("features", "descriptors"):
        path = getattr(source, store)
        # A killed writer may have left its last commit beside the file.
        for each in (path, journal_path(path)):
            if each.is_file():
                copy_whole(each, target.root / each.name)
    for path in (_stamp_path(source.used), source.root / "summary.json"):
        if path.is_file():
            copy_whole(path, target.root / path.name)
    return True


def copy_whole(source: Path, target: Path) -> None:
    """Copy a file; the copy is there whole or not at all."""
    draft = target.with_name(f".{target.name}.part")
    with explain_os_errors(target):
        total = source.stat().st_size
        bar = tqdm(total=total, desc=f"copy {source.name}", unit="B", unit_scale=True)
        with source.open("rb") as read, draft.open("wb") as write, bar:
            while block := read.read(_BLOCK_BYTES):
                write.write(block)
                bar.update(len(block))
            write.flush()
            os.fsync(write.fileno())
        draft.replace(target)


def _stamp_path(product: Path) -> Path:
    return product.with_name(f".{product.name}.stamp")
