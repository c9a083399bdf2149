"""Models in another form: as text, without lens distortion, or moved as a whole."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pycolmap
from tqdm import tqdm

from sfm_features.colmap.convert import from_colmap_camera, to_colmap_camera
from sfm_features.colmap.files import require_whole
from sfm_features.colmap.models import load
from sfm_features.errors import InputError, OutputError
from sfm_features.geometry import Similarity
from sfm_features.types import U8, Camera

log = logging.getLogger(__name__)

_HEAD_LINES = {"cameras": 3, "images": 4, "points3D": 3}  # comments at the start


def write_text_model(source: Path, target: Path) -> None:
    """Write a model as COLMAP's text files into a folder."""
    model = load(source)
    spaced = [i.name for i in model.images.values() if len(i.name.split()) > 1]
    if spaced:
        log.warning(
            "%d images have spaces in their names, %r first: COLMAP reads such names "
            "from text up to the space",
            *(len(spaced), min(spaced)),
        )
    # No bar: COLMAP lets Python do nothing meanwhile.
    log.info("writing %d points as text", model.num_points3D())
    model.write_text(target)
    # COLMAP does not check its writes; a line is missing if the disk was full.
    lines = {
        "cameras": model.num_cameras(),
        "images": 2 * model.num_reg_images(),
        "points3D": model.num_points3D(),
    }
    for name, count in lines.items():
        content = (target / f"{name}.txt").read_bytes()
        if content.count(b"\n") != count + _HEAD_LINES[name]:
            raise OutputError(f"{target}: the disk is full; make room and run it again")


def transform_model(source: Path, target: Path, new_from_old: Similarity) -> None:
    """Write a model that is moved, turned and scaled as a whole."""
    model = load(source)
    model.transform(
        pycolmap.Sim3d(
            new_from_old.scale,
            pycolmap.Rotation3d(new_from_old.rotation),
            new_from_old.translation,
        )
    )
    _write(model, target)


def undistort_camera(camera: Camera) -> Camera:
    """Return the PINHOLE camera of what is seen without lens distortion."""
    try:
        made = pycolmap.undistort_camera(
            pycolmap.UndistortCameraOptions(), to_colmap_camera(camera)
        )
    except ValueError as error:
        raise InputError(
            f"camera {camera.model} {list(camera.params)} of {camera.width} x "
            f"{camera.height} px: its images cannot be laid out flat, as no plane "
            "shows all that it sees; export the model as text"
        ) from error
    return from_colmap_camera(made)


def is_flat(camera: Camera) -> bool:
    """Whether a camera has no lens distortion: its photographs stay as they are."""
    return camera.model in ("SIMPLE_PINHOLE", "PINHOLE")


def undistort_picture(rgb: U8, camera: Camera) -> U8:
    """Undistort a picture (H, W, 3) of a camera, as COLMAP does."""
    if is_flat(camera):
        return rgb
    height, width = rgb.shape[:2]
    # A picture of another size makes COLMAP's own loop over images end the process.
    assert (width, height) == (camera.width, camera.height), (rgb.shape, camera)
    flat, _ = pycolmap.undistort_image(
        pycolmap.UndistortCameraOptions(),
        pycolmap.Bitmap.from_array(np.ascontiguousarray(rgb)),
        to_colmap_camera(camera),
    )
    return np.asarray(flat.to_array(), np.uint8)


def write_undistorted_model(
    source: Path, target: Path, names: Mapping[str, str]
) -> None:
    """Write a model with PINHOLE cameras and images of new names; poses do not move."""
    model = load(source)
    cameras = {key: from_colmap_camera(each) for key, each in model.cameras.items()}
    flat = {key: to_colmap_camera(undistort_camera(c)) for key, c in cameras.items()}
    for image in tqdm(model.images.values(), desc="move keypoints", unit="image"):
        image.name = names.get(image.name, image.name)
        if image.num_points2D():
            before = np.array([point.xy for point in image.points2D])
            rays = model.cameras[image.camera_id].cam_from_img(before)
            after = flat[image.camera_id].img_from_cam(np.insert(rays, 2, 1, axis=1))
            for point, xy in zip(image.points2D, after, strict=True):
                point.xy = xy
    for key, camera in model.cameras.items():
        camera.model, camera.params = flat[key].model, flat[key].params
        camera.width, camera.height = flat[key].width, flat[key].height
    _write(model, target)


def _write(model: pycolmap.Reconstruction, target: Path) -> None:
    target.mkdir(parents=True)
    model.write_binary(target)
    require_whole(target, target)
