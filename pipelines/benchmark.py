"""Measure the package against its parts and against plain pycolmap, as ratios.

$ python -m pipelines.benchmark --output bench-output
$ python -m pipelines.benchmark --only extract match --write docs/benchmarks.md
$ python -m pipelines.benchmark --only images --images castle=photos/castle
$ python -m pipelines.benchmark --only adapt --sequences hpatches
$ python -m pipelines.benchmark --only localize-photos --strecha castle-P19

Let the machine do nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from tqdm.contrib.logging import logging_redirect_tqdm

from pipelines.benchmarks import results
from pipelines.benchmarks.adapting import measure_adapting
from pipelines.benchmarks.adding import measure_adding
from pipelines.benchmarks.agreeing import measure_agreeing
from pipelines.benchmarks.extraction import measure_extract
from pipelines.benchmarks.locating import (
    measure_locating,
    measure_locating_photos,
)
from pipelines.benchmarks.matching import measure_match, measure_memory
from pipelines.benchmarks.networks import measure_networks
from pipelines.benchmarks.polishing import measure_polishing
from pipelines.benchmarks.ranking import measure_ranking
from pipelines.benchmarks.reconstruction import measure_reconstruction
from pipelines.benchmarks.results import Result
from pipelines.benchmarks.rivals import measure_rivals
from pipelines.benchmarks.steps import measure_steps
from pipelines.benchmarks.strecha import read_cameras
from sfm_features.errors import InputError, SfmError
from sfm_features.extract import ExtractOptions
from sfm_features.scenes import read_truth, render_town

EXTRACT_VIEWS = 60
TOWN_VIEWS = 30
NAMES = (
    "extract", "extract-evo", "match", "memory", "agree", "town", "polish", "localize",
    "add", "steps", "networks", "rivals", "ranking", "images",
)  # fmt: skip
ON_REQUEST = ("adapt", "localize-photos")


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.benchmark",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--output", type=Path, default=Path("bench-output"), help="folder to write")
    add("--only", nargs="+", choices=NAMES + ON_REQUEST, default=NAMES)
    add("--repeats", type=int, default=3, help="rounds of extract and match")
    add("--seed", type=int, default=0)
    add("--minutes", type=float, default=10.0, help="how long `adapt` trains")
    add("--start", type=Path, help="weights of `evo` for `adapt` to begin with")
    add("--sequences", type=Path, help="planar scenes for `adapt`, as HPatches has")
    add(
        "--strecha", type=Path, metavar="FOLDER",
        help="scene for `localize-photos` and `polish`: images and gt_dense_cameras",
    )  # fmt: skip
    add("--write", type=Path, help="document whose marked sections are filled")
    add(
        "--images", metavar="NAME=FOLDER", nargs="+", action="extend",
        type=_split_name, default=[],
    )  # fmt: skip
    add(
        "--strecha-cameras",
        metavar="NAME=FOLDER",
        help="known cameras of an image folder, as .camera files",
        nargs="+",
        type=_split_name,
        default=[],
    )
    return parser.parse_args(arguments)


def measure_town(args: argparse.Namespace) -> Result:
    """Reconstruct the town, whose poses are known."""
    folder = args.output / f"town-{TOWN_VIEWS}"
    render_town(folder, TOWN_VIEWS, seed=args.seed)
    truth = read_truth(folder).poses
    title = f"The town: {TOWN_VIEWS} views by day"
    return measure_reconstruction(
        title, folder / "images", args.output / "town", truth, args.seed
    )


def _measure_extract(args: argparse.Namespace, extractor: str) -> Result:
    town = args.output / f"town-{EXTRACT_VIEWS}"
    render_town(town, EXTRACT_VIEWS, seed=args.seed)
    options = ExtractOptions(extractor=extractor)
    return measure_extract(town / "images", args.repeats, options)


def _measure_adding(args: argparse.Namespace) -> Result:
    town = args.output / f"town-{TOWN_VIEWS}"
    render_town(town, TOWN_VIEWS, seed=args.seed)
    return measure_adding(town, args.output / "adding", args.seed)


def _measure_steps(args: argparse.Namespace) -> Result:
    town = args.output / f"town-{TOWN_VIEWS}"
    render_town(town, TOWN_VIEWS, seed=args.seed)
    run = args.output / "steps"
    shutil.rmtree(run, ignore_errors=True)
    return measure_steps(town / "images", run, seed=args.seed)


def _measure_locating_photos(args: argparse.Namespace) -> Result:
    if args.strecha is None:
        raise InputError("localize-photos: no scene; give --strecha FOLDER")
    return measure_locating_photos(args.strecha, args.output, seed=args.seed)


def measure_images(args: argparse.Namespace, name: str, folder: Path) -> Result:
    """Reconstruct a folder of photographs, with its known cameras if there are any."""
    cameras = dict(args.strecha_cameras).get(name)
    truth = read_cameras(cameras) if cameras is not None else None
    return measure_reconstruction(
        f"Photographs: {name}", folder, args.output / name, truth, args.seed
    )


def run(args: argparse.Namespace) -> dict[str, Result]:
    """Run the benchmarks asked for, one after the other."""
    jobs: dict[str, Callable[[], Result]] = {
        "extract": partial(_measure_extract, args, "sift"),
        "extract-evo": partial(_measure_extract, args, "evo"),
        "match": lambda: measure_match(repeats=args.repeats, seed=args.seed),
        "memory": lambda: measure_memory(seed=args.seed),
        "agree": lambda: measure_agreeing(args.output, args.seed),
        "town": lambda: measure_town(args),
        "polish": lambda: measure_polishing(args.output, args.strecha, seed=args.seed),
        "localize": lambda: measure_locating(args.output, seed=args.seed),
        "localize-photos": lambda: _measure_locating_photos(args),
        "add": lambda: _measure_adding(args),
        "ranking": lambda: measure_ranking(args.output, seed=args.seed),
        "steps": lambda: _measure_steps(args),
        "adapt": lambda: measure_adapting(
            args.output, args.sequences, args.minutes, args.seed, args.start
        ),
        # The last: they change how this process gives memory back.
        "networks": lambda: measure_networks(threads=2, seed=args.seed),
        "rivals": lambda: measure_rivals(threads=2, seed=args.seed),
    }
    chosen = {name: job for name, job in jobs.items() if name in args.only}
    if "images" in args.only:
        for name, folder in args.images:
            chosen[f"images-{name}"] = partial(measure_images, args, name, folder)
    if not chosen:
        raise InputError("images: no folders; give --images NAME=FOLDER")
    return {name: _watch_load(job) for name, job in chosen.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print tables, write results.json and results.md."""
    args = parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    given = sys.argv[1:] if arguments is None else arguments
    try:
        args.output.mkdir(parents=True, exist_ok=True)
        with logging_redirect_tqdm():
            found = run(args)
        provenance = results.describe_run("pipelines.benchmark", given, args.seed)
        results.publish(found, provenance, args.output, args.write)
    except SfmError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def _watch_load(job: Callable[[], Result]) -> Result:
    before = results.read_load()
    return replace(job(), load=(before, results.read_load()))


def _split_name(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FOLDER")
    return name, Path(folder)


if __name__ == "__main__":
    sys.exit(main())
