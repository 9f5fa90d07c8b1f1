"""What this process may use of the machine, its cores and its memory; and keeping that memory."""

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

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


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
        controllers, _, path = line.partition(":")[2].partition(":")
        if line.startswith("0::"):
            root, files = groups, SECOND
        elif "memory" in controllers.split(","):
            root, files = groups / "memory", FIRST
        else:
            continue
        here = root / path.lstrip("/")
        for folder in (here, *here.parents):
            if folder.is_relative_to(root):
                yield from _left(folder, files)


class GroupFiles(NamedTuple):
    """What a version of Linux's control groups calls its limits, what is used, and its counts."""

    limits: tuple[str, ...]
    used: str
    prefix: str


SECOND = GroupFiles(("memory.max", "memory.high"), "memory.current", "")
FIRST = GroupFiles(("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_")


def _left(group: Path, files: GroupFiles) -> Iterator[int]:
    """Each limit less what is used, but for files that were read, which give way."""
    for limit in files.limits:
        try:
            most, used = (int((group / name).read_text()) for name in (limit, files.used))
        except (OSError, ValueError):  # not a group that limits, or it says "max"
            continue
        yield most - used + _read_files(group / "memory.stat", files.prefix)


def _read_files(stat: Path, prefix: str) -> int:
    try:
        counts = dict(line.split() for line in stat.read_text().splitlines())
        return sum(int(counts[f"{prefix}{kind}_file"]) for kind in ("active", "inactive"))
    except (OSError, KeyError, ValueError):
        return 0
