"""Images to features: decode in the background, extract, write in order."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sfm_features import images as image_files
from sfm_features import photo_files
from sfm_features.ahead import run_ahead
from sfm_features.errors import (
    MOST_INT,
    ImageError,
    InputError,
    OptionError,
    refuse_unused,
    require_at_least,
    require_other_file,
)
from sfm_features.masks import (
    check_mask_of_all,
    find_mask,
    fit_mask,
    is_mask_of_all,
    keep_inside,
    read_mask,
    sum_mask,
)
from sfm_features.orientation import turn_back, turn_upright
from sfm_features.registry import (
    EXTRACTORS,
    build_extractor,
    check_choice,
    hash_weights,
)
from sfm_features.store import FeatureStore, Origin, refuse_collisions
from sfm_features.types import U8, Bool, Extractor, Features, RunOptions, undo_resize

logger = logging.getLogger(__name__)

_MASK_OVERSAMPLING = 4  # keypoints asked for per keypoint wanted, as masks remove some


@dataclass(frozen=True)
class ExtractOptions:
    """How features are extracted."""

    extractor: str = "evo"
    """Method: evo, evo-fine (more right matches by night, in 3 to 4 times the time),
    evo-object, sekd, sift, aliked, disk, xfeat, dedode or keynet."""
    max_keypoints: int = 2048
    """Keep the strongest so many of an image."""
    max_size: int = 1600
    """Shrink images whose longer side exceeds it (px); 0 = as they are."""
    masks: Path | None = None
    """Folder of masks, a.jpg.png or a.png for a.jpg, or one PNG file for all images;
    zero = ignore."""
    image_list: Path | None = None
    """Text file of image names, one a line; default: every image of the folder."""
    weights: Path | None = None
    """File of weights: yours from `train` or `adapt`, or those of a method that does
    not come with its own."""
    download: bool = False
    """Allow the method to download its weights."""
    scales: tuple[float, ...] = ()
    """Sizes at which evo (also -fine, -object) and sekd look at an image, as factors;
    default: their own."""
    batch: int = 4
    """Images of one size that are extracted together; on a CPU evo, evo-object and sekd
    give each core an image instead."""

    def check(self) -> None:
        """Raise OptionError for a value that makes no sense."""
        require_at_least(1, max_keypoints=self.max_keypoints, batch=self.batch)
        if self.max_size < 0:
            raise OptionError(
                f"--max-size {self.max_size}: must be 0 (off) or positive"
            )
        if not all(0.05 <= scale <= 4 for scale in self.scales):
            raise OptionError(
                f"--scales {' '.join(map(str, self.scales))}: must be from 0.05 to 4"
            )
        if self.masks is not None and self.masks.is_file():
            check_mask_of_all(self.masks)
        elif self.masks is not None and not self.masks.is_dir():
            raise InputError(
                f"{self.masks}: no such folder of masks, nor file; check --masks"
            )


@dataclass(frozen=True)
class ExtractSummary:
    """What was done: counts, bad images with the reason, seconds.

    `names` are those asked for that have features now, sorted.
    """

    written: int
    reused: int
    names: Sequence[str] = ()
    skipped: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class _Loaded:
    """An image ready to extract, with what is needed to undo its preparation."""

    name: str
    pixels: U8
    orientation: int
    stored_size: tuple[int, int]
    mask: Bool | None
    origin: Origin = Origin()


def extract(
    images: Path | str,
    output: Path | str,
    options: ExtractOptions = ExtractOptions(),
    run: RunOptions = RunOptions(),
    names: Sequence[str] | None = None,
    overwrite: bool = False,
) -> ExtractSummary:
    """Extract the features of a folder's images into an HDF5 file, or complete it.

    Without `names` all images of the folder are meant, or those of the image list.
    `overwrite` starts the file anew, once all that is given was checked.
    """
    images, output = Path(images), Path(output)
    options.check()
    require_other_file(output, options.image_list, options.weights, options.masks)
    # Before the file is made: it would hold a misspelt name as its setting.
    check_choice(options.extractor, EXTRACTORS, "extractor")
    start = time.perf_counter()
    if names is None:
        names = photo_files.list_images(images, options.image_list)
    names = [n for n in names if not is_mask_of_all(options.masks, images / n)]
    refuse_collisions(names)
    names, skipped = _part_unwritable(images, names, run.strict)
    if options.masks is not None:
        _tell_unmasked(options.masks, images, names)
    num_unwritable = len(skipped)
    # Likewise of weights that cannot be read.
    is_kept = output.exists() and not overwrite
    extractor = None if is_kept else _build(options, run)
    with FeatureStore.append(output, describe(options, run), overwrite) as store:
        absent = {name for name in names if name not in store}
        replaced = _list_replaced(images, options.masks, store, set(names) - absent)
        for name in replaced:  # before the new file turns out to be unreadable
            store.drop(name)
        missing = [name for name in names if name in absent or name in replaced]
        if missing:
            extractor = extractor or _build(options, run)
            loads = _load_ahead(images, missing, options, run.strict, skipped)
            with tqdm(total=len(missing), desc="extract", unit="image") as bar:
                for found in _extract_all(extractor, loads, options):
                    for loaded, features in found:
                        store.write(loaded.name, features, loaded.origin)
                    bar.update(len(found))
                bar.update(len(skipped) - num_unwritable)
    summary = ExtractSummary(
        written=len(missing) - len(skipped) + num_unwritable,
        reused=len(names) - len(missing),
        names=sorted(set(names) - set(skipped)),
        skipped=skipped,
        seconds=time.perf_counter() - start,
    )
    _log(summary)
    if summary.written + summary.reused == 0:
        raise InputError(f"{images}: none of its {len(skipped)} images can be decoded")
    return summary


def refuse_extraction(given: Path | None, options: ExtractOptions) -> None:
    """Raise OptionError if features that were given would have to be made anew."""
    if given is not None:
        refuse_unused(
            options,
            [name for name in vars(options) if name != "image_list"],
            f"the features of {given} are used as they are; leave out --features, or "
            "make them by `sfm-features extract` with this option",
        )


def extract_one(
    extractor: Extractor, rgb: U8, options: ExtractOptions, orientation: int = 1
) -> Features:
    """Extract from one image (H, W, 3) in memory, as the stage does from a file."""
    small = image_files.resize_to(rgb, options.max_size)
    upright = turn_upright(small, orientation)
    size = (rgb.shape[1], rgb.shape[0])
    loaded = _Loaded("", upright, orientation, size, None)
    return _to_stored_frame(loaded, extractor.extract(upright), options.max_keypoints)


def describe(options: ExtractOptions, run: RunOptions) -> dict[str, Any]:
    """Return the settings that decide what features look like, for the file."""
    return {
        "extractor": options.extractor,
        "max_keypoints": options.max_keypoints,
        "max_size": options.max_size,
        "masks": options.masks is not None,
        "scales": list(options.scales),
        "weights_sha256": hash_weights(options.extractor, options.weights),
        "seed": run.seed,
    }


def _part_unwritable(
    images: Path, names: Sequence[str], strict: bool
) -> tuple[list[str], dict[str, str]]:
    """Part the names from those that are not text, which no file could hold."""
    good, skipped = [], {}
    for name in names:
        shown = name.encode("utf-8", "backslashreplace").decode()
        if shown == name:
            good.append(name)
            continue
        skipped[shown] = f"{images / shown}: its name is not text in UTF-8; rename it"
        if strict:
            raise ImageError(skipped[shown])
        logger.warning("skipped: %s", skipped[shown])
    return good, skipped


def _list_replaced(
    images: Path, masks: Path | None, store: FeatureStore, names: Collection[str]
) -> set[str]:
    """List the images whose files, or those of their masks, are not what they were."""
    replaced = set()
    for name in names:
        path = images / name
        file_bytes = path.stat().st_size if path.is_file() else None
        mask_crc = None if masks is None else sum_mask(masks, name, images)
        if store.origin(name).differs(Origin(file_bytes, mask_crc)):
            replaced.add(name)
    if replaced:
        logger.info("again: %d images that were replaced since", len(replaced))
    return replaced


def _tell_unmasked(masks: Path, images: Path, names: Sequence[str]) -> None:
    """Say how many images are used whole; raise InputError if none has a mask."""
    without = [n for n in names if find_mask(masks, n, images) is None]
    if names and len(without) == len(names):
        raise InputError(
            f"{masks}: has no mask of any image; that of {names[0]!r} would be "
            f"{names[0]}.png or {Path(names[0]).with_suffix('.png').as_posix()}"
        )
    if without:
        logger.warning(
            "%d of %d images have no mask in %s and are used whole, %r first",
            *(len(without), len(names), masks, without[0]),
        )


def _build(options: ExtractOptions, run: RunOptions) -> Extractor:
    oversampling = _MASK_OVERSAMPLING if options.masks else 1
    return build_extractor(
        options.extractor,
        max_keypoints=min(options.max_keypoints * oversampling, MOST_INT),
        device=run.device,
        seed=run.seed,
        weights=options.weights,
        download=options.download,
        scales=options.scales,
    )


def _load_ahead(
    images: Path,
    names: Sequence[str],
    options: ExtractOptions,
    strict: bool,
    skipped: dict[str, str],
) -> Iterator[_Loaded]:
    """Decode in threads, in order; what cannot be decoded is noted and left out."""
    workers = min(4, os.cpu_count() or 1)
    load = partial(_load, images, options)
    for name, loaded in run_ahead(load, names, workers, 2 * options.batch):
        try:
            yield loaded.result()
        except ImageError as error:
            if strict:
                raise
            logger.warning("skipped: %s", error)
            skipped[name] = str(error)


def _load(images: Path, options: ExtractOptions, name: str) -> _Loaded:
    decoded = image_files.decode(images / name)
    small = image_files.resize_to(decoded.rgb, options.max_size)
    upright = turn_upright(small, decoded.orientation)
    mask = mask_crc = None
    if options.masks is not None:
        # The sum first: a mask that changes in between is noticed the next time.
        mask_crc = sum_mask(options.masks, name, images)
        mask = read_mask(options.masks, name, images)
    if mask is not None:
        mask = fit_mask(mask, decoded)
    origin = Origin(decoded.file_bytes, mask_crc)
    return _Loaded(name, upright, decoded.orientation, decoded.size, mask, origin)


def _group_by_size(loads: Iterable[_Loaded], most: int) -> Iterator[list[_Loaded]]:
    batch: list[_Loaded] = []
    for loaded in loads:
        if batch and (
            len(batch) == most or batch[0].pixels.shape != loaded.pixels.shape
        ):
            yield batch
            batch = []
        batch.append(loaded)
    if batch:
        yield batch


def _extract_all(
    extractor: Extractor, loads: Iterable[_Loaded], options: ExtractOptions
) -> Iterator[list[tuple[_Loaded, Features]]]:
    """Extract from images in order, those of one size together or each on a core."""
    cores = extractor.count_side_by_side()
    work = partial(_extract_batch, extractor, options)
    batches = _group_by_size(loads, 1 if cores > 1 else options.batch)
    if cores == 1:
        yield from map(work, batches)
        return
    with extractor.work_side_by_side() as prepare:
        for _, found in run_ahead(work, batches, cores, cores, prepare):
            yield found.result()


def _extract_batch(
    extractor: Extractor, options: ExtractOptions, batch: Sequence[_Loaded]
) -> list[tuple[_Loaded, Features]]:
    results = extractor.extract_batch([loaded.pixels for loaded in batch])
    return [
        (loaded, _to_stored_frame(loaded, features, options.max_keypoints))
        for loaded, features in zip(batch, results, strict=True)
    ]


def _to_stored_frame(loaded: _Loaded, features: Features, most: int) -> Features:
    """Undo turning and resizing, then apply the mask and the limit."""
    height, width = loaded.pixels.shape[:2]
    small = turn_back(features.keypoints, loaded.orientation, (width, height))
    turned = loaded.orientation > 4
    small_size = (height, width) if turned else (width, height)
    keypoints = undo_resize(small, loaded.stored_size, small_size)
    scale = max(loaded.stored_size) / max(small_size)
    features = replace(
        features,
        keypoints=keypoints,
        image_size=loaded.stored_size,
        uncertainty_px=features.uncertainty_px * scale,
    )
    inside = np.ones(len(features), bool)
    if loaded.mask is not None:
        inside = keep_inside(loaded.mask, keypoints, loaded.stored_size)
    keep = inside.nonzero()[0][:most]
    return replace(
        features,
        keypoints=keypoints[keep],
        descriptors=features.descriptors[keep],
        scores=features.scores[keep],
    )


def _log(summary: ExtractSummary) -> None:
    logger.info(
        "features: %d images written, %d kept, %d skipped, %.1f s",
        summary.written,
        summary.reused,
        len(summary.skipped),
        summary.seconds,
    )
