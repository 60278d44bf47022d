"""Memory of CPU training: keep what was freed, rather than give it back and fault it in again."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of glibc's ``mallopt`` (``malloc.h``; https://man7.org/linux/man-pages/man3/mallopt.3.html)."""


def keep_freed_memory() -> bool:
    """Tell glibc to serve large blocks from memory the process already has.

    By default each tensor of more than 32 MB is mapped anew from the system and its pages are
    faulted in one by one, in every step again; ``benchmarks/model/allocator.py`` measures what that
    costs. The process keeps its peak memory until it ends.

    Returns:
        Whether it was done; elsewhere than on Linux with glibc nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
