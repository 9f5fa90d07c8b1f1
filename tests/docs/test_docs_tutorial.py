"""The tutorial, typed: its commands run in their order, on the clips that it draws."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from attnact.cli import main
from tests.pages import blocks, page


def commands() -> list[list[str]]:
    """Every line of every sh block, as the shell would cut it."""
    lines = "".join(blocks("tutorial.md", "sh")).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines]


def test_every_step_is_there():
    names = [" ".join(word for word in it[1:3] if word[0] != "-") for it in commands()]
    steps = [name.split()[0] if name.split()[0] != "cache" else name for name in names]
    assert steps == [
        *("features", "features", "cache info", "cache verify", "train", "evaluate", "visualize"),
        *("predict", "sweep-lambda", "table1", "study", "report"),
    ]


def test_the_commands_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (draw,) = blocks("tutorial.md", "python")
    exec(draw, {})
    assert len(list(Path("clips").glob("*/*.avi"))) == 12
    (choices,) = blocks("tutorial.md", "toml")
    Path("small.toml").write_text(choices, encoding="utf-8")
    told = {}
    for words in commands():
        assert words[0] == "attnact"
        result = CliRunner().invoke(main, words[1:])
        assert result.exit_code == 0, f"{words}: {result.output}"
        told[words[1]] = result.output
        if "--dry-run" in words:
            assert "12 videos, 4 classes" in result.output
            assert not Path("features").exists()
    assert "random" in told["study"]
    assert "6/6" in told["table1"]
    assert "clips/red/scene00.avi" in told["predict"]
    assert "Left out: lambda0-fold1-seed0: the same choices as first\n" in told["report"]
    assert "6 models compared" in Path("report.html").read_text(encoding="utf-8")
    # What the page says lies there afterwards.
    for name in re.findall(r"`((?:runs/|features/|report\.)[^`]*)`", page("tutorial.md")):
        assert Path(name).exists(), name
    assert len(list(Path("runs/clips/first/attention").glob("*.png"))) == 4
    assert Path("runs/clips/first/confusion.png").is_file()
    assert len(list(Path("runs/clips/table1").glob("*/model.safetensors"))) == 6


def test_completion_gives_a_script_and_commands(monkeypatch, capsys):
    (line,) = blocks("tutorial.md", "bash")
    variable, value = re.findall(r"(\w+)=(\w+)", line)[0]
    monkeypatch.setenv(variable, value)
    # click asks bash for its version; a system without bash has none to complete in
    if shutil.which("bash") is None:
        pytest.skip("no bash here")
    with pytest.raises(SystemExit):
        main.main([], prog_name="attnact")
    script = capsys.readouterr().out
    assert "complete -o nosort -F _attnact_completion attnact" in script
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    monkeypatch.setenv(variable, "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "attnact sweep")
    monkeypatch.setenv("COMP_CWORD", "1")
    with pytest.raises(SystemExit):
        main.main([], prog_name="attnact")
    assert capsys.readouterr().out.strip() == "plain,sweep-lambda"
