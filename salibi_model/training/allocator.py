"""Memory of CPU training: keep freed memory in the process instead of returning it."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of glibc's ``mallopt`` (``malloc.h``; https://man7.org/linux/man-pages/man3/mallopt.3.html)."""


def keep_freed_memory() -> bool:
    """Tell glibc to serve large blocks from memory that the process already has.

    By default each tensor of more than 32 MB is mapped anew from the system, and its pages are
    faulted in one by one, in every step. ``benchmarks/model/allocator.py`` measures the cost. The
    process keeps its peak memory until it ends.

    Returns:
        True on Linux with glibc; elsewhere nothing is done.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
