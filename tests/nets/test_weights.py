"""Weights files: what is written is read again, and nothing else is."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from sfm_features.errors import OutputError, WeightsError
from sfm_features.nets import weights
from sfm_features.nets.evo import EvoNet
from sfm_features.nets.sekd import SekdNet
from sfm_features.nets.weights import (
    Card,
    find_bundled,
    load_weights,
    read_card,
    save_weights,
)

CARD = Card("evo", data="made up", recipe={"steps": 3}, seeds=[1], metrics={"a": 0.5})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a good weights file of evo, its card beside it."""
    torch.manual_seed(0)
    path = tmp_path / "some.v2.safetensors"
    save_weights(EvoNet(standardise=False), path, CARD)
    return path


def _change_card(path: Path, **changes: object) -> None:
    beside = path.with_suffix(".json")
    beside.write_text(json.dumps(json.loads(beside.read_text()) | changes))


def _rewrite(path: Path, content: bytes) -> None:
    """Replace a file's bytes as someone would who also corrects the card."""
    path.write_bytes(content)
    _change_card(path, sha256=weights.hashlib.sha256(content).hexdigest())


def _refuse(path: Path, match: str, architecture: str | None = None) -> None:
    with pytest.raises(WeightsError, match=match) as caught:
        load_weights(path, architecture)
    assert "\n" not in str(caught.value)
    assert path.stem in str(caught.value)


def _make_failing_rename(allowed: int) -> Callable[[Path, Path], Path]:
    """Make a Path.replace that works so many times, then finds the disk full."""
    rename, done = Path.replace, []

    def replace(self: Path, target: Path) -> Path:
        if len(done) >= allowed:
            raise OSError(28, "No space left on device")
        done.append(target)
        return rename(self, target)

    return replace


def test_what_was_saved_is_loaded(path: Path) -> None:
    torch.manual_seed(0)
    expected = EvoNet(standardise=False).eval()
    net, card = load_weights(path, "evo")
    assert not net.training and net.config == {"standardise": False}
    grey = torch.rand(1, 1, 32, 32)
    assert (net(grey).logits == expected(grey).logits).all()
    assert card.seeds == [1] and card.metrics == {"a": 0.5} and len(card.sha256) == 64
    assert {p.name for p in path.parent.iterdir()} == {path.name, "some.v2.json"}


def test_the_card_tells_the_network_not_the_caller(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    written = save_weights(SekdNet(), path, CARD)
    assert written.architecture == "sekd" and written.config == {}
    assert isinstance(load_weights(path)[0], SekdNet)
    _refuse(path, "holds weights of sekd, not of evo", "evo")
    assert read_card(path) == written


def test_absent_files(path: Path, tmp_path: Path) -> None:
    _refuse(tmp_path / "nothing.safetensors", "no such file; give.*evo-object")
    _refuse(tmp_path, "no such file")
    path.with_suffix(".json").unlink()
    _refuse(path, "its card some.v2.json is not beside it")
    with pytest.raises(WeightsError, match=r"nonsense: .*no weights of it.*FILE"):
        find_bundled("nonsense")


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: b"",
        lambda content: content + b"\0",
        lambda content: content[:-50] + b"\x01" + content[-49:],
    ],
    ids=["half", "one byte less", "empty", "one byte more", "one byte changed"],
)
def test_cut_and_changed_files(path: Path, damage: Callable[[bytes], bytes]) -> None:
    content = path.read_bytes()
    path.write_bytes(damage(content))
    assert path.read_bytes() != content
    _refuse(path, "is cut off, changed, or not the file")


def test_files_that_are_no_safetensors(path: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'executed'}",)

    whole = path.read_bytes()
    enormous = (2**62).to_bytes(8, "little") + whole[8:]
    for content in (pickle.dumps(Trap()), b"{}", enormous, whole[:9], whole[:-4]):
        _rewrite(path, content)
        _refuse(path, "cannot be read as safetensors")
    assert not (tmp_path / "executed").exists()


def test_tensors_that_do_not_fit(path: Path) -> None:
    good = safetensors.torch.load_file(path)
    name = "detector.weight"
    for changed, match in [
        ({k: v for k, v in good.items() if k != name}, f"{name} is missing"),
        (good | {"extra": torch.zeros(1)}, "extra is unknown"),
        (good | {name: torch.zeros(4, 16, 3, 3)}, r"\(4, 16, 3, 3\) instead of"),
        (good | {name: good[name].half()}, "float16 instead of torch.float32"),
        (good | {name: good[name] * torch.nan}, f"{name} holds values that are not"),
        ({}, "is missing, .* and 100+ more|and [0-9]+ more"),
    ]:
        _rewrite(path, safetensors.torch.save(changed))
        _refuse(path, f"does not fit evo: .*{match}")
    _rewrite(path, safetensors.torch.save(SekdNet().state_dict()))
    _refuse(path, "does not fit evo")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"architecture": "resnet"}, "'resnet' is unknown.*evo, sekd"),
        ({"architecture": ["evo"]}, "architecture is not a str"),
        ({"config": {"standardise": "no"}}, "config .* is not one of evo"),
        ({"config": {"standardise": True, "more": True}}, "config .* is not one of"),
        ({"config": None}, "config is not a dict"),
        ({"sha256": 5}, "sha256 is not a str"),
        ({"unheard": 1}, "cannot be read as a card"),
    ],
)
def test_cards_that_do_not_fit(
    path: Path, changes: dict[str, object], match: str
) -> None:
    _change_card(path, **changes)
    _refuse(path, match)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "5", '{"config": {}}', "\udcff", "[" * 100_000]
)
def test_cards_that_are_none(path: Path, text: str) -> None:
    content = text.encode("utf-8", "surrogateescape")
    path.with_suffix(".json").write_bytes(content)
    _refuse(path, "cannot be read as a card")


def test_a_write_cut_off_leaves_nothing_that_loads_wrongly(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before either rename: the old pair, or a pair that is refused."""
    old = load_weights(path)[0].state_dict()
    for allowed in (0, 1):
        monkeypatch.setattr(Path, "replace", _make_failing_rename(allowed))
        with pytest.raises(OutputError, match="No space left on device"):
            save_weights(EvoNet(), path, CARD)
        monkeypatch.undo()
        assert len(list(path.parent.iterdir())) == 2  # no unfinished file is left
        if allowed == 0:
            now = load_weights(path)[0].state_dict()
            assert all((now[k] == v).all() for k, v in old.items())
        else:
            _refuse(path, "is cut off, changed, or not the file")
    save_weights(EvoNet(), path, CARD)
    load_weights(path)


def test_metrics_that_json_lacks_are_refused(tmp_path: Path) -> None:
    card = Card("evo", metrics={"a": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        save_weights(EvoNet(), tmp_path / "x.safetensors", card)
    assert not list(tmp_path.iterdir())
