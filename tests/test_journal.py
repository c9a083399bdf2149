"""A journaled file holds all of a commit or nothing of it, wherever it is cut."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sfm_features import journal
from sfm_features.errors import BusyStore, OutputError
from sfm_features.journal import (
    JournaledFile,
    hold_interrupts,
    journal_path,
    recover,
    replace_text,
)


class Killed(BaseException):
    """Stands for the process ending between two system calls."""


def write_at(file: JournaledFile, offset: int, data: bytes) -> None:
    file.seek(offset)
    file.write(memoryview(data))


def test_reads_what_was_written_before_and_after_the_commit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    mirror = bytearray()
    file = JournaledFile(tmp_path / "f")
    for step in range(300):
        offset = int(rng.integers(0, len(mirror) + 50))
        data = rng.bytes(int(rng.integers(1, 90)))
        mirror.extend(bytes(max(0, offset + len(data) - len(mirror))))
        mirror[offset : offset + len(data)] = data
        write_at(file, offset, data)
        file.seek(0)
        assert file.read(len(mirror) + 9) == mirror
        if step % 7 == 0:
            file.commit()
            assert (tmp_path / "f").read_bytes() == mirror
    file.commit()
    file.close()
    assert (tmp_path / "f").read_bytes() == mirror


def test_what_is_changed_and_changed_back_is_as_it_was(tmp_path: Path) -> None:
    """Within a commit, that is: the last write counts, though it says nothing new."""
    file = JournaledFile(tmp_path / "f")
    write_at(file, 0, b"A" * 16)
    file.commit()
    write_at(file, 4, b"X" * 8)
    write_at(file, 2, b"A" * 6)
    file.commit()
    assert (tmp_path / "f").read_bytes() == b"AAAAAAAAXXXXAAAA"
    file.close()


def test_closing_without_commit_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"before")
    file = JournaledFile(path)
    write_at(file, 0, b"AFTER and more")
    file.close()
    assert path.read_bytes() == b"before"


@pytest.mark.parametrize("is_new", [True, False])
def test_a_kill_at_any_system_call_leaves_old_or_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_new: bool
) -> None:
    """Stop after each write, truncation, sync and deletion of a commit in turn."""
    old = b"" if is_new else bytes(range(100))
    outcomes = set()
    for stop_after in range(60):
        path = tmp_path / f"{is_new}{stop_after}"
        path.write_bytes(old)
        file = JournaledFile(path)
        write_at(file, 10, b"overwritten inside")
        write_at(file, 95, b"straddles the old end")
        write_at(file, 116, b"appended")
        file.seek(0)
        new = file.read(1000)
        calls = 0

        def count(call, stop=stop_after):  # type: ignore[no-untyped-def]
            def counted(*args, **options):  # type: ignore[no-untyped-def]
                nonlocal calls
                calls += 1
                if calls > stop:
                    raise Killed
                return call(*args, **options)

            return counted

        finished = False
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(os, "fsync", count(os.fsync))
            patch.setattr(Path, "unlink", count(Path.unlink))
            patch.setattr(Path, "open", count(Path.open))
            patch.setattr(
                "sfm_features.journal._write_at",
                count(
                    lambda f, o, d: (
                        f.seek(o),
                        f.write(bytes(d[: len(d) // 2])),
                        f.seek(o),
                        f.write(d),
                    )
                ),
            )
            file.commit()
            finished = True
            raise Killed
        file.close()
        recover(path)
        content = path.read_bytes()
        assert not journal_path(path).exists()
        # Bytes beyond the old end do no harm: nothing points to them yet. A new file
        # has no old end, and is whole or empty.
        kept = content[: len(old)] if old else content
        assert content == new or kept == old
        outcomes.add(content == new)
        if finished:
            break
    assert outcomes == {True, False}


def test_a_commit_is_on_the_disk_before_what_relies_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a loss of power only what was synced is sure to be there."""
    path, calls = tmp_path / "f", list[str]()
    path.write_bytes(bytes(50))
    file = JournaledFile(path)
    write_at(file, 5, b"inside")
    write_at(file, 50, b"appended")
    inode = path.stat().st_ino

    def note(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any, **options: Any) -> Any:
            of = ""
            if name == "sync":
                is_file = os.fstat(arguments[0]).st_ino == inode
                of = " file" if is_file else " journal"
            calls.append(name + of)
            return call(*arguments, **options)

        return noted

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", note("sync", os.fsync))
        patch.setattr(journal, "_write_at", note("write", journal._write_at))
        write_journal = note("write journal", journal._write_journal)
        patch.setattr(journal, "_write_journal", write_journal)
        patch.setattr(Path, "unlink", note("unlink", Path.unlink))
        file.commit()
    file.close()
    assert calls == [
        "write", "sync file", "write journal", "sync journal", "write", "sync file",
        "unlink",
    ]  # fmt: skip


def test_a_cut_journal_is_dropped_and_a_whole_one_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(50))
    file = JournaledFile(path)
    write_at(file, 5, b"hello")
    written: list[bytes] = []
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda self: written.append(self.read_bytes()))
        file.commit()
    file.close()
    (journal,) = written
    for length in range(len(journal) + 1):
        path.write_bytes(bytes(50))
        journal_path(path).write_bytes(journal[:length])
        recover(path)
        expected = b"hello" if length == len(journal) else bytes(5)
        assert path.read_bytes()[5:10] == expected, length


@pytest.mark.parametrize("now", [b"", bytes(range(20)), bytes(range(99))])
def test_a_journal_of_another_file_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now: bytes
) -> None:
    """Killed in a commit, then the file was deleted, or another put in its place."""
    path = tmp_path / "f"
    path.write_bytes(bytes(50))
    file = JournaledFile(path)
    write_at(file, 5, b"hello")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "unlink", _kill)
        file.commit()
    file.close()
    assert journal_path(path).exists()
    path.unlink()
    path.write_bytes(now)
    recover(path)
    assert path.read_bytes() == now and not journal_path(path).exists()


def _kill(_: Path) -> None:
    raise Killed


def test_after_a_full_disk_the_file_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"before")
    file = JournaledFile(path)
    write_at(file, 0, b"after!")
    with monkeypatch.context() as patch:

        def refuse(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr("sfm_features.journal._write_journal", refuse)
        with pytest.raises(OutputError, match="free some space and run the same"):
            file.commit()
    write_at(file, 2, b"xx")  # there is space again, but the first write is lost
    file.commit()
    file.close()
    assert path.read_bytes() == b"before"


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    file = JournaledFile(tmp_path / "f")
    with pytest.raises(BusyStore, match="another process"):
        JournaledFile(tmp_path / "f")
    file.close()
    JournaledFile(tmp_path / "f").close()


def test_a_file_that_is_begun_anew_has_no_journal_of_the_old(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"before")
    journal_path(tmp_path / "f").write_bytes(b"of it")
    file = JournaledFile(tmp_path / "f")
    with pytest.raises(BusyStore):
        JournaledFile(tmp_path / "f", anew=True)
    file.close()
    assert (tmp_path / "f").read_bytes() == b"before"
    journal_path(tmp_path / "f").write_bytes(b"of it")
    file = JournaledFile(tmp_path / "f", anew=True)
    assert file.is_new and not journal_path(tmp_path / "f").exists()
    file.close()


def test_an_absent_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="folder does not exist"):
        JournaledFile(tmp_path / "no" / "f")


def test_a_text_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "poses.txt"
    replace_text(path, "before\n")

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "replace", kill)
        replace_text(path, "after\n")
    assert path.read_text() == "before\n"
    replace_text(path, "after\n")
    assert path.read_text() == "after\n"
    assert [p.name for p in tmp_path.iterdir()] == ["poses.txt"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_waits_but_is_not_lost(number: int) -> None:
    seen: list[str] = []
    before = signal.signal(number, lambda *_: seen.append("stop"))
    try:
        with hold_interrupts():
            signal.raise_signal(number)
            seen.append("written")
        assert seen == ["written", "stop"]
    finally:
        signal.signal(number, before)
