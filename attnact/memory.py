"""This machine's memory: how much of it is free, and keeping what training asks for again."""

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

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


def free_memory(system: Path = Path("/")) -> int:
    """Bytes that this process can still have, by the machine and by its control groups.

    Args:
        system: where Linux's folders are; elsewhere it is half of the machine's memory.
    """
    return min([_of_machine(system / "proc/meminfo"), *_of_groups(system)])


def _of_machine(meminfo: Path) -> int:
    try:
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _of_groups(system: Path) -> Iterator[int]:
    """What each group that limits this process, as Docker's and Slurm's do, has left."""
    try:
        lines = (system / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    groups = system / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, limit, used, prefix = groups, "memory.max", "memory.current", ""
        elif "memory" in controllers.split(","):  # the first version of such groups
            root, prefix = groups / "memory", "total_"
            limit, used = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        here = root / path.lstrip("/")
        for folder in (here, *here.parents):
            if folder.is_relative_to(root):
                yield from _left(folder / limit, folder / used, folder / "memory.stat", prefix)


def _left(limit: Path, used: Path, stat: Path, prefix: str) -> Iterator[int]:
    """The limit less what is used, of which files that were read can give way; none if no limit."""
    try:
        stats = dict(line.split() for line in stat.read_text().splitlines())
        files = sum(int(stats[f"{prefix}{kind}_file"]) for kind in ("active", "inactive"))
        yield int(limit.read_text()) - int(used.read_text()) + files
    except (OSError, KeyError, ValueError):  # not a group that limits, or it says "max"
        return
