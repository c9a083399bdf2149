"""Descriptors of whole images, by image name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sfm_features.errors import InputError
from sfm_features.journal import hold_interrupts
from sfm_features.store.base import NamedStore, explain_damage, read_number
from sfm_features.types import F32

_FIELD = "global_descriptor"


class GlobalStore(NamedStore):
    """Descriptors of whole images, by image name."""

    kind = "global descriptors"
    _groups_per_commit = 256
    _required = (_FIELD,)

    @hold_interrupts()
    def read_many(self, names: Sequence[str]) -> NDArray[np.float16]:
        """Read the descriptors (N, D) of images."""
        rows: list[NDArray[np.float16]] = []
        with explain_damage(self.path, self._ours):
            for name in names:
                if name not in self:
                    raise InputError(
                        f"{self.path}: does not describe {name!r}; run `sfm-features "
                        "describe` again, it adds what is missing"
                    )
                row = self._file[name][_FIELD][()].astype(np.float16).ravel()
                if rows and len(row) != len(rows[0]):
                    raise ValueError(f"{name}: its descriptor has another length")
                rows.append(row)
        return np.stack(rows) if rows else np.zeros((0, 0), np.float16)

    def fingerprint(self, name: str) -> int | None:
        """Tell which keypoints a descriptor was made of; None if it does not say."""
        return read_number(self._file[name], "fingerprint")

    @hold_interrupts()
    def write(self, name: str, descriptor: F32, fingerprint: int | None = None) -> None:
        """Write the descriptor (D,) of one image, and what it was made of."""
        group = self._write_group(name, {_FIELD: descriptor.astype(np.float16)})
        if fingerprint is not None:
            group.attrs["fingerprint"] = np.uint32(fingerprint)
        self._finish_group(group)
