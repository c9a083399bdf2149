"""What was read most recently, up to a number of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """Reads by name and keeps what was asked for last; what is oldest goes first."""

    def __init__(
        self, read: Callable[[str], T], weigh: Callable[[T], int], most_bytes: int
    ) -> None:
        self._read, self._weigh, self._most_bytes = read, weigh, most_bytes
        self._kept: OrderedDict[str, T] = OrderedDict()
        self._bytes = 0

    def __call__(self, name: str) -> T:
        if name in self._kept:
            self._kept.move_to_end(name)
            return self._kept[name]
        found = self._kept[name] = self._read(name)
        self._bytes += self._weigh(found)
        while self._bytes > self._most_bytes and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= self._weigh(dropped)
        return found
