"""The command line that localization benchmarks share."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm.contrib.logging import logging_redirect_tqdm

from pipelines.benchmarks import results
from pipelines.benchmarks.results import Result
from pipelines.protocols.chain import Settings
from pipelines.protocols.submission import Verdict
from sfm_features.errors import Cancelled, OptionError, SfmError
from sfm_features.extract import ExtractOptions
from sfm_features.queries import LocalizeOptions
from sfm_features.types import RunOptions

Run = Callable[[argparse.Namespace], dict[str, Result]]


def make_parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """Make a parser with --output, --seed, --device and --write."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--output", type=Path, default=Path(f"{module.rpartition('.')[2]}-output"),
        help="folder to write; run again to go on after a stop")  # fmt: skip
    add("--device", default="auto", help="cpu, cuda, or auto: a GPU if there is one")
    add("--seed", type=int, default=0)
    add("--write", type=Path, help="document whose marked section is filled")
    return parser


def add_settings(
    parser: argparse.ArgumentParser, retrieval: int = 20, covisible: int = 20
) -> None:
    """Add the options of the chain."""
    given = ExtractOptions()
    add = parser.add_argument_group("how it is done").add_argument
    add("--extractor", default=given.extractor, help="evo, sekd, sift, aliked ...")
    add("--weights", type=Path, help="its weights, if not those of the package")
    add("--max-keypoints", type=int, default=given.max_keypoints)
    add("--max-size", type=int, default=given.max_size,
        help="shrink images to this longer side (px); 0 = as they are")  # fmt: skip
    add("--codebook", type=Path, help="for retrieval with features other than evo's")
    add("--covisible", type=int, default=covisible,
        help="images that each image of the map is matched with")  # fmt: skip
    add("--retrieval", type=int, default=retrieval,
        help="images of the map that a query is matched with")  # fmt: skip
    add("--max-error-px", type=float, default=LocalizeOptions().max_error_px,
        help="error up to which a match fits a pose")  # fmt: skip
    add("--fallback", choices=("none", "retrieval"), default="none",
        help="what a failed query gets: no pose, or that of the image most like it, "
        "as hloc does")  # fmt: skip


def read_settings(args: argparse.Namespace) -> Settings:
    """Take the options of the chain from a command line."""
    for flag in ("covisible", "retrieval"):
        if getattr(args, flag) < 1:
            raise OptionError(f"--{flag} {getattr(args, flag)}: must be at least 1")
    extraction = ExtractOptions(
        extractor=args.extractor,
        max_keypoints=args.max_keypoints,
        max_size=args.max_size,
        weights=args.weights,
    )
    localization = LocalizeOptions(
        neighbours=args.retrieval,
        max_error_px=args.max_error_px,
        codebook=args.codebook,
        weights=args.weights,
    )
    localization.check()
    run = RunOptions(device=args.device, seed=args.seed)
    return Settings(extraction, localization, args.covisible, args.fallback, run)


def name_settings(settings: Settings) -> str:
    """Name a run for a table."""
    extraction = settings.extraction
    return f"sfm-features {extraction.extractor}, {extraction.max_keypoints} keypoints"


def print_verdict(check: Callable[[], Verdict]) -> int:
    """Check a file and say what is wrong with it; return what the shell is told."""
    try:
        verdict = check()
    except SfmError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(f"{verdict.to_text()}\n")
    return 1 if verdict.complaints else 0


def run_command(
    module: str,
    arguments: Sequence[str] | None,
    args: argparse.Namespace,
    run: Run,
) -> int:
    """Run a benchmark and publish what it found; return what the shell is told."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        with logging_redirect_tqdm():
            return results.run_and_publish(module, arguments, args, args.seed, run)
    except (Cancelled, KeyboardInterrupt):
        sys.stderr.write("stopped; run the same command again to continue\n")
        return 130
