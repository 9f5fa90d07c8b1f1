"""Memory that training asks for again at every step."""

import ctypes

# Of glibc's malloc.h.
TRIM_THRESHOLD, MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """From here on what this process frees stays with it, for the next time that it asks.

    Else glibc gives every large block back to the system, and each page of the next one is fetched
    and zeroed anew: a third of a training step on a CPU. Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_MAX, 0)  # large blocks come from the heap too, ...
        mallopt(TRIM_THRESHOLD, -1)  # ... which never shrinks
