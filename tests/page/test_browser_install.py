"""`tests/browser.sh`: installs what it can, asks for nothing, and never stops the tests."""

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "browser.sh"


@pytest.fixture
def run(tmp_path: Path):
    """Runs the script where only these programs are, each a line of sh."""
    shell = shutil.which("sh")
    if shell is None:
        pytest.skip("no sh here")

    def run(**programs: str) -> str:
        (tmp_path / "tail").symlink_to(str(shutil.which("tail")))
        for name, line in programs.items():
            program = tmp_path / name.replace("_", "-")
            program.write_text(f"#!{shell}\n{line}\n")
            program.chmod(0o755)
        done = subprocess.run(
            [shell, SCRIPT], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=True
        )
        assert done.stderr == ""
        return done.stdout

    return run


def test_it_is_quiet_where_chromium_is(run):
    assert run(chromium="", id="echo 0", apt_get="exit 1") == ""


def test_only_root_installs(run, tmp_path):
    asked = tmp_path / "asked"
    said = run(id="echo 1000", apt_get=f"echo > {asked}", sudo=f"echo > {asked}")
    assert said == (
        "no chromium: only root can install it; the tests that need it will be skipped\n"
    )
    assert not asked.exists()


def test_there_may_be_no_apt(run):
    assert "there is no apt-get to install it with; " in run(id="echo 0")


def test_it_installs_after_an_update(run, tmp_path):
    asked = tmp_path / "asked"
    said = run(id="echo 0", timeout='shift; "$@"', apt_get=f'echo "$*" >> {asked}')
    assert said == "chromium is missing: installing Debian's with apt-get\n"
    lines = asked.read_text().splitlines()
    assert lines[0].endswith(" update")
    assert lines[1].endswith(" install --yes --no-install-recommends chromium")


def test_what_apt_says_is_the_reason(run):
    said = run(id="echo 0", timeout="echo some; echo E: no network >&2; exit 100", apt_get="")
    assert said.splitlines()[1:] == [
        "no chromium: apt-get update: E: no network; the tests that need it will be skipped"
    ]
