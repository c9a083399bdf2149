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

CAMBRIDGE: dict[str, Row] = {
    scene: dict(zip(("hloc, SP + SG", "Active Search", "DSAC*"), row, strict=True))
    for scene, *row in (
        ("GreatCourt", "17 / 0.11", "24 / 0.13", "49 / 0.3"),
        ("KingsCollege", "12 / 0.21", "13 / 0.22", "15 / 0.3"),
        ("OldHospital", "14 / 0.30", "20 / 0.36", "21 / 0.4"),
        ("ShopFacade", "4 / 0.19", "4 / 0.21", "5 / 0.3"),
        ("StMarysChurch", "7 / 0.22", "8 / 0.25", "13 / 0.4"),
    )
}
"""Medians in cm / deg, from hloc's README."""

_TRUTHS = ("hloc, SP + SG", "hloc with depth", "hloc, pgt sfm", "hloc, pgt dslam")

SEVEN_SCENES: dict[str, Row] = {
    scene: dict(zip(_TRUTHS, row, strict=True))
    for scene, *row in (
        ("chess", "2 / 0.84", "2 / 0.80", "0.8 / 0.11", "2.4 / 0.77"),
        ("fire", "2 / 0.93", "2 / 0.77", "0.9 / 0.24", "1.8 / 0.75"),
        ("heads", "1 / 0.74", "1 / 0.79", "0.6 / 0.25", "0.9 / 0.59"),
        ("office", "3 / 0.92", "3 / 0.80", "1.2 / 0.20", "2.6 / 0.77"),
        ("pumpkin", "5 / 1.27", "4 / 1.07", "1.4 / 0.15", "4.4 / 1.15"),
        ("redkitchen", "4 / 1.40", "3 / 1.13", "1.1 / 0.14", "4.0 / 1.38"),
        ("stairs", "5 / 1.47", "4 / 1.15", "2.9 / 0.80", "5.1 / 1.46"),
    )
}
"""Medians in cm / deg: hloc's README, by the poses in the data set; and the estimates
of hloc that come with the pseudo ground truths (visloc_pseudo_gt_limitations), against
either of these. They differ by more than methods do: say which one was used."""

ROBOTCAR: list[Row] = [
    {
        "images": "kapture, Feather2D2, AP-GeM-10: all by day",
        "% in 0.25 m, 2 deg": 51.5,
        "% in 0.5 m, 5 deg": 80.0,
        "% in 5 m, 10 deg": 94.9,
    },
    {
        "images": "kapture, Feather2D2, AP-GeM-10: all by night",
        "% in 0.25 m, 2 deg": 19.8,
        "% in 0.5 m, 5 deg": 36.7,
        "% in 5 m, 10 deg": 54.3,
    },
]
"""From kapture-localization."""
