"""7-Scenes: localize the test frames, scene by scene.

$ python -m pipelines.seven_scenes 7scenes --output 7scenes-output
$ python -m pipelines.seven_scenes 7scenes --scenes stairs --every 1
$ python -m pipelines.seven_scenes 7scenes --pseudo-truth pgt/sfm/7scenes

Download the scenes from Microsoft's page "RGB-D Dataset 7-Scenes" and unpack them, the
sequences' archives too:

  7scenes/<scene>/TrainSplit.txt, TestSplit.txt
  7scenes/<scene>/seq-01/frame-000000.color.png, frame-000000.pose.txt ...

Poses are those beside the frames; with --pseudo-truth those of visloc_pseudo_gt_
limitations (DIR/<scene>_train.txt, DIR/<scene>_test.txt), with their focal lengths.
With --models hloc's 7scenes_sfm_triangulated (DIR/<scene>/triangulated) is the map's
reference, which also tells which frames see the same. Depth is not used.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from pipelines.benchmarks.results import Result
from pipelines.protocols.chain import PosedImages, Task, take_model
from pipelines.protocols.command import (
    add_settings,
    make_parser,
    name_settings,
    read_settings,
    run_command,
)
from pipelines.protocols.poses import pose_from_camera_to_world, read_numbered
from pipelines.protocols.published import SEVEN_SCENES
from pipelines.protocols.recall import Threshold
from pipelines.protocols.scenes import Scene, choose_scenes, measure_scenes
from sfm_features.colmap import read_model
from sfm_features.errors import InputError, OptionError
from sfm_features.geometry import rotation_from_quaternion
from sfm_features.images import decode
from sfm_features.pairs import pair_by_poses
from sfm_features.photo_files import read_lines
from sfm_features.queries import Query
from sfm_features.types import Camera, Pose

_MODULE = "pipelines.seven_scenes"
_THRESHOLDS = (Threshold(0.01, 1), Threshold(0.05, 5))
_IMAGE, _POSE = ".color.png", ".pose.txt"


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(_MODULE, __doc__)
    add = parser.add_argument
    add("dataset", type=Path, help="folder of the scenes")
    add("--scenes", nargs="+", default=[], help="default: all seven that are there")
    add("--every", type=int, default=5,
        help="map every so manieth train frame; 1 = all, as others do")  # fmt: skip
    add("--focal-px", type=float, default=525.0, help="of the colour camera")
    add("--pseudo-truth", type=Path, metavar="DIR", help="other poses for all frames")
    add("--models", type=Path, metavar="DIR", help="hloc's triangulated models")
    add_settings(parser, retrieval=10, covisible=30)
    return parser.parse_args(arguments)


def run(args: argparse.Namespace) -> dict[str, Result]:
    """Localize in every scene."""
    if args.every < 1:
        raise OptionError(f"--every {args.every}: must be at least 1")
    settings = read_settings(args)
    names = choose_scenes(args.dataset, args.scenes, list(SEVEN_SCENES))
    truth = args.pseudo_truth.parent.name if args.pseudo_truth else "the data set"
    part = "all" if args.every == 1 else f"every {args.every}th of the"
    title = f"7-Scenes by the poses of {truth}, {part} train frames: "
    title += name_settings(settings)
    result = measure_scenes(
        *(title, partial(read_scene, args), names, args.output, settings),
        *(_THRESHOLDS, SEVEN_SCENES),
    )
    return {"7scenes": result}


def read_scene(args: argparse.Namespace, name: str) -> Scene:
    """Read a scene: frames of the train sequences are the map, the others queries."""
    folder = args.dataset / name
    frames = {part: list_frames(folder, part) for part in ("Train", "Test")}
    frames["Train"] = frames["Train"][:: args.every]
    size = decode(folder / frames["Train"][0]).size
    known, queries = (_read_part(args, name, *part, size) for part in frames.items())
    if args.models:
        model = read_model(args.models / name / "triangulated")
        posed = take_model(model, args.covisible, known.keys() & model.images.keys())
    else:
        poses = {frame: pose for frame, (_, pose) in known.items()}
        cameras = {frame: camera for frame, (camera, _) in known.items()}
        posed = PosedImages(cameras, poses, pair_by_poses(poses, args.covisible))
    task = Task(folder, posed, [Query(f, camera) for f, (camera, _) in queries.items()])
    return Scene(task, {frame: pose for frame, (_, pose) in queries.items()})


def list_frames(folder: Path, part: str) -> list[str]:
    """List the frames of the sequences that a split names: `sequence1` is seq-01."""
    split = folder / f"{part}Split.txt"
    frames: list[str] = []
    for line in read_lines(split):
        number = line.removeprefix("sequence")
        if not number.isdigit():
            raise InputError(
                f"{split}: {line!r} is not like sequence1; unpack it again"
            )
        sequence = folder / f"seq-{int(number):02d}"
        found = sorted(path.name for path in sequence.glob(f"*{_IMAGE}"))
        if not found:
            raise InputError(f"{sequence}: has no frames; unpack {sequence.name}.zip")
        frames += [f"{sequence.name}/{name}" for name in found]
    return frames


def _read_part(
    args: argparse.Namespace,
    name: str,
    part: str,
    frames: Iterable[str],
    size: tuple[int, int],
) -> dict[str, tuple[Camera, Pose]]:
    """Read the camera and pose of each frame of a split."""
    if args.pseudo_truth:
        return _read_pseudo(
            args.pseudo_truth / f"{name}_{part.lower()}.txt", frames, size
        )
    return _read_poses(args.dataset / name, frames, _make_camera(args.focal_px, size))


def _read_poses(
    folder: Path, frames: Iterable[str], camera: Camera
) -> dict[str, tuple[Camera, Pose]]:
    return {
        frame: (camera, read_pose(folder / (frame.removesuffix(_IMAGE) + _POSE)))
        for frame in frames
    }


def read_pose(path: Path) -> Pose:
    """Read a 4 x 4 matrix, camera to world."""
    try:
        words = path.read_text(encoding="utf-8").split()
        return pose_from_camera_to_world(np.array(words, np.float64))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: is no pose ({error}); unpack it again") from error


def _read_pseudo(
    path: Path, frames: Iterable[str], size: tuple[int, int]
) -> dict[str, tuple[Camera, Pose]]:
    """Read `name qw qx qy qz tx ty tz focal`, world to camera."""
    found = read_numbered(path, 8)
    missing = sorted(set(frames) - found.keys())
    if missing:
        raise InputError(
            f"{path}: has no pose of {missing[0]!r} ({len(missing)} such); take the "
            "file of this scene"
        )
    return {
        frame: (
            _make_camera(found[frame][7], size),
            Pose(
                rotation_from_quaternion(found[frame][:4]), np.array(found[frame][4:7])
            ),
        )
        for frame in frames
    }


def _make_camera(focal_px: float, size: tuple[int, int]) -> Camera:
    return Camera("SIMPLE_PINHOLE", *size, (focal_px, size[0] / 2, size[1] / 2))


def main(arguments: Sequence[str] | None = None) -> int:
    """Localize, print a table, write it down."""
    return run_command(_MODULE, arguments, parse_args(arguments), run)


if __name__ == "__main__":
    sys.exit(main())
