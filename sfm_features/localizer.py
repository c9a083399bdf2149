"""Where a photograph was taken, by a map: one image at a time, with reasons."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sfm_features.atlas import Atlas
from sfm_features.candidates import Candidates, match_near, merge
from sfm_features.chance import expect_by_chance
from sfm_features.colmap import (
    PoseEstimate,
    check_camera,
    estimate_absolute_pose,
    project_points,
)
from sfm_features.errors import InputError
from sfm_features.extract import extract_one
from sfm_features.queries import LocalizeOptions
from sfm_features.registry import (
    DEFAULT_RATIO,
    build_extractor,
    build_matcher,
)
from sfm_features.types import (
    U8,
    Camera,
    Features,
    Localization,
    LocalizationStatus,
    Pose,
    RunOptions,
)
from sfm_features.verdict import LEAST_MATCHES, Trial, judge

_FOCAL_FACTOR = 1.2
"""Focal length over the longer side where nothing is known, as COLMAP guesses it."""
_MOST_TRIED = 500
"""Matches among which a pose is searched for; more cost time and are worse."""
_MOST_WEIGHED = 1_500
"""Matches by which it is told from chance."""
_USUAL_SIDE_PX = 1024
"""Longer side of an image to which distances in pixels refer."""
_GUIDED_PX = 16.0
_GUIDED_POINTS = 5_000
_FARTHER = 3
"""How many times the first number of images are tried then."""


@dataclass(frozen=True)
class _Focal:
    """What is to be done about a focal length that is a guess, or about right."""

    estimate: bool
    refine: bool

    def once_found(self) -> _Focal:
        """Return what is to be done when it is about right."""
        return _Focal(estimate=False, refine=self.estimate or self.refine)


class Localizer:
    """Localizes images in a map, which is loaded once and never written to.

    It holds the map's file of features until it is closed, or a `with` ends.
    """

    def __init__(
        self,
        map_folder: Path | str,
        options: LocalizeOptions = LocalizeOptions(),
        run: RunOptions = RunOptions(),
    ) -> None:
        options.check()
        self.options, self.run = options, run
        self.atlas = Atlas(Path(map_folder), options.codebook)
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

    def __enter__(self) -> Localizer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the map's file."""
        self.atlas.close()

    def localize(
        self,
        image: U8,
        camera: Camera | None = None,
        prior: Pose | None = None,
        orientation: int = 1,
        rough: bool = False,
    ) -> Localization:
        """Localize an image, RGB (H, W, 3) or grey (H, W).

        Without a camera, its focal length is found along with the pose; that of a
        `rough` one, as EXIF tells it, is refined. `prior` is about where the image was
        taken: the map is searched only near there (`options.max_distance`).
        """
        watch, image = _Watch(), _as_rgb(image)
        size = (image.shape[1], image.shape[0])
        focal = _Focal(estimate=camera is None, refine=rough)
        camera = camera or _guess_camera(size)
        if (camera.width, camera.height) != size:
            raise InputError(
                f"the camera is of {camera.width} x {camera.height} px, the image of "
                f"{size[0]} x {size[1]}; give the camera of this image"
            )
        check_camera(camera)
        features = extract_one(self._extractor, image, self._extraction, orientation)
        watch.note("extract")
        if not len(features):
            return _fail("no features", "nothing stands out in it", camera, watch)
        # More than are matched at first: if those were of another place, others follow.
        count = self.options.neighbours
        names = self.atlas.choose(
            features, _FARTHER * count, prior, self.options.max_distance
        )
        watch.note("retrieve")
        if not names:
            reason = self._explain_none(prior)
            return _fail("no candidates", reason, camera, watch)
        if self.atlas.vlad is None and prior is None:
            count = len(names)  # nothing tells which are worth more than others
        best, tried = self._compare(features, names, count, camera, focal, watch)
        matched = best.matched
        if best.estimate is not None and self.options.guided and best.is_weak():
            more = self._look_again(matched, best.estimate)
            again = self._estimate(more, best.estimate.camera, focal.once_found())
            best = max(best, again, key=lambda trial: trial.num_inliers)
            watch.note("second look")
        # What was found near where a pose sees it fits that pose: it proves nothing.
        by_chance = self._expect_by_chance(matched, best.estimate, focal)
        least = self.options.min_inliers
        return judge(best, by_chance, tried, camera, least, watch.milliseconds)

    def _explain_none(self, prior: Pose | None) -> str:
        """Say why there is no image to match a query with."""
        if prior is not None:
            apart = np.linalg.norm(self.atlas.centres - prior.centre, axis=1).min()
            if apart > self.options.max_distance:
                return (
                    f"the nearest image of the map is {apart:.6g} from its prior, "
                    f"beyond --max-distance {self.options.max_distance:g}"
                )
        return "no image of the map looks like it"

    def _compare(
        self,
        features: Features,
        names: Sequence[str],
        count: int,
        camera: Camera,
        focal: _Focal,
        watch: _Watch,
    ) -> tuple[Trial, tuple[str, ...]]:
        """Match with the first images, and with the next ones while in doubt."""
        best: Trial | None = None
        for start in range(0, len(names), count):
            parts = self._match(features, names[start : start + count])
            watch.note("second match" if start else "match")
            found = self._search(parts, camera, focal)
            watch.note("pose")
            if best is None or found.num_inliers > best.num_inliers:
                best = found
            if not best.is_doubtful():
                break
        assert best is not None, "no names"
        return best, tuple(names[: start + count])

    def _match(self, features: Features, names: Sequence[str]) -> list[Candidates]:
        """Match with images of the map: what each has to say."""
        others = [self.atlas.read(name) for name in names]
        results = self._matcher.match_many(features, others)
        found = []
        for name, matches in zip(names, results, strict=True):
            points = self.atlas.point_rows(name)[matches.indices[:, 1]]
            known = points >= 0
            keypoints = matches.indices[known, 0].astype(np.int64)
            scores = matches.scores[known]
            found.append(
                Candidates(features, (name,), points[known], keypoints, scores)
            )
        return found

    def _search(
        self, parts: Sequence[Candidates], camera: Camera, focal: _Focal
    ) -> Trial:
        """Search for a pose by what all images say; or by those of each place."""
        groups = [parts]
        if self.options.covisibility:
            names = [part.names[0] for part in parts]
            groups = [[parts[i] for i in rows] for rows in self.atlas.group(names)]
        trials = [self._estimate(merge(group), camera, focal) for group in groups]
        return max(trials, key=lambda trial: trial.num_inliers)

    def _estimate(self, matched: Candidates, camera: Camera, focal: _Focal) -> Trial:
        """Find the pose that fits most matches."""
        if len(matched) < LEAST_MATCHES:
            return Trial(matched, None)
        estimate = estimate_absolute_pose(
            matched.xy,
            self.atlas.model.points[matched.points],
            camera,
            _scale(self.options.max_error_px, camera),
            self.run.seed,
            focal.estimate,
            focal.refine,
            tried=matched.choose_best()[:_MOST_TRIED],
        )
        if estimate is None:
            return Trial(matched, None)
        once = matched.choose_best(estimate.inliers)
        inliers = np.zeros(len(matched), np.bool_)
        inliers[once] = True
        return Trial(matched, replace(estimate, inliers=inliers))

    def _look_again(self, matched: Candidates, estimate: PoseEstimate) -> Candidates:
        """Add matches of points with what is near to where a pose sees them."""
        rows, descriptors = self.atlas.collect_points(matched.names, _GUIDED_POINTS)
        pose, camera = estimate.cam_from_world, estimate.camera
        seen = project_points(self.atlas.model.points[rows], pose, camera)
        with np.errstate(invalid="ignore"):
            inside = (seen >= 0).all(1) & (seen < [camera.width, camera.height]).all(1)
        reach = _scale(_GUIDED_PX, camera)
        points, keypoints, similarities = match_near(
            matched.features, seen[inside], descriptors[inside], reach
        )
        near = replace(
            matched,
            points=rows[inside][points],
            keypoints=keypoints,
            similarities=similarities,
        )
        return merge([matched, near])

    def _expect_by_chance(
        self, matched: Candidates, estimate: PoseEstimate | None, focal: _Focal
    ) -> float:
        """Return log10 of how many such poses wrong matches alone would give."""
        if estimate is None:
            return np.inf
        weighed = matched.choose_best()[:_MOST_WEIGHED]
        pose, camera = estimate.cam_from_world, estimate.camera
        points = self.atlas.model.points[matched.points[weighed]]
        return expect_by_chance(
            project_points(points, pose, camera),
            matched.xy[weighed],
            _scale(self.options.max_error_px, camera),
            camera.width * camera.height,
            needed=4 if focal.estimate else 3,
        )


class _Watch:
    """Milliseconds by step."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def note(self, step: str) -> None:
        now = time.perf_counter()
        before = self.milliseconds.get(step, 0.0)
        self.milliseconds[step] = round(before + 1000 * (now - self._last), 2)
        self._last = now


def _as_rgb(image: Any) -> U8:
    """Return pixels as RGB (H, W, 3); raise InputError for what are no pixels."""
    if not isinstance(image, np.ndarray):
        given = f"a {type(image).__name__}"
    elif image.dtype == np.uint8 and image.size and image.ndim == 2:
        return np.stack([image] * 3, axis=2)
    elif image.dtype == np.uint8 and image.size and image.shape[2:] == (3,):
        return np.ascontiguousarray(image)
    else:
        given = f"of {image.dtype} and shape {image.shape}"
    raise InputError(
        f"the image is {given}, not of uint8 and shape (H, W, 3) or (H, W); give its "
        "pixels as `images.decode(path).rgb` has them"
    )


def _scale(distance_px: float, camera: Camera) -> float:
    """Scale a distance to an image that is smaller than usual."""
    return distance_px * min(1.0, max(camera.width, camera.height) / _USUAL_SIDE_PX)


def _guess_camera(size: tuple[int, int]) -> Camera:
    width, height = size
    focal = _FOCAL_FACTOR * max(size)
    return Camera("SIMPLE_RADIAL", *size, (focal, width / 2, height / 2, 0.0))


def _fail(
    status: LocalizationStatus, reason: str, camera: Camera, watch: _Watch
) -> Localization:
    return Localization(status, reason, None, camera, milliseconds=watch.milliseconds)
