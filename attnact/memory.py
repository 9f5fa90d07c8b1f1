"""How the C library hands out memory; it decides a third of the speed on a CPU."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # options of glibc's mallopt
_NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Makes glibc keep the memory of freed tensors for the next ones; elsewhere does nothing.

    By default it gives blocks above 32 MiB back to the system at once, and the next tensor of that
    size pays for fresh pages again: in context attention a third of the time of a step.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_MMAP_MAX, 0)
            mallopt(_TRIM_THRESHOLD, _NEVER)
