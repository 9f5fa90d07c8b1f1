"""The processes of `pytest -n` must find the same tests by the same names, whenever each begins."""

import os
import subprocess
import sys

import pytest


def test_another_process_finds_the_same_tests(request: pytest.FixtureRequest) -> None:
    mine = [item.nodeid for item in request.session.items]
    files = sorted({name.split("::")[0] for name in mine})
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files],
        cwd=request.config.rootpath,
        env=os.environ | {"PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(mine) <= set(found.stdout.splitlines())


@pytest.mark.parametrize("content", [b"PK\x03\x04"])
def test_bytes_are_named_by_their_number(request: pytest.FixtureRequest, content: bytes) -> None:
    assert request.node.name.endswith("[4 bytes]")
