"""Images of an object and their depth maps, small, in memory, and batches of them."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from sfm_features.depths import (
    DepthKind,
    DepthMap,
    find_depth,
    fit_depth,
    read_depth,
    scale_nearness,
    vote_kind,
)
from sfm_features.errors import ImageError, InputError
from sfm_features.images import Decoded, decode
from sfm_features.orientation import turn_upright
from sfm_features.photo_files import list_images
from sfm_features.training.objects.options import LEAST_IMAGES
from sfm_features.types import F32, U8

logger = logging.getLogger(__name__)

_LEAST_SIDE_PX = 16
_SURE = 0.25
"""From this vote on a map looks clearly one way."""
_HELD_BACK_SHARE, _MOST_HELD_BACK = 0.1, 64


@dataclass(frozen=True)
class ObjectImages:
    """N images: rgb (N, 3, S, S) u8, nearness (N, S, S) f16 -1..1, has_depth (N,).

    `skipped` says which images or maps could not be used, `doubts` what looks wrong.
    """

    names: list[str]
    rgb: Tensor
    nearness: Tensor
    has_depth: Tensor
    skipped: dict[str, str] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    def hold_back(self, seed: int) -> list[int]:
        """Choose images that are only ever measured on."""
        count = min(_MOST_HELD_BACK, max(1, round(_HELD_BACK_SHARE * len(self))))
        rng = np.random.default_rng([seed, 101])
        return sorted(rng.choice(len(self), count, replace=False).tolist())


@dataclass(frozen=True)
class Views:
    """A batch: rgb and depth (B, 3, S, S) in -1..1 of one section, has_depth (B,)."""

    names: list[str]
    rgb: Tensor
    depth: Tensor
    has_depth: Tensor

    def to(self, device: torch.device) -> Views:
        """Copy to a device."""
        parts = (self.rgb, self.depth, self.has_depth)
        return Views(self.names, *(part.to(device) for part in parts))


def load_images(
    images: Path,
    depths: Path | None,
    size_px: int,
    kind: DepthKind = "auto",
    image_list: Path | None = None,
) -> ObjectImages:
    """Decode images and their depth maps; what cannot be used is left out, named."""
    skipped: dict[str, str] = {}
    names: list[str] = []
    pictures: list[U8] = []
    found: dict[int, tuple[str, DepthMap]] = {}
    for name in tqdm(list_images(images, image_list), "images", unit="image"):
        try:
            decoded = decode(images / name)
            pictures.append(shape_image(decoded, size_px))
        except ImageError as error:
            skipped[name] = str(error)
            continue
        if depths is not None and (path := find_depth(depths, name)) is not None:
            try:
                depth = fit_depth(
                    read_depth(path), decoded.size, decoded.orientation, path
                )
                found[len(names)] = (str(path), depth)
            except ImageError as error:
                skipped[str(path)] = str(error)
        names.append(name)
    if len(names) < LEAST_IMAGES:
        raise InputError(
            f"{images}: has {len(names)} images that can be used; keypoints are what "
            f"images have in common: give at least {LEAST_IMAGES}, better hundreds"
        )
    if depths is not None and not found:
        _refuse_no_depth(depths, names, skipped)
    nearness, kept, doubts = _scale_all(found, len(names), size_px, kind)
    logger.info("%d images, %d with depth, %d problems", len(names), int(kept.sum()),
                len(skipped))  # fmt: skip
    for doubt in doubts:
        logger.warning("%s", doubt)
    rgb = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
    return ObjectImages(names, rgb, nearness, kept, skipped, doubts)


def shape_image(decoded: Decoded, size_px: int) -> U8:
    """Turn an image upright and squeeze it into a square (S, S, 3)."""
    upright = turn_upright(decoded.rgb, decoded.orientation)
    if min(upright.shape[:2]) < _LEAST_SIDE_PX:
        height, width = upright.shape[:2]
        raise ImageError(f"{width} x {height} px is too small to show an object")
    size = (size_px, size_px)
    small = cv2.resize(upright, size, interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


def make_views(
    images: ObjectImages,
    rows: Tensor,
    rng: np.random.Generator | None = None,
    flip: bool = True,
    crop_share: float = 0.0,
) -> Views:
    """Cut the same mirrored and cropped sections out of images and depth maps."""
    rgb = images.rgb[rows].float() / 127.5 - 1
    depth = images.nearness[rows][:, None].float()
    if rng is not None:
        both = torch.cat([rgb, depth], 1)
        warps = _draw_warps(len(rows), rng, flip, crop_share)
        grid = functional.affine_grid(warps, list(both.shape), align_corners=False)
        both = functional.grid_sample(
            both, grid, padding_mode="border", align_corners=False
        )
        rgb, depth = both[:, :3], both[:, 3:]
    names = [images.names[int(i)] for i in rows]
    return Views(names, rgb, depth.expand(-1, 3, -1, -1), images.has_depth[rows])


def _draw_warps(
    count: int, rng: np.random.Generator, flip: bool, crop_share: float
) -> Tensor:
    """Draw which section (count, 2, 3) of each image is shown, and whether mirrored."""
    scale = 1 - rng.uniform(0, crop_share, count)
    shift = rng.uniform(-1, 1, (2, count)) * (1 - scale)
    sign = np.where(rng.random(count) < 0.5, -1.0, 1.0) if flip else np.ones(count)
    warps = np.zeros((count, 2, 3), np.float32)
    warps[:, 0, 0], warps[:, 1, 1] = sign * scale, scale
    warps[:, :, 2] = shift.T
    return torch.from_numpy(warps)


def _scale_all(
    found: dict[int, tuple[str, DepthMap]], count: int, size_px: int, kind: DepthKind
) -> tuple[Tensor, Tensor, list[str]]:
    """Bring maps to one scale; those inverted among the others are left out."""
    nearness = torch.full((count, size_px, size_px), -1.0, dtype=torch.float16)
    kept = torch.zeros(count)
    votes = {i: vote_kind(depth) for i, (_, depth) in found.items()}
    if not votes:
        return nearness, kept, []
    middle = float(np.median(list(votes.values())))
    likely: DepthKind = "nearness" if middle > 0 else "distance"
    doubts = _doubt_kind(kind, likely, middle)
    used = likely if kind == "auto" else kind
    sign = 1 if middle > 0 else -1
    for i, (path, depth) in found.items():
        if abs(middle) > _SURE and sign * votes[i] < -_SURE:
            doubts.append(
                f"{path}: looks inverted beside the other maps, so its image is used "
                "without depth; invert it or remove it"
            )
            continue
        scaled: F32 = scale_nearness(depth, used, size_px)
        nearness[i], kept[i] = torch.from_numpy(scaled), 1.0
    return nearness, kept, doubts


def _doubt_kind(kind: DepthKind, likely: DepthKind, middle: float) -> list[str]:
    larger = {"nearness": "nearer", "distance": "farther"}
    if kind == "auto":
        logger.info("depth maps: larger values are taken for %s", larger[likely])
        if abs(middle) < _SURE:
            return [
                f"depth maps: larger values may be {larger[likely]}, but that is not "
                "clear; say --depth-kind distance or --depth-kind nearness"
            ]
    elif kind != likely and abs(middle) > _SURE:
        return [
            f"depth maps look inverted: larger values seem to be {larger[likely]}; "
            f"check --depth-kind {kind}"
        ]
    return []


def _refuse_no_depth(depths: Path, names: list[str], skipped: dict[str, str]) -> None:
    broken = next((r for n, r in skipped.items() if n.startswith(str(depths))), "")
    reason = f"the first problem: {broken}" if broken else (
        f"none is called {Path(names[0]).stem}.png, .npy or {Path(names[0]).name}.png"
    )  # fmt: skip
    raise InputError(
        f"{depths}: has no depth map that can be used for {len(names)} images "
        f"({reason}); name maps as the images, or leave --depth out"
    )
