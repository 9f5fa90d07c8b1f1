"""Freed memory that stays: fewer pages fetched anew; and what is free, by machine and group."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from attnact.machine.resources import free_memory

ROOT = Path(__file__).resolve().parents[2]

# Twenty times a tensor of 64 MiB, written and let go of; the pages fetched for the last ten.
PROGRAM = """
import resource, sys
import torch
from attnact.machine.resources import keep_freed_memory
if "keep" in sys.argv:
    keep_freed_memory()
for i in range(20):
    if i == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(1 << 24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*arguments: str) -> int:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "THP_MEM_ALLOC_ENABLE": "0"}
    command = [sys.executable, "-c", PROGRAM, *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return int(result.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="glibc alone has it")
def test_what_was_freed_is_not_fetched_again():
    assert faults("keep") < faults() / 10


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


def second(group: str, limit: str, used: int) -> dict[str, str]:
    return {
        f"sys/fs/cgroup/{group}memory.max": limit,
        f"sys/fs/cgroup/{group}memory.current": str(used),
        f"sys/fs/cgroup/{group}memory.stat": "anon 7\ninactive_file 10\nactive_file 5",
    }


def first(group: str, limit: int, used: int) -> dict[str, str]:
    return {
        f"sys/fs/cgroup/memory/{group}memory.limit_in_bytes": str(limit),
        f"sys/fs/cgroup/memory/{group}memory.usage_in_bytes": str(used),
        f"sys/fs/cgroup/memory/{group}memory.stat": (
            "inactive_file 1\ntotal_inactive_file 10\ntotal_active_file 5"
        ),
    }


NO_LIMIT = 9223372036854771712
HIGH = {"sys/fs/cgroup/memory.high": "4000"}
NO_COUNTS = {"sys/fs/cgroup/memory.stat": "anon 7"}


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 1024_000),
        ({"proc/self/cgroup": "0::/"}, 1024_000),
        ({"proc/self/cgroup": "0::/", **second("", "5000", 2000)}, 3015),
        ({"proc/self/cgroup": "0::/job/step", **second("job/step/", "max", 7)}, 1024_000),
        (
            {
                "proc/self/cgroup": "0::/job/step",
                **second("job/step/", "9000", 2000),
                **second("job/", "8000", 2000),
                **second("other/", "10", 0),
            },
            6015,
        ),
        ({"proc/self/cgroup": "\n0::/", **second("", "max", 7), **HIGH}, 4008),
        ({"proc/self/cgroup": "0::/", **second("", "5000", 2000), **NO_COUNTS}, 3000),
        ({"proc/self/cgroup": "2:cpu:/\n1:name=x:/", **first("", 5000, 0)}, 1024_000),
        ({"proc/self/cgroup": "5:cpu,memory:/a", **first("a/", NO_LIMIT, 9)}, 1024_000),
        ({"proc/self/cgroup": "5:memory:/a", **first("a/", 5000, 2000)}, 3015),
        ({"proc/self/cgroup": "5:memory:/of/the/host\n0::/", **first("", 5000, 2000)}, 3015),
    ],
)
def test_free_memory_is_the_least_of_what_limits(tmp_path, files, free):
    write(tmp_path, {"proc/meminfo": "MemTotal: 9 kB\nMemAvailable:   1000 kB", **files})
    assert free_memory(tmp_path) == free


def test_free_memory_here_and_where_nothing_tells(tmp_path):
    assert 1 << 20 < free_memory() < 1 << 50
    assert 1 << 20 < free_memory(tmp_path) < 1 << 50
