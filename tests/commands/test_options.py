"""Options from a config class: flags, kinds, help; lists of choices; and files of them."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import click
import pytest
from click.testing import CliRunner

from attnact import cli
from attnact.commands.options import choices, given, options_of
from attnact.extract.config import ExtractConfig
from attnact.train import runs
from attnact.train.config import TrainConfig


@dataclass(frozen=True)
class Config:
    hidden_size: Annotated[int, "Hidden size."] = 512
    recipe: Annotated[Literal["paper", "released"], "Where from."] = "paper"
    rate: Annotated[float | None, "A rate."] = None
    name: Annotated[str, "A name."] = ""
    attention_penalty: Annotated[float, "λ."] = 0.0


def run(*arguments: str, config: type = Config, without: tuple[str, ...] = ()) -> tuple[Any, str]:
    """The options as the command gets them, and what is printed."""
    got: dict[str, Any] = {}

    @click.command()
    @options_of(config, without)
    def command(**options: Any) -> None:
        got.update(options)

    result = CliRunner().invoke(command, arguments)
    return (got if result.exit_code == 0 else None), result.output


def test_nothing_given() -> None:
    options, _ = run()
    assert options == dict.fromkeys(field.name for field in fields(Config))
    assert given(options) == {}


def test_values_of_their_kinds() -> None:
    options, _ = run("--hidden-size", "8", "--rate", "2", "--recipe", "released", "--lambda", "1e1")
    assert given(options) == {
        "hidden_size": 8,
        "rate": 2.0,
        "recipe": "released",
        "attention_penalty": 10.0,
    }
    assert isinstance(options["rate"], float)


def test_zero_is_given() -> None:
    assert given(run("--attention-penalty", "0")[0]) == {"attention_penalty": 0.0}


@pytest.mark.parametrize("arguments", [("--hidden-size", "x"), ("--recipe", "own"), ("--rate", "")])
def test_wrong_kinds(arguments: tuple[str, str]) -> None:
    options, output = run(*arguments)
    assert options is None
    assert arguments[0] in output


def test_help_tells_defaults() -> None:
    lines = [" ".join(line.split()) for line in run("--help")[1].splitlines()]
    assert "--hidden-size INTEGER Hidden size. [default: 512]" in lines
    assert "--recipe [paper|released] Where from. [default: paper]" in lines
    assert "--rate FLOAT A rate." in lines
    assert "--name TEXT A name." in lines
    assert "--lambda, --attention-penalty FLOAT λ. [default: 0.0]" in " ".join(lines)


@pytest.mark.parametrize("config", [TrainConfig, ExtractConfig])
def test_every_field_of_a_stage_is_an_option(config: type) -> None:
    options, _ = run(config=config)
    assert list(options) == [field.name for field in fields(config)]
    _, text = run("--help", config=config)
    for field in fields(config):
        assert f"--{field.name.replace('_', '-')} " in text


def test_without() -> None:
    assert "name" not in run(without=("name", "rate"))[0]
    assert run("--name", "x", without=("name",))[0] is None


@pytest.mark.parametrize(
    ("text", "kind", "values"),
    [
        ("0,1,10", int, [0, 1, 10]),
        (" 10 , 0.5", float, [10.0, 0.5]),
        ("1e-3", float, [0.001]),
        ("b,a", str, ["b", "a"]),
    ],
)
def test_choices(text: str, kind: Any, values: list[Any]) -> None:
    assert choices(text, kind) == values


def test_choices_from_all() -> None:
    assert choices("all", str, ["1", "2"]) == ["1", "2"]
    assert choices("2", str, ["1", "2"]) == ["2"]


@pytest.mark.parametrize(
    ("text", "kind", "everything", "why"),
    [
        ("1,,2", int, (), "'1,,2' is not a list such as 0,1,10"),
        ("", float, (), "'' is not a list such as 0,1,10"),
        ("1;2", int, (), "is not a list"),
        ("all", int, (), "is not a list"),
        ("1,2,1", int, (), "names a value twice"),
        ("1,1.0", float, (), "names a value twice"),
        ("1,4", str, ("1", "2"), "no '4' here; choose from 1, 2, or all"),
    ],
)
def test_wrong_choices(text: str, kind: Any, everything: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        choices(text, kind, everything)


def test_choices_that_begin_alike() -> None:
    folds = ["1", "leave-01", "leave-02"]
    assert choices("leave-*", str, folds) == ["leave-01", "leave-02"]
    with pytest.raises(ValueError, match=r"no 'x\*' here; choose from 1, leave-01"):
        choices("x*", str, folds)


def test_a_config_file_and_options_on_top(make_cache, tmp_path, monkeypatch):
    """From TOML with any spelling of a name, and from the config of a run."""
    make_cache(tmp_path / "features" / "a.h5", videos=6)
    monkeypatch.chdir(tmp_path)
    Path("small.toml").write_text("hidden-size = 4\nlambda = 2\nepochs = 1\nvalidation = 0\n")
    first = CliRunner().invoke(
        cli.main, ["train", "--name", "x", "--config", "small.toml", "--lstm-layers", "1"]
    )
    assert first.exit_code == 0, first.stderr
    config = runs.open_run(Path("runs/a/x")).config
    assert (config.hidden_size, config.attention_penalty, config.lstm_layers) == (4, 2.0, 1)
    Path("features/b.h5").write_bytes(b"")  # else it might be the only one that is used
    again = ["train", "--name", "y", "--seed", "7", "--config", "runs/a/x/config.json"]
    assert CliRunner().invoke(cli.main, again).exit_code == 0
    assert runs.open_run(Path("runs/a/y")).config == replace(config, seed=7)
    sweep = ["sweep-lambda", "--lambdas", "3", "--config", "runs/a/x/config.json"]
    assert CliRunner().invoke(cli.main, sweep).exit_code == 0
    (cell,) = Path("runs/a/sweep-lambda").glob("lambda*")
    assert runs.open_run(cell).config == replace(config, attention_penalty=3.0)


BAD_CONFIGS = [
    ("x.toml", "hiden-size = 4", "unknown choice 'hiden_size'; did you mean hidden_size?"),
    ("x.toml", "hidden-size = ", "x.toml: no TOML of choices"),
    ("x.toml", "hidden-size = 'big'", "'big' is not a valid integer"),
    ("x.json", "{}", "no config.json of a run"),
    ("x.json", '{"train": {"colour": 1}}', "unknown choice 'colour'"),
    ("none.toml", None, "none.toml: no such file"),
    ("x.toml", "epochs = [3]", "x.toml: epochs must be one value"),
    ("x.json", '{"train": {"epochs": {}}}', "x.json: epochs must be one value"),
    ("x.json", '{"train": {"epochs": Infinity}}', "'inf' is not a valid integer"),
    ("x.toml", "epochs = 3.7", "'3.7' is not a valid integer"),
    ("x.toml", "epochs = true", "'True' is not a valid integer"),
    ("x.toml", "a = " + "[" * 100_000, "x.toml: no TOML of choices"),
    ("x.json", "[" * 100_000, "no config.json of a run"),
]


@pytest.mark.parametrize(("name", "text", "message"), BAD_CONFIGS)
def test_a_bad_config_file(name, text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path(name).write_text(text)
    result = CliRunner().invoke(cli.main, ["train", "--config", name])
    assert result.exit_code == 2
    assert message in result.stderr
