"""Keypoints of a kind of object on photographs, by a detector trained on it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from tqdm import tqdm

from sfm_features.errors import ImageError, InputError
from sfm_features.images import decode
from sfm_features.journal import claim, explain_os_errors, replace_text
from sfm_features.nets.autolink import load_keypoint_net
from sfm_features.nets.links import locate, measure_sureness
from sfm_features.orientation import turn_back, turn_upright
from sfm_features.photo_files import list_images
from sfm_features.registry import choose_device
from sfm_features.types import F32, F64, I64, U8, RunOptions, undo_resize

logger = logging.getLogger(__name__)

_SAVED_EVERY = 50


@dataclass(frozen=True)
class ObjectKeypoints:
    """Keypoints (K, 2) f32 in pixels of the stored image, and how sure each is (K,)."""

    xy: F32
    confidence: F32
    image_size: tuple[int, int]


class ObjectDetector:
    """A trained detector, loaded once."""

    def __init__(self, weights: Path, device: str = "auto") -> None:
        self.net, self.card = load_keypoint_net(weights)
        self.device = choose_device(device)
        self.net.to(self.device)

    @torch.no_grad()
    def detect(self, rgb: U8, orientation: int = 1) -> ObjectKeypoints:
        """Detect on one image (H, W, 3) as it is stored; every keypoint has a place."""
        upright = turn_upright(rgb, orientation)
        side = self.net.config["size_px"]
        small = cv2.resize(upright, (side, side), interpolation=cv2.INTER_AREA)
        picture = torch.from_numpy(np.ascontiguousarray(small)).to(self.device)
        given = picture.permute(2, 0, 1)[None].float() / 127.5 - 1
        logits = self.net(given).logits
        at, sure = locate(logits)[0].cpu(), measure_sureness(logits)[0].cpu()
        # -1..1 spans the square from rim to rim: share s is pixel s * side - 1/2.
        pixels = ((at.numpy() + 1) * side - 1) / 2
        size = upright.shape[1], upright.shape[0]
        xy = undo_resize(pixels.astype(np.float32), size, (side, side))
        stored = turn_back(xy, orientation, size)
        return ObjectKeypoints(stored, sure.numpy(), (rgb.shape[1], rgb.shape[0]))


def detect_object(
    images: Path,
    output: Path,
    weights: Path,
    run: RunOptions = RunOptions(),
    pictures: bool = True,
) -> int:
    """Detect on a folder of images into OUTPUT/keypoints.json; return how many.

    What a stopped run with the same weights has found is kept.
    """
    detector = ObjectDetector(weights, run.device)
    with claim(output):
        return _detect_all(detector, images, output, run, pictures)


def _detect_all(
    detector: ObjectDetector,
    images: Path,
    output: Path,
    run: RunOptions,
    pictures: bool,
) -> int:
    path = output / "keypoints.json"
    found = _read_found(path, detector.card.sha256)
    names = list_images(images)
    found = {name: found[name] for name in names if name in found}
    skipped: dict[str, str] = {}
    missing = [name for name in names if name not in found]
    try:
        for k, name in enumerate(tqdm(missing, "objects", unit="image")):
            try:
                found[name] = _detect_file(detector, images, name, output, pictures)
            except ImageError as error:
                if run.strict:
                    raise
                skipped[name] = str(error)
                logger.warning("skipped %s: %s", name, error)
            if k % _SAVED_EVERY == _SAVED_EVERY - 1:
                _write_found(path, detector, found, skipped)
    finally:
        _write_found(path, detector, found, skipped)
    logger.info(
        "%s: keypoints of %d images, %d skipped", path, len(found), len(skipped)
    )
    return len(found)


def draw_keypoints(rgb: U8, points: F64, links: I64 | None = None) -> U8:
    """Draw keypoints (K, 2) of -1..1, and links (E, 2), on a copy of an image."""
    marked: U8 = rgb.copy()
    size = np.array(rgb.shape[1::-1])
    pixels = np.round((points + 1) / 2 * size).astype(int)
    radius = max(2, round(min(size.tolist()) / 60))
    for a, b in [] if links is None else links.tolist():
        start, end = (tuple(pixels[k].tolist()) for k in (a, b))
        cv2.line(marked, start, end, (255, 255, 255), max(1, radius // 2), cv2.LINE_AA)
    for (x, y), colour in zip(pixels.tolist(), _list_colours(len(pixels)), strict=True):
        cv2.circle(marked, (x, y), radius, colour, -1, cv2.LINE_AA)
    return marked


def _list_colours(count: int) -> list[tuple[int, int, int]]:
    """Go around the circle of colours."""
    hues = np.linspace(0, 179, count, endpoint=False).astype(np.uint8)
    hsv = np.stack([hues, np.full_like(hues, 255), np.full_like(hues, 255)], 1)
    rgb = cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)[0]
    return [(red, green, blue) for red, green, blue in rgb.tolist()]


def _detect_file(
    detector: ObjectDetector, images: Path, name: str, output: Path, pictures: bool
) -> dict[str, Any]:
    decoded = decode(images / name)
    found = detector.detect(decoded.rgb, decoded.orientation)
    if pictures:
        spans = 2 * (found.xy + 0.5) / found.image_size - 1
        marked = draw_keypoints(decoded.rgb, spans.astype(np.float64))
        _write_picture(output / "pictures" / f"{name}.jpg", marked)
    return {
        "size": list(found.image_size),
        "keypoints": np.round(found.xy.astype(float), 2).tolist(),
        "confidence": np.round(found.confidence.astype(float), 3).tolist(),
    }


def _write_picture(path: Path, rgb: U8) -> None:
    done, data = cv2.imencode(".jpg", rgb[..., ::-1])
    assert done
    with explain_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.tobytes())


def _read_found(path: Path, sha256: str) -> dict[str, Any]:
    """Read what was found before with the same weights."""
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["weights_sha256"] != sha256:
            raise InputError(
                f"{path}: holds keypoints of other weights; choose another folder, or "
                "delete this one"
            )
        return dict(content["images"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: is no file of keypoints ({error!r}); delete it"
        ) from error


def _write_found(
    path: Path,
    detector: ObjectDetector,
    found: Mapping[str, Any],
    skipped: Mapping[str, str],
) -> None:
    content = {
        "convention": "pixels of the stored image, the centre of the first is (0, 0)",
        "weights_sha256": detector.card.sha256,
        "images": dict(sorted(found.items())),
        "skipped": skipped,
    }
    replace_text(path, json.dumps(content, indent=1) + "\n")
