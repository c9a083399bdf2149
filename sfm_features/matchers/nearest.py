"""Exact mutual nearest neighbours on the dot product, on any device."""

from __future__ import annotations

import numpy as np
import torch

from sfm_features.errors import OptionError
from sfm_features.types import Features, Matcher, Matches

_CHUNK_ELEMENTS = 1 << 20  # 4 MiB of similarities at a time: they stay in the cache


class Nearest(Matcher):
    """Match rows that are each other's most similar, one to one.

    `ratio` bounds the distance to the best match over that to the second best (1 = no
    bound), `min_similarity` the dot product.
    """

    def __init__(
        self, *, device: str = "cpu", ratio: float = 1.0, min_similarity: float = -1.0
    ) -> None:
        if not 0 < ratio <= 1:
            raise OptionError(f"--ratio {ratio}: must be above 0 and at most 1 (= off)")
        self._device = torch.device(device)
        self._ratio = ratio
        self._min_similarity = min_similarity
        self._memory = torch.empty(0, device=self._device)

    def match(self, a: Features, b: Features) -> Matches:
        """Match `a` against `b`; scores are dot products."""
        if not len(a) or not len(b):
            return Matches(np.zeros((0, 2), np.int32), np.zeros(0, np.float32))
        if a.descriptors.shape[1] != b.descriptors.shape[1]:
            raise OptionError(
                f"descriptors of {a.descriptors.shape[1]} and {b.descriptors.shape[1]} "
                "dimensions cannot be matched; extract all images with one extractor"
            )
        rows, columns, scores = self._find_mutual(self._upload(a), self._upload(b))
        indices = torch.stack([rows, columns], 1).to("cpu", torch.int32)
        return Matches(indices.numpy(), scores.to("cpu").numpy())

    def _upload(self, features: Features) -> torch.Tensor:
        return torch.from_numpy(features.descriptors).to(self._device, torch.float32)

    def _find_mutual(
        self, a: torch.Tensor, b: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return rows, columns and similarities of the mutual pairs, by row."""
        best, nearest, accepted = [], [], []
        column_best = a.new_full((len(b),), -torch.inf)
        step = min(len(a), max(1, _CHUNK_ELEMENTS // len(b)))
        # Memory that is asked for and given back all the time tears the heap apart.
        memory = self._reserve(step * len(b))
        is_damaged = not bool((a.sum() + b.sum()).isfinite())
        for start in range(0, len(a), step):
            rows = a[start : start + step]
            similarity = memory[: len(rows) * len(b)].view(len(rows), len(b))
            torch.mm(rows, b.T, out=similarity)
            if is_damaged:
                # A maximum with nan is nan: one such row would match away all others.
                low = -torch.inf
                similarity.nan_to_num_(nan=low, posinf=low, neginf=low)
            values, indices = similarity.max(1)
            best.append(values)
            nearest.append(indices)
            column_best = torch.maximum(column_best, similarity.amax(0))
            accepted.append(self._passes_ratio(similarity, values, indices))
        values, columns = torch.cat(best), torch.cat(nearest)
        # Reaching the column's best is being its nearest; an argmax down the columns
        # would say the same and costs more than the matrix product.
        keep = torch.cat(accepted) & (values >= column_best[columns])
        kept = torch.nonzero(keep & (values >= self._min_similarity)).squeeze(1)
        kept = kept[_first_of_each(columns[kept], len(b))]
        return kept, columns[kept], values[kept]

    def _reserve(self, count: int) -> torch.Tensor:
        """Return memory for so many numbers, the same each time if it suffices."""
        if len(self._memory) < count:
            self._memory = torch.empty(count, device=self._device)
        return self._memory

    def _passes_ratio(
        self, similarity: torch.Tensor, best: torch.Tensor, nearest: torch.Tensor
    ) -> torch.Tensor:
        if self._ratio == 1 or similarity.shape[1] < 2:
            return torch.ones_like(best, dtype=torch.bool)
        # In place, as nobody needs the best any more: a copy would cost new memory.
        second = similarity.scatter_(1, nearest[:, None], -torch.inf).amax(1)
        # Unit vectors: squared distance = 2 - 2 * similarity. Less, and not as much:
        # of two that are the same as a row, neither is its match.
        return (1 - best).clamp(min=0) < self._ratio**2 * (1 - second).clamp(min=0)


def _first_of_each(columns: torch.Tensor, count: int) -> torch.Tensor:
    """Mark the first of equal entries: two identical rows would share a column."""
    order = torch.arange(len(columns), device=columns.device)
    first = torch.full((count,), len(columns), device=columns.device)
    first = first.scatter_reduce(0, columns, order, "amin")
    return first[columns] == order
