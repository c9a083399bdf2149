"""More photographs to a map: a larger one in a new folder; the first does not move."""

from __future__ import annotations

import filecmp
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from pathlib import Path

from sfm_features import colmap
from sfm_features.atlas import Atlas
from sfm_features.errors import InputError
from sfm_features.extract import extract
from sfm_features.journal import LOCK, explain_os_errors
from sfm_features.match import MatchOptions, match
from sfm_features.modelling import is_made, remove_models
from sfm_features.pair_files import write_pairs
from sfm_features.photo_files import check_photos, list_images
from sfm_features.polish import polish
from sfm_features.queries import AddOptions
from sfm_features.reporting import report_reconstruction
from sfm_features.retrieve import describe
from sfm_features.similar import order_pair, pair_similar
from sfm_features.store import FeatureStore, refuse_collisions
from sfm_features.summary import (
    AddSummary,
    explain_unregistered,
    read_image_folders,
    summarize_model,
)
from sfm_features.types import Model, Pair, RunOptions
from sfm_features.workspace import (
    Stopwatch,
    Workspace,
    claim_output,
    copy_whole,
    digest,
    file_state,
    forget_stamp,
    has_stamp,
    import_database,
    list_matched,
    refuse_map_itself,
    stamp_features,
    write_stamp,
)

logger = logging.getLogger(__name__)


def add_to_map(
    map_folder: Path | str,
    images: Path | str,
    output: Path | str,
    options: AddOptions = AddOptions(),
    matching: MatchOptions = MatchOptions(),
    cameras: colmap.CameraOptions = colmap.CameraOptions(),
    verification: colmap.VerifyOptions = colmap.VerifyOptions(),
    run: RunOptions = RunOptions(),
) -> AddSummary:
    """Add a folder of images to a map; OUTPUT becomes the larger map.

    Only new pairs are matched. The map itself is only read.
    """
    map_folder, images, output = Path(map_folder), Path(images), Path(output)
    options.check()
    watch, workspace = Stopwatch(), Workspace(output)
    atlas = Atlas(map_folder, options.codebook)
    atlas.close()
    extraction = replace(atlas.recall_extraction(options.weights), masks=options.masks)
    _check_masks(atlas, options)
    new, known = _part_known(map_folder, images, atlas.model)
    folders = [images.resolve(), *read_image_folders(map_folder)]
    refuse_map_itself(output, map_folder)
    check_photos(folders, sorted({*atlas.model.images, *new}))
    with claim_output(workspace):
        _start(workspace, map_folder)
        features, matches = workspace.features, workspace.matches
        with watch.time("extract"):
            seed = int(atlas.config.get("seed", run.seed))  # that of the map's features
            extracted = extract(
                images, features, extraction, replace(run, seed=seed), new
            )
        new, skipped = list(extracted.names), extracted.skipped
        with watch.time("match"):
            wanted = _choose_pairs(workspace, atlas, new, options)
            match(features, wanted, matches, matching, run)
            pairs = list_matched(matches, [*atlas.model.images, *new], wanted)
        model = colmap.list_models(Workspace(map_folder).sparse)[0]
        with colmap.cancel_on_signals() as stop:
            with watch.time("import"):
                stamp = import_database(
                    *(workspace, images, features, matches, cameras),
                    *(sorted({*atlas.model.images, *new}), pairs, model),
                    same_camera=options.same_camera,
                )
            with watch.time("verify"):
                colmap.verify_pairs(
                    workspace.database, verification, run.seed, cancellation=stop
                )
            stamp = digest(stamp, verification, options.refine, run.seed)
            adder = _Adder(
                *(workspace, model, atlas.model, folders, new),
                *(options.refine, run.seed, stamp, stop),
            )
            adder.make(options.polish, watch)
        larger = colmap.read_model(workspace.sparse / "0")
        stamp_features(workspace, workspace.features, larger.images)
        summary = AddSummary(
            images=len(new) + len(skipped),
            added={n: _count_points(larger, n) for n in new if n in larger.images},
            before=summarize_model(atlas.model, "sparse/0"),
            after=summarize_model(larger, "sparse/0"),
            known=known,
            skipped=skipped,
            unregistered=_explain_absent(workspace, new, wanted, larger),
            seconds=watch.seconds,
            image_folders=[str(folder) for folder in folders],
        )
        with explain_os_errors(output):
            summary.write(output)
        if options.report:
            used = (options, extraction, matching, cameras, verification, run)
            report_reconstruction(
                *(workspace, folders, features, matches),
                *(sorted({*atlas.model.images, *new}), pairs, [larger]),
                *(summary.for_report(), used),
                is_of_new=True,
            )
    return summary


def _check_masks(atlas: Atlas, options: AddOptions) -> None:
    """Refuse masks for a map made without, and the reverse: features would differ."""
    masked = bool(atlas.config.get("masks"))
    if masked != (options.masks is not None):
        raise InputError(
            f"{atlas.folder}: was made {'with' if masked else 'without'} masks; "
            f"{'give those of the new images with' if masked else 'leave out'} --masks"
        )


def _part_known(map_folder: Path, images: Path, model: Model) -> tuple[list[str], int]:
    """Return the names that the map lacks, and how many it has.

    An image of the map may lie among the new ones, but not another of the same name.
    One that was extracted for the map but is not in it is tried again.
    """
    with FeatureStore.open(Workspace(map_folder).features) as store:
        described = set(store.names())
    names = list_images(images)
    new = [name for name in names if name not in model.images]
    folders = read_image_folders(map_folder)
    for name in described.intersection(names):
        _refuse_another(images / name, folders, name)
    if not new:
        raise InputError(
            f"{images}: all of its {len(names)} images are in the map {map_folder} "
            "already; give the folder of the new ones"
        )
    refuse_collisions(sorted({*described, *new}))
    return new, len(names) - len(new)


def _refuse_another(path: Path, folders: Sequence[Path], name: str) -> None:
    """Raise InputError if the map's image of this name is another photograph."""
    for folder in folders:
        original = folder / name
        if original.is_file() and not original.samefile(path):
            if not filecmp.cmp(original, path, shallow=False):
                raise InputError(
                    f"{path}: the map has another photograph of this name, {original}; "
                    "rename it, or move the new ones to a subfolder of their own"
                )
            return


def _start(workspace: Workspace, map_folder: Path) -> None:
    """Begin the larger map with the features of the first, or go on with it."""
    source, origin = Workspace(map_folder), workspace.root / "map"
    states = [file_state(path) for path in sorted(source.sparse.glob("0/*"))]
    stamp = digest(file_state(source.features), states)
    with explain_os_errors(workspace.root):
        if not has_stamp(origin, stamp):
            own = {".map.stamp", LOCK}
            if any(path.name not in own for path in workspace.root.iterdir()):
                raise InputError(
                    f"{workspace.root}: was not begun from {map_folder} as it is now; "
                    "choose another --output, or delete it"
                )
            write_stamp(origin, stamp)
        if not workspace.features.exists():
            copy_whole(source.features, workspace.features)


def _choose_pairs(
    workspace: Workspace, atlas: Atlas, new: Sequence[str], options: AddOptions
) -> list[Pair]:
    """Pair each new image with what it looks like in the map, and among the new."""
    old = atlas.names
    if atlas.vlad is None:  # no codebook fits: all with all
        among = combinations(sorted(new), 2)
        pairs = sorted({order_pair(*pair) for pair in product(new, old)} | set(among))
    else:
        describe(workspace.features, workspace.descriptors, options.codebook)
        found = {
            pair
            for database in (old, new)
            for pair in pair_similar(
                workspace.descriptors, new, database, options.neighbours
            )
        }
        pairs = sorted(found)
    logger.info("pairs: %d with %d new images", len(pairs), len(new))
    with explain_os_errors(workspace.pairs):
        write_pairs(workspace.pairs, pairs)
    return pairs


@dataclass(frozen=True)
class _Adder:
    """Makes the larger model of a workspace from matches that are verified."""

    workspace: Workspace
    model: Path
    known: Model
    folders: Sequence[Path]
    names: Sequence[str]
    refine: bool
    seed: int
    made_from: str
    stop: colmap.Cancellation

    def make(self, polishes: bool, watch: Stopwatch) -> None:
        """Make what is not there yet; a stopped run goes on with what it had added."""
        added, sparse = self.made_from, self.workspace.sparse
        wanted = digest(added, "polished") if polishes else added
        rough = self.workspace.unpolished
        with watch.time("add"):
            if is_made(sparse, wanted):
                return
            self._add(rough if polishes else sparse, added)
        if polishes:
            with watch.time("polish"):
                forget_stamp(sparse)
                self._polish(rough, sparse)
                write_stamp(sparse, wanted)
        remove_models(rough)

    def _add(self, target: Path, stamp: str) -> None:
        if not is_made(target, stamp):
            forget_stamp(target)
            colmap.add_images(
                *(self.model, self.workspace.database, self.folders, target / "0"),
                *(self.names, self.seed, self.refine, self.stop),
            )
            write_stamp(target, stamp)

    def _polish(self, rough: Path, sparse: Path) -> None:
        """Polish what is new, or everything if the map may move."""
        old = self.known.images
        if self.refine:
            hold = colmap.Hold(frame={n: old[n].cam_from_world for n in old})
            placed = {}
        else:
            hold = colmap.Hold(old)
            placed = {name: image.point_ids >= 0 for name, image in old.items()}
        options = colmap.MapperOptions()
        polish(self.folders, rough, sparse, options, self.stop, hold, placed)


def _explain_absent(
    workspace: Workspace, new: Sequence[str], pairs: Sequence[Pair], larger: Model
) -> Mapping[str, str]:
    """Say why new images are not in the larger map."""
    with FeatureStore.open(workspace.features) as store:
        counts = {name: len(store.read_keypoints(name)) for name in new}
    found = colmap.read_verified(workspace.database)
    verified = {pair: len(inliers) for pair, inliers in found.items()}
    return explain_unregistered(counts, pairs, verified, [larger.images])


def _count_points(model: Model, name: str) -> int:
    return int((model.images[name].point_ids >= 0).sum())
