"""Freed memory kept for the next image."""

from __future__ import annotations

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of mallopt's parameters, malloc.h
_KEPT_BYTES = 1 << 28


def keep_freed_memory() -> bool:
    """Ask glibc to keep up to 256 MiB of freed memory; tell whether it agreed.

    By itself it gives the maps of a network back to the system after every image, and
    each page that the next image touches must then be made anew: that can take longer
    than the network. It holds for the whole process, and elsewhere nothing happens.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    agreed = [mallopt(p, _KEPT_BYTES) for p in (_TRIM_THRESHOLD, _MMAP_THRESHOLD)]
    return all(agreed)
