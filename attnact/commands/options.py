"""Options of the command line made from a config class, so that each is written once; and files
of them.
"""

import json
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import wraps
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

import click

from attnact.vocabulary import ENGINES, PLACES, EngineName

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Command = TypeVar("Command", bound=Callable[..., Any])
Value = TypeVar("Value")

FilePath = click.Path(path_type=Path)

SHORT = {"attention_penalty": "--lambda"}  # what the paper calls it


def known_device(
    context: click.Context, parameter: click.Parameter, name: str | None
) -> str | None:
    """Refuses a device that is none, or not here; the callback of an option.

    Of a cluster, which chooses the devices itself, it may not be here; see `open_engine`.
    """
    if name is not None and context.params.get("engine", ENGINES[0]) == ENGINES[0]:
        from attnact.machine.devices import check_device

        try:
            check_device(name)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None
    return name


# What several commands ask for, in the same words.
DEVICE = "As torch names it.  [default: the GPU if there is one]"
device_option = click.option("--device", help=DEVICE, callback=known_device)
features_in_option = click.option(
    "--features-in",
    type=click.Choice(PLACES),
    default="auto",
    show_default=True,
    help="Memory of the GPU, of the host, or none; `auto` takes the fastest with room.",
)


class Engine(NamedTuple):
    """Who does the work, and what Ray is to be told; `open_engine` opens it."""

    name: EngineName
    address: str | None
    task_cpus: float | None
    task_gpus: float | None


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--engine` and Ray's options; the command takes one `engine`."""

    @wraps(command)
    def wrapped(
        engine: EngineName,
        address: str | None,
        task_cpus: float | None,
        task_gpus: float | None,
        **options: Any,
    ) -> None:
        command(engine=Engine(engine, address, task_cpus, task_gpus), **options)

    for option in (
        click.option(
            "--task-gpus", type=float, help="Ray's; 0.25 too.  [default: 1 if it has any]"
        ),
        click.option("--task-cpus", type=float, help="Ray's, for each task.  [default: 1]"),
        click.option(
            "--address", help="Of Ray.  [default: the cluster begun here, or this machine]"
        ),
        click.option(
            "--engine",
            type=click.Choice(ENGINES),
            default=ENGINES[0],
            show_default=True,
            is_eager=True,  # `known_device` asks for it
            help="Who does it: this process, or a Ray cluster.",
        ),
    ):
        wrapped = option(wrapped)
    return wrapped


class InOrder(click.Group):
    """A group that lists its commands in the order in which they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """As they were added."""
        return list(self.commands)


def options_of(config: type, without: Sequence[str] = ()) -> Callable[[Command], Command]:
    """A click option for each field of a config class; one that is not given arrives as None.

    A field `hidden_size: Annotated[int, "Hidden size."] = 512` becomes `--hidden-size INTEGER`.
    """
    hints = get_type_hints(config, include_extras=True)
    wanted = [field for field in fields(config) if field.name not in without]

    def decorate(command: Command) -> Command:
        for field in reversed(wanted):
            kind, text = _unwrap(hints[field.name])
            flag = f"--{field.name.replace('_', '-')}"
            names = [SHORT[field.name], flag] if field.name in SHORT else [flag]
            default = f"  [default: {field.default}]" if field.default not in (None, "") else ""
            check = known_device if field.name == "device" else None
            option = click.option(
                *names, field.name, type=kind, help=text + default, callback=check
            )
            command = option(command)
        return command

    return decorate


def config_option(config: type) -> Callable[[Command], Command]:
    """`--config FILE`: choices from a TOML file, or the config.json of a run; flags win.

    What a run chose and the command does not ask for, such as a sweep's λ, is left out.
    """
    fields_of_runs = {field.name for field in fields(config)}

    def load(context: click.Context, parameter: click.Parameter, path: Path | None) -> None:
        if path is None:
            return
        options = {option.name for option in context.command.params} - {parameter.name}
        values, of_run = read_choices(path)
        unknown = [name for name in values if name not in options]
        if of_run:
            unknown = [name for name in unknown if name not in {*fields_of_runs, "cache"}]
        if unknown:
            near = get_close_matches(unknown[0], sorted(filter(None, options)), 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise click.UsageError(f"{path}: unknown choice {unknown[0]!r}{hint}")
        lists = [name for name, value in values.items() if isinstance(value, list | dict)]
        if lists:
            raise click.UsageError(f"{path}: {lists[0]} must be one value")
        # As text, as if typed: else 3.7 would be taken for 3 where a whole number is wanted.
        typed = {name: str(value) for name, value in values.items()}
        context.default_map = {**(context.default_map or {}), **typed}

    text = "Choices from a TOML file or a run's config.json; options here win."
    return click.option(
        "--config", type=FilePath, is_eager=True, expose_value=False, callback=load, help=text
    )


def read_choices(path: Path) -> tuple[dict[str, Any], bool]:
    """Field name -> value, and whether the file is of a run.

    Raises:
        click.UsageError: the file is missing, or neither TOML nor the config of a run.
    """
    if not path.exists():
        raise click.UsageError(f"{path}: no such file")
    try:
        text = path.read_text(encoding="utf-8")
        of_run = path.suffix == ".json"
        values = _of_run(json.loads(text)) if of_run else tomllib.loads(text)
        long = {short.removeprefix("--"): name for name, short in SHORT.items()}
        names = {key: long.get(key, key.replace("-", "_")) for key in values}
        return {names[key]: value for key, value in values.items() if value is not None}, of_run
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,  # brackets in brackets, without end
    ) as error:
        raise click.UsageError(
            f"{path}: no TOML of choices such as hidden_size = 512, and no config.json of a run "
            f"({error})"
        ) from error


def _of_run(config: dict[str, Any]) -> dict[str, Any]:
    """The choices of a run; and its cache, where that is still there."""
    cache = config.get("cache")
    there = {"cache": cache} if cache and Path(cache).is_file() else {}
    return {**there, **config["train"]}


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def choices(
    text: str, kind: Callable[[str], Value], everything: Sequence[Value] = ()
) -> list[Value]:
    """`0,1,10` → [0, 1, 10]; `all` → everything; `leave-*` → what of everything begins so.

    Raises:
        ValueError: an item is not of the kind, or not one of everything, or is there twice.
    """
    if text == "all" and everything:
        return list(everything)
    if "*" in text and everything:
        found = [value for value in everything if fnmatchcase(str(value), text)]
        if found:
            return found
    try:
        values = [kind(part.strip()) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{text!r} is not a list such as 0,1,10") from None
    unknown = [value for value in values if everything and value not in everything]
    if unknown:
        known = ", ".join(map(str, everything))
        raise ValueError(f"no {unknown[0]!r} here; choose from {known}, or all")
    if len(set(values)) < len(values):
        raise ValueError(f"{text!r} names a value twice")
    return values


def _unwrap(hint: Any) -> tuple[Any, str]:
    """The click type and the help of `Annotated[int | None, "help"]`."""
    assert get_origin(hint) is Annotated
    kind, text = get_args(hint)
    if get_origin(kind) is types.UnionType:
        kind = next(part for part in get_args(kind) if part is not type(None))
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind)), text
    return kind, text
