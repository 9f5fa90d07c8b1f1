"""Freed memory that stays: fewer pages fetched anew, and what is asked for is what was freed."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Twenty times a tensor of 64 MiB, written and let go of; the pages fetched for the last ten.
PROGRAM = """
import resource, sys
import torch
from attnact.memory import keep_freed_memory
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
