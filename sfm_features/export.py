"""A model for other programs: points, text, NeRF's transforms.json, flat images."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np
from tqdm import tqdm

from sfm_features import __version__, colmap
from sfm_features.ahead import run_ahead
from sfm_features.drafts import publish_folder, refuse_overlap
from sfm_features.errors import (
    ImageError,
    InputError,
    NameCollision,
    OptionError,
    OutputError,
)
from sfm_features.images import decode, encode
from sfm_features.journal import explain_os_errors
from sfm_features.photo_files import find_photos, require_folder
from sfm_features.summary import read_image_folders
from sfm_features.transforms import make_transforms
from sfm_features.types import Model

logger = logging.getLogger(__name__)

ExportFormat: TypeAlias = Literal["ply", "text", "nerf", "undistorted"]

_PLY_MARK = b"comment made by sfm-features"
_HEAD_BYTES = 200
_READERS, _AHEAD = 2, 2  # a picture of 50 megapixels takes 150 MB


@dataclass(frozen=True)
class ExportOptions:
    """What is written."""

    format: ExportFormat
    """ply: the points, a file. text: COLMAP's text model. nerf: transforms.json for
    nerfstudio and instant-ngp. undistorted: photographs without lens distortion and a
    PINHOLE model, as 3D Gaussian Splatting wants them. All but ply are folders."""
    images: Path | None = None
    """Folder of the photographs, for nerf and undistorted; default: where they were
    when the model was made."""
    model: int = 0
    """Which model, if there are several in sparse/: its number; 0 is the largest."""

    def __post_init__(self) -> None:
        if self.format not in get_args(ExportFormat):
            raise OptionError(
                f"--format {self.format}: is not one of "
                f"{', '.join(get_args(ExportFormat))}"
            )
        if self.images is not None:
            require_folder(self.images)


@dataclass(frozen=True)
class Exported:
    """What was written where."""

    output: Path
    images: int
    points: int

    def to_text(self) -> str:
        """Say it in a line."""
        return f"{self.output}: {self.images} images, {self.points} points"


def export(folder: Path, output: Path, options: ExportOptions) -> Exported:
    """Write a model in another format; `folder` is an output of ours, or a model.

    What is written appears whole or not at all, and over nothing but an earlier export.
    """
    path = colmap.pick_model(folder, options.model)
    model = colmap.read_model(path)
    needs_photos = options.format in ("nerf", "undistorted")
    photos: Mapping[str, Path] = {}
    inputs = [folder]
    if needs_photos:
        _refuse_empty(path, len(model.images), "images")
        folders = _list_folders(folder, options)
        inputs += folders
        photos = find_photos(folders, sorted(model.images))
    refuse_overlap(output, *inputs)
    if options.format == "ply":
        _refuse_empty(path, len(model.points), "points")
        _publish_points(model, output)
    else:
        with publish_folder(output, "export") as draft:
            if options.format == "text":
                colmap.write_text_model(path, draft)
            elif options.format == "nerf":
                _write_nerf(model, photos, draft, output)
            else:
                _write_undistorted(path, model, photos, draft)
    return Exported(output, len(model.images), len(model.points))


def _refuse_empty(path: Path, count: int, things: str) -> None:
    if not count:
        raise InputError(f"{path}: the model has no {things}; give another one")


def _list_folders(folder: Path, options: ExportOptions) -> Sequence[Path]:
    """List the folders that photographs may be in."""
    if options.images is not None:
        return [options.images]
    known = read_image_folders(folder)
    if not known:
        raise OptionError(
            f"--format {options.format}: needs the photographs, and {folder} does not "
            "tell where they are; give their folder with --images"
        )
    return known


def _publish_points(model: Model, output: Path) -> None:
    """Write the points to a file, if nothing but an earlier one is in its place."""
    _refuse_foreign_file(output)
    draft = output.with_name(f".{output.name}.part")
    with explain_os_errors(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write_points(model, draft)
            draft.replace(output)
        finally:
            draft.unlink(missing_ok=True)


def _refuse_foreign_file(output: Path) -> None:
    if output.is_dir():
        raise OutputError(
            f"{output}: is a folder, and the points are a file; choose another "
            f"--output, such as {output / 'points.ply'}"
        )
    if output.exists():
        with explain_os_errors(output), output.open("rb") as file:
            head = file.read(_HEAD_BYTES)
        if _PLY_MARK not in head:
            raise OutputError(
                f"{output}: is there already and is not an earlier export; choose "
                "another --output, or delete it yourself"
            )


def _write_points(model: Model, path: Path) -> None:
    """Write points as a binary PLY file.

    In double precision: in single, points in metres of a national grid would be half a
    metre off.
    """
    head = (
        f"ply\nformat binary_little_endian 1.0\n{_PLY_MARK.decode()} {__version__}\n"
        f"element vertex {len(model.points)}\n"
        "property double x\nproperty double y\nproperty double z\n"
        "property uchar red\nproperty uchar green\nproperty uchar blue\nend_header\n"
    )
    kind = np.dtype([("xyz", "<f8", 3), ("colour", "u1", 3)])
    rows = np.empty(len(model.points), kind)
    rows["xyz"], rows["colour"] = model.points, model.colours
    with path.open("wb") as file:
        file.write(head.encode())
        file.write(rows.tobytes())


def _write_nerf(
    model: Model, photos: Mapping[str, Path], draft: Path, output: Path
) -> None:
    # A link's own name is kept: where it leads, the file may be called anything.
    start = os.path.realpath(output)
    files = {
        name: Path(
            os.path.relpath(os.path.realpath(path.parent) + f"/{path.name}", start)
        ).as_posix()
        for name, path in photos.items()
    }
    points = "points.ply" if len(model.points) else None
    if points is not None:
        _write_points(model, draft / points)
    content = json.dumps(
        make_transforms(model, files, points),
        indent=1,
        ensure_ascii=False,
        allow_nan=False,
    )
    (draft / "transforms.json").write_text(content + "\n", encoding="utf-8")


def _write_undistorted(
    source: Path, model: Model, photos: Mapping[str, Path], draft: Path
) -> None:
    """Write images/ and sparse/0, as the first loader of 3D Gaussian Splatting reads.

    Not by `pycolmap.undistort_images`: it leaves out images that it cannot read, and a
    photograph of another size than its camera's ends the process.
    """
    names = _flatten(sorted(model.images))
    # First what may be refused; the photographs take long.
    colmap.write_undistorted_model(source, draft / "sparse" / "0", names)
    (draft / "images").mkdir()
    pictures = run_ahead(decode, photos.values(), _READERS, _AHEAD)
    with tqdm(total=len(photos), desc="undistort", unit="image") as bar:
        for name, (path, decoded) in zip(photos, pictures, strict=True):
            camera, picture = model.images[name].camera, decoded.result()
            if picture.size != (camera.width, camera.height):
                raise ImageError(
                    f"{path}: is {picture.size[0]} x {picture.size[1]} px, but the "
                    f"model was made of one of {camera.width} x {camera.height}; give "
                    "the folder of those photographs with --images"
                )
            made = draft / "images" / names[name]
            if colmap.is_flat(camera):
                shutil.copyfile(path, made)
            else:
                encode(colmap.undistort_picture(picture.rgb, camera), made)
            bar.update()


def _flatten(names: Sequence[str]) -> dict[str, str]:
    """Name images without folders: the loader of 3D Gaussian Splatting ignores them."""
    flat = {name: name.replace("/", "-") for name in names}
    if len({*flat.values()}) < len(flat):
        first: dict[str, str] = {}
        for name, made in flat.items():
            other = first.setdefault(made, name)
            if other != name:
                raise NameCollision(
                    f"{other!r} and {name!r} would both be called {made!r} without "
                    "folders; rename one, or export the model as text"
                )
    if any("/" in name for name in names):
        logger.info("images of subfolders: a/b.jpg is called a-b.jpg")
    return flat
