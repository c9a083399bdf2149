"""Figures that others published, to stand below one's own."""

from __future__ import annotations

from pipelines.benchmarks.results import Row

_HLOC = "hloc's README"

AACHEN: dict[str, list[Row]] = {
    "1.1": [
        {"method": method, "day": day, "night": night, "source": source}
        for method, day, night, source in (
            ("hloc, SuperPoint + SuperGlue",
             "89.8 / 96.1 / 99.4", "77.0 / 90.6 / 100", _HLOC),
            ("LoFTR", "88.7 / 95.6 / 99.0", "78.5 / 90.6 / 99.0", "its paper"),
            ("EfficientLoFTR",
             "89.6 / 96.2 / 99.0", "77.0 / 91.1 / 99.5", "its paper"),
            ("DKM", "84.8 / 92.7 / 97.1", "70.2 / 90.1 / 97.4", "its paper"),
            ("kapture, R2D2, fused retrieval",
             "90.5 / 96.8 / 99.4", "74.9 / 90.1 / 98.4", "its README"),
        )
    ],
    "1": [
        {"method": method, "day": day, "night": night, "source": source}
        for method, day, night, source in (
            ("hloc, SuperPoint + SuperGlue",
             "89.6 / 95.4 / 98.8", "86.7 / 93.9 / 100", _HLOC),
            ("hloc, SuperPoint + nearest neighbours",
             "85.4 / 93.3 / 97.2", "75.5 / 86.7 / 92.9", _HLOC),
            ("hloc, D2-Net + nearest neighbours",
             "84.6 / 91.4 / 97.1", "83.7 / 90.8 / 100", _HLOC),
            ("SuperPoint + LightGlue",
             "89.2 / 95.4 / 98.5", "87.8 / 93.9 / 100", "LightGlue's paper"),
        )
    ],
}  # fmt: skip
