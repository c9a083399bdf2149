"""Aachen Day-Night, v1.1 and v1, of the small town."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from miniature import HELD_OUT, make_model, move, show_camera, write_photos
from nvm_files import SECOND_MODEL, write_nvm
from samples import write_image
from small_town import Photo, SmallTown, bend, crop

from sfm_features.colmap import write_model
from sfm_features.types import Pose

SHIFT = (740.0, -60.0, 42.0)
OLD_IMAGES = "images/images_upright"
DAY = "queries/day_time_queries_with_intrinsics.txt"
NIGHT = "queries/night_time_queries_with_intrinsics{}.txt"


def write_aachen(folder: Path, town: SmallTown, version: str) -> dict[str, Pose]:
    """Write the data set; return the truth of its queries by bare name."""
    images = folder / ("images_upright" if version == "1.1" else OLD_IMAGES)
    known = _make_map(town, version)
    write_photos(images, known)
    model = make_model(known)
    if version == "1.1":
        write_model(model, folder / "3D-models/aachen_v_1_1")
    else:
        write_nvm(folder / "3D-models/aachen_cvpr2018_db.nvm", model, tail=SECOND_MODEL)
        text = "".join(f"{n} {show_camera(p.camera)}\n" for n, p in known.items())
        (folder / "3D-models/database_intrinsics.txt").write_text(text)
    day, night = _make_queries(town)
    write_photos(images, {**day, **night})
    # Without a pose, this one would be the best match of a query, and mislead it.
    write_photos(images, {"db/4479.jpg": next(iter(day.values()))})
    write_image(images / "query/day/milestone/unlisted.jpg", np.zeros((9, 9, 3)))
    _write_list(folder / DAY, day)
    old = {n: photo for n, photo in night.items() if "additional" not in n}
    _write_list(folder / NIGHT.format(""), old)
    _write_list(folder / NIGHT.format("_v1_1"), night)
    queries = {**day, **(night if version == "1.1" else old)}
    return {Path(n).name: photo.cam_from_world for n, photo in queries.items()}


def _make_map(town: SmallTown, version: str) -> dict[str, Photo]:
    """Name the posed photographs; in v1.1 half of them are frames of one camera."""
    known = {}
    for i, photo in town.day.items():
        if i in HELD_OUT:
            continue
        moved = move(photo, SHIFT)
        if version == "1.1" and i % 2:
            known[f"sequences/nexus4_sequences/sequence_1/{i:04}.png"] = moved
        else:
            known[f"db/{i}.jpg"] = bend(moved, -0.04 - 0.001 * i)
    return known


def _make_queries(town: SmallTown) -> tuple[dict[str, Photo], dict[str, Photo]]:
    first, second, third, fourth = (move(town.day[i], SHIFT) for i in HELD_OUT)
    portrait = crop(third, 100, 0, 270, 360)
    day = {
        "query/day/nexus4/IMG_2.jpg": bend(first, -0.0353019),
        "query/day/milestone/2011-12-17_14-28-15_257.jpg": bend(second, 0.0476376),
        "query/day/milestone/2011-12-17_14-50-43_241.jpg": portrait,
        "query/day/nexus5x/IMG_11.jpg": fourth,
    }
    photos = [bend(move(photo, SHIFT), 0.02) for photo in town.night.values()]
    names = ["nexus5x/IMG_5", "nexus5x/IMG_8", "nexus5x_additional_night/IMG_11n"]
    night = {f"query/night/{n}.jpg": p for n, p in zip(names, photos, strict=True)}
    return day, night


def _write_list(path: Path, photos: Mapping[str, Photo]) -> None:
    lines = [f"{name} {show_camera(photo.camera)}" for name, photo in photos.items()]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes("\r\n".join(["# name MODEL w h params", "", *lines]).encode())
