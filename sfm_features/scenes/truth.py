"""A folder of rendered photographs and the file that says where they were taken."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from sfm_features.errors import InputError, OptionError, OutputError, StaleStore
from sfm_features.scenes.render import LIGHTINGS, Rendering, render_view
from sfm_features.scenes.town import Town, build_town
from sfm_features.scenes.views import View, town_views
from sfm_features.types import Camera, Pose

FORMAT = 1
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Truth:
    """Where the photographs of a folder were taken, in metres.

    `diameter` is the largest distance between two camera centres.
    """

    cameras: Mapping[str, Camera]
    poses: Mapping[str, Pose]
    diameter: float


def render_town(
    output: Path,
    count: int = 30,
    lighting: str = "day",
    seed: int = 0,
    size: tuple[int, int] = (1024, 768),
    workers: int = 2,
    depth: bool = False,
) -> list[View]:
    """Render a walk into output/images and the truth about it into output/truth.json.

    Depth goes to output/depth/NAME.npy. What is already there is kept, so a stopped run
    goes on; a folder of other settings is refused.
    """
    if lighting not in LIGHTINGS:
        raise OptionError(f"lighting {lighting!r} is unknown; use day or night")
    views = town_views(count, seed, size)
    settings = {"format": FORMAT, "count": count, "lighting": lighting, "seed": seed}
    settings["size"] = list(size)
    path = Path(output) / "truth.json"
    truth = describe_views(views, settings)
    check_settings(path, truth)
    try:
        write_whole(path, truth.encode())
        missing = [v for v in views if not _is_done(output, v, depth)]
        if missing:
            _render_missing(build_town(seed, workers=workers), output, missing,
                            (lighting, seed, workers, depth))  # fmt: skip
    except OSError as error:
        raise OutputError(
            f"{output}: cannot write the town ({error}); free space or choose another "
            "folder"
        ) from error
    logger.info(
        "%d views of the town in %s, %d of them new", count, output, len(missing)
    )
    return views


def _render_missing(
    town: Town, output: Path, views: list[View], how: tuple[str, int, int, bool]
) -> None:
    lighting, seed, workers, depth = how
    town.get_look(lighting)

    def work(view: View) -> None:
        number = int(Path(view.name).stem.removeprefix("view"))
        noise = seed * 100003 + number
        picture = render_view(town, view.camera, view.cam_from_world, lighting, noise)
        _save(output, view, picture, depth)

    with ThreadPoolExecutor(max(workers, 1)) as pool:
        list(tqdm(pool.map(work, views), "rendering", len(views), unit="view"))


def _save(output: Path, view: View, picture: Rendering, depth: bool) -> None:
    """Write a photograph, its depth first, so that it tells that both are done."""
    if depth:
        path = _depth_path(output, view)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npy")
        np.save(part, picture.depth)
        os.replace(part, path)
    bgr = cv2.cvtColor(picture.rgb, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])
    assert done
    write_whole(Path(output) / "images" / view.name, data.tobytes())


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is there in full or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(data)
    os.replace(part, path)


def _is_done(output: Path, view: View, depth: bool) -> bool:
    image = Path(output) / "images" / view.name
    return image.exists() and (not depth or _depth_path(output, view).exists())


def _depth_path(output: Path, view: View) -> Path:
    return Path(output) / "depth" / f"{view.name}.npy"


def check_settings(path: Path, wanted: str) -> None:
    """Refuse a folder that was rendered otherwise: its images would stay."""
    if not path.exists():
        return
    before, now = _load(path), json.loads(wanted)
    for key, value in now["settings"].items():
        if before.get("settings", {}).get(key) != value:
            raise StaleStore(
                f"{path.parent}: rendered with {key} {before['settings'].get(key)}, "
                f"asked for {value}; choose another folder or delete this one"
            )
    if before != now:
        raise StaleStore(
            f"{path.parent}: rendered by another version, which walked elsewhere; "
            "choose another folder or delete this one"
        )


def describe_views(views: list[View], settings: Mapping[str, Any]) -> str:
    centres = np.array([v.cam_from_world.centre for v in views])
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=2)
    images = {
        v.name: {
            "camera": asdict(v.camera),
            "rotation": v.cam_from_world.rotation.tolist(),
            "translation": v.cam_from_world.translation.tolist(),
        }
        for v in views
    }
    truth = {
        "settings": settings,
        "units": "metre",
        "convention": "x_cam = rotation @ x_world + translation; COLMAP camera models",
        "diameter": float(apart.max()),
        "images": images,
    }
    return json.dumps(truth, indent=1)


def _load(path: Path) -> Any:
    try:
        return json.loads(Path(path).read_text())
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error}); render the town first"
        ) from error
    except ValueError as error:
        raise InputError(
            f"{path}: is not JSON ({error}); delete it and render the town again"
        ) from error


def read_truth(path: Path) -> Truth:
    """Read truth.json, or the one in a folder."""
    path = Path(path)
    path = path / "truth.json" if path.is_dir() else path
    found = _load(path)
    cameras, poses = {}, {}
    try:
        for name, image in found["images"].items():
            given = image["camera"]
            cameras[name] = Camera(
                given["model"], given["width"], given["height"], tuple(given["params"])
            )
            poses[name] = Pose(
                np.array(image["rotation"], np.float64),
                np.array(image["translation"], np.float64),
            )
        return Truth(cameras, poses, float(found["diameter"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: is no truth file of a town ({error!r}); render the town again"
        ) from error
