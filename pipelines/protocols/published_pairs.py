"""Published figures of the benchmarks of image pairs, each with where it stands.

Shares from 0 to 1. Figures that another estimator, another selection of pairs or the
best of many thresholds made are not comparable, and not here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipelines.benchmarks.results import Row

_CACHE = "the method's own files, recomputed"
_ALIKE = "ALIKE's files"
_GLUE = "glue-factory README"


def _make_rows(
    source: str, columns: Sequence[str], figures: Mapping[str, Sequence[float]]
) -> list[Row]:
    return [
        {"method": name, "source": source, **dict(zip(columns, row, strict=True))}
        for name, row in figures.items()
    ]


HPATCHES: list[Row] = [
    *_make_rows(_CACHE, ["MMA@1", "MMA@3", "MMA@5", "MMA@10"], {
        "SuperPoint (1,563 features)": (0.339, 0.645, 0.729, 0.790),
        "D2-Net": (0.127, 0.406, 0.600, 0.786),
        "R2D2, full size": (0.333, 0.758, 0.840, 0.871),
        "ASLFeat": (0.398, 0.723, 0.821, 0.869),
        "DISK, 2k": (0.415, 0.753, 0.813, 0.846),
        "HesAffNet + HardNet": (0.331, 0.616, 0.703, 0.756),
    }),
    *_make_rows(_ALIKE, ["MMA@3", "MHA@3"], {
        "SuperPoint": (0.654, 0.702),
        "R2D2": (0.758, 0.715),
        "DISK": (0.776, 0.706),
        "ALIKE-N": (0.708, 0.757),
    }),
    *_make_rows("ALIKED README", ["MHA@3"], {"ALIKED-N16, 5k": (0.7722,)}),
    *_make_rows("XFeat README", [
        f"MHA@{t} {what}" for what in ("light", "view") for t in (3, 5, 7)
    ], {"XFeat": (0.950, 0.981, 0.988, 0.686, 0.811, 0.861)}),
]  # fmt: skip

HPATCHES_480: list[Row] = _make_rows(f"{_GLUE}, OpenCV", ["AUC@1", "AUC@3", "AUC@5"], {
    "SuperPoint + SuperGlue": (0.329, 0.557, 0.680),
    "SuperPoint + LightGlue": (0.342, 0.579, 0.699),
})  # fmt: skip

_AREAS = ["AUC@5", "AUC@10", "AUC@20"]
MEGADEPTH: Mapping[str, list[Row]] = {
    "colmap": _make_rows(f"{_GLUE}, pycolmap", _AREAS, {
        "SuperPoint + SuperGlue": (0.544, 0.704, 0.824),
        "SuperPoint + LightGlue": (0.567, 0.724, 0.837),
    }),
    "opencv": _make_rows(f"{_GLUE}, OpenCV", _AREAS, {
        "SuperPoint + SuperGlue": (0.487, 0.656, 0.790),
        "SuperPoint + LightGlue": (0.510, 0.681, 0.807),
        "SIFT, 2k + LightGlue": (0.435, 0.615, 0.759),
        "ALIKED + LightGlue": (0.523, 0.688, 0.810),
    }) + _make_rows("LightGlue paper", _AREAS, {
        "SuperPoint + mutual neighbours": (0.317, 0.468, 0.601),
        "DISK + mutual neighbours": (0.381, 0.554, 0.696),
    }),
    "fundamental": [],
}  # fmt: skip

_STEREO = ["mAA@5", "mAA@10"]
IMC_VALIDATION: list[Row] = _make_rows("IMC's example, DEGENSAC", _STEREO, {
    "RootSIFT, upright, 2k": (0.4855, 0.5756),
})  # fmt: skip
IMC_VALIDATION_BAGS: list[Row] = _make_rows(
    "IMC's example", ["mAA@10, 5", "mAA@10, 10", "mAA@10, 25", "mAA@10"],
    {"RootSIFT, upright, 2k": (0.4069, 0.6691, 0.8596, 0.6452)},
)  # fmt: skip

ETH3D_QUERIES: list[Row] = _make_rows(
    "Pixel-Perfect SfM README, raw features", ["AUC@1mm", "AUC@1cm", "AUC@10cm"],
    {
        "SIFT": (0.1692, 0.5539, 0.8115),
        "SuperPoint": (0.1538, 0.6341, 0.8724),
        "R2D2": (0.0615, 0.5170, 0.8346),
    },
)  # fmt: skip

_SURFACE = [f"{w}@{t}cm" for w in ("accuracy", "completeness") for t in (1, 2, 5)]
ETH3D_POINTS: list[Row] = _make_rows(
    "Pixel-Perfect SfM README, raw features", _SURFACE,
    {
        "SIFT, indoor scenes": (0.7595, 0.8550, 0.9288, 0.0021, 0.0088, 0.0365),
        "SuperPoint, indoor scenes": (0.7896, 0.8777, 0.9455, 0.0064, 0.0236, 0.0939),
        "SIFT, outdoor scenes": (0.5770, 0.7290, 0.8641, 0.0006, 0.0034, 0.0246),
        "SuperPoint, outdoor scenes": (0.5363, 0.6893, 0.8327, 0.0011, 0.0064, 0.0443),
    },
)  # fmt: skip

INLOC: list[Row] = [
    {"method": method, "source": source, "DUC1": first, "DUC2": second}
    for method, source, first, second in (
        ("hloc, SuperPoint + SuperGlue", "hloc README",
         "46.5 / 65.7 / 78.3", "52.7 / 72.5 / 79.4"),
        ("hloc, SuperPoint + nearest neighbours", "hloc README",
         "39.9 / 55.6 / 67.2", "37.4 / 57.3 / 70.2"),
        ("hloc, D2-Net + nearest neighbours", "hloc README",
         "39.9 / 57.6 / 67.2", "36.6 / 53.4 / 61.8"),
        ("kapture, R2D2", "its README",
         "41.4 / 60.1 / 73.7", "47.3 / 67.2 / 73.3"),
        ("LoFTR-OT", "its paper", "47.5 / 72.2 / 84.8", "54.2 / 74.8 / 85.5"),
    )
]  # fmt: skip
