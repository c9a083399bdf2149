"""A model with known poses to a new model with our points; poses do not move."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sfm_features import colmap
from sfm_features.errors import (
    InputError,
    refuse_unused,
    require_at_least,
    require_files,
)
from sfm_features.extract import ExtractOptions, extract, refuse_extraction
from sfm_features.journal import explain_os_errors
from sfm_features.match import MatchOptions, match, refuse_matching
from sfm_features.modelling import remove_models
from sfm_features.pair_files import read_pairs, write_pairs
from sfm_features.pairs import pair_by_covisibility, pair_by_poses
from sfm_features.photo_files import check_photos, require_folder
from sfm_features.polish import polish
from sfm_features.reporting import report_reconstruction
from sfm_features.store import FeatureStore
from sfm_features.summary import Summary, summarize_model
from sfm_features.types import Model, Pair, RunOptions
from sfm_features.workspace import (
    Stopwatch,
    Workspace,
    claim_output,
    forget_stamp,
    import_database,
    list_matched,
    stamp_features,
)


@dataclass(frozen=True)
class TriangulateOptions:
    """What to use and what to match."""

    features: Path | None = None
    """Use this feature file (ours or hloc's) instead of extracting."""
    matches: Path | None = None
    """Use this match file (ours or hloc's) instead of matching."""
    pairs: Path | None = None
    """Match the pairs of this file instead of choosing them."""
    neighbours: int = 20
    """Match each image with so many others: those it shares the most points with, or,
    in a model without points, the nearest ones."""
    max_error_px: float = 4.0
    """Largest reprojection error of a point, and distance from an epipolar line."""

    polish: bool = True
    """In the end place keypoints anew by what the photographs show around them, and
    the points by that."""
    report: bool = True
    """Write report.html."""

    def __post_init__(self) -> None:
        require_files(features=self.features, matches=self.matches, pairs=self.pairs)
        require_at_least(1, neighbours=self.neighbours)
        colmap.VerifyOptions(self.max_error_px)  # which refuses what makes no sense


def triangulate(
    model: Path | str,
    images: Path | str,
    output: Path | str,
    options: TriangulateOptions = TriangulateOptions(),
    extraction: ExtractOptions = ExtractOptions(),
    matching: MatchOptions = MatchOptions(),
    run: RunOptions = RunOptions(),
) -> Summary:
    """Triangulate the images of a posed model into OUTPUT/sparse/0."""
    model, images, output = Path(model), Path(images), Path(output)
    _refuse_unused(options, extraction)
    refuse_extraction(options.features, extraction)
    refuse_matching(options.matches, matching)
    require_folder(images)
    watch, workspace = Stopwatch(), Workspace(output)
    model = colmap.choose_model(model)
    known = colmap.read_model(model)
    names = sorted(known.images)
    features = options.features or workspace.features
    matches = options.matches or workspace.matches
    rough = workspace.unpolished
    check_photos([images], names)
    _refuse_input(workspace, model)
    with claim_output(workspace):
        with watch.time("extract"):
            if options.features is None:
                there = extract(images, features, extraction, run, names).names
            else:
                with FeatureStore.open(features) as store:
                    there = store.names()
            _check_all_there(features, model, names, there)
        with watch.time("match"):
            wanted = None  # of a file that was given: all
            if options.matches is None:
                wanted = _choose_pairs(workspace, known, options)
                match(features, wanted, matches, matching, run)
            pairs = list_matched(matches, names, wanted)
        with colmap.cancel_on_signals() as stop:
            with watch.time("import"):
                import_database(
                    *(workspace, images, features, matches, colmap.CameraOptions()),
                    *(names, pairs, model),
                )
            _forget_models(workspace)
            with watch.time("triangulate"):
                colmap.triangulate_model(
                    model,
                    workspace.database,
                    images,
                    (rough if options.polish else workspace.sparse) / "0",
                    run.seed,
                    options.max_error_px,
                    cancellation=stop,
                )
            if options.polish:
                with watch.time("polish"):
                    polish(
                        *([images], rough, workspace.sparse),
                        *(colmap.MapperOptions(), stop, colmap.Hold(names)),
                    )
                    remove_models(rough)
        made = colmap.read_model(workspace.sparse / "0")
        stamp_features(workspace, features, made.images)
        summary = Summary(
            len(known.images),
            [summarize_model(made, "sparse/0")],
            seconds=watch.seconds,
            image_folders=[str(images.resolve())],
        )
        with explain_os_errors(output):
            summary.write(output)
        if options.report:
            used = (options, extraction, matching, run)
            report_reconstruction(
                *(workspace, [images], features, matches, names, pairs),
                *([made], summary, used),
            )
    return summary


def _refuse_input(workspace: Workspace, model: Path) -> None:
    if model.resolve().is_relative_to(workspace.sparse.resolve()):
        raise InputError(
            f"{model}: would be replaced by what is made from it; choose another "
            "--output"
        )


def _refuse_unused(options: TriangulateOptions, extraction: ExtractOptions) -> None:
    """Raise OptionError for a choice of images or pairs that is made already."""
    why = "the images are those of the model; leave it out"
    refuse_unused(extraction, ["image_list"], why)
    remedy = "leave out one of the two"
    if options.matches is not None:
        why = f"the pairs that {options.matches} has are used (--matches); {remedy}"
        refuse_unused(options, ("pairs", "neighbours"), why)
    if options.pairs is not None:
        why = f"the pairs of {options.pairs} are used (--pairs); {remedy}"
        refuse_unused(options, ["neighbours"], why)


def _forget_models(workspace: Workspace) -> None:
    """Delete what a reconstruction left beside the one model that there will be."""
    forget_stamp(workspace.sparse)
    workspace.report.unlink(missing_ok=True)
    for model in colmap.list_models(workspace.sparse):
        if model.name != "0":
            shutil.rmtree(model)


def _check_all_there(
    features: Path, model: Path, names: Sequence[str], there: Sequence[str]
) -> None:
    missing = sorted({*names} - {*there})
    if missing:
        raise InputError(
            f"{features}: has no features of {missing[0]!r} ({len(missing)} such), "
            f"which is in {model}; check that its images are in the folder and whole"
        )


def _choose_pairs(
    workspace: Workspace, known: Model, options: TriangulateOptions
) -> list[Pair]:
    if options.pairs is not None:
        return read_pairs(options.pairs, known.images)
    if len(known.points):
        chosen = pair_by_covisibility(known, options.neighbours)
    else:
        poses = {name: image.cam_from_world for name, image in known.images.items()}
        chosen = pair_by_poses(poses, options.neighbours)
    with explain_os_errors(workspace.pairs):
        write_pairs(workspace.pairs, chosen)
    return chosen
