"""Cambridge Landmarks: localize the test images, scene by scene.

$ python -m pipelines.cambridge cambridge --output cambridge-output
$ python -m pipelines.cambridge cambridge --scenes ShopFacade --max-keypoints 4096

Download the scenes from https://www.repository.cam.ac.uk (search Cambridge Landmarks)
and unpack them:

  cambridge/<Scene>/seq1/frame00001.png ...
  cambridge/<Scene>/dataset_train.txt, dataset_test.txt, reconstruction.nvm

With hloc's retriangulated models beside them, those are what is known instead, as in
hloc's figures:

  cambridge/CambridgeLandmarks_Colmap_Retriangulated_1024px/<Scene>/
      model_train/*.bin  empty_all/*.txt  list_query.txt

The table has medians over all test images; one that is not localized counts as
infinitely far.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

from pipelines.benchmarks.results import Result
from pipelines.protocols.cameras import convert_visualsfm, rescale
from pipelines.protocols.chain import Task, take_model
from pipelines.protocols.command import (
    add_settings,
    make_parser,
    name_settings,
    read_settings,
    run_command,
)
from pipelines.protocols.nvm import Nvm, read_nvm
from pipelines.protocols.poses import pose_from_centre, read_numbered
from pipelines.protocols.published import CAMBRIDGE
from pipelines.protocols.recall import Threshold
from pipelines.protocols.scenes import Scene, choose_scenes, measure_scenes
from sfm_features.colmap import read_model
from sfm_features.images import decode
from sfm_features.photo_files import read_lines
from sfm_features.queries import Query
from sfm_features.types import Camera, Model, Pose

_MODULE = "pipelines.cambridge"
_MODELS = "CambridgeLandmarks_Colmap_Retriangulated_1024px"
_THRESHOLDS = (Threshold(0.05, 5), Threshold(0.25, 2), Threshold(0.5, 5))
_HEADER_LINES = 2


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(_MODULE, __doc__)
    add = parser.add_argument
    add("dataset", type=Path, help="folder of the scenes")
    add("--scenes", nargs="+", default=[], help="default: all five that are there")
    add_settings(parser, retrieval=10)
    return parser.parse_args(arguments)


def run(args: argparse.Namespace) -> dict[str, Result]:
    """Localize in every scene."""
    settings = read_settings(args)
    names = choose_scenes(args.dataset, args.scenes, list(CAMBRIDGE))
    read = partial(read_scene, args.dataset, covisible=settings.covisible)
    title = f"Cambridge Landmarks: {name_settings(settings)}"
    result = measure_scenes(
        *(title, read, names, args.output, settings, _THRESHOLDS, CAMBRIDGE)
    )
    return {"cambridge": result}


def read_scene(dataset: Path, name: str, covisible: int) -> Scene:
    """Read a scene, by hloc's models if they are there."""
    if (dataset / _MODELS / name).is_dir():
        return _read_retriangulated(dataset / name, dataset / _MODELS / name, covisible)
    return _read_archive(dataset / name, covisible)


def _read_retriangulated(folder: Path, models: Path, covisible: int) -> Scene:
    """Read models of pictures of 1024 px, whose cameras are to fit the originals."""
    known, everything = (
        read_model(models / "model_train"),
        read_model(models / "empty_all"),
    )
    wanted = read_lines(models / "list_query.txt")
    size = decode(folder / wanted[0]).size
    queries = [
        Query(name, rescale(everything.images[name].camera, size)) for name in wanted
    ]
    poses = {name: everything.images[name].cam_from_world for name in wanted}
    posed = take_model(_resize(known, size), covisible)
    return Scene(Task(folder, posed, queries), poses)


def _resize(model: Model, size: tuple[int, int]) -> Model:
    images = {
        name: replace(image, camera=rescale(image.camera, size))
        for name, image in model.images.items()
    }
    return replace(model, images=images)


def _read_archive(folder: Path, covisible: int) -> Scene:
    """Read poses from the lists, and from the NVM optics and who sees what."""
    known, truth = (
        read_poses(folder / f"dataset_{part}.txt") for part in ("train", "test")
    )
    # It names JPEG files, but the images come as PNG.
    nvm = read_nvm(folder / "reconstruction.nvm").rename(
        lambda name: str(Path(name).with_suffix(".png"))
    )
    cameras = _read_cameras(
        nvm, [*known, *truth], decode(folder / next(iter(truth))).size
    )
    seen = nvm.to_model({name: cameras[name] for name in nvm.poses if name in known})
    posed = take_model(seen, covisible)
    queries = [Query(name, cameras[name]) for name in truth]
    return Scene(Task(folder, posed, queries), truth)


def read_poses(path: Path) -> dict[str, Pose]:
    """Read `name x y z qw qx qy qz`: a centre, and a rotation world to camera."""
    lines = read_numbered(path, 7, _HEADER_LINES)
    return {name: pose_from_centre(n[3:], n[:3]) for name, n in lines.items()}


def _read_cameras(
    nvm: Nvm, names: Sequence[str], size: tuple[int, int]
) -> Mapping[str, Camera]:
    """Make each image's camera; where the NVM lacks one, of the medians of all."""
    focal, radial = median(nvm.focals_px.values()), median(nvm.radials.values())
    return {
        name: convert_visualsfm(
            nvm.focals_px.get(name, focal), nvm.radials.get(name, radial), size
        )
        for name in names
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Localize, print a table, write it down."""
    return run_command(_MODULE, arguments, parse_args(arguments), run)


if __name__ == "__main__":
    sys.exit(main())
