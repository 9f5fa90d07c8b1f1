"""Options from a config class: flags, kinds, help; and lists of choices."""

from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

import click
import pytest
from click.testing import CliRunner

from attnact.cli_options import choices, given, options_of
from attnact.extract.config import ExtractConfig
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
