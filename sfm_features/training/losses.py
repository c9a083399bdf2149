"""The losses of the detector and of the descriptor, each of them a plain function."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from sfm_features.nets.dense import CELL_PX
from sfm_features.training.targets import IGNORED, KEYPOINT
from sfm_features.training.warps import (
    is_inside,
    pixel_grid,
    sample_maps,
    transform,
)

_EPSILON = 1e-6
_SAME_PX = 3.0
"""Points that are nearer to each other count as one and the same for matching."""


@dataclass(frozen=True)
class Samples:
    """Samples (N,) of a batch: their losses, and what each counts.

    norms are of the gradients that they send into the network's predictions, from 0 to
    1: how hard a sample is at the moment.
    """

    losses: Tensor
    norms: Tensor
    weights: Tensor

    @property
    def mean(self) -> Tensor:
        """The weighted mean, zero of nothing."""
        return (self.losses * self.weights).sum() / self.weights.sum().clamp(min=1)


def focal_cells(
    logits: Tensor,
    targets: Tensor,
    heat: Tensor,
    gamma: float = 0.5,
    empty_weight: float = 0.5,
) -> Samples:
    """Return the focal cross-entropy of 8 x 8 cells with a dustbin of logit zero.

    logits (B, 1, H, W), targets and heat (B, H, W). A cell wants its share of each
    keypoint that spreads into it, and the dustbin for the rest; one with nothing known
    weighs nothing.
    """
    cells = functional.pixel_unshuffle(logits.float(), CELL_PX)
    log_p = functional.log_softmax(
        torch.cat([cells, torch.zeros_like(cells[:, :1])], dim=1), dim=1
    )
    parts = functional.pixel_unshuffle(targets[:, None].float(), CELL_PX)
    marked = functional.pixel_unshuffle(heat[:, None].float(), CELL_PX)
    count = marked.sum(dim=1, keepdim=True)
    # A cell without a keypoint is empty only when all of it is known.
    holds_one = (parts == KEYPOINT).any(dim=1, keepdim=True)
    known = holds_one | (parts != IGNORED).all(dim=1, keepdim=True)
    wanted = torch.cat([marked / count.clamp(min=1), (1 - count).clamp(min=0)], dim=1)
    # A root has no slope at zero, which is where a cell that is sure of itself gets.
    focus = (1 - log_p.exp()).clamp(min=_EPSILON) ** gamma
    loss = -(wanted * focus * log_p).sum(dim=1, keepdim=True)
    weight = known * (empty_weight + (1 - empty_weight) * count.clamp(max=1))
    missed = 1 - (wanted * log_p.detach().exp()).sum(dim=1, keepdim=True)
    return Samples(loss.flatten(), missed.flatten(), weight.flatten())


def focal_pixels(logits: Tensor, targets: Tensor, gamma: float = 1.0) -> Samples:
    """Return the focal cross-entropy of pixels with a sigmoid each.

    logits (B, 1, H, W), targets (B, H, W). Background is weighted so that all of it
    counts as much as all keypoints do.
    """
    x = logits[:, 0].float()
    positive = (targets == KEYPOINT).float()
    negative = ((targets != KEYPOINT) & (targets != IGNORED)).float()
    count = positive.sum().clamp(min=1)
    balance = count / negative.sum().clamp(min=1)
    p = torch.sigmoid(x)
    hit = positive * (1 - p) ** gamma * functional.softplus(-x)
    alarm = negative * p**gamma * functional.softplus(x)
    missed = torch.where(positive > 0, 1 - p, p).detach()
    weight = positive + balance * negative
    return Samples((hit + alarm).flatten(), missed.flatten(), weight.flatten())


def suppress_background(p: Tensor, background: Tensor, cell_px: int) -> Tensor:
    """Return the mean surprise that there is no keypoint on the background.

    p (B, 1, H, W), background (B, H, W). In each cell pixels exclude each other, so
    their probabilities add up; sigmoids have cells of one pixel.
    """
    there = background[:, None].float()
    share = functional.avg_pool2d(there, cell_px)
    # The mean of a cell is its sum over its pixels' number.
    mass = functional.avg_pool2d(p.float() * there, cell_px) * cell_px**2
    surprise = -torch.log1p(-mass.clamp(max=1 - _EPSILON))
    return (surprise * (share > 0)).sum() / (share > 0).sum().clamp(min=1)


def detector_repeatability(
    p: Tensor, b_from_a: Tensor, targets: Tensor, strongest: int = 0
) -> Tensor:
    """Return the symmetric divergence of two detectors over co-visible pixels.

    p (2 B, 1, H, W) of first and second images, b_from_a (B, 3, 3), nan where no
    homography relates a pair. Each pixel weighs as much as it looks like a keypoint;
    so it is nearly the same, and far faster, to look at the `strongest` of each image.
    """
    related = torch.isfinite(b_from_a).all(dim=(1, 2))
    identity = torch.eye(3, device=p.device)
    warp = torch.where(related[:, None, None], b_from_a, identity)
    p_a, p_b = p.float().chunk(2)
    seen_a, seen_b = (targets[:, None] != IGNORED).float().chunk(2)
    sides = [(p_a, p_b, seen_a, seen_b, warp)]
    if strongest:
        sides.append((p_b, p_a, seen_b, seen_a, torch.linalg.inv(warp)))
    total, weights = p.new_zeros(()), p.new_zeros(())
    for first, second, seen, seen_there, there in sides:
        index = _choose_pixels(first, strongest)
        xy = pixel_grid((p.shape[2], p.shape[3]), p.device)[0][index]
        landed = transform(there, xy)
        known = related[:, None] & is_inside(landed, (p.shape[3], p.shape[2]))
        known = known & (sample_maps(seen_there, landed)[..., 0] > 1 - _EPSILON)
        known = known & (seen.flatten(1).gather(1, index) > 0)
        here = first.flatten(1).gather(1, index).clamp(_EPSILON, 1 - _EPSILON)
        other = sample_maps(second, landed)[..., 0].clamp(_EPSILON, 1 - _EPSILON)
        both = 0.5 * (_divergence(here, other) + _divergence(other, here))
        weight = 0.5 * (here + other).detach() * known
        total = total + (weight * both).sum()
        weights = weights + weight.sum()
    return total / weights.clamp(min=1)


def _choose_pixels(p: Tensor, strongest: int) -> Tensor:
    """Return the indices (B, K) of the strongest pixels, or of all."""
    flat = p.detach().flatten(1)
    if 0 < strongest < flat.shape[1]:
        return flat.topk(strongest, dim=1).indices
    everything = torch.arange(flat.shape[1], device=p.device)
    return everything.expand(len(flat), -1)


def _divergence(p: Tensor, q: Tensor) -> Tensor:
    return p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()


def refinement(places: Tensor, xy: Tensor, b_from_a: Tensor, known: Tensor) -> Tensor:
    """Return how far places are from the labels, and from each other, in pixels.

    places and xy (2, B, N, 2) of both images, b_from_a (B, 3, 3), nan where no
    homography relates a pair, known (B, N). Labels jitter; that two places are of the
    same thing is exact.
    """
    count = known.sum().clamp(min=1)
    apart = (places - xy).abs().sum(dim=3).mean(dim=0)
    related = torch.isfinite(b_from_a).all(dim=(1, 2))
    identity = torch.eye(3, device=places.device)
    warp = torch.where(related[:, None, None], b_from_a, identity)
    both = (transform(warp, places[0]) - places[1]).abs().sum(dim=2)
    consistent = known & related[:, None]
    total = apart[known].sum() + both[consistent].sum()
    return total / count


def find_near(xy: Tensor, radius_px: float = 6.0) -> Tensor:
    """Tell which other points (B, N, N) are too near (B, N, 2) to be negatives."""
    near = torch.cdist(xy, xy) < radius_px
    itself = torch.eye(xy.shape[1], dtype=torch.bool, device=xy.device)
    return near & ~itself


def hardest_triplet(
    a: Tensor,
    b: Tensor,
    xy: Tensor,
    used: Tensor,
    margin: float = 0.8,
    ease: float = 0.0,
    repeatability: bool = True,
    distinctness: bool = True,
) -> Samples:
    """Return the triplet margin loss with the hardest negative of either direction.

    a, b (B, N, D) unit descriptors of points xy (2, B, N, 2), used (B, N). `ease` is
    the share of the negatives that are harder than the one taken. Without
    `repeatability` nothing pulls pairs together; without `distinctness` nothing pushes
    others away.
    """
    similarity = a.float() @ b.float().mT
    # The root of zero has no slope, and equal descriptors do occur.
    distance = (2 - 2 * similarity).clamp(min=_EPSILON).sqrt()
    own = distance.diagonal(dim1=1, dim2=2)
    itself = torch.eye(a.shape[1], dtype=torch.bool, device=a.device)
    absent = ~used
    far = torch.finfo(distance.dtype).max
    in_b = distance.masked_fill(itself | find_near(xy[1]) | absent[:, None], far)
    in_a = distance.masked_fill(itself | find_near(xy[0]) | absent[:, :, None], far)
    hardest = torch.minimum(
        _choose_negative(in_b, ease), _choose_negative(in_a.mT, ease)
    )
    pull = own if repeatability else torch.zeros_like(own)
    push = hardest if distinctness else torch.zeros_like(own)
    slack = margin if distinctness else 0.0
    loss = (pull - push + slack).clamp(min=0)
    # The hinge is either slack or not; a sigmoid of it tells by how much.
    norms = torch.sigmoid(own - hardest).detach()
    return Samples(loss.flatten(), norms.flatten(), used.flatten().float())


def _choose_negative(distance: Tensor, ease: float) -> Tensor:
    """Return the nearest (B, N) of (B, N, N) distances, or one further by rank."""
    if ease <= 0:
        return distance.amin(dim=2)
    count = (distance < torch.finfo(distance.dtype).max).sum(dim=2, keepdim=True)
    rank = (ease * count).long().clamp(max=distance.shape[2] - 1)
    return distance.sort(dim=2).values.gather(2, rank)[..., 0]


def dual_softmax(
    a: Tensor,
    b: Tensor,
    xy: Tensor,
    used: Tensor,
    log_temperature: Tensor,
    places: Tensor | None = None,
    beside: tuple[Tensor, Tensor] | None = None,
) -> tuple[Samples, Tensor]:
    """Return the cross-entropy of matching both ways, and the share matched rightly.

    a, b (B, N, D) unit descriptors of points xy (2, B, N, 2), used (B, N). Similarities
    are multiplied by the temperature, which is learned. Candidates are the other points
    of an image, those of images of other `places` (B,), which make it as hard as a
    large image, and what lies `beside` (B, N, K, D) each point, in first and in second
    images. The share counts candidates in the same image only.
    """
    scale = log_temperature.exp().clamp(max=100)
    scores = torch.einsum("bnd,cmd->bncm", a.float(), b.float()) * scale
    absent = ~(used[:, :, None, None] & used)
    if places is None:
        places = torch.zeros(len(a), device=a.device)
    itself = torch.eye(len(a), dtype=torch.bool, device=a.device)
    absent = absent | ((places[:, None] == places) & ~itself)[:, None, :, None]
    in_b = _hide(scores, absent, find_near(xy[1], _SAME_PX))
    in_a = _hide(scores, absent, find_near(xy[0], _SAME_PX))
    rows = in_b.flatten(2).logsumexp(dim=2)
    columns = in_a.flatten(0, 1).logsumexp(dim=0)
    if beside is not None:
        near_a, near_b = (near.float() * scale for near in beside)
        missed_b = torch.einsum("bnd,bnkd->bnk", a.float(), near_b)
        missed_a = torch.einsum("bnd,bnkd->bnk", b.float(), near_a)
        rows = torch.logaddexp(rows, missed_b.logsumexp(dim=2))
        columns = torch.logaddexp(columns, missed_a.logsumexp(dim=2))
    own = _own_images(scores).diagonal(dim1=1, dim2=2)
    log_p = (own - (rows + columns) / 2).masked_fill(~used, 0)
    index = torch.arange(a.shape[1], device=a.device)
    there, back = _own_images(in_b).argmax(dim=2), _own_images(in_a).argmax(dim=1)
    right = (there == index) & (back == index) & used
    missed = 1 - log_p.detach().exp()
    samples = Samples(-log_p.flatten(), missed.flatten(), used.flatten().float())
    return samples, right.sum() / used.sum().clamp(min=1)


def _hide(scores: Tensor, absent: Tensor, near: Tensor) -> Tensor:
    """Hide in scores (B, N, B, N) what is absent, or near (B, N, N) in an image."""
    hidden = absent.clone()
    images = torch.arange(len(near), device=near.device)
    hidden[images, :, images] |= near
    return scores.masked_fill(hidden, torch.finfo(scores.dtype).min)


def _own_images(scores: Tensor) -> Tensor:
    """Return the scores (B, N, N) within each image of those (B, N, B, N) of all."""
    images = torch.arange(len(scores), device=scores.device)
    return scores[images, :, images]


def preserve_detector(logits: Tensor, before: Tensor) -> Tensor:
    """Return how far the detector's logits moved from the frozen network's."""
    return functional.mse_loss(logits.float(), before.float())


def preserve_descriptor(descriptors: Tensor, before: Tensor) -> Tensor:
    """Return how far unit descriptors (B, D, h, w) moved, summed over D."""
    now = functional.normalize(descriptors.float(), dim=1)
    then = functional.normalize(before.float(), dim=1)
    return (now - then).square().sum(dim=1).mean()
