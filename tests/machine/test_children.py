"""Processes of our own: what they run, and what is heard of them when a parent dies."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from attnact.machine.children import CHILD

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import sys
from pathlib import Path
import torch
from attnact.extract.frames.decoding import decode

events = [event for _, event in decode([Path(sys.argv[1])], "pyav", "squash", 60)]
print(sum(len(event) for event in events if isinstance(event, torch.Tensor)))
"""


def run(script: Path, *arguments: object, here: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(script), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, cwd=here, capture_output=True, text=True)


def test_a_script_without_a_guard_decodes(make_clip, tmp_path):
    """`multiprocessing` would run it again in each child, which would start children of its own."""
    script, here = tmp_path / "script.py", tmp_path / "here"
    script.write_text(SCRIPT)
    here.mkdir()
    (here / "ctypes.py").write_text("raise SystemExit(__file__)")  # a file of the user, no module
    make_clip(tmp_path / "clip.avi", frames=17)
    result = run(script, tmp_path / "clip.avi", here=here)
    assert (result.stdout, result.stderr) == ("17\n", "")


KILLED = """
import os, signal
from attnact.machine.children import start_child

class Fatal:
    def __reduce__(self):
        os.kill(os.getpid(), signal.SIGKILL)

start_child(print, Fatal())
"""


def test_a_child_whose_parent_is_killed_as_it_starts_ends_without_a_word(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(KILLED)
    result = run(script, here=tmp_path)  # which waits for the child, that may still speak
    assert (result.returncode, result.stdout, result.stderr) == (-9, "", "")


@pytest.mark.parametrize("told", [b"", b"\0\0\0", b"\0\0\0\x09", b"\0\0\0\x09four"])
def test_a_child_that_is_told_half_of_it_ends_without_a_word(told):
    command = [sys.executable, "-c", CHILD.format(path=[str(ROOT), *sys.path], end=1)]
    result = subprocess.run(command, input=told, capture_output=True)
    assert (result.returncode, result.stdout, result.stderr) == (1, b"", b"")
