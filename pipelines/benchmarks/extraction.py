"""What the stage `extract` adds to the extractor: decoding, resizing, writing."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from tqdm import tqdm

from pipelines.benchmarks.results import Check, Result
from sfm_features.extract import ExtractOptions, extract
from sfm_features.images import decode, resize_to
from sfm_features.orientation import turn_upright
from sfm_features.photo_files import list_images
from sfm_features.registry import build_extractor
from sfm_features.types import U8, Extractor, RunOptions

LIMIT = {"sift": 1.15, "evo": 1.2}


def measure_extract(images: Path, repeats: int, options: ExtractOptions) -> Result:
    """Compare the stage with its extractor alone on the decoded images, in turns."""
    pictures = [_load(images / name, options) for name in list_images(images)]
    run = RunOptions()
    extractor = build_extractor(
        options.extractor, max_keypoints=options.max_keypoints, device=run.device
    )
    _time_extractor(extractor, pictures[:3])  # first calls set up threads and memory
    alone, stage = [], []
    with TemporaryDirectory() as folder:
        for i in range(repeats):
            alone.append(_time_extractor(extractor, pictures))
            start = time.perf_counter()
            extract(images, Path(folder) / f"{i}.h5", options, run)
            stage.append(time.perf_counter() - start)
    ratios = [s / a for s, a in zip(stage, alone, strict=True)]
    rows = [
        _make_row("extractor alone", alone, 1.0, len(pictures)),
        _make_row("stage extract", stage, median(ratios), len(pictures)),
    ]
    return Result(
        f"Extraction: `{options.extractor}` on {len(pictures)} images",
        rows,
        [Check("stage over extractor", median(ratios), LIMIT[options.extractor])],
        {"alone_s": alone, "stage_s": stage, "ratios": ratios},
    )


def _make_row(
    what: str, seconds: list[float], ratio: float, count: int
) -> dict[str, str | float]:
    return {
        "what": what,
        "ratio": ratio,
        "ms per image": 1000 * median(seconds) / count,
    }


def _load(path: Path, options: ExtractOptions) -> U8:
    decoded = decode(path)
    return turn_upright(resize_to(decoded.rgb, options.max_size), decoded.orientation)


def _time_extractor(extractor: Extractor, pictures: list[U8]) -> float:
    start = time.perf_counter()
    for picture in tqdm(pictures, desc="extractor alone", unit="image"):
        extractor.extract(picture)
    return time.perf_counter() - start
