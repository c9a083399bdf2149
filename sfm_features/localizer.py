"""Where a photograph was taken, by a map: one image at a time, with reasons."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sfm_features.atlas import Atlas
from sfm_features.colmap import PoseEstimate, estimate_absolute_pose
from sfm_features.errors import InputError
from sfm_features.extract import extract_one
from sfm_features.geometry import project
from sfm_features.queries import LocalizeOptions
from sfm_features.registry import (
    DEFAULT_RATIO,
    build_extractor,
    build_matcher,
)
from sfm_features.types import (
    F32,
    I64,
    U8,
    Bool,
    Camera,
    Features,
    Localization,
    LocalizationStatus,
    Pose,
    RunOptions,
)

_FOCAL_FACTOR = 1.2
"""Focal length over the longer side where nothing is known, as COLMAP guesses it."""
_LEAST_MATCHES = 6
_LEAST_SPREAD = 0.01
"""Least breadth of what is seen, as a share of the image's diagonal."""
_GUIDED_BELOW = 100
"""Inliers of a first pose below which a second look is taken."""
_GUIDED_PX = 16.0
_DOUBTFUL_SHARE = 0.1
"""Share of the matched keypoints that must fit, or other images are tried, too."""
_FARTHER = 3
"""How many times the first number of images are tried then."""
_GUIDED_POINTS = 5_000


@dataclass(frozen=True)
class _Candidates:
    """A query's features, and its matches: rows (M,) of points, of keypoints (M,)."""

    features: Features
    names: tuple[str, ...]
    points: I64
    keypoints: I64

    @property
    def xy(self) -> F32:
        return self.features.keypoints[self.keypoints]

    def __len__(self) -> int:
        return len(self.points)

    def with_more(self, points: I64, keypoints: I64) -> _Candidates:
        """Add matches; each pair stays once."""
        own = np.stack([self.points, self.keypoints], 1)
        pairs = np.unique(
            np.concatenate([own, np.stack([points, keypoints], 1)]), axis=0
        )
        return replace(self, points=pairs[:, 0], keypoints=pairs[:, 1])


@dataclass(frozen=True)
class _Focal:
    """What is to be done about a focal length that is a guess, or about right."""

    estimate: bool
    refine: bool


class Localizer:
    """Localizes images in a map, which is loaded once and never written to."""

    def __init__(
        self,
        map_folder: Path,
        options: LocalizeOptions = LocalizeOptions(),
        run: RunOptions = RunOptions(),
    ) -> None:
        options.check()
        self.options, self.run = options, run
        self.atlas = Atlas(map_folder, options.codebook)
        self._extraction = self.atlas.recall_extraction(options.weights)
        self._extractor = build_extractor(
            self._extraction.extractor,
            max_keypoints=self._extraction.max_keypoints,
            device=run.device,
            seed=int(self.atlas.config.get("seed", run.seed)),
            weights=options.weights,
            scales=self._extraction.scales,
        )
        ratio = DEFAULT_RATIO.get(self._extraction.extractor, 1.0)
        self._matcher = build_matcher("nearest", device=run.device, ratio=ratio)

    def localize(
        self,
        image: U8,
        camera: Camera | None = None,
        prior: Pose | None = None,
        orientation: int = 1,
        rough: bool = False,
    ) -> Localization:
        """Localize an image, RGB (H, W, 3).

        Without a camera, its focal length is found along with the pose; that of a
        `rough` one, as EXIF tells it, is refined. `prior` is about where the image was
        taken: the map is searched only near there.
        """
        watch = _Watch()
        size = (image.shape[1], image.shape[0])
        focal = _Focal(estimate=camera is None, refine=rough)
        camera = camera or _guess_camera(size)
        if (camera.width, camera.height) != size:
            raise InputError(
                f"the camera is of {camera.width} x {camera.height} px, the image of "
                f"{size[0]} x {size[1]}; give the camera of this image"
            )
        features = extract_one(self._extractor, image, self._extraction, orientation)
        watch.note("extract")
        if not len(features):
            return _fail("no features", "nothing stands out in it", camera, watch)
        # More than are matched at first: if those were of another place, others follow.
        count = self.options.neighbours
        names = self.atlas.choose(features, _FARTHER * count, prior)
        watch.note("retrieve")
        if not names:
            reason = "no image of the map looks like it"
            return _fail("no candidates", reason, camera, watch)
        if self.atlas.vlad is None and prior is None:
            count = len(names)  # nothing tells which are worth more than others
        matched = self._match(features, names[:count])
        watch.note("match")
        estimate = self._estimate(matched, camera, focal)
        if names[count:] and _is_doubtful(matched, estimate):
            others = self._match(features, names[count:])
            other = self._estimate(others, camera, focal)
            if _count_inliers(other) > _count_inliers(estimate):
                matched, estimate = others, other
        if estimate is not None and self._is_weak(estimate):
            more = self._look_again(matched, estimate)
            again = self._estimate(more, estimate.camera, focal)
            if _count_inliers(again) > estimate.num_inliers:
                matched, estimate = more, again
        watch.note("pose")
        return _judge(matched, estimate, camera, self.options.min_inliers, watch)

    def _match(self, features: Features, names: Sequence[str]) -> _Candidates:
        """Match with images of the map.

        One keypoint may have several points, from different images: the pose decides.
        """
        others = [self.atlas.read(name) for name in names]
        none = np.zeros(0, np.int64)
        found = _Candidates(features, tuple(names), none, none)
        results = self._matcher.match_many(features, others)
        points, keypoints = [none], [none]
        for name, matches in zip(names, results, strict=True):
            rows = self.atlas.point_rows(name)[matches.indices[:, 1]]
            points.append(rows[rows >= 0])
            keypoints.append(matches.indices[rows >= 0, 0].astype(np.int64))
        return found.with_more(np.concatenate(points), np.concatenate(keypoints))

    def _estimate(
        self, matched: _Candidates, camera: Camera, focal: _Focal
    ) -> PoseEstimate | None:
        if len(matched) < _LEAST_MATCHES:
            return None
        return estimate_absolute_pose(
            matched.xy,
            self.atlas.model.points[matched.points],
            camera,
            self.options.max_error_px,
            self.run.seed,
            focal.estimate,
            focal.refine,
        )

    def _is_weak(self, estimate: PoseEstimate) -> bool:
        enough = estimate.num_inliers >= _LEAST_MATCHES
        return self.options.guided and enough and estimate.num_inliers < _GUIDED_BELOW

    def _look_again(self, matched: _Candidates, estimate: PoseEstimate) -> _Candidates:
        """Add matches of points with what is near to where a pose sees them."""
        rows, descriptors = self.atlas.collect_points(matched.names, _GUIDED_POINTS)
        pose, camera = estimate.cam_from_world, estimate.camera
        world = self.atlas.model.points[rows]
        seen = project(camera, world @ pose.rotation.T + pose.translation)
        with np.errstate(invalid="ignore"):
            inside = (seen >= 0).all(1) & (seen < [camera.width, camera.height]).all(1)
        rows, descriptors, seen = rows[inside], descriptors[inside], seen[inside]
        reach = _GUIDED_PX * max(camera.width, camera.height) / 1024
        apart = seen.astype(np.float32)[:, None] - matched.features.keypoints[None]
        near = (np.abs(apart) <= reach).all(axis=2)
        if not near.any():
            return matched
        products = descriptors @ matched.features.descriptors.T
        similarity = np.where(near, products, -np.inf)
        best, back = similarity.argmax(axis=1), similarity.argmax(axis=0)
        index = np.arange(len(rows))
        mutual = (back[best] == index) & near[index, best]
        return matched.with_more(rows[mutual], best[mutual])


class _Watch:
    """Milliseconds by step."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def note(self, step: str) -> None:
        now = time.perf_counter()
        self.milliseconds[step] = round(1000 * (now - self._last), 2)
        self._last = now


def _count_inliers(estimate: PoseEstimate | None) -> int:
    return 0 if estimate is None else estimate.num_inliers


def _is_doubtful(matched: _Candidates, estimate: PoseEstimate | None) -> bool:
    """Tell whether a pose explains so little that another place may explain more."""
    if estimate is None or estimate.num_inliers < _GUIDED_BELOW:
        return True
    fitting = np.unique(matched.keypoints[estimate.inliers])
    return len(fitting) < _DOUBTFUL_SHARE * len(np.unique(matched.keypoints))


def _judge(
    matched: _Candidates,
    estimate: PoseEstimate | None,
    camera: Camera,
    min_inliers: int,
    watch: _Watch,
) -> Localization:
    """Say what was found, or what is wrong with it."""
    if len(matched) < _LEAST_MATCHES:
        reason = f"{len(matched)} matches with points of {len(matched.names)} images"
        return _describe("few matches", reason, matched, camera, watch)
    if estimate is None:
        reason = f"no pose fits any of {len(matched)} matches"
        return _describe("few inliers", reason, matched, camera, watch)
    reason = f"{estimate.num_inliers} of {len(matched)} matches fit one pose"
    status: LocalizationStatus = "localized"
    if estimate.num_inliers < min_inliers:
        status = "few inliers"
    elif not _is_spread(matched.xy[estimate.inliers], camera):
        status, reason = "degenerate", f"{reason}, but all of them at one place"
    found = _describe(status, reason, matched, camera, watch, estimate.inliers)
    if status != "localized":
        return found
    return replace(
        found,
        cam_from_world=estimate.cam_from_world,
        camera=estimate.camera,
        covariance=estimate.covariance,
    )


def _fail(
    status: LocalizationStatus, reason: str, camera: Camera, watch: _Watch
) -> Localization:
    return Localization(status, reason, None, camera, milliseconds=watch.milliseconds)


def _describe(
    status: LocalizationStatus,
    reason: str,
    matched: _Candidates,
    camera: Camera,
    watch: _Watch,
    inliers: Bool | None = None,
) -> Localization:
    return Localization(
        status,
        reason,
        None,
        camera,
        retrieved=matched.names,
        xy=matched.xy,
        point_rows=matched.points,
        inliers=np.zeros(len(matched), np.bool_) if inliers is None else inliers,
        milliseconds=watch.milliseconds,
    )


def _guess_camera(size: tuple[int, int]) -> Camera:
    width, height = size
    focal = _FOCAL_FACTOR * max(size)
    return Camera("SIMPLE_RADIAL", *size, (focal, width / 2, height / 2, 0.0))


def _is_spread(xy: F32, camera: Camera) -> bool:
    """Tell whether pixels are neither at one place nor on a line."""
    breadth = np.linalg.svd(xy - xy.mean(axis=0), compute_uv=False)[-1]
    diagonal = np.hypot(camera.width, camera.height)
    return bool(breadth / np.sqrt(len(xy)) > _LEAST_SPREAD * diagonal)
