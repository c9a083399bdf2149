"""Weights for kornia's networks: found, read without pickle, loaded strictly.

What the user gives and what kornia downloads take the same road, so a downloaded file
is no more trusted than any other.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kornia.core.download
import safetensors.torch
import torch
from torch import Tensor, nn

from sfm_features.errors import WeightsError

_log = logging.getLogger(__name__)
_WRAPPERS = ("state_dict", "extractor")  # how published files nest their tensors
_MAX_DIFFERENCES = 3


@dataclass(frozen=True)
class Part:
    """A published file and the submodule of the network that it fills.

    module is the submodule's dotted name, "" for the whole network; constants are its
    buffers that never change and that the file leaves out.
    """

    module: str
    file_name: str
    urls: Sequence[str]
    constants: Sequence[str] = ()


def find_weights(
    parts: Sequence[Part], *, method: str, weights: Path | None, download: bool
) -> list[tuple[Part, Path]]:
    """Find the user's files or else kornia's download; fail before anything is built.

    `weights` is one published file, with the other parts beside it under their names,
    or one file with the whole network.
    """
    names = " and ".join(part.file_name for part in parts)
    if weights is None and not download:
        raise WeightsError(
            f"{method}: no weights, and the package ships none of this network; give "
            f"{names} with --weights FILE ({parts[0].urls[0]}), or let kornia fetch "
            "them with --download"
        )
    if weights is None:
        return [(part, _download(part, method)) for part in parts]
    if len(parts) == 1:
        found = [(parts[0], weights)]
    elif weights.name in {part.file_name for part in parts}:
        found = [(part, weights.parent / part.file_name) for part in parts]
    else:
        found = [(Part(module="", file_name=names, urls=()), weights)]
    for _, path in found:
        if not path.is_file():
            raise WeightsError(
                f"{path}: no such file; {method} takes {names} with --weights FILE"
            )
    return found


def load_weights(
    net: nn.Module, found: Sequence[tuple[Part, Path]], *, method: str
) -> None:
    """Fill a network from the files found for it."""
    for part, path in found:
        _load_strictly(net.get_submodule(part.module), part, path, method)
        _log.info("%s: weights from %s", method, path)


def _download(part: Part, method: str) -> Path:
    """Fetch a file into kornia's cache, or find it there."""
    try:
        with warnings.catch_warnings():
            # kornia warns about each dead mirror; the last failure is in our error.
            warnings.simplefilter("ignore", UserWarning)
            path = kornia.core.download.download_file_from_url(
                list(part.urls), file_name=part.file_name
            )
    except (OSError, RuntimeError, ValueError) as error:
        raise WeightsError(
            f"{method}: {part.file_name} could not be downloaded ({_shorten(error)}); "
            f"connect to the network, or fetch it elsewhere from {part.urls[-1]} and "
            "give it with --weights FILE"
        ) from error
    return Path(path)


def _load_strictly(module: nn.Module, part: Part, path: Path, method: str) -> None:
    """Copy a file's tensors into a module; every name and shape must agree."""
    expected = module.state_dict()
    found = _read_tensors(path)
    for name in part.constants:
        found.setdefault(name, expected[name])
    try:
        module.load_state_dict(found, strict=True)
    except RuntimeError as error:
        differences = _list_differences(expected, found) or [_shorten(error)]
        more = len(differences) - _MAX_DIFFERENCES
        shown = ", ".join(differences[:_MAX_DIFFERENCES])
        raise WeightsError(
            f"{path}: not the weights of {method} that {part.file_name} holds: {shown}"
            f"{f' and {more} more' if more > 0 else ''}; give the file of this network"
        ) from error


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """Read names and tensors from a safetensors or PyTorch file, without pickle."""
    if not path.is_file():
        raise WeightsError(
            f"{path}: no such file; give the weights with --weights FILE"
        )
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make torch raise a dozen kinds
        raise WeightsError(
            f"{path}: cannot be read as weights ({_shorten(error)}); it is cut off or "
            "of another format, fetch it again"
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(
        isinstance(value, Tensor) for value in content.values()
    ):
        raise WeightsError(
            f"{path}: holds no plain table of tensors; give the file of this network"
        )
    return dict(content)


def _list_differences(
    expected: dict[str, Tensor], found: dict[str, Tensor]
) -> list[str]:
    """Say where names or shapes disagree, in the network's order."""
    differences = []
    for name, tensor in expected.items():
        if name not in found:
            differences.append(f"{name} is missing")
        elif found[name].shape != tensor.shape:
            shapes = tuple(found[name].shape), tuple(tensor.shape)
            differences.append(f"{name} is {shapes[0]} instead of {shapes[1]}")
    extra = [f"{name} is unknown" for name in found if name not in expected]
    return differences + extra


def _shorten(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
