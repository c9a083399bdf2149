"""Work on a picture's halves: one after the other, or on a core each.

torch wakes its other cores for every little step, which costs more time than it saves
on small maps; here a second core is woken once, for half of the picture.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor

Part = TypeVar("Part")
Run: TypeAlias = Callable[[Callable[[Tensor], Any], Tensor, Tensor], tuple[Any, Any]]
"""Does a piece of work on two halves, one after the other or side by side."""


def run_in_turn(
    work: Callable[[Tensor], Part], a: Tensor, b: Tensor
) -> tuple[Part, Part]:
    return work(a), work(b)


def run_both(work: Callable[[Tensor], Part], a: Tensor, b: Tensor) -> tuple[Part, Part]:
    """Do two halves on a core each: once, where torch would wake it for every step."""
    other = _start_helper().submit(_work_alone, work, b)
    return work(a), other.result()


@contextmanager
def use_one_core() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.inference_mode()
def _work_alone(work: Callable[[Tensor], Part], part: Tensor) -> Part:
    torch.set_num_threads(1)
    return work(part)


@functools.cache
def _start_helper() -> ThreadPoolExecutor:
    # A process that forks leaves its threads behind.
    os.register_at_fork(after_in_child=_start_helper.cache_clear)
    return ThreadPoolExecutor(1, thread_name_prefix="decode")
