"""A folder of images to COLMAP models; run it again after any stop to continue."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sfm_features import colmap
from sfm_features.errors import (
    InputError,
    ReconstructionError,
    refuse_unused,
    require_at_least,
    require_files,
)
from sfm_features.extract import ExtractOptions, extract, refuse_extraction
from sfm_features.journal import explain_os_errors
from sfm_features.match import MatchOptions, match, refuse_matching
from sfm_features.metrics import model_errors
from sfm_features.modelling import ModelMaker, verify
from sfm_features.pair_files import read_pairs, write_pairs
from sfm_features.pairs import pair_exhaustively, pair_sequentially
from sfm_features.photo_files import check_photos, list_images, require_folder
from sfm_features.reporting import report_reconstruction
from sfm_features.similar import close_loops
from sfm_features.still import explain_still
from sfm_features.store import FeatureStore
from sfm_features.summary import Summary, explain_unregistered, summarize_model
from sfm_features.types import Model, Pair, Pose, RunOptions
from sfm_features.workspace import (
    Stopwatch,
    Workspace,
    claim_output,
    import_database,
    list_matched,
    stamp_features,
)

logger = logging.getLogger(__name__)

_MOST_EXHAUSTIVE = 60
"""Images up to which all are matched with all."""


@dataclass(frozen=True)
class ReconstructOptions:
    """What to use and what to match."""

    features: Path | None = None
    """Use this feature file (ours or hloc's) instead of extracting."""
    matches: Path | None = None
    """Use this match file (ours or hloc's) instead of matching."""
    pairs: Path | None = None
    """Match the pairs of this file instead of choosing them."""
    pairing: Literal["auto", "exhaustive", "sequential", "retrieval"] = "auto"
    """Match all images with all, each with those that follow it by name, or with those
    and what looks like it; auto: all up to 60 images, above that retrieval, or all
    where no codebook fits the features."""
    overlap: int = 10
    """How many images ahead, for sequential pairing and retrieval."""
    neighbours: int = 30
    """How many images that look alike, for retrieval."""
    codebook: Path | None = None
    """Codebook for retrieval, if the features are not evo's."""
    polish: bool = True
    """In the end place keypoints anew by what the photographs show around them, and
    adjust the models to that: takes little time and is several times as exact."""
    report: bool = True
    """Write report.html."""

    def __post_init__(self) -> None:
        require_files(
            features=self.features,
            matches=self.matches,
            pairs=self.pairs,
            codebook=self.codebook,
        )
        require_at_least(1, overlap=self.overlap, neighbours=self.neighbours)


def reconstruct(
    images: Path | str,
    output: Path | str,
    options: ReconstructOptions = ReconstructOptions(),
    extraction: ExtractOptions = ExtractOptions(),
    matching: MatchOptions = MatchOptions(),
    cameras: colmap.CameraOptions = colmap.CameraOptions(),
    verification: colmap.VerifyOptions = colmap.VerifyOptions(),
    mapping: colmap.MapperOptions = colmap.MapperOptions(),
    run: RunOptions = RunOptions(),
    truth: Mapping[str, Pose] | None = None,
) -> Summary:
    """Reconstruct a folder of images into OUTPUT/sparse/0, 1, ..., largest first.

    True poses are only compared with. Raises ReconstructionError when no model comes
    out, with the summary and the report written.
    """
    images, output = Path(images), Path(output)
    _refuse_unused(options)
    refuse_extraction(options.features, extraction)
    refuse_matching(options.matches, matching)
    watch, workspace = Stopwatch(), Workspace(output)
    features = options.features or workspace.features
    matches = options.matches or workspace.matches
    with claim_output(workspace):
        with watch.time("extract"):
            names, skipped = _prepare(images, features, options, extraction, run)
        _refuse_few(images, names, skipped, mapping.min_model_size)
        with watch.time("match"):
            wanted = None  # of a file that was given: all
            if options.matches is None:
                wanted = _choose_pairs(workspace, features, names, options)
                match(features, wanted, matches, matching, run)
            pairs = list_matched(matches, names, wanted)
        given = _Given(images, features, matches, names, pairs, skipped)
        with colmap.cancel_on_signals() as stop:
            with watch.time("import"):
                imported = import_database(
                    workspace, images, features, matches, cameras, names, pairs
                )
            with watch.time("verify"):
                verified = verify(workspace, verification, run.seed, imported, stop)
            maker = ModelMaker(workspace, images, mapping, run.seed, verified, stop)
            failure = maker.make(options.polish, watch)
        # After a failure what is there is an earlier run's.
        found = [] if failure else colmap.list_models(workspace.sparse)
        models = [colmap.read_model(path) for path in found]
        if models:
            stamp_features(workspace, features, models[0].images)
        summary = _summarize(workspace, given, models, watch.seconds, truth)
        with explain_os_errors(output):
            summary.write(output)
        if options.report:
            used = (options, extraction, matching, cameras, verification, mapping, run)
            report_reconstruction(
                *(workspace, [images], features, matches, names, pairs),
                *(models, summary, used),
            )
    if failure is not None:
        raise ReconstructionError(_explain(failure, summary, workspace)) from failure
    return summary


def _refuse_unused(options: ReconstructOptions) -> None:
    """Raise OptionError for a choice of pairs that is made already."""
    choice = ("pairing", "overlap", "neighbours", "codebook")
    remedy = "leave out one of the two"
    if options.matches is not None:
        why = f"the pairs that {options.matches} has are used (--matches); {remedy}"
        refuse_unused(options, ("pairs", *choice), why)
    if options.pairs is not None:
        why = f"the pairs of {options.pairs} are used (--pairs); {remedy}"
        refuse_unused(options, choice, why)
    of_retrieval = ("neighbours", "codebook")
    unused = {"exhaustive": ("overlap", *of_retrieval), "sequential": of_retrieval}
    why = f"has no effect with --pairing {options.pairing}; {remedy}"
    refuse_unused(options, unused.get(options.pairing, ()), why)


@dataclass(frozen=True)
class _Given:
    """What the models are made of: of the files, these images and pairs."""

    images: Path
    features: Path
    matches: Path
    names: Sequence[str]
    pairs: Sequence[Pair]
    skipped: Mapping[str, str]


def _prepare(
    images: Path,
    features: Path,
    options: ReconstructOptions,
    extraction: ExtractOptions,
    run: RunOptions,
) -> tuple[Sequence[str], Mapping[str, str]]:
    """Extract if need be; return the images to use, and why others cannot be."""
    if options.features is None:
        extracted = extract(images, features, extraction, run)
        return extracted.names, extracted.skipped
    require_folder(images)
    with FeatureStore.open(features) as store:
        there = store.names()
    if not there:
        raise InputError(
            f"{features}: has no features of any image; give another file with "
            "--features"
        )
    if extraction.image_list is None:
        check_photos([images], there)
        return there, {}
    listed = list_images(images, extraction.image_list)
    names = sorted({*listed} & {*there})
    if not names:
        raise InputError(
            f"{features}: has no features of any image of {extraction.image_list}; "
            "names must be the same in both"
        )
    absent = f"{features} has no features of it"
    return names, {name: absent for name in sorted({*listed} - {*there})}


def _refuse_few(
    images: Path, names: Sequence[str], skipped: Mapping[str, str], least: int
) -> None:
    """Raise InputError for fewer images than a model has."""
    if len(names) >= max(2, least):
        return
    wants = f"a model wants at least {max(2, least)} (--min-model-size)"
    if skipped:
        cause = f"{len(skipped)} of {len(skipped) + len(names)} images are of no use"
        example = next(iter(skipped.values()))
        remedy = f"mend those, {example!r} first, or add photographs"
    else:
        cause = f"has {len(names)} image{'' if len(names) == 1 else 's'}"
        remedy = "add photographs of the same from other places"
    raise InputError(f"{images}: {cause}, and {wants}; {remedy}")


def _explain(
    failure: ReconstructionError, summary: Summary, workspace: Workspace
) -> str:
    """Say what failed, what may help, and what not to take for the result."""
    said = [str(failure), summary.hint]
    if workspace.sparse.exists():
        said.append(f"{workspace.sparse} is what an earlier run made")
    return "; ".join(part for part in said if part)


def _choose_pairs(
    workspace: Workspace,
    features: Path,
    names: Sequence[str],
    options: ReconstructOptions,
) -> list[Pair]:
    if options.pairs is not None:
        return read_pairs(options.pairs, names)
    pairing = options.pairing
    if pairing == "auto":
        pairing = _choose_pairing(features, names, options)
    if pairing == "exhaustive":
        chosen = pair_exhaustively(names)
    elif pairing == "sequential":
        chosen = pair_sequentially(names, options.overlap)
    else:
        chosen = _pair_similar(workspace, features, names, options)
    logger.info("pairs: %d of %d images, %s", len(chosen), len(names), pairing)
    with explain_os_errors(workspace.pairs):
        write_pairs(workspace.pairs, chosen)
    return chosen


def _choose_pairing(
    features: Path, names: Sequence[str], options: ReconstructOptions
) -> Literal["exhaustive", "retrieval"]:
    """Retrieve among many images, where a codebook fits them."""
    if len(names) <= _MOST_EXHAUSTIVE:
        return "exhaustive"
    from sfm_features.retrieve import has_codebook  # only now: it loads torch

    if options.codebook is not None or has_codebook(features):
        return "retrieval"
    logger.warning(
        "no codebook fits these features, so all of %d images are matched with all, "
        "which takes long; shorter are --pairing sequential, or --codebook FILE, made "
        "with `python -m pipelines.codebook`",
        len(names),
    )
    return "exhaustive"


def _pair_similar(
    workspace: Workspace,
    features: Path,
    names: Sequence[str],
    options: ReconstructOptions,
) -> list[Pair]:
    """Pair each image with those that follow it, and with those that look like it."""
    from sfm_features.retrieve import describe  # only now: it loads torch

    describe(features, workspace.descriptors, options.codebook)
    following = pair_sequentially(names, options.overlap, quadratic=False)
    return close_loops(workspace.descriptors, names, following, options.neighbours)


def _summarize(
    workspace: Workspace,
    given: _Given,
    models: Sequence[Model],
    seconds: Mapping[str, float],
    truth: Mapping[str, Pose] | None,
) -> Summary:
    found = colmap.read_verified(workspace.database)
    verified = {pair: len(inliers) for pair, inliers in found.items()}
    with FeatureStore.open(given.features) as f:
        counts = {name: len(f.read_keypoints(name)) for name in given.names}
        hint = explain_still(
            {pair: inliers.indices for pair, inliers in found.items()},
            lambda name: (f.read_keypoints(name), f.read_size(name)),
            models,
            len(counts),
        )
    errors = None
    if truth is not None and models:
        poses = {name: image.cam_from_world for name, image in models[0].images.items()}
        errors = model_errors(poses, truth)
    return Summary(
        len(counts) + len(given.skipped),
        [summarize_model(model, f"sparse/{i}") for i, model in enumerate(models)],
        given.skipped,
        explain_unregistered(
            counts, given.pairs, verified, [model.images for model in models]
        ),
        seconds,
        errors,
        image_folders=[str(given.images.resolve())],
        hint=hint,
    )
