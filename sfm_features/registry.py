"""Names of methods, where their code lives, and how to build them."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from sfm_features.errors import OptionError, WeightsError
from sfm_features.types import Extractor, Matcher

EXTRACTORS: Mapping[str, str] = {
    "sift": "sfm_features.extractors.sift:Sift",
    "evo": "sfm_features.extractors.learned:Evo",
    "evo-fine": "sfm_features.extractors.learned:EvoFine",
    "evo-object": "sfm_features.extractors.learned:EvoObject",
    "sekd": "sfm_features.extractors.learned:Sekd",
    "aliked": "sfm_features.extractors.kornia:Aliked",
    "disk": "sfm_features.extractors.kornia:Disk",
    "xfeat": "sfm_features.extractors.kornia:XFeat",
    "dedode": "sfm_features.extractors.kornia:DeDoDe",
    "keynet": "sfm_features.extractors.kornia:KeyNetHardNet",
}
MATCHERS: Mapping[str, str] = {
    "nearest": "sfm_features.matchers.nearest:Nearest",
    "agreeing": "sfm_features.matchers.agreeing:Agreeing",
}

WITH_SCALES = ("evo", "evo-fine", "evo-object", "sekd")
"""Extractors that can be told at which scales to look."""

FOR_OBJECTS = ("evo-object",)
"""Extractors of things, not of the room around them: what stands still is room."""

_SAME_WEIGHTS: Mapping[str, str] = {"evo-fine": "evo"}
"""Extractors that use the weights of another one, differently."""

DEFAULT_RATIO: Mapping[str, float] = {"sift": 0.8}
"""Ratio test that suits an extractor; learned descriptors do better without one."""

DEFAULT_MATCHER: Mapping[str, str] = {"sift": "nearest"}
"""Matcher that suits an extractor, for all others `agreeing`: where a ratio test leaves
few matches, those around one are too far away to move as it does."""


def build_extractor(
    name: str,
    *,
    max_keypoints: int,
    device: str = "auto",
    seed: int = 0,
    weights: Path | None = None,
    download: bool = False,
    scales: Sequence[float] = (),
) -> Extractor:
    """Build an extractor by name; the one moment its weights are looked for."""
    build = _load(name, EXTRACTORS, "extractor")
    if scales and name not in WITH_SCALES:
        raise OptionError(
            f"--scales: {name} has its own; it is for {', '.join(WITH_SCALES)}"
        )
    extractor: Extractor = build(
        max_keypoints=max_keypoints,
        device=choose_device(device),
        seed=seed,
        weights=weights,
        download=download,
        **({"scales": scales} if scales else {}),
    )
    return extractor


def build_matcher(name: str, *, device: str = "auto", **options: Any) -> Matcher:
    """Build a matcher by name with its own options."""
    matcher: Matcher = _load(name, MATCHERS, "matcher")(
        device=choose_device(device), **options
    )
    return matcher


def choose_device(device: str) -> str:
    """Resolve `auto` to a GPU if there is one; refuse a device that is not there."""
    import torch  # only now: listing names must not load it

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise OptionError(
            f"--device {device}: cannot be used ({reason}); use cpu, cuda or auto"
        ) from error
    return device


def hash_weights(extractor: str, weights: Path | None) -> str:
    """Return the SHA-256 of the weights in use, or nothing for a method without."""
    name = _SAME_WEIGHTS.get(extractor, extractor)
    bundled = Path(__file__).with_name("weights") / f"{name}.safetensors"
    path = weights or (bundled if bundled.is_file() else None)
    if path is None:
        return ""
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; give the weights with --weights")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_choice(value: str, choices: Iterable[str], what: str) -> str:
    """Return the value if it is one of the choices; else raise, naming them."""
    names = sorted(choices)
    if value not in names:
        close = difflib.get_close_matches(value, names, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise OptionError(
            f"no {what} is named {value!r}{hint}; choose from {', '.join(names)}"
        )
    return value


def _load(name: str, table: Mapping[str, str], what: str) -> Any:
    module, _, attribute = table[check_choice(name, table, what)].partition(":")
    return getattr(import_module(module), attribute)
