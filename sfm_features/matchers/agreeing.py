"""Nearest neighbours that move as those around them do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from sfm_features.matchers.nearest import Nearest
from sfm_features.types import F32, Bool, Features, Matcher, Matches

_ASKED = 0.6
"""Share of the matches, the most alike ones, that are asked about those around them."""
_AROUND = 24
"""How many of these around a match, nearest first, are asked whether they agree."""
_GUESSES = 6
"""The nearest of those, each of which makes a guess at how things move here."""
_LEAST_AROUND = 4
"""How many must agree, the one that guessed among them."""
_SEEDS = 8
"""Matches around one that agreed with their own surroundings, asked in the end."""
_LEAST_SEEDS = 2
_MOST_ZOOM = 4.0
"""Of one image against the other one."""
_LENIENT_ZOOM = 1.5
"""Up to this, what is seen larger may be off by more."""
_NEAR = 0.004
"""Of an image's longer side: how far off a place may be that was guessed,"""
_FAR = 0.15
"""and of the distance that was guessed over, as a turn of a surface shows there."""
_SAME_PLACE = 0.001
_HELD = 0.1
"""How firmly motions are held to turns and zooms."""
_CHUNK_ELEMENTS = 1 << 20  # distances at a time: they stay in the cache


class Agreeing(Matcher):
    """Mutual nearest neighbours without those that move otherwise than all around them.

    Of two photographs of different places hardly any are left, of the same place nearly
    all that are right: geometric verification has less to do, and less to be wrong at.
    """

    def __init__(
        self, *, device: str = "cpu", ratio: float = 1.0, min_similarity: float = -1.0
    ) -> None:
        self._nearest = Nearest(
            device=device, ratio=ratio, min_similarity=min_similarity
        )
        self._device = torch.device(device)

    def match(self, a: Features, b: Features) -> Matches:
        """Match `a` against `b`; scores are dot products."""
        return self._keep(self._nearest.match(a, b), a, b)

    def match_many(self, a: Features, others: Sequence[Features]) -> list[Matches]:
        """Match one image against several."""
        found = self._nearest.match_many(a, others)
        return [self._keep(m, a, b) for m, b in zip(found, others, strict=True)]

    def _keep(self, matches: Matches, a: Features, b: Features) -> Matches:
        first, second = matches.indices.T
        kept = find_agreeing(
            a.keypoints[first] / max(a.image_size),
            b.keypoints[second] / max(b.image_size),
            matches.scores,
            self._device,
        )
        return Matches(matches.indices[kept], matches.scores[kept])


def find_agreeing(
    here: F32, there: F32, likeness: F32, device: torch.device = torch.device("cpu")
) -> Bool:
    """Tell which matches, places (N, 2) in shares of the sides, move as those around.

    Around a match the picture is taken to be moved, turned and zoomed. First each match
    and one near it guess how, and those that many others fit become seeds. Then a match
    is kept if it is where several seeds around it expect it: even where seeds are far
    between, it is not by chance.
    """
    if len(here) <= _LEAST_AROUND:
        return np.zeros(len(here), np.bool_)
    a, b = _to_complex(here, device), _to_complex(there, device)
    count = min(len(a), max(2 * _AROUND, round(_ASKED * len(a))))
    asked = torch.from_numpy(likeness).to(device).topk(count).indices
    motion, votes = _guess_motion(a, b, asked)
    seeds = (votes >= _LEAST_AROUND).nonzero()[:, 0]
    kept = _count_expecting(a, b, motion, seeds) >= _LEAST_SEEDS
    found: Bool = kept.cpu().numpy()
    return found


def _guess_motion(
    a: torch.Tensor, b: torch.Tensor, asked: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return how the picture moves at each match (N, 2), and how many (N,) agree."""
    motions, votes = [], []
    step = max(1, _CHUNK_ELEMENTS // len(asked))
    for start in range(0, len(a), step):
        here, there = a[start : start + step, None], b[start : start + step, None]
        near = _find_nearest(here[:, 0], a, asked, _AROUND)
        steps, moved = a[near] - here, b[near] - there
        length = steps.abs()
        apart = length > _SAME_PLACE
        guesses = moved[:, :_GUESSES] / steps[:, :_GUESSES]
        zoom = guesses.abs()
        sane = apart[:, :_GUESSES] & (zoom < _MOST_ZOOM) & (zoom > 1 / _MOST_ZOOM)
        off = torch.view_as_real(guesses[:, :, None] * steps[:, None] - moved[:, None])
        allowed = _allow(length[:, None], zoom[:, :, None])
        fits = off.square().sum(3) <= allowed.square()
        fits &= sane[:, :, None] & apart[:, None]
        most, best = fits.sum(2).max(1)
        agreeing = fits.take_along_dim(best[:, None, None], 1)[:, 0]
        votes.append(most)
        motions.append(_fit_motion(steps, moved, agreeing))
    return torch.cat(motions), torch.cat(votes)


def _fit_motion(
    steps: torch.Tensor, moved: torch.Tensor, agreeing: torch.Tensor
) -> torch.Tensor:
    """Fit (N, 2) to the steps that agree: moved = first * step + second * its mirror.

    That is any affine map; the mirror's part is held down, as few steps, or steps along
    a line, do not tell it.
    """
    steps, moved = steps * agreeing, moved * agreeing
    square = steps.abs().square().sum(1).clamp(min=_SAME_PLACE**2)
    skew = (steps * steps).sum(1)
    turned, mirrored = (moved * steps.conj()).sum(1), (moved * steps).sum(1)
    held = (1 + _HELD) * square
    determinant = square * held - skew.abs().square()
    first = (held * turned - skew.conj() * mirrored) / determinant
    second = (square * mirrored - skew * turned) / determinant
    return torch.stack([first, second], 1)


def _count_expecting(
    a: torch.Tensor, b: torch.Tensor, motion: torch.Tensor, seeds: torch.Tensor
) -> torch.Tensor:
    """Count for each match (N,) the seeds around it that expect it where it is."""
    counts = [torch.zeros(0, dtype=torch.int64, device=a.device)]
    step = max(1, _CHUNK_ELEMENTS // max(1, len(seeds)))
    for start in range(0, len(a), step):
        here, there = a[start : start + step, None], b[start : start + step, None]
        near = _find_nearest(here[:, 0], a, seeds, _SEEDS)
        steps = here - a[near]
        first, second = motion[near].unbind(2)
        off = (b[near] + first * steps + second * steps.conj() - there).abs()
        length = steps.abs()
        expected = off <= _allow(length, first.abs())
        counts.append((expected & (length > _SAME_PLACE)).sum(1))
    return torch.cat(counts)


def _allow(length: torch.Tensor, zoom: torch.Tensor) -> torch.Tensor:
    """Return how far off a place may be that is guessed from so far away."""
    return _NEAR + _FAR * length * zoom.clamp(max=_LENIENT_ZOOM)


def _find_nearest(
    here: torch.Tensor, a: torch.Tensor, among: torch.Tensor, count: int
) -> torch.Tensor:
    """Find which (N, count) of some places are the nearest but those right here."""
    apart = torch.cdist(torch.view_as_real(here), torch.view_as_real(a[among]))
    apart.masked_fill_(apart <= _SAME_PLACE, torch.inf)
    return among[apart.topk(min(count, len(among)), dim=1, largest=False).indices]


def _to_complex(places: F32, device: torch.device) -> torch.Tensor:
    return torch.view_as_complex(
        torch.from_numpy(places).to(device, torch.float32).contiguous()
    )
