"""Build the options of a command from dataclasses: names, types, ranges, defaults and help once.

A parameter of a command that is annotated with a dataclass stands for an option per field. The
command gets an instance; or, where the annotation is ``Annotated[dict, Fields(kind)]``, the values
that were given, by the names of the fields.

Metadata of fields is described in :mod:`salibi_data.store.validation`; the command line
reads four more keys of its metadata: ``flag`` (spelling, such as ``--stride``), ``negated`` (the flag
sets the field to false), ``metavar``, and ``command`` (false: there is no option). ``absent`` says in
words what the default leads to, where it is 0 or empty. Of options with ``applies_to`` the instance
remembers which were given, so that those of no use are refused even at their defaults.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Final,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import typer

from salibi_cli import common
from salibi_data.store.errors import UsageError
from salibi_data.store.validation import expectation, mark_given

if TYPE_CHECKING:
    from salibi_data.store.tiles import Bounds

_Command = TypeVar("_Command", bound=Callable[..., Any])
_PREFIXES: Final = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@dataclass(frozen=True, kw_only=True)
class Fields:
    """Choice and order of a dataclass's fields that become options."""

    kind: type | None = None
    """The dataclass, where the command takes what was given as a mapping."""
    only: Sequence[str] = ()
    """Names of the fields, in order; empty: all, in theirs."""
    without: Sequence[str] = ()
    first: Sequence[str] = ()
    """Names of those that ``--help`` lists first."""

    def of(self, kind: Any) -> list[Field[Any]]:
        """The fields in the order of their options."""
        named = {each.name: each for each in fields(kind)}
        names = [*self.first, *(name for name in self.only or named if name not in self.first)]
        return [
            named[name]
            for name in names
            if name not in self.without and named[name].metadata.get("command", True)
        ]


def with_options(command: _Command) -> _Command:
    """Replace the parameters of ``command`` that stand for dataclasses by options.

    Options of two dataclasses that have one name are one option.
    """
    parameters: dict[str, inspect.Parameter] = {}
    readers: dict[str, Callable[[Mapping[str, Any]], Any]] = {}
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        kind, chosen = _dataclass_of(parameter.annotation)
        if kind is None:
            parameters[parameter.name] = parameter
            continue
        given_only = chosen.kind is not None
        options = [_option(each, kind, given_only=given_only) for each in chosen.of(kind)]
        for option in options:
            parameters.setdefault(option.field.name, option.parameter())
        readers[parameter.name] = _reader(kind, options, given_only=given_only)
    own = set(inspect.signature(command).parameters)

    @wraps(command)
    def run(**arguments: Any) -> Any:
        read = {name: reader(arguments) for name, reader in readers.items()}
        return command(**{name: arguments[name] for name in arguments if name in own}, **read)

    run.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    run.__annotations__ = {name: each.annotation for name, each in parameters.items()}
    return cast("_Command", run)


def arguments_of(options: Any) -> dict[str, Any]:
    """The fields of a dataclass as arguments of a function that has a parameter for each."""
    return {each.name: getattr(options, each.name) for each in fields(options)}


def help_of(kind: Any, name: str) -> str:
    """Help text of a field, for an argument that a command declares itself."""
    (field,) = (each for each in fields(kind) if each.name == name)
    return _option(field, kind, given_only=True).help


def markdown_table(kind: Any) -> str:
    """Table of all fields: option, meaning, default, values, whether it may change on resuming."""
    rows = [
        "| option | is | default | takes | may change with `--resume` |",
        "|---|---|---|---|---|",
    ]
    for each in fields(kind):
        option = _option(each, kind, given_only=True)
        unit = each.metadata.get("unit")
        name = option.flags[0] if each.metadata.get("command", True) else f"{each.name} = ..."
        cells = (
            f"`{each.name} ...`" if each.metadata.get("argument") else f"`{name}`",
            each.metadata["help"],
            option.default_text,
            expectation(kind, each.name) + (f" ({unit})" if unit else ""),
            "yes" if each.metadata.get("resume") else "",
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def bounds(text: str | None) -> Bounds | None:
    """Read a bounding box given as ``W,S,E,N``; None where there is none."""
    if text is None:
        return None
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"--bbox {text!r} is not W,S,E,N: four numbers in degrees.") from error
    return west, south, east, north


def num_bytes(option: str, text: str) -> int:
    """Read a size such as ``500GB``, with decimal prefixes."""
    size = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kMGT]?)B?\s*", text)
    if size is None:
        raise UsageError(f"{option} {text!r} is not a size such as 500GB, 1.5TB or 1000000.")
    return int(float(size[1]) * _PREFIXES[size[2]])


def _dataclass_of(annotation: Any) -> tuple[Any, Fields]:
    """The dataclass that a parameter stands for, if it does, and the fields chosen of it."""
    chosen = Fields()
    if get_origin(annotation) is Annotated:
        annotation, *notes = get_args(annotation)
        chosen = next((note for note in notes if isinstance(note, Fields)), chosen)
    kind = chosen.kind or annotation
    return (kind if isinstance(kind, type) and is_dataclass(kind) else None), chosen


def _reader(
    kind: Any, options: Sequence[_Option], *, given_only: bool
) -> Callable[[Mapping[str, Any]], Any]:
    def read(arguments: Mapping[str, Any]) -> Any:
        given = {}
        for option in options:
            value = arguments[option.field.name]
            if value is not None and (field_value := option.read(value)) is not None:
                given[option.field.name] = field_value
        if given_only:
            return given
        record = kind(**given)
        # Where an option applies to some inputs alone, its default counts too if it was given.
        names = {option.field.name for option in options if option.applies_to} & given.keys()
        if names:
            mark_given(record, names)
        return record

    return read


def _option(field: Field[Any], kind: Any, *, given_only: bool) -> _Option:
    hint = get_type_hints(kind)[field.name]
    if get_origin(hint) in (Union, UnionType):
        hint = next(each for each in get_args(hint) if each is not NoneType)  # Path | str: a path
    return _Option(field=field, type=hint, given_only=given_only)


@dataclass(frozen=True, kw_only=True)
class _Option:
    """One field as an option."""

    field: Field[Any]
    type: Any
    """Type of the field, without ``None``."""
    given_only: bool
    """Whether an option that is not given is ``None``, whatever the field's default."""

    @property
    def flags(self) -> list[str]:
        """Spellings on the command line, as Typer takes them."""
        name = f"--{self.field.name.replace('_', '-')}"
        if "flag" in self.field.metadata:
            return str(self.field.metadata["flag"]).split()
        if self.type is bool and (self.given_only or self.field.default):
            return [f"{name}/--no-{name.removeprefix('--')}"]
        return [name]

    @property
    def applies_to(self) -> str:
        """What the option is for, where it is not for all inputs."""
        return str(self.field.metadata.get("applies_to", ""))

    @property
    def default_text(self) -> str:
        """The default in words; empty where there is nothing to say."""
        default, metadata = self.field.default, self.field.metadata
        if "absent" in metadata:
            return str(metadata["absent"])
        if isinstance(default, bool):
            return "yes" if default is not metadata.get("negated", False) else "no"
        unset = default is MISSING or default is None or default in ("", ())
        if unset or default == metadata.get("above") or default < metadata.get("minimum", default):
            return ""
        return _text(default)

    @property
    def help(self) -> str:
        """Help text, with the default where Typer does not show it."""
        text = str(self.field.metadata["help"])
        shown_by_typer = not self.given_only and self._typer_default is not None
        switch = self.type is bool and not self.field.default
        default = "" if shown_by_typer or switch else self.default_text
        return f"{text}  [default: {default}]" if default else text

    def parameter(self) -> inspect.Parameter:
        """The option as a parameter of a function."""
        number = self.type in (int, float) and not self._is_size
        limits = self.field.metadata if number else {}
        annotation = (
            self.type if self.type in (bool, int, float, Path) and not self._is_size else str
        )
        option = typer.Option(
            *self.flags,
            help=self.help,
            metavar=self.field.metadata.get("metavar"),
            min=limits.get("minimum"),
            max=limits.get("maximum"),
        )
        default = self._typer_default
        if default is None:
            annotation = annotation | None
        return inspect.Parameter(
            self.field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if default is MISSING else default,
            annotation=Annotated[annotation, option],
        )

    def read(self, value: Any) -> Any:
        """The value of the field, of what Typer gives."""
        flag = self.flags[0]
        if self.field.metadata.get("negated"):
            return not value
        if self._is_size:
            return num_bytes(flag, value)
        kinds = get_args(self.type)
        if kinds == (float,) * 4:
            return bounds(value)
        if kinds:
            return common.numbers(flag, value) if kinds[0] is float else common.listed(value)
        return value

    @property
    def _is_size(self) -> bool:
        return self.field.metadata.get("unit") == "bytes"

    @property
    def _typer_default(self) -> Any:
        default = self.field.default
        if self.given_only or self.applies_to or default in (None, ()):
            return None
        if self.field.metadata.get("negated"):
            return not default
        return _text(default) if isinstance(default, tuple) else default


def _text(value: Any) -> str:
    """A default as it is written on the command line."""
    if isinstance(value, tuple):
        return ",".join(_text(entry) for entry in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
