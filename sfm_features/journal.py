"""A file whose writes reach the disk in all-or-nothing commits.

HDF5 updates its indices in place, so a process killed in the middle of a flush can
leave a file that nobody can open. Here the overwritten parts of a commit go to a
journal beside the file first: after a kill the journal is either whole, and is
replayed, or cut off, and is dropped. Parts beyond the old end of the file need no
journal, because nothing points to them before the commit.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from sfm_features.errors import BusyStore, OutputError

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows has no flock; two writers are not detected there
    fcntl = None

_MAGIC = b"SFMJRNL2"
_HEADER = struct.Struct("<8s4Q")
"""Magic, the least and the largest file that it is for, new size, number of extents."""
_EXTENT = struct.Struct("<QQ")  # offset, length
_FOOTER = struct.Struct("<I")  # CRC-32 of everything before it

LOCK = ".lock"
"""The file in an output folder that a run holds as long as it works there."""

_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_SPACE = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}


@contextlib.contextmanager
def explain_os_errors(path: Path) -> Iterator[None]:
    """Turn the disk's refusals into errors with a remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in _NOT_WRITABLE:
            raise OutputError(
                f"{path}: cannot be written ({error.strerror}); choose another "
                "--output or change the permissions"
            ) from error
        if error.errno in _NO_SPACE:
            raise OutputError(
                f"{path}: no space left ({error.strerror}); free some space and run "
                "the same command again, it continues where it stopped"
            ) from error
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            raise OutputError(
                f"{path}: its folder does not exist or is not a folder; create it "
                "or choose another --output"
            ) from error
        if isinstance(error, IsADirectoryError):
            raise OutputError(
                f"{path}: is a folder, not a file; choose another --output"
            ) from error
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error}); check the disk, "
            "or choose another --output"
        ) from error


@contextlib.contextmanager
def hold_interrupts() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait until the end.

    Python may run a signal's handler where HDF5 calls back into a JournaledFile: an
    exception from there leaves HDF5 in the middle of a change that it cannot finish.
    Or where h5py's weak references die: an exception from there is lost.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python delivers signals to the main thread only
        return
    held: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: held.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if held:
            signal.raise_signal(held[0])


def journal_path(path: Path) -> Path:
    """Name the journal of a file."""
    return path.with_name(path.name + ".journal")


def replace_text(path: Path, text: str) -> None:
    """Write a text file that is there whole or, when stopped, as it was before."""
    part = path.with_name(f".{path.name}.part")
    with explain_os_errors(path):
        # Names of files need not be valid text.
        part.write_text(text, encoding="utf-8", errors="replace")
        part.replace(path)


@contextlib.contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Make a folder and hold it for oneself; raise BusyStore if another process does.

    The file that is locked stays: two could hold one that may be deleted.
    """
    with explain_os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        held = (folder / LOCK).open("ab", buffering=0)
    with held:
        _lock(held, folder)
        yield


class JournaledFile(io.RawIOBase):
    """A random-access file for one writer; `commit` makes its writes permanent."""

    def __init__(self, path: Path, anew: bool = False) -> None:
        self._path = path
        self._position = 0
        self._has_failed = False
        self._extents: list[tuple[int, bytearray]] = []
        with explain_os_errors(path):
            if not path.exists():
                path.touch()  # on a file that is there it would change the time
            self._file = path.open("r+b", buffering=0)
            try:
                _lock(self._file, path)
                if anew:  # only now that nobody else is writing it
                    journal_path(path).unlink(missing_ok=True)
                    self._file.truncate(0)
                _replay_journal(self._file, path)
                self._size = self._committed_size = path.stat().st_size
            except BaseException:
                self._file.close()
                raise

    @property
    def is_new(self) -> bool:
        """Whether nothing has ever been committed."""
        return self._committed_size == 0

    def commit(self) -> None:
        """Make everything written so far permanent, or nothing of it.

        After a commit that failed, later ones do nothing: HDF5 believes that the lost
        writes are on the disk, and what it writes next would not fit what is there.
        """
        if self._has_failed:
            return
        changes = self._list_changes()
        self._extents.clear()
        if not changes and self._size == self._committed_size:
            return
        self._has_failed = True
        with explain_os_errors(self._path):
            overwrites = []
            for offset, data in changes:
                # Half of a first commit would be a broken file: journal all of it.
                if offset < self._committed_size or self.is_new:
                    overwrites.append((offset, data))
                else:
                    _write_at(self._file, offset, data)
            os.fsync(self._file.fileno())
            journal = journal_path(self._path)
            on_disk = os.fstat(self._file.fileno()).st_size
            least = min(self._committed_size, self._size)
            sizes = least, max(on_disk, self._size), self._size
            _write_journal(journal, sizes, overwrites)
            _apply(self._file, self._size, overwrites)
            journal.unlink()
        self._has_failed = False
        self._committed_size = self._size

    def _list_changes(self) -> list[tuple[int, bytearray]]:
        """Leave out what is on the disk already: HDF5 rewrites headers on every close.

        But not what an extent before it overwrites with something else.
        """
        kept: list[tuple[int, bytearray]] = []
        for offset, data in self._extents:
            end = offset + len(data)
            if not self._is_stored(offset, data) or any(
                offset < start + len(before) and start < end for start, before in kept
            ):
                kept.append((offset, data))
        return kept

    def _is_stored(self, offset: int, data: bytearray) -> bool:
        if offset + len(data) > self._committed_size:
            return False
        self._file.seek(offset)
        return self._file.read(len(data)) == data

    def close(self) -> None:
        """Close without committing; what was not committed is dropped."""
        self._file.close()
        super().close()

    # ---- what HDF5's file-object driver asks for

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}
        self._position = base[whence] + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed names Buffer, which Python 3.10 lacks
        start = self._position
        count = max(0, min(len(buffer), self._size - start))
        self._file.seek(start)
        view = memoryview(buffer)
        stored = self._file.readinto(view[:count]) or 0
        view[stored:count] = bytes(count - stored)
        for offset, data in self._extents:
            first, last = max(offset, start), min(offset + len(data), start + count)
            if first < last:
                part = data[first - offset : last - offset]
                view[first - start : last - start] = part
        self._position += count
        return count

    def write(self, data: memoryview) -> int:  # type: ignore[override]  # as above
        # An extent never straddles the old end: one side is journaled, the other not.
        old_end = self._committed_size
        cut = min(max(old_end - self._position, 0), len(data))
        for part in (data[:cut], data[cut:]):
            if len(part):
                self._add(self._position, part, old_end)
            self._position += len(part)
        self._size = max(self._size, self._position)
        return len(data)

    def _add(self, offset: int, data: memoryview, old_end: int) -> None:
        if self._extents and offset != old_end:
            last_offset, last = self._extents[-1]
            if last_offset + len(last) == offset:
                last.extend(data)
                return
        self._extents.append((offset, bytearray(data)))

    def truncate(self, size: int | None = None) -> int:
        self._size = self._position if size is None else size
        return self._size

    def flush(self) -> None:
        """Do nothing: HDF5 flushes far more often than we commit."""


def recover(path: Path) -> None:
    """Finish the commit that a killed writer left behind, if there is one."""
    if journal_path(path).exists():
        JournaledFile(path).close()


def _lock(file: io.FileIO, path: Path) -> None:
    """Hold a file for oneself until it is closed; raise BusyStore if another does."""
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BusyStore(
            f"{path}: another process is using it; wait for it to end, or choose "
            "another --output"
        ) from error
    except OSError:
        return  # a network disk without locks: nothing to hold on to


def _write_at(file: io.FileIO, offset: int, data: bytes | bytearray) -> None:
    file.seek(offset)
    view = memoryview(data)
    while view:  # an unbuffered file may take less than all at once
        view = view[file.write(view) :]


def _write_journal(
    journal: Path, sizes: tuple[int, int, int], extents: list[tuple[int, bytearray]]
) -> None:
    table = b"".join(_EXTENT.pack(offset, len(data)) for offset, data in extents)
    header = _HEADER.pack(_MAGIC, *sizes, len(extents))
    body = header + table + b"".join(data for _, data in extents)
    with journal.open("wb") as file:
        file.write(body + _FOOTER.pack(zlib.crc32(body)))
        file.flush()
        os.fsync(file.fileno())


def _apply(file: io.FileIO, size: int, extents: list[tuple[int, bytearray]]) -> None:
    for offset, data in extents:
        _write_at(file, offset, data)
    file.truncate(size)
    os.fsync(file.fileno())


def _replay_journal(file: io.FileIO, path: Path) -> None:
    journal = journal_path(path)
    if not journal.exists():
        return
    commit = _parse_journal(journal.read_bytes())
    if commit is not None:
        (least, most, size), extents = commit
        # Somebody may have deleted the file, or put another in its place.
        if least <= os.fstat(file.fileno()).st_size <= most:
            _apply(file, size, extents)
    journal.unlink()


def _parse_journal(
    body: bytes,
) -> tuple[tuple[int, int, int], list[tuple[int, bytearray]]] | None:
    """Read a journal, or None when it was cut off while being written."""
    if len(body) < _HEADER.size + _FOOTER.size:
        return None
    content, footer = body[: -_FOOTER.size], body[-_FOOTER.size :]
    if _FOOTER.pack(zlib.crc32(content)) != footer:
        return None
    magic, least, most, size, count = _HEADER.unpack_from(content)
    if magic != _MAGIC:
        return None
    extents, data_at = [], _HEADER.size + count * _EXTENT.size
    for index in range(count):
        offset, length = _EXTENT.unpack_from(
            content, _HEADER.size + index * _EXTENT.size
        )
        extents.append((offset, bytearray(content[data_at : data_at + length])))
        data_at += length
    return (least, most, size), extents
