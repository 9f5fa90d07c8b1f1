"""Options of the command line made from a config class, so that each is written once."""

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import click

Command = TypeVar("Command", bound=Callable[..., Any])
Value = TypeVar("Value")

FilePath = click.Path(path_type=Path)

SHORT = {"attention_penalty": "--lambda"}  # what the paper calls it


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
            option = click.option(*names, field.name, type=kind, help=text + default)
            command = option(command)
        return command

    return decorate


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
