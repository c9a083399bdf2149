"""Weights files: safetensors with a card beside them, read strictly, without pickle.

The card NAME.json says what NAME.safetensors is and holds its SHA-256. It is written
last: weights without a card, or beside the card of others, are refused, so whatever
moment a write is cut off at, nothing is loaded that the card does not describe.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from sfm_features.errors import OutputError, WeightsError
from sfm_features.nets.dense import DenseNet
from sfm_features.nets.evo import EvoNet
from sfm_features.nets.sekd import SekdNet

ARCHITECTURES: Mapping[str, type[DenseNet]] = {"evo": EvoNet, "sekd": SekdNet}
BUNDLED_NETS: Mapping[str, str] = {"evo": "evo", "evo-object": "evo", "sekd": "sekd"}
"""Names of the weights that come with the package, and their architectures."""
BUNDLED = Path(__file__).parents[1] / "weights"
_MAX_DIFFERENCES = 3


@dataclass(frozen=True)
class Card:
    """What weights are and where they come from."""

    architecture: str
    config: Mapping[str, bool] = field(default_factory=dict)
    sha256: str = ""
    data: str = ""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    commit: str = ""
    seeds: list[int] = field(default_factory=list)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    licence: str = "Apache-2.0"


def build_net(architecture: str, config: Mapping[str, bool] | None = None) -> DenseNet:
    """Build a network with random weights by the name of its architecture."""
    return ARCHITECTURES[architecture](**(config or {}))


def name_architecture(net: DenseNet) -> str:
    """Return the name that a network's architecture has in cards."""
    return next(name for name, kind in ARCHITECTURES.items() if type(net) is kind)


def find_bundled(name: str) -> Path:
    """Find the weights that come with the package."""
    path = BUNDLED / f"{name}.safetensors"
    if not path.is_file():
        raise WeightsError(
            f"{name}: the package has no weights of it yet; give --weights FILE, or "
            f"train some with `sfm-features train PHOTOS --output RUN "
            f"--net {BUNDLED_NETS.get(name, name)}`"
        )
    return path


def save_weights(net: DenseNet, path: Path, card: Card) -> Card:
    """Write weights and their card, each whole or not at all; return the card."""
    architecture = name_architecture(net)
    card = replace(card, architecture=architecture, config=dict(net.config))
    return write_tensors(net.state_dict(), path, card)


def load_weights(path: Path, architecture: str | None = None) -> tuple[DenseNet, Card]:
    """Build the network that a weights file is of, and fill it; every name must fit.

    architecture is the one that is wanted, if only one will do.
    """
    tensors, card = read_tensors(path, architecture)
    net = _build_from_card(path, card)
    check_tensors(path, card.architecture, net.state_dict(), tensors)
    net.load_state_dict(tensors, strict=True)
    return net.eval(), card


def write_tensors(tensors: Mapping[str, Tensor], path: Path, card: Card) -> Card:
    """Write tensors and their card, each whole or not at all; return the card."""
    stored = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    content = safetensors.torch.save(stored)
    card = replace(card, sha256=hashlib.sha256(content).hexdigest())
    text = json.dumps(asdict(card), indent=2, allow_nan=False) + "\n"
    _write_whole(path, content)
    _write_whole(_place_card(path), text.encode())
    return card


def read_tensors(
    path: Path, architecture: str | None = None
) -> tuple[dict[str, Tensor], Card]:
    """Read the tensors that a card describes, of the architecture that is wanted."""
    card = read_card(path)
    if architecture is not None and card.architecture != architecture:
        raise WeightsError(
            f"{path}: holds weights of {card.architecture}, not of {architecture}; "
            f"give a file of {architecture}"
        )
    return _read_tensors(path, card), card


def read_card(path: Path) -> Card:
    """Read the card beside a weights file."""
    if not path.is_file():
        raise WeightsError(
            f"{path}: no such file; give a file of weights, or where a name will do, "
            f"{', '.join(BUNDLED_NETS)}"
        )
    beside = _place_card(path)
    try:
        content = json.loads(beside.read_text(encoding="utf-8"))
        card = Card(**content)
    except FileNotFoundError:
        raise WeightsError(
            f"{path}: its card {beside.name} is not beside it; copy both files"
        ) from None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        reason = _shorten(error)
        raise WeightsError(
            f"{beside}: cannot be read as a card ({reason}); fetch both files again"
        ) from error
    for name, kind in (("architecture", str), ("config", dict), ("sha256", str)):
        if not isinstance(getattr(card, name), kind):
            raise WeightsError(
                f"{beside}: {name} is not a {kind.__name__}; fetch both files again"
            )
    return card


def _build_from_card(path: Path, card: Card) -> DenseNet:
    kind = ARCHITECTURES.get(card.architecture)
    if kind is None:
        raise WeightsError(
            f"{path}: its architecture {card.architecture!r} is unknown to this "
            f"version, which has {', '.join(ARCHITECTURES)}; update the package"
        )
    known = {key: type(value) for key, value in kind().config.items()}
    if {key: type(value) for key, value in card.config.items()} != known:
        raise WeightsError(
            f"{path}: its card's config {dict(card.config)} is not one of "
            f"{card.architecture}; fetch both files again, or update the package"
        )
    return build_net(card.architecture, card.config)


def _read_tensors(path: Path, card: Card) -> dict[str, Tensor]:
    # What is hashed is what is read, even if the file changes meanwhile.
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(
            f"{path}: cannot be read ({error.strerror}); check its permissions"
        ) from error
    if hashlib.sha256(content).hexdigest() != card.sha256:
        raise WeightsError(
            f"{path}: is cut off, changed, or not the file that its card describes "
            "(SHA-256 differs); fetch both files again"
        )
    try:
        return safetensors.torch.load(content)
    except Exception as error:  # damaged bytes raise several kinds
        reason = _shorten(error)
        raise WeightsError(
            f"{path}: cannot be read as safetensors ({reason}); fetch it again"
        ) from error


def check_tensors(
    path: Path,
    architecture: str,
    expected: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
) -> None:
    """Refuse tensors that are missing, unknown, of another shape, or not finite."""
    wrong = [f"{name} is missing" for name in expected if name not in found]
    for name, tensor in found.items():
        if name not in expected:
            wrong.append(f"{name} is unknown")
        elif tensor.shape != expected[name].shape:
            shapes = tuple(tensor.shape), tuple(expected[name].shape)
            wrong.append(f"{name} is {shapes[0]} instead of {shapes[1]}")
        elif tensor.dtype != expected[name].dtype:
            wrong.append(f"{name} is {tensor.dtype} instead of {expected[name].dtype}")
        elif not torch.isfinite(tensor).all():
            wrong.append(f"{name} holds values that are not finite")
    if wrong:
        more = len(wrong) - _MAX_DIFFERENCES
        shown = ", ".join(wrong[:_MAX_DIFFERENCES])
        raise WeightsError(
            f"{path}: does not fit {architecture}: {shown}"
            f"{f' and {more} more' if more > 0 else ''}; give the file of this network"
        )


def _shorten(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _place_card(path: Path) -> Path:
    return path.with_suffix(".json")


def _write_whole(path: Path, content: bytes) -> None:
    """Write beside the file, then put it in its place."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror}); free some space, or "
            "write elsewhere"
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)
