"""Work done in threads, a bounded number of items ahead, handed over in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Done = TypeVar("Done")


def run_ahead(
    work: Callable[[Item], Done],
    items: Iterable[Item],
    workers: int,
    ahead: int,
    prepare: Callable[[], None] | None = None,
) -> Iterator[tuple[Item, Future[Done]]]:
    """Work on items side by side; yield each with what came of it, in their order.

    At most `ahead` items wait beyond those in work; `prepare` is called once in each
    thread. Whoever stops to listen stops the work.
    """
    waiting: deque[tuple[Item, Future[Done]]] = deque()
    upcoming = iter(items)
    pool = ThreadPoolExecutor(workers, "ahead", prepare or (lambda: None))
    try:
        while True:
            while len(waiting) < workers + ahead:
                # One at a time, as the items may be long in coming.
                item = next(upcoming, None)
                if item is None:
                    break
                waiting.append((item, pool.submit(work, item)))
            if not waiting:
                return
            item, future = waiting.popleft()
            yield item, future
    finally:
        pool.shutdown(cancel_futures=True)
