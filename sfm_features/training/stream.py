"""Batches made in the background, while a network learns from those before."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count

from torch.utils.data import DataLoader, Dataset

from sfm_features.training.data import Batch, PairSource

_AHEAD = 4
"""Batches that each worker makes before they are asked for."""


def stream_batches(
    source: PairSource, start: int, workers: int = 1
) -> Generator[tuple[int, Batch], None, None]:
    """Yield step numbers from `start` on with their batches, made in the background.

    One worker is a thread, which shares the photos and does for a CPU. More are
    processes where those can share photos, too: threads wait for each other too often
    to keep up with a GPU.
    """
    if workers > 1 and "fork" in multiprocessing.get_all_start_methods():
        return _stream_from_processes(source, start, workers)
    return _stream_from_threads(source, start, workers)


def _stream_from_threads(
    source: PairSource, start: int, workers: int
) -> Generator[tuple[int, Batch], None, None]:
    waiting: deque[Future[Batch]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="batches")
    ahead = _AHEAD * workers
    try:
        for k in range(start, start + ahead):
            waiting.append(pool.submit(source.make_batch, k))
        step = start
        while True:
            batch = waiting.popleft().result()
            waiting.append(pool.submit(source.make_batch, step + ahead))
            yield step, batch
            step += 1
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _stream_from_processes(
    source: PairSource, start: int, workers: int
) -> Generator[tuple[int, Batch], None, None]:
    loader = DataLoader(
        _Batches(source),
        batch_size=None,
        sampler=count(start),
        num_workers=workers,
        prefetch_factor=_AHEAD,
        multiprocessing_context="fork",
    )
    yield from enumerate(loader, start)


class _Batches(Dataset[Batch]):
    """Batches by their number, for torch's loader."""

    def __init__(self, source: PairSource) -> None:
        self.source = source

    def __getitem__(self, k: int) -> Batch:
        return self.source.make_batch(k)
