"""Features by image name."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from sfm_features.errors import InputError
from sfm_features.journal import hold_interrupts
from sfm_features.store.base import (
    NamedStore,
    explain_damage,
    read_array,
    read_number,
)
from sfm_features.types import F32, Features


@dataclass(frozen=True)
class Origin:
    """What features were made of, so that it is noticed when that is replaced.

    The size of the image's file, and a check sum of its mask's, 0 for none; None where
    nobody wrote that down.
    """

    file_bytes: int | None = None
    mask_crc: int | None = None

    def differs(self, other: Origin) -> bool:
        """Tell whether both know of something that is not the same."""
        return any(
            mine is not None and its is not None and mine != its
            for mine, its in (
                (self.file_bytes, other.file_bytes),
                (self.mask_crc, other.mask_crc),
            )
        )


class FeatureStore(NamedStore):
    """Features by image name."""

    kind = "features"
    _groups_per_commit = 8
    _required = ("keypoints", "descriptors", "image_size")

    @hold_interrupts()
    def read(self, name: str) -> Features:
        """Read the features of one image, descriptors as f32 rows."""
        with explain_damage(self.path, self._ours):
            if name not in self:
                raise InputError(
                    f"{self.path}: has no complete features of {name!r}; run "
                    "`sfm-features extract` again, it adds what is missing"
                )
            group = self._file[name]
            keypoints = _read_keypoints(group)
            scores = group.get("scores", group.get("keypoint_scores"))
            descriptors = _rows(read_array(group, "descriptors", 2))
            if len(keypoints) and not descriptors.shape[1]:
                raise InputError(
                    f"{self.path}: has keypoints of {name!r} but no descriptors, as "
                    "where it came from; give it with its matches (--matches), or "
                    "extract anew"
                )
            if len(descriptors) != len(keypoints):
                raise ValueError(f"{name}: keypoints and descriptors differ in number")
            if scores is not None and scores.size != len(keypoints):
                raise ValueError(f"{name}: keypoints and scores differ in number")
            uncertainty_px = group["keypoints"].attrs.get("uncertainty", 1.0)
            return Features(
                keypoints=keypoints,
                descriptors=descriptors,
                scores=np.ones(len(keypoints), np.float32)
                if scores is None
                else scores[()].astype(np.float32).ravel(),
                image_size=self.read_size(name),
                uncertainty_px=float(uncertainty_px),
            )

    @hold_interrupts()
    def read_keypoints(self, name: str) -> F32:
        """Read only the keypoints (N, 2) of one image."""
        with explain_damage(self.path, self._ours):
            return _read_keypoints(self._file[name])

    @hold_interrupts()
    def read_size(self, name: str) -> tuple[int, int]:
        """Read only the width and height of one image."""
        with explain_damage(self.path, self._ours):
            group = self._file[name]
            width, height = map(int, read_array(group, "image_size", 1))
            if "tile_idx" in group:  # deep-image-matching has the height first
                width, height = height, width
            if min(width, height) < 1:
                raise ValueError(f"{name}: its image_size is {width} x {height}")
        return width, height

    @hold_interrupts()
    def origin(self, name: str) -> Origin:
        """Tell what the features of one image were made of."""
        group = self._file[name]
        return Origin(read_number(group, "file_bytes"), read_number(group, "mask_crc"))

    @hold_interrupts()
    def fingerprint(self, name: str) -> int:
        """Tell an image's keypoints from others; of other tools' they are read."""
        written = read_number(self._file[name], "fingerprint")
        return _fingerprint(self.read_keypoints(name)) if written is None else written

    @hold_interrupts()
    def write(self, name: str, features: Features, origin: Origin = Origin()) -> None:
        """Write the features of one image; they are permanent after the next commit."""
        group = self._write_group(
            name,
            {
                "keypoints": features.keypoints,
                "descriptors": np.ascontiguousarray(
                    features.descriptors.T, dtype=np.float16
                ),
                "scores": features.scores,
                "image_size": np.array(features.image_size, np.int64),
            },
        )
        group["keypoints"].attrs["uncertainty"] = features.uncertainty_px
        group.attrs["fingerprint"] = np.uint32(_fingerprint(features.keypoints))
        for attribute, value in vars(origin).items():
            if value is not None:
                group.attrs[attribute] = value
        self._finish_group(group)


def _read_keypoints(group: Any) -> F32:
    """Read keypoints (N, 2); other tools may store more of each."""
    keypoints: F32 = read_array(group, "keypoints", 2).astype(np.float32)
    if keypoints.shape[1] < 2:
        raise ValueError(
            f"{group.name.strip('/')}: keypoints are of shape {keypoints.shape}, not "
            "two numbers each"
        )
    return keypoints[:, :2]


def _fingerprint(keypoints: F32) -> int:
    return zlib.crc32(np.ascontiguousarray(keypoints, np.float32).tobytes())


def _rows(columns: Any) -> F32:
    rows: F32 = np.ascontiguousarray(columns.T, dtype=np.float32)
    return rows
