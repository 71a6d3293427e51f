"""What a process without a GPU does with memory that it has freed.

glibc gives large blocks back to the kernel as they are freed, and the kernel maps and clears new pages at the next
call: a quarter of Full-FT's backward, and most of the noise (docs/method.md has the numbers). On a GPU torch's caching
allocator keeps memory in the same way.
"""

import ctypes
import sys

# Parameters of mallopt(3), from malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed() -> bool:
    """From here on this process keeps what it frees, for its own next call, for good; whether glibc was told so. Blocks
    that are mapped already are given back as before, and another allocator (musl's, a preloaded jemalloc) does as it
    likes."""
    libc = _glibc()
    return libc is not None and bool(libc.mallopt(M_MMAP_MAX, 0) and libc.mallopt(M_TRIM_THRESHOLD, -1))


def give_back() -> None:
    """Returns to the system what is free now: the process has done with a case."""
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if libc is not None and hasattr(libc, "gnu_get_libc_version") else None
