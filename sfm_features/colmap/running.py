"""Running COLMAP's long calls so that they show progress and can be stopped."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Generic, TypeVar

import pycolmap
from tqdm import tqdm

from sfm_features.colmap.logs import forward_logs
from sfm_features.errors import Cancelled, OutputError

log = logging.getLogger(__name__)

T = TypeVar("T")
_TICK_S = 0.1
_LOOKING_SHARE = 20
"""To count a million rows takes long: wait so many times as long before the next."""
_PATIENCE_S = 5.0
"""How long to wait for work that was told to stop and that nobody waits for."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Cancellation:
    """A request to stop, which any thread or signal handler may make."""

    def __init__(self) -> None:
        self.token = pycolmap.CancellationToken()

    def cancel(self) -> None:
        """Ask the running work to stop as soon as it can leave things whole."""
        self.token.cancel()

    @property
    def is_cancelled(self) -> bool:
        """Whether a stop was asked for."""
        return self.token.is_cancelled


@contextmanager
def cancel_on_signals() -> Iterator[Cancellation]:
    """Turn the first SIGINT or SIGTERM into a cancellation; a second acts as usual.

    A signal that is ignored, as Ctrl-C is in a shell's background jobs, stays so.
    """
    cancellation = Cancellation()
    if threading.current_thread() is not threading.main_thread():
        yield cancellation  # Python delivers signals to the main thread only
        return
    before = {
        number: handler
        for number in _SIGNALS
        if (handler := signal.getsignal(number)) is not signal.SIG_IGN
    }

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def stop(number: int, frame: FrameType | None) -> None:
        restore()
        log.warning("stopping; what is done is kept (once more: stop at once)")
        cancellation.cancel()

    for number in before:
        signal.signal(number, stop)
    try:
        yield cancellation
    finally:
        restore()


def run_with_progress(
    work: Callable[[], T],
    description: str,
    cancellation: Cancellation,
    total: int | None = None,
    count: Callable[[], int] | None = None,
    stoppable: bool = True,
) -> T:
    """Run `work` in a thread, with a bar that follows `count`.

    Python handles signals only between its own instructions in the main thread, so the
    main thread must not sit inside COLMAP. `stoppable`: the work heeds the token.
    Raises Cancelled if it was stopped.
    """
    if cancellation.is_cancelled:
        raise Cancelled("stopped on request, before it began")
    if any(job.is_alive() for job in _abandoned):
        raise OutputError(
            "COLMAP still ends what was stopped before; wait a little, or start anew"
        )
    job = _Job(work)
    taken_s = 0.0
    layout = None if total is not None else "{desc} [{elapsed}]"
    bar = tqdm(total=total, desc=description, unit="", bar_format=layout)
    with forward_logs(), bar:
        job.start()
        try:
            while job.is_alive():
                job.join(max(_TICK_S, _LOOKING_SHARE * taken_s))
                start = time.perf_counter()
                _move(bar, total, count)
                taken_s = time.perf_counter() - start
        except BaseException:
            cancellation.cancel()
            if stoppable:
                job.join(_PATIENCE_S)
            _abandoned.append(job)
            raise
    return job.result()


_abandoned: list[threading.Thread] = []
"""Jobs that were left to end by themselves: they may still write."""


class _Job(threading.Thread, Generic[T]):
    """A thread with a result. A daemon, so that a stuck one cannot hold up the exit."""

    def __init__(self, work: Callable[[], T]) -> None:
        super().__init__(daemon=True, name="colmap")
        self._work = work
        self._results: list[T] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._results.append(self._work())
        except BaseException as error:  # handed to the waiting thread
            self._error = error

    def result(self) -> T:
        if isinstance(self._error, InterruptedError):
            raise Cancelled("stopped on request") from self._error
        if self._error is not None:
            raise self._error
        return self._results[0]


def _move(bar: tqdm, total: int | None, count: Callable[[], int] | None) -> None:
    if total is not None and count is not None:
        bar.n = min(count(), total)
    bar.refresh()
