"""Arrays in the HDF5 files of data sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from sfm_features.errors import InputError
from sfm_features.types import F64


def read_arrays(path: Path, names: Sequence[str]) -> list[F64]:
    """Read arrays by name, as numbers in double precision."""
    try:
        with h5py.File(path, "r") as file:
            return [np.asarray(file[name][()], np.float64) for name in names]
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read as HDF5 with {', '.join(names)} "
            f"({str(error).splitlines()[0]}); copy it again"
        ) from error
