"""The command `sfm-features`, made from the options of the stages."""

from __future__ import annotations

import _thread
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import tyro
from tqdm.contrib.logging import logging_redirect_tqdm

from sfm_features import (
    __version__,
    colmap,
    file_commands,
    map_commands,
    object_commands,
    training_commands,
)
from sfm_features import pairs as pairing
from sfm_features.demo import DemoOptions, run_demo
from sfm_features.errors import (
    Cancelled,
    OptionError,
    SfmError,
    require_other_file,
)
from sfm_features.extract import ExtractOptions, extract
from sfm_features.georegister import GeoregisterOptions
from sfm_features.journal import explain_os_errors
from sfm_features.match import MatchOptions, match
from sfm_features.pair_files import read_pairs, write_pairs
from sfm_features.reconstruct import ReconstructOptions, reconstruct
from sfm_features.shell import Positional, say
from sfm_features.store import FeatureStore
from sfm_features.training.objects.options import ObjectOptions
from sfm_features.training.options import AdaptOptions, DepthOptions, TrainOptions
from sfm_features.triangulate import TriangulateOptions, triangulate
from sfm_features.types import RunOptions

logger = logging.getLogger("sfm_features")


def run_extract(
    images: Positional,
    output: Path,
    options: ExtractOptions,
    run: RunOptions,
    overwrite: bool = False,
) -> None:
    """Extract local features of a folder of images.

    $ sfm-features extract photos --output features.h5 --max-keypoints 4096

    Args:
        images: Folder of images; subfolders are searched.
        output: HDF5 file to write or to complete (hloc's layout).
        overwrite: Start the file anew.
    """
    extract(images, output, options, run, overwrite=overwrite)


def run_describe(
    features: Positional,
    output: Path,
    codebook: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Describe whole images by their features, so that the same place is found again.

    $ sfm-features describe features.h5 --output global.h5

    Args:
        features: Feature file, ours or hloc's.
        output: HDF5 file to write or to complete (hloc's layout).
        codebook: Codebook of other features than evo's.
        overwrite: Start the file anew.
    """
    from sfm_features.retrieve import describe

    describe(features, output, codebook, overwrite)


def run_pairs(
    output: Path,
    method: pairing.PairMethod,
    options: pairing.PairOptions,
) -> None:
    """List which images to match.

    $ sfm-features pairs --method sequential --features features.h5 --output pairs.txt

    Args:
        output: Text file to write, a pair a line.
        method: Rule that makes the pairs.
    """
    pairing.refuse_loss(output, options)
    chosen = pairing.choose_pairs(method, options)
    with explain_os_errors(output):
        write_pairs(output, chosen)
    logger.info("%s: %d pairs", output, len(chosen))


def run_match(
    features: Positional,
    pairs: Path,
    output: Path,
    options: MatchOptions,
    run: RunOptions,
    overwrite: bool = False,
) -> None:
    """Match the features of image pairs.

    $ sfm-features match features.h5 --pairs pairs.txt --output matches.h5

    Args:
        features: Feature file, ours or hloc's.
        pairs: Text file of pairs, `name0 name1` a line.
        output: HDF5 file to write or to complete (hloc's layout).
        overwrite: Start the file anew.
    """
    require_other_file(output, pairs)
    with FeatureStore.open(features) as store:
        wanted = read_pairs(pairs, store.names())
    match(features, wanted, output, options, run, overwrite)


def run_reconstruct(
    images: Positional,
    output: Path,
    options: ReconstructOptions,
    extraction: ExtractOptions,
    matching: MatchOptions,
    cameras: colmap.CameraOptions,
    verification: colmap.VerifyOptions,
    mapping: colmap.MapperOptions,
    run: RunOptions,
) -> None:
    """Reconstruct a folder of images: COLMAP models, a summary and a report.

    $ sfm-features reconstruct photos --output out --camera-sharing single

    Stop it at any time and run the same command again: it continues.

    Args:
        images: Folder of images; subfolders are searched.
        output: Folder to write.
    """
    summary = reconstruct(
        *(images, output, options, extraction, matching),
        *(cameras, verification, mapping, run),
    )
    say(summary.to_text())


def run_triangulate(
    model: Positional,
    images: Positional,
    output: Path,
    options: TriangulateOptions,
    extraction: ExtractOptions,
    matching: MatchOptions,
    run: RunOptions,
) -> None:
    """Triangulate our features with the poses of a model, which stay as they are.

    $ sfm-features triangulate known/sparse photos --output out

    Args:
        model: COLMAP model with poses, or a folder with one; it needs no points.
        images: Folder of its images.
        output: Folder to write.
    """
    summary = triangulate(model, images, output, options, extraction, matching, run)
    say(summary.to_text())


def run_demo_command(
    options: DemoOptions, run: RunOptions, output: Path = Path("demo-output")
) -> None:
    """Render a small town, reconstruct it and compare with the truth.

    $ sfm-features demo --output demo-output

    Args:
        output: Folder to write.
    """
    say(run_demo(output, options, run).to_text())
    say(f"look at {output / 'report.html'}")


COMMANDS: dict[str, Callable[..., Any]] = {
    "extract": run_extract,
    "describe": run_describe,
    "pairs": run_pairs,
    "match": run_match,
    "reconstruct": run_reconstruct,
    "triangulate": run_triangulate,
    **file_commands.COMMANDS,
    **map_commands.COMMANDS,
    "demo": run_demo_command,
    **training_commands.COMMANDS,
    **object_commands.COMMANDS,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, 2 after a user's mistake, 130 when interrupted."""
    # While another program keeps the cores busy, threads that wait by spinning take the
    # time that those they wait for need: matching then took five times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given == ["--version"]:
        sys.stdout.write(f"sfm-features {__version__}\n")
        return 0
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        _refuse_repeated(given)
        with logging_redirect_tqdm(), _interrupt_when_terminated():
            tyro.extras.subcommand_cli_from_dict(
                COMMANDS,
                prog="sfm-features",
                description="Photographs in, COLMAP model out (--version: which one).",
                args=arguments,
                config=(tyro.conf.OmitArgPrefixes,),
            )
        _ignore_stops(is_program=arguments is None)
    except Cancelled as stopped:
        return _end_interrupted(str(stopped), is_program=arguments is None)
    except SfmError as error:
        say(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        return _end_interrupted("interrupted", is_program=arguments is None)
    except BrokenPipeError:  # as of `sfm-features extract --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return 0


_WITH_LISTS = (
    *(ExtractOptions, colmap.CameraOptions, GeoregisterOptions),
    *(TrainOptions, AdaptOptions, DepthOptions, ObjectOptions),
)


def _refuse_repeated(arguments: Sequence[str]) -> None:
    """Raise OptionError for a list given in two parts: only the last would count."""
    several = {
        f"--{field.name.replace('_', '-')}"
        for options in _WITH_LISTS
        for field in fields(options)
        if str(field.type).startswith("tuple")
    }
    given = [a.partition("=")[0] for a in arguments]
    for flag in sorted(several):
        if given.count(flag) > 1:
            raise OptionError(
                f"{flag} is given {given.count(flag)} times; give it once, with all "
                "values behind it"
            )


def _end_interrupted(what: str, is_program: bool) -> int:
    """Say how to go on; a stop that is asked for once more has nothing left to stop."""
    with suppress(KeyboardInterrupt):
        _ignore_stops(is_program)
        say(f"{what}; run the same command again to continue")
    return 130


def _ignore_stops(is_program: bool) -> None:
    """A program is over: a signal while Python shuts down would print a traceback."""
    if is_program and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _interrupt_when_terminated() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does: close the files and say so.

    And let no stop be lost: Python prints and forgets one that comes while it deletes
    an object, such as a progress bar.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    hook = sys.unraisablehook
    sys.unraisablehook = partial(_ask_again, hook)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        signal.signal(signal.SIGTERM, before)


def _ask_again(hook: Callable[[Any], object], unraisable: Any) -> None:
    """Ask for a stop once more that was ignored; leave other errors to a hook."""
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        # A little later, and from another thread: what is raised here is ignored, too.
        threading.Timer(0.05, _thread.interrupt_main).start()
    else:
        hook(unraisable)
