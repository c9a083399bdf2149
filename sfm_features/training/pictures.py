"""Pictures of what a network sees: P, R and the keypoints chosen from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from sfm_features.nets.dense import DenseNet
from sfm_features.training.labels import (
    LabelOptions,
    label_photo,
    make_views,
    map_reliability,
    measure_detector,
)
from sfm_features.training.photos import Photo
from sfm_features.types import U8

_HEIGHT_PX = 320


def draw_round(
    path: Path, photos: Sequence[Photo], net: DenseNet, device: torch.device, seed: int
) -> None:
    """Draw a row of keypoints, P and R for each photo into a JPEG."""
    rows = [_draw_photo(photo, net, device, seed) for photo in photos]
    width = max(row.shape[1] for row in rows)
    padded = [
        cv2.copyMakeBorder(
            row, 0, 6, 0, width - row.shape[1], cv2.BORDER_CONSTANT, value=(255,) * 3
        )
        for row in rows
    ]
    done, data = cv2.imencode(".jpg", np.concatenate(padded))
    assert done
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.tobytes())


def _draw_photo(photo: Photo, net: DenseNet, device: torch.device, seed: int) -> U8:
    was_training = net.training
    net.eval()
    rng = np.random.default_rng([seed, 23])
    options = LabelOptions(views=4)
    views = make_views([photo], options.views, rng)
    p, dense = measure_detector(net, views, device)
    with torch.no_grad():
        r = map_reliability(dense, views, net.descriptor_stride, 2)
    chosen = label_photo([photo], "product", options, rng, net, device)
    net.train(was_training)
    scale = _HEIGHT_PX / photo.size[1]
    size = (round(photo.size[0] * scale), _HEIGHT_PX)
    seen = cv2.cvtColor(cv2.resize(photo.grey, size), cv2.COLOR_GRAY2BGR)
    for x, y in chosen.xy * scale:
        cv2.circle(seen, (round(float(x)), round(float(y))), 2, (0, 200, 255), -1)
    # P spans orders of magnitude; R is good from two on.
    maps = [(p.clamp(min=1e-4).log10() + 4) / 4, r / 3]
    return np.concatenate([seen, *(_colour(m, size) for m in maps)], axis=1)


def _colour(values: Tensor, size: tuple[int, int]) -> U8:
    grey = (values.clamp(0, 1) * 255).byte().cpu().numpy()
    coloured = cv2.applyColorMap(cv2.resize(grey, size), cv2.COLORMAP_VIRIDIS)
    return np.asarray(coloured, np.uint8)
