"""Which images share a camera, and what is known of it beforehand."""

from __future__ import annotations

import logging
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias, get_args

import pycolmap

from sfm_features.colmap.convert import from_colmap_camera, to_colmap_camera
from sfm_features.errors import OptionError
from sfm_features.types import Camera

log = logging.getLogger(__name__)

CameraSharing: TypeAlias = Literal["auto", "single", "folder", "image"]

_FOCAL_FACTOR = 1.2  # COLMAP's guess: focal length over the longer side
_LEAST_FOCAL, _MOST_FOCAL = 0.01, 100.0
"""Focal lengths that a camera may have, over the longer side."""
_MOST_EXTRA = 100.0
"""How large parameters of distortion may be."""
_HEAD_BYTES = 1 << 18
_EXIF_MARKS = (b"Exif\0", b"eXIf", b"EXIF")
_TIFF_STARTS = (b"II*\0", b"MM\0*")


@dataclass(frozen=True)
class CameraOptions:
    """How cameras are made; images of different sizes never share one."""

    camera_model: str = "SIMPLE_RADIAL"
    """One of COLMAP's camera models."""
    camera_params: str = ""
    """Its parameters, if known: p1,p2,..."""
    camera_sharing: CameraSharing = "auto"
    """Who shares a camera: everybody, a folder, nobody, or auto: by EXIF (camera and
    focal length), and by folder where there is none."""
    camera_globs: tuple[str, ...] = ()
    """Cameras of their own for some images: PATTERN=MODEL or PATTERN=MODEL:p1,..."""

    def __post_init__(self) -> None:
        if self.camera_sharing not in get_args(CameraSharing):
            raise OptionError(
                f"camera_sharing: {self.camera_sharing!r} is not one of "
                f"{', '.join(get_args(CameraSharing))}"
            )
        parse_params(self.camera_model, self.camera_params)
        for glob in self.camera_globs:
            _parse_glob(glob)


@dataclass(frozen=True)
class PriorCamera:
    """A camera before reconstruction: has_prior tells whether its focal is measured."""

    camera: Camera
    has_prior: bool


@dataclass(frozen=True)
class _Exif:
    """What EXIF says: the camera's name and the focal length in pixels."""

    model: str | None = None
    focal_px: float | None = None


@dataclass(frozen=True)
class _Rule:
    """One glob: the images it matches, and their camera."""

    pattern: str
    model: str
    params: tuple[float, ...]


def parse_params(model: str, text: str) -> tuple[float, ...]:
    """Parse comma separated parameters of a camera model; none if the text is empty."""
    names = _parameter_names(model)
    if not text.strip():
        return ()
    try:
        params = tuple(float(value) for value in text.split(","))
    except ValueError:
        params = ()
    if len(params) != len(names) or not all(map(math.isfinite, params)):
        raise OptionError(
            f"camera parameters {text!r}: {model} wants {len(names)} numbers separated "
            f"by commas: {', '.join(names)}"
        )
    return params


def warn_of_unused_globs(options: CameraOptions, names: Sequence[str]) -> None:
    """Say which patterns match none of the images, as a misspelt one would."""
    for rule in map(_parse_glob, options.camera_globs):
        if not any(fnmatchcase(name, rule.pattern) for name in names):
            log.warning(
                "--camera-globs: no image is called like %r, %r is one",
                *(rule.pattern, min(names, default="")),
            )


class CameraBook:
    """Hands out one camera per group of images."""

    def __init__(self, options: CameraOptions, images_dir: Path | None) -> None:
        self._options = options
        self._images_dir = images_dir
        self._rules = [_parse_glob(glob) for glob in options.camera_globs]
        self._params = parse_params(options.camera_model, options.camera_params)

    def describe(
        self, name: str, size: tuple[int, int]
    ) -> tuple[Hashable, PriorCamera]:
        """Return the group of an image and the camera to use if the group is new."""
        for rule in self._rules:
            if fnmatchcase(name, rule.pattern):
                exif = _Exif() if rule.params else self._read_exif(name, size)
                camera = _make_camera(rule.model, rule.params, size, exif)
                return ("glob", rule.pattern, size), camera
        exif = self._read_exif(name, size)
        try:
            camera = _make_camera(self._options.camera_model, self._params, size, exif)
        except OptionError as error:
            raise OptionError(
                f"{name}: {error}; images with another camera need --camera-globs, or "
                "leave them out by --image-list"
            ) from error
        return self._group(name, size, exif), camera

    def _group(self, name: str, size: tuple[int, int], exif: _Exif) -> Hashable:
        folder = str(PurePosixPath(name).parent)
        sharing = self._options.camera_sharing
        if sharing == "image":
            return name
        if sharing == "single":
            return size
        if sharing == "folder":
            return folder, size
        # The focal length is in the group: a zoom makes it another camera.
        owner = ("exif", exif.model) if exif.model else ("folder", folder)
        return owner, size, exif.focal_px

    def _read_exif(self, name: str, size: tuple[int, int]) -> _Exif:
        """Read what EXIF says, without a focal length that no camera can have."""
        if self._images_dir is None:
            return _Exif()
        bitmap = read_exif_bitmap(self._images_dir / name)
        if bitmap is None:
            return _Exif()
        focal_px, longer = bitmap.exif_focal_length(), max(size)
        if focal_px and not _LEAST_FOCAL <= focal_px / longer <= _MOST_FOCAL:
            focal_px = None
        return _Exif(bitmap.exif_camera_model(), focal_px)


def check_camera(camera: Camera) -> None:
    """Raise OptionError for what no camera can be: COLMAP would crash on some of it."""
    names = _parameter_names(camera.model)
    if len(camera.params) == len(names) and all(map(math.isfinite, camera.params)):
        made = to_colmap_camera(camera)
        if not made.has_bogus_params(_LEAST_FOCAL, _MOST_FOCAL, _MOST_EXTRA):
            return
    raise OptionError(
        f"camera {camera.model} {list(camera.params)} of {camera.width} x "
        f"{camera.height} px: wants {', '.join(names)} in pixels, as COLMAP has them"
    )


def read_exif_camera(folder: Path, name: str, size: tuple[int, int]) -> Camera | None:
    """Return the camera of an image by its EXIF; None if no sensible focal length."""
    _, found = CameraBook(CameraOptions(), folder).describe(name, size)
    return found.camera if found.has_prior else None


def read_exif_bitmap(path: Path) -> pycolmap.Bitmap | None:
    """Read a bitmap for its EXIF; None if there is none, or COLMAP cannot read it.

    COLMAP decodes all pixels (0.1 s for 12 megapixels), so files that cannot have EXIF
    are recognised by their first bytes.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except FileNotFoundError:
        return None  # which was said of all that are absent
    except OSError as error:
        log.warning("%s: no EXIF, it cannot be read (%s)", path, error.strerror)
        return None
    if not head.startswith(_TIFF_STARTS) and not any(m in head for m in _EXIF_MARKS):
        return None
    try:
        return pycolmap.Bitmap.read(path, as_rgb=False)
    except (ValueError, RuntimeError) as error:
        log.debug("%s: no EXIF, COLMAP cannot read it (%s)", path, error)
        return None


def _make_camera(
    model: str, params: tuple[float, ...], size: tuple[int, int], exif: _Exif
) -> PriorCamera:
    if params:
        camera = Camera(model, *size, params)
        check_camera(camera)
        return PriorCamera(camera, True)
    focal_px = exif.focal_px or _FOCAL_FACTOR * max(size)
    made = pycolmap.Camera.create_from_model_name(1, model, focal_px, *size)
    return PriorCamera(from_colmap_camera(made), bool(exif.focal_px))


def _parse_glob(glob: str) -> _Rule:
    pattern, separator, rest = glob.rpartition("=")
    if not separator or not pattern:
        raise OptionError(
            f"camera glob {glob!r}: write PATTERN=MODEL or PATTERN=MODEL:p1,p2,..., "
            "for example 'drone/*=OPENCV'"
        )
    model, _, params = rest.partition(":")
    return _Rule(pattern, model, parse_params(model, params))


def _parameter_names(model: str) -> list[str]:
    known = [name for name in pycolmap.CameraModelId.__members__ if name != "INVALID"]
    if model not in known:
        raise OptionError(f"camera model {model!r} is not one of {', '.join(known)}")
    camera = pycolmap.Camera.create_from_model_name(1, model, 1.0, 2, 2)
    return [name.strip() for name in camera.params_info.split(",")]
