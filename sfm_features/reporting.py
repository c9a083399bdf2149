"""Gathers what the report shows from the files of a reconstruction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sfm_features import colmap
from sfm_features.journal import explain_os_errors
from sfm_features.report import ReportData, write_report
from sfm_features.store import FeatureStore, MatchStore
from sfm_features.summary import Summary
from sfm_features.types import I32, Model, Pair
from sfm_features.workspace import Workspace


def report_reconstruction(
    workspace: Workspace,
    images: Path,
    features: Path,
    matches: Path,
    names: Sequence[str],
    pairs: Sequence[Pair],
    models: Sequence[Model],
    summary: Summary,
    options: Mapping[str, Any],
) -> Path:
    """Write report.html; raise MissingExtra when what draws it is not installed."""
    verified = colmap.read_verified(workspace.database)
    with FeatureStore.open(features) as f, MatchStore.open(matches) as m:
        data = ReportData(
            images=images,
            keypoints={name: f.read_keypoints(name) for name in names},
            verified={pair: found.indices for pair, found in verified.items()},
            matches=_LazyMatches(m, pairs),
            model=models[0] if models else None,
            other_models=[list(model.images) for model in models[1:]],
            skipped=summary.skipped,
            unregistered=summary.unregistered,
            seconds=summary.seconds,
            options=options,
            errors=summary.errors,
            hint=summary.hint,
        )
        with explain_os_errors(workspace.report):
            return write_report(workspace.report, data)


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
