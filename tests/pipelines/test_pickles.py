"""Pickled arrays are read; what else a pickle may ask for is refused, and not done."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.protocols.pickles import load_arrays
from sfm_features.errors import InputError


def _make_index() -> dict[str, Any]:
    poses = np.empty(3, object)
    poses[0], poses[2] = np.eye(4), np.arange(16.0).reshape(4, 4).T
    paths = np.array(["a/b.jpg", None, "ä.jpg"], object)
    infos = [((np.int64(0), 2), 0.25, np.arange(8, dtype=np.float32).reshape(2, 4))]
    return {
        "poses": poses,
        "image_paths": paths,
        "pair_infos": infos,
        "big_endian": np.arange(3, dtype=">i2"),
        "names": np.array(["x", "yz"]),
        "true": np.array([True, False]),
    }


def _assert_same(found: Any, expected: Any) -> None:
    if isinstance(expected, np.ndarray):
        assert found.shape == expected.shape and found.dtype == expected.dtype
        for one, other in zip(found.ravel(), expected.ravel(), strict=True):
            _assert_same(one, other)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            _assert_same(found[key], expected[key])
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            _assert_same(one, other)
    else:
        assert type(found) is type(expected) and found == expected


@pytest.mark.parametrize("protocol", range(2, 6))
def test_pickled_arrays_come_back(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "index.npz"
    path.write_bytes(pickle.dumps(_make_index(), protocol))
    _assert_same(load_arrays(path), _make_index())


def test_arrays_of_objects_in_a_real_npz_come_back(tmp_path: Path) -> None:
    path, index = tmp_path / "index.npz", _make_index()
    np.savez(path, scene=np.array(index, object), poses=index["poses"], k=np.eye(3))
    found = load_arrays(path)
    _assert_same(found["scene"], index)
    _assert_same(found["poses"], index["poses"])
    _assert_same(found["k"], np.eye(3))


class _Exploit:
    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> Any:
        return self.call, self.arguments


def _exploits(target: Path) -> list[Any]:
    return [
        _Exploit(os.system, f"touch {target}"),
        _Exploit(exec, f"open({str(target)!r}, 'w')"),
        _Exploit(open, str(target), "w"),
        _Exploit(np.save, str(target), [1]),
        _Exploit(__import__, "os"),
    ]


@pytest.mark.parametrize("kind", ["pickle", "npz"])
@pytest.mark.parametrize("which", range(5))
def test_an_exploit_is_refused_and_does_not_run(
    tmp_path: Path, which: int, kind: str
) -> None:
    target, path = tmp_path / "pwned", tmp_path / "index.npz"
    evil = {"image_paths": np.array([_exploits(target)[which]], object)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(evil))
    else:
        np.savez(path, **evil)
    with pytest.raises(InputError, match=r"index\.npz: holds more than arrays.*asks"):
        load_arrays(path)
    assert not target.exists() and list(tmp_path.iterdir()) == [path]
    # The same file does harm where it is trusted: the test would notice.
    if which == 0 and kind == "pickle":
        pickle.loads(path.read_bytes())
        assert target.exists()


def test_damage_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "index.npz"
    whole = pickle.dumps(_make_index())
    broken = [b"", b"nonsense", whole[: len(whole) // 2], pickle.dumps([1, 2])]
    object_type = np.array([1], object).__reduce__()[2][2]
    state = (1, (4,), object_type, False, b"\1" * 32)  # pointers out of thin air
    broken.append(pickle.dumps({"a": _Forged(state)}))
    for content in broken:
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"index\.npz.*download it again"):
            load_arrays(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", b"no array")
    with pytest.raises(InputError, match=r"index\.npz"):
        load_arrays(path)
    with pytest.raises(InputError, match=r"none\.npz"):
        load_arrays(tmp_path / "none.npz")


class _Forged:
    """An array of objects whose objects are bytes: memory that nobody owns."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def __reduce__(self) -> Any:
        return np.ndarray, ((0,),), self.state
