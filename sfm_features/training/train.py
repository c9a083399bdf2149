"""Train a network on photographs, or adapt one to them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cv2

from sfm_features.errors import InputError, OptionError
from sfm_features.journal import claim
from sfm_features.nets.dense import DenseNet
from sfm_features.nets.weights import save_weights
from sfm_features.training.backgrounds import add_backgrounds
from sfm_features.training.card import SCORES, describe_run
from sfm_features.training.depth_teacher import train_teacher
from sfm_features.training.device import choose_device
from sfm_features.training.ensemble import Ensemble, read_teachers
from sfm_features.training.loop import Trainer
from sfm_features.training.multiview import Collections
from sfm_features.training.networks import make_net, read_net
from sfm_features.training.options import (
    AdaptOptions,
    DepthOptions,
    TrainOptions,
    TrainSummary,
)
from sfm_features.training.pg2sd import Pg2sdOptions
from sfm_features.training.photos import (
    REPLAY_FOLDER,
    PhotoSet,
    hold_back,
    load_photos,
)
from sfm_features.training.plans import make_distillation, plan_adapting, plan_training
from sfm_features.training.runlog import require_matplotlib
from sfm_features.training.settings import Settings
from sfm_features.training.town import TownPairs
from sfm_features.training.turntables import TurntablePairs
from sfm_features.types import RunOptions

logger = logging.getLogger(__name__)

_LEAST_PHOTOS = 4
_HELD_BACK_SHARE = 0.1


def train(
    photos: Path,
    output: Path,
    options: TrainOptions = TrainOptions(),
    run: RunOptions = RunOptions(),
    pg2sd: Pg2sdOptions | None = None,
    start: str = "",
    depth: DepthOptions = DepthOptions(),
) -> TrainSummary:
    """Train a network into OUTPUT, or go on with what is there.

    It begins with trained weights if `start` is a bundled network's name or a file,
    else with none. `pg2sd` has every knob of the strategy, and counts instead of
    options.strategy.
    """
    options.check()
    depth.check()
    if options.start_share > 0 and not start:
        raise OptionError("--start-share is of trained weights; give them with --from")
    if options.teachers and not start:
        raise OptionError(
            "--teachers teach descriptors of keypoints that are known already; give "
            "trained weights with --from"
        )
    require_matplotlib()
    choose_device(run.device)
    net = read_net(start) if start else make_net(options.net, run.seed)
    make_distillation(depth).choose_taps(net)
    if options.whiten and not net.can_map_descriptors:
        raise OptionError(
            "--whiten needs a last layer that takes in a linear map, as evo's does; "
            "leave it out"
        )
    teachers = read_teachers(options.teachers)
    ensemble = Ensemble(teachers, net) if teachers else None
    folders = [photos, *options.more_photos]
    collections = None
    if options.multiview is not None:
        collections = Collections(options.multiview, number=len(folders))
        folders.append(options.multiview)
    with claim(output):
        loaded = _load(folders, output, options, depth, run.strict)
        held_back = _hold_back(loaded, options, run)
        town = None
        if options.town_views > 0:
            town = TownPairs(output / "town", options.town_views, run.seed, len(loaded))
            loaded = town.extend(loaded)
        turntables, loaded = _render_turntables(loaded, output, depth, run)
        settings = plan_training(options, depth, net if start else None, teachers)
        if pg2sd is not None:
            settings = replace(settings, pg2sd=pg2sd)
        return _run(
            *(net, loaded, held_back, output, settings, run),
            *(town, collections, turntables, ensemble),
        )


def adapt(
    photos: Path,
    output: Path,
    start: str = "evo",
    options: AdaptOptions = AdaptOptions(),
    run: RunOptions = RunOptions(),
    depth: DepthOptions = DepthOptions(),
) -> TrainSummary:
    """Go on from trained weights, a bundled network's or a file's, on one's own photos.

    The result is never worse on held-back photos: then the start is kept; but for
    backgrounds, as suppressing them is not to find more.
    """
    options.check()
    depth.check()
    require_matplotlib()
    choose_device(run.device)
    net = read_net(start)
    make_distillation(depth).choose_taps(net)
    with claim(output):
        loaded = _load([photos], output, options, depth, run.strict)
        held_back = _hold_back(loaded, options, run)
        if options.replay:
            others = load_photos(
                *(options.replay, options.max_side, options.memory_mib),
                *(output / "replay.bin", run.strict),
            ).photos
            others = [
                # Cameras keep apart from those of the same name among one's own photos.
                replace(
                    photo,
                    folder=REPLAY_FOLDER,
                    group=photo.group and f"replay {photo.group}",
                    view=photo.view and f"replay {photo.view}",
                )
                for photo in others
            ]
            loaded = PhotoSet([*loaded.photos, *others], loaded.skipped)
        collections = Collections(photos, number=0) if options.multiview else None
        turntables, loaded = _render_turntables(loaded, output, depth, run)
        settings = plan_adapting(options, depth, net)
        return _run(
            net, loaded, held_back, output, settings, run, None, collections, turntables
        )


def _load(
    folders: list[Path],
    output: Path,
    options: TrainOptions | AdaptOptions,
    depth: DepthOptions,
    strict: bool,
) -> PhotoSet:
    cache = output / "photos.bin"
    loaded = load_photos(folders, options.max_side, options.memory_mib, cache, strict)
    if len(loaded) < _LEAST_PHOTOS:
        raise InputError(
            f"{folders[0]}: has {len(loaded)} photos that can be used; training needs "
            f"{_LEAST_PHOTOS}, and gets good with hundreds"
        )
    if depth.depth is not None:
        picture = output / "backgrounds.jpg"
        loaded = add_backgrounds(
            loaded, folders, depth.depth, depth.depth_kind, picture
        )
    return loaded


def _hold_back(
    loaded: PhotoSet, options: TrainOptions | AdaptOptions, run: RunOptions
) -> list[int]:
    return hold_back(loaded, _HELD_BACK_SHARE, options.validation_photos, run.seed)


def _render_turntables(
    loaded: PhotoSet, output: Path, depth: DepthOptions, run: RunOptions
) -> tuple[TurntablePairs | None, PhotoSet]:
    if depth.turntables == 0:
        return None, loaded
    folder = output / "turntables"
    found = TurntablePairs(folder, depth.turntables, run.seed, len(loaded))
    return found, found.extend(loaded)


def _run(
    net: DenseNet,
    photos: PhotoSet,
    held_back: list[int],
    output: Path,
    settings: Settings,
    run: RunOptions,
    town: TownPairs | None = None,
    collections: Collections | None = None,
    turntables: TurntablePairs | None = None,
    ensemble: Ensemble | None = None,
) -> TrainSummary:
    """Train, a teacher first if one is asked for; write the weights with their card."""
    device = choose_device(run.device)
    depth_teacher = None
    with _use_one_thread():
        if settings.distillation.weight > 0:
            depth_teacher = train_teacher(
                net, photos, held_back, output, settings, device, run.seed, turntables
            )
        else:
            photos = photos.forget_depth()
        if ensemble is not None:
            seen = set(range(len(photos))) - set(held_back)
            shown = [photos.photos[i] for i in sorted(seen)]
            kept = ensemble.to(device).choose_axes(net.to(device), shown, run.seed)
            logger.info("of what the teachers say, %.1f %% is taught", 100 * kept)
        outcome = Trainer(
            net, photos, held_back, output, settings, device, run.seed,
            town, collections, turntables, depth_teacher=depth_teacher,
            ensemble=ensemble,
        ).run()  # fmt: skip
    path = output / "weights.safetensors"
    card = describe_run(photos, held_back, settings, run, outcome)
    save_weights(outcome.net, path, card)
    figures = [r for r in outcome.log.records if "validation" in r]
    if outcome.kept_start:
        logger.warning("nothing better than the start was found; it was kept")
    return TrainSummary(
        weights=path,
        steps=outcome.steps,
        seconds=outcome.seconds,
        photos=len(photos),
        skipped=photos.skipped,
        first={key: figures[0][key] for key in SCORES if key in figures[0]},
        last={key: card.metrics[key] for key in SCORES if key in card.metrics},
        kept_start=outcome.kept_start,
    )


@contextmanager
def _use_one_thread() -> Iterator[None]:
    """Let OpenCV use one thread a call: batches are made beside the network's work."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
