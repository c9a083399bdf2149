"""Real changes of view: places are reconstructed, and their points teach the network.

A warped photo has no depth: nothing hides, nothing shines, nothing turns. So each round
reconstructs collections of photos with the network as it is, and learns from the points
that survived triangulation, whose observations are surely of one thing.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sfm_features.errors import InputError, ReconstructionError
from sfm_features.extract import ExtractOptions
from sfm_features.journal import replace_text
from sfm_features.nets.dense import DenseNet
from sfm_features.nets.weights import Card, name_architecture, save_weights
from sfm_features.training.photos import PhotoSet
from sfm_features.training.tracks import TrackOptions, TrackPairs, collect_tracks
from sfm_features.types import Model, RunOptions

logger = logging.getLogger(__name__)

_LEAST_IMAGES = 3


@dataclass(frozen=True)
class Collections:
    """A folder whose subfolders, or which itself, show one place each."""

    folder: Path
    number: int
    """Number of that folder among those of the photos."""
    keypoints: int = 2048
    tracks: TrackOptions = TrackOptions()

    def reconstruct(
        self, photos: PhotoSet, net: DenseNet, output: Path, run: RunOptions
    ) -> TrackPairs:
        """Reconstruct every place with a network, and collect what came out.

        What is finished in `output` is kept; a stopped one goes on.
        """
        weights = output / "weights.safetensors"
        output.mkdir(parents=True, exist_ok=True)
        save_weights(net, weights, Card(name_architecture(net)))
        lines = []
        for prefix, names in _find_places(photos, self.number).items():
            place = _place_models(output, prefix)
            place.mkdir(parents=True, exist_ok=True)
            wanted = place / "images.txt"
            replace_text(wanted, "".join(f"{name}\n" for name in names))
            extraction = ExtractOptions(
                extractor=name_architecture(net),
                weights=weights,
                max_keypoints=self.keypoints,
                image_list=wanted,
            )
            _reconstruct(self.folder / prefix, place, extraction, run)
            lines.append(_describe(prefix, len(names), _read_models(place)))
            logger.info("%s", lines[-1])
        replace_text(output / "collections.txt", "".join(f"{x}\n" for x in lines))
        pairs = self.collect(photos, output)
        logger.info("multiview: %d pairs of %d photos", len(pairs), len(pairs.seen))
        return pairs

    def collect(self, photos: PhotoSet, output: Path) -> TrackPairs:
        """Collect what was reconstructed into `output` before."""
        models = (
            (prefix, model)
            for prefix in _find_places(photos, self.number)
            for model in _read_models(_place_models(output, prefix))
        )
        return collect_tracks(photos, self.number, models, self.tracks)


def _place_models(output: Path, prefix: str) -> Path:
    return output / "places" / (prefix or "all")


def _reconstruct(
    images: Path, place: Path, extraction: ExtractOptions, run: RunOptions
) -> None:
    # Only now: training without collections works where there is no COLMAP.
    from sfm_features.reconstruct import ReconstructOptions, reconstruct

    # What is learned from are keypoints where the detector sees them.
    options = ReconstructOptions(polish=False, report=False)
    try:
        reconstruct(images, place, options, extraction, run=run)
    except (ReconstructionError, InputError) as error:
        logger.warning("%s: %s", images, error)


def _read_models(place: Path) -> list[Model]:
    from sfm_features.colmap import list_models, read_model

    return [read_model(path) for path in list_models(place / "sparse")]


def _find_places(photos: PhotoSet, number: int) -> dict[str, list[str]]:
    """List the photos of each subfolder that may show one place, by its prefix."""
    places: dict[str, list[str]] = {}
    for photo in photos.photos:
        if photo.folder == number:
            parent = PurePosixPath(photo.name).parent.as_posix()
            prefix = "" if parent == "." else f"{parent}/"
            names = places.setdefault(prefix, [])
            names.append(photo.name.removeprefix(prefix))
    return {
        p: names for p, names in sorted(places.items()) if len(names) >= _LEAST_IMAGES
    }


def _describe(prefix: str, count: int, models: list[Model]) -> str:
    # COLMAP lets models share images.
    registered = len({name for model in models for name in model.images})
    points = sum(len(model.points) for model in models)
    length = sum(int(model.track_lengths.sum()) for model in models) / max(points, 1)
    return (
        f"{prefix or 'all'}: {registered} of {count} images in {len(models)} models, "
        f"{points} points, mean track length {length:.2f}"
    )
