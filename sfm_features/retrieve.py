"""Features to descriptors of whole images, by which the same place is found again."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from sfm_features.errors import InputError, require_other_file
from sfm_features.nets.vlad import Vlad, load_vlad
from sfm_features.nets.weights import BUNDLED, Card
from sfm_features.store import FeatureStore, GlobalStore

logger = logging.getLogger(__name__)

BUNDLED_CODEBOOK = BUNDLED / "vlad-evo.safetensors"

_BEGIN_ALIKE: Mapping[str, str] = {"evo-fine": "evo"}
"""Extractors whose descriptors begin with another's, and its codebook fits them."""


@dataclass(frozen=True)
class DescribeSummary:
    """What was done: counts and seconds."""

    written: int
    reused: int
    seconds: float


def describe(
    features: Path,
    output: Path,
    codebook: Path | None = None,
    overwrite: bool = False,
) -> DescribeSummary:
    """Describe the images of a feature file into an HDF5 file, or complete it.

    Without a codebook of one's own, features must be evo's or evo-fine's. `overwrite`
    starts the file anew, once all that is given was checked.
    """
    start = time.perf_counter()
    require_other_file(output, features, codebook)
    path = codebook or BUNDLED_CODEBOOK
    with FeatureStore.open(features) as store:
        vlad, card = load_vlad(path)
        _check_fit(store, vlad, card, path)
        config = describe_settings(store, card)
        with GlobalStore.append(output, config, overwrite) as described:
            missing = [
                n for n in store.names() if not is_described(described, store, n)
            ]
            # `disable` is not passed: it would override TQDM_DISABLE.
            bar = tqdm(missing, desc="describe", unit="image") if missing else []
            with torch.inference_mode():
                for name in bar:
                    local = torch.from_numpy(store.read(name).descriptors)
                    row = vlad(local).numpy()
                    described.write(name, row, store.fingerprint(name))
            count = len(described.names())
    summary = DescribeSummary(
        len(missing), count - len(missing), time.perf_counter() - start
    )
    logger.info("descriptors: %d images written, %d kept", len(missing), summary.reused)
    return summary


def is_described(described: GlobalStore, store: FeatureStore, name: str) -> bool:
    """Tell whether an image is described, and by the features that it has now."""
    if name not in described:
        return False
    made_of = described.fingerprint(name)
    return made_of is None or made_of == store.fingerprint(name)


def describe_settings(store: FeatureStore, card: Card) -> dict[str, Any]:
    """Return the settings that decide what descriptors look like, for the file."""
    return {"features": dict(store.config), "codebook_sha256": card.sha256}


def has_codebook(features: Path) -> bool:
    """Tell whether the package has a codebook for the features of a file."""
    with FeatureStore.open(features) as store:
        return fits(store, *load_vlad(BUNDLED_CODEBOOK))


def fits(store: FeatureStore, vlad: Vlad, card: Card) -> bool:
    """Tell whether a codebook was made of such features as these."""
    made_of = str(card.recipe.get("extractor", ""))
    extractor = store.config.get("extractor", made_of)
    length = _measure_length(store, vlad.local_dim)
    if _BEGIN_ALIKE.get(extractor) == made_of:
        return length > vlad.local_dim
    return extractor == made_of and length == vlad.local_dim


def _measure_length(store: FeatureStore, default: int) -> int:
    names = store.names()
    return store.read(names[0]).descriptors.shape[1] if names else default


def _check_fit(store: FeatureStore, vlad: Vlad, card: Card, path: Path) -> None:
    """Refuse descriptors that a codebook was not made of."""
    if not fits(store, vlad, card):
        length = _measure_length(store, 0)
        raise InputError(
            f"{store.path}: holds features of "
            f"{store.config.get('extractor', 'another tool')} with {length} numbers, "
            f"but {path.name} was made of {card.recipe.get('extractor')}'s "
            f"{vlad.local_dim}; make a codebook of yours with `python -m "
            "pipelines.codebook` and give it with --codebook"
        )
    weights = card.recipe.get("weights_sha256")
    if weights and store.config.get("weights_sha256", weights) != weights:
        logger.warning(
            "%s: the features are of other weights than %s was made of; images are "
            "found less well than with a codebook of these weights",
            store.path, path.name,
        )  # fmt: skip
