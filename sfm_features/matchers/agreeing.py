"""Nearest neighbours that move as those around them do."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sfm_features.matchers.nearest import Nearest
from sfm_features.types import F32, Bool, Features, Matcher, Matches

_AROUND = 32
"""Matches around one, nearest first, that are asked whether they agree with it."""
_GUESSES = 8
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
            self._device,
        )
        return Matches(matches.indices[kept], matches.scores[kept])


def find_agreeing(
    here: F32, there: F32, device: torch.device = torch.device("cpu")
) -> Bool:
    """Tell which matches, places (N, 2) in shares of the sides, move as those around.

    Around a match the picture is taken to be moved, turned and zoomed. First each match
    and one near it guess how, and those that many others fit become seeds. Then a match
    is kept if it is where several seeds around it expect it: even where seeds are far
    between, it is not by chance.
    """
    if len(here) <= _LEAST_AROUND:
        return torch.zeros(len(here), dtype=torch.bool).numpy()
    a, b = _to_complex(here, device), _to_complex(there, device)
    motion, votes = _guess_motion(a, b)
    seeds = votes >= _LEAST_AROUND
    if int(seeds.sum()) > _LEAST_SEEDS:
        kept = _count_expecting(a, b, motion, seeds) >= _LEAST_SEEDS
    else:
        kept = seeds
    found: Bool = kept.cpu().numpy()
    return found


def _guess_motion(
    a: torch.Tensor, b: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return how the picture moves at each match (N, 2), and how many (N,) agree."""
    around = _find_nearest(a, a, _AROUND, itself=True)
    motions, votes = [], []
    step = max(1, _CHUNK_ELEMENTS // _AROUND // _GUESSES)
    for start in range(0, len(a), step):
        rows = slice(start, start + step)
        near = around[rows]
        steps, moved = a[near] - a[rows, None], b[near] - b[rows, None]
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
    rows = seeds.nonzero()[:, 0]
    near = rows[_find_nearest(a, a[rows], _SEEDS)]
    steps = a[:, None] - a[near]
    first, second = motion[near].unbind(2)
    off = (b[near] + first * steps + second * steps.conj() - b[:, None]).abs()
    length = steps.abs()
    expected = off <= _allow(length, first.abs())
    return (expected & (length > _SAME_PLACE)).sum(1)


def _allow(length: torch.Tensor, zoom: torch.Tensor) -> torch.Tensor:
    """Return how far off a place may be that is guessed from so far away."""
    return _NEAR + _FAR * length * zoom.clamp(max=_LENIENT_ZOOM)


def _find_nearest(
    of: torch.Tensor, among: torch.Tensor, count: int, itself: bool = False
) -> torch.Tensor:
    """Find the nearest `count` places (N, count) of each, but itself, nearest first."""
    count = min(count, len(among) - itself)
    x, y = torch.view_as_real(of), torch.view_as_real(among)
    square = y.square().sum(1)
    step, found = max(1, _CHUNK_ELEMENTS // len(among)), []
    for start in range(0, len(x), step):
        # Less than the squared distance by a constant of the row.
        cost = torch.addmm(square, x[start : start + step], y.T, alpha=-2)
        if itself:
            cost.diagonal(start).fill_(torch.inf)
        found.append(cost.topk(count, dim=1, largest=False).indices)
    return torch.cat(found)


def _to_complex(places: F32, device: torch.device) -> torch.Tensor:
    return torch.view_as_complex(
        torch.from_numpy(places).to(device, torch.float32).contiguous()
    )
