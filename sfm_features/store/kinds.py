"""What kind of file of ours, or in hloc's layout, an HDF5 file is."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import h5py

from sfm_features.errors import InputError
from sfm_features.journal import hold_interrupts
from sfm_features.store.base import Store, explain_damage
from sfm_features.store.features import FeatureStore
from sfm_features.store.globals import GlobalStore
from sfm_features.store.matches import MatchStore

AnyStore: TypeAlias = FeatureStore | MatchStore | GlobalStore

_KINDS = (FeatureStore, MatchStore, GlobalStore)
_TOLD_BY = {
    "keypoints": FeatureStore.kind,
    "descriptors": FeatureStore.kind,
    "matches0": MatchStore.kind,
    "global_descriptor": GlobalStore.kind,
}


def open_any(path: Path) -> AnyStore:
    """Open a file to read as what it says that it is, or looks like."""
    with _Unknown.open(path) as store:
        kind = store.find_kind()
    for known in _KINDS:
        if known.kind == kind:
            return known.open(path)
    raise InputError(
        f"{path}: holds {kind or 'nothing that is known'}, not "
        f"{', '.join(known.kind for known in _KINDS[:-1])} or {_KINDS[-1].kind}; give "
        "files that `sfm-features` or hloc wrote"
    )


class _Unknown(Store):
    """A file of any kind."""

    kind = "features, matches or global descriptors"

    @hold_interrupts()
    def find_kind(self) -> str | None:
        """Return what the file says that it holds, or what its arrays tell."""
        with explain_damage(self.path, self._ours):
            said = self._file.attrs.get("kind")
            told = self._file.visititems(_tell) if said is None else said
        return None if told is None else str(told)

    def _check_kind(self) -> None:
        pass  # whatever it is


def _tell(name: str, item: Any) -> str | None:
    """Tell a kind by one array; None goes on to the next."""
    if not isinstance(item, h5py.Dataset):
        return None
    kind = _TOLD_BY.get(name.rpartition("/")[2])
    is_list = item.ndim == 2 and item.shape[1] == 2 and item.dtype.kind in "iu"
    return kind or (MatchStore.kind if is_list else None)
