"""A model in metres: by GPS, by known positions, or by one known distance."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sfm_features import colmap
from sfm_features.drafts import publish_folder, refuse_overlap
from sfm_features.errors import (
    InputError,
    OptionError,
    require_at_least,
    require_files,
)
from sfm_features.geometry import Similarity
from sfm_features.photo_files import read_lines, require_folder
from sfm_features.similarity import align_robustly, measure, spread
from sfm_features.summary import read_image_folders
from sfm_features.types import F64, Bool, Model
from sfm_features.workspace import Workspace, copy_features

_LEAST = 3
"""Positions that fix where a model is, how it is turned and how large it is."""
_LINE_SHARE = 1e-3
"""Positions that spread less across than this share of their length are on a line."""
_VAGUE_SHARE = 0.2
"""Residuals, as a share of the positions' spread, that leave the scale open."""

Geodetic = tuple[float, float, float]


@dataclass(frozen=True)
class GeoregisterOptions:
    """What is known of the photographs' positions; by default their GPS."""

    reference: Path | None = None
    """Text file of known camera positions instead of GPS: NAME X Y Z a line, in metres
    or another unit; # begins a comment."""
    distance: tuple[str, str, float] | None = None
    """Names of two images and how many metres apart they were taken: then only the
    scale changes."""
    model: int = 0
    """Which model, if there are several in sparse/: its number; 0 is the largest."""

    def __post_init__(self) -> None:
        require_files(reference=self.reference)
        if self.distance is None:
            return
        if self.reference is not None:
            raise OptionError(
                "--distance: has no use beside --reference, which tells the scale, "
                "too; leave out one of the two"
            )
        one, other, metres = self.distance
        if one == other or not (math.isfinite(metres) and metres > 0):
            raise OptionError(
                f"--distance {one} {other} {metres:g}: wants two different images and "
                "how many metres they are apart"
            )


@dataclass(frozen=True)
class Georegistration:
    """How a model was moved, and how far its cameras are from where they should be.

    new = scale * rotation @ old + translation. `residuals` are by image, in `unit`;
    `rejected` are those of them that the move does not rest on. `origin` is latitude,
    longitude and altitude of the new (0, 0, 0), where x is east, y north and z up.
    """

    method: str
    unit: str
    move: Similarity
    residuals: Mapping[str, float] = field(default_factory=dict)
    rejected: Sequence[str] = ()
    origin: Geodetic | None = None
    cautions: Sequence[str] = ()

    @property
    def median_residual(self) -> float:
        """The middle residual of the positions that are used; nan if there are none."""
        used = [r for name, r in self.residuals.items() if name not in self.rejected]
        return float(np.median(used)) if used else math.nan

    def to_text(self) -> str:
        """Say it in lines."""
        scale = f"1 unit of the model is {self.move.scale:.6g} {self.unit}"
        if not self.residuals:
            return scale
        used = len(self.residuals) - len(self.rejected)
        lines = [
            f"{used} positions used, {len(self.rejected)} rejected; median residual "
            f"{self.median_residual:.3g} {self.unit}; {scale}"
        ]
        if self.rejected:
            worst = sorted(self.rejected, key=self.residuals.__getitem__, reverse=True)
            named = [f"{n} ({self.residuals[n]:.3g} {self.unit})" for n in worst[:5]]
            more = f" and {len(worst) - 5} more" if len(worst) > 5 else ""
            lines.append(f"rejected: {', '.join(named)}{more}")
        if self.method == "gps":
            lines.append(
                "GPS is off by several metres, and so are residuals: the model as a "
                "whole may be shifted by as much, and one camera says little"
            )
        return "\n".join([*lines, *(f"caution: {each}" for each in self.cautions)])

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        names = ("latitude", "longitude", "altitude")
        median = self.median_residual
        content = {
            "method": self.method,
            "unit": self.unit,
            "scale": self.move.scale,
            "rotation": self.move.rotation.tolist(),
            "translation": self.move.translation.tolist(),
            "origin": self.origin and dict(zip(names, self.origin, strict=True)),
            "used": len(self.residuals) - len(self.rejected),
            "rejected": sorted(self.rejected),
            "median_residual": None if math.isnan(median) else median,
            "residuals": dict(self.residuals),
            "cautions": list(self.cautions),
        }
        path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


def georegister(
    folder: Path,
    images: Path | None,
    output: Path,
    options: GeoregisterOptions = GeoregisterOptions(),
    seed: int = 0,
) -> Georegistration:
    """Write a model of `folder` in metres to OUTPUT/sparse/0, and how it was moved.

    `images` has the photographs whose GPS is read; if None, where they were when the
    model was made.
    """
    require_at_least(0, seed=seed)
    path = colmap.pick_model(folder, options.model)
    model = colmap.read_model(path)
    by_gps = options.reference is None and options.distance is None
    folders = _list_folders(folder, images) if by_gps else []
    refuse_overlap(output, folder, *folders)
    if options.distance is not None:
        found = _scale(model, path, *options.distance)
    elif options.reference is not None:
        known = _read_reference(options.reference)
        unit = f"units of {options.reference.name}"
        found = _align(model, known, "reference", unit, options.reference, seed)
    else:
        found = _align_by_gps(model, folders, seed)
    with publish_folder(output, "georegister") as draft:
        colmap.transform_model(path, draft / "sparse" / "0", found.move)
        found.write(draft / "georegistration.json")
        # Those are of the largest model.
        if options.model == 0 and path != folder:
            copy_features(Workspace(folder), Workspace(draft))
    return found


def _list_folders(folder: Path, images: Path | None) -> Sequence[Path]:
    """List the folders that photographs may be in."""
    if images is not None:
        require_folder(images)
        return [images]
    known = [path for path in read_image_folders(folder) if path.is_dir()]
    if not known:
        raise InputError(
            f"{folder}: does not tell where its photographs are, whose GPS is needed; "
            "give their folder behind it, or --reference or --distance"
        )
    return known


def _scale(
    model: Model, path: Path, one: str, other: str, metres: float
) -> Georegistration:
    """Make a model as large as one distance says; it is neither moved nor turned."""
    for name in (one, other):
        if name not in model.images:
            raise InputError(
                f"--distance: {name!r} is not an image of the model {path}; "
                f"{min(model.images, default='none')!r} is one"
            )
    ends = [model.images[name].cam_from_world.centre for name in (one, other)]
    apart = float(np.linalg.norm(ends[0] - ends[1]))
    if not (math.isfinite(apart) and apart > 0):
        raise InputError(
            f"--distance: {one!r} and {other!r} are at the same place in the model "
            f"{path}; choose two that are far apart"
        )
    move = Similarity(metres / apart, np.eye(3), np.zeros(3))
    return Georegistration("distance", "m", move)


def _read_reference(path: Path) -> dict[str, F64]:
    """Read known positions by name, which may hold spaces."""
    known: dict[str, F64] = {}
    for line in read_lines(path):
        words = line.rsplit(maxsplit=3)
        try:
            position = np.array([float(word) for word in words[1:]])
        except ValueError:
            position = np.zeros(0)
        if len(position) != 3 or not np.isfinite(position).all():
            raise InputError(f"{path}: cannot read {line!r}; each line is NAME X Y Z")
        if words[0] in known:
            raise InputError(f"{path}: has {words[0]!r} twice; remove one of the lines")
        known[words[0]] = position
    return known


def _align_by_gps(model: Model, folders: Sequence[Path], seed: int) -> Georegistration:
    where: dict[str, Geodetic] = {}
    for folder in folders:
        absent = [name for name in sorted(model.images) if name not in where]
        there = [name for name in absent if (folder / name).is_file()]
        where |= colmap.read_gps(folder, there)
    origin = colmap.choose_origin(where) if where else None
    known = colmap.gps_to_local_metres(where, origin)
    named = " and ".join(map(str, folders))
    return _align(model, known, "gps", "m", f"EXIF of {named}", seed, origin)


def _align(
    model: Model,
    known: Mapping[str, F64],
    method: str,
    unit: str,
    source: object,
    seed: int,
    origin: Geodetic | None = None,
) -> Georegistration:
    """Move a model so that its cameras are where most of the positions say."""
    names = [name for name in sorted(model.images) if name in known]
    if len(names) < _LEAST:
        raise InputError(
            f"{source}: has positions of {len(names)} of the model's "
            f"{len(model.images)} images, and {_LEAST} that are not on a line are "
            "needed; give more, or one distance that you know with --distance"
        )
    centres = np.array([model.images[name].cam_from_world.centre for name in names])
    wanted = np.array([known[name] for name in names])
    _refuse_line(centres, np.ones(len(names), np.bool_), source)
    move, used = align_robustly(centres, wanted, seed)
    for positions in (centres, wanted):
        _refuse_line(positions, used, source)
    residuals = measure(move, centres, wanted)
    return Georegistration(
        method,
        unit,
        move,
        dict(zip(names, residuals.tolist(), strict=True)),
        [name for name, good in zip(names, used, strict=True) if not good],
        origin,
        _list_cautions(move.apply(centres[used]), residuals[used], unit),
    )


def _refuse_line(positions: F64, used: Bool, source: object) -> None:
    """Raise InputError for positions on a line: the model could turn about it."""
    if not np.isfinite(positions).all():
        raise InputError(
            f"{source}: cannot be used, as a camera of the model or a position is "
            "nowhere (not a number); make the model again, or leave that image out"
        )
    wide = spread(positions[used])
    if not wide[1] > _LINE_SHARE * wide[0]:
        raise InputError(
            f"{source}: {used.sum()} positions agree, and all are on a line, or at one "
            f"place; {_LEAST} that are not are needed: give more, or one distance that "
            "you know with --distance"
        )


def _list_cautions(placed: F64, residuals: F64, unit: str) -> list[str]:
    """Say what the positions do not tell, being as far off as they are."""
    median, wide = float(np.median(residuals)), spread(placed)
    extent = float(np.linalg.norm(wide))
    if median > _VAGUE_SHARE * extent:
        return [
            f"the positions are off by {median:.3g} {unit} and spread over only "
            f"{extent:.3g}: the scale is a guess; use --distance"
        ]
    if median > wide[1] / 2:
        return [
            f"the positions are off by {median:.3g} {unit} and reach only "
            f"{wide[1]:.3g} to the sides of a line: how the model is turned about it "
            "is a guess"
        ]
    return []
