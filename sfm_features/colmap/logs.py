"""COLMAP's own log: kept out of the terminal and handed to `logging`."""

from __future__ import annotations

import logging
import re
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pycolmap

log = logging.getLogger("sfm_features.colmap")

_LINE = re.compile(r"([IWEF])\d{8} [\d:.]+ +\d+ ([\w.]+:\d+)\] (.*)")
_LEVELS = {
    "I": logging.DEBUG,
    "W": logging.WARNING,
    "E": logging.ERROR,
    "F": logging.ERROR,
}
_lock = threading.Lock()
_depth = 0


def silence() -> None:
    """Stop COLMAP from writing to the terminal, and to files in /tmp."""
    with _lock:
        if _depth == 0:  # else its log is being forwarded
            _mute()


def _mute() -> None:
    glog = pycolmap.logging
    glog.alsologtostderr = False
    glog.logtostderr = False
    glog.stderrthreshold = int(glog.FATAL)
    glog.minloglevel = int(glog.FATAL)
    for level in (glog.INFO, glog.WARNING, glog.ERROR, glog.FATAL):
        glog.set_log_destination(level, "")


@contextmanager
def forward_logs() -> Iterator[None]:
    """Hand what COLMAP logs meanwhile to `logging`: info as debug, warnings as such."""
    global _depth
    with _lock:
        _depth += 1
        outermost = _depth == 1
    try:
        if outermost:
            with tempfile.TemporaryDirectory(prefix="sfm-features-log-") as folder:
                yield from _forward_from(Path(folder))
        else:
            yield
    finally:
        with _lock:
            _depth -= 1


def _forward_from(folder: Path) -> Iterator[None]:
    glog = pycolmap.logging
    level = glog.INFO if log.isEnabledFor(logging.DEBUG) else glog.WARNING
    _mute()
    glog.minloglevel = int(level)
    glog.set_log_destination(level, folder / "log.")
    try:
        yield
    finally:
        _mute()
        for file in sorted(folder.iterdir()):
            _replay(file.read_text(errors="replace"))


def _replay(text: str) -> None:
    """Log each line; of those from one place in COLMAP's source, only the first."""
    repeats: Counter[str] = Counter()
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        level, place, message = _LEVELS[match[1]], match[2], match[3]
        repeats[place] += 1
        if repeats[place] == 1 or level == logging.DEBUG:
            log.log(level, "COLMAP: %s (%s)", message, place)
    for place, count in repeats.items():
        if count > 1:
            log.debug("COLMAP: %d messages from %s", count, place)
