"""Gathers what the report shows from the files of a reconstruction."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sfm_features import colmap
from sfm_features.errors import MissingExtra
from sfm_features.journal import explain_os_errors
from sfm_features.report import ReportData, write_report
from sfm_features.store import FeatureStore, MatchStore
from sfm_features.summary import Summary
from sfm_features.types import I32, Model, Pair
from sfm_features.workspace import Workspace

logger = logging.getLogger(__name__)


def report_reconstruction(
    workspace: Workspace,
    folders: Sequence[Path],
    features: Path,
    matches: Path,
    names: Sequence[str],
    pairs: Sequence[Pair],
    models: Sequence[Model],
    summary: Summary,
    options: Sequence[Any],
    is_of_new: bool = False,
) -> None:
    """Write report.html; where what draws it is not installed, that is only said.

    An image is in the first of the `folders` that has it. `is_of_new`: the database has
    only pairs with an image that was added to a map.
    """
    verified = colmap.read_verified(workspace.database)
    with FeatureStore.open(features) as f, MatchStore.open(matches) as m:
        data = ReportData(
            images=folders[0],
            more_images=folders[1:],
            keypoints={name: f.read_keypoints(name) for name in names},
            verified={pair: found.indices for pair, found in verified.items()},
            matches=_LazyMatches(m, pairs),
            model=models[0] if models else None,
            other_models=[list(model.images) for model in models[1:]],
            skipped=summary.skipped,
            unregistered=summary.unregistered,
            seconds=summary.seconds,
            options={
                type(part).__name__.removesuffix("Options"): part for part in options
            },
            errors=summary.errors,
            hint=summary.hint,
            is_of_new=is_of_new,
        )
        try:
            with explain_os_errors(workspace.report):
                path = write_report(workspace.report, data)
        except MissingExtra as error:
            logger.warning("no report: %s", error)
        else:
            logger.info("look at %s", path)


class _LazyMatches(Mapping[Pair, I32]):
    """Reads the matches of a pair only when they are drawn."""

    def __init__(self, store: MatchStore, pairs: Sequence[Pair]) -> None:
        self._store = store
        self._pairs = dict.fromkeys(pairs)

    def __getitem__(self, pair: Pair) -> I32:
        if pair not in self._pairs:
            raise KeyError(pair)
        return self._store.read(pair).indices

    def __iter__(self) -> Iterator[Pair]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)
