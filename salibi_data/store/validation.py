"""Dataclasses from the tables of TOML and JSON files, checked against their annotations.

What a file gets wrong is said in the words of the file: which key, what it holds, what belongs
there. What values mean together is checked by the dataclasses themselves.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Record = TypeVar("Record")

_WORDS: Final[Mapping[Any, str]] = {
    str: "text",
    int: "a whole number",
    float: "a finite number",
    bool: "true or false",
}

_MAX_SHOWN: Final = 120
"""Characters of a value in a message."""


class _MisfitError(Exception):
    """A value is not what its annotation says; whoever knows its key says so."""


def record(kind: type[Record], table: Any, *, what: str = "", path: str = "") -> Record:
    """A frozen dataclass from a table whose keys are its fields.

    A field whose metadata has a ``key`` goes by that key. Lists become tuples; numbers stay as
    they were written.

    Args:
        kind: the dataclass; its annotations may hold others.
        table: as TOML or JSON gives it.
        what: what the table stands for, such as ``modality 'sar'``; the whole file by default.
        path: of the table in there, dotted.

    Raises:
        ValueError: a key is unknown or missing, or a value is of the wrong type.
    """
    here = " of ".join(name for name in (path, what) if name) or "it"
    if not isinstance(table, Mapping):
        raise ValueError(f"{here} is {_shown(table)}; expected a table")  # noqa: TRY004
    keys = {field.metadata.get("key", field.name): field for field in fields(kind)}  # type: ignore[arg-type]
    unknown = [key for key in table if key not in keys]
    if unknown:
        raise ValueError(f"{here} has an unknown key {unknown[0]!r}; known are {', '.join(keys)}")
    values = {}
    for key, field in keys.items():
        hint = _hints(kind)[field.name]  # type: ignore[arg-type]
        if key in table:
            place = f"{path}.{key}" if path else key
            values[field.name] = _placed(table[key], hint, what, place)
        elif field.default is MISSING and field.default_factory is MISSING:
            rows = get_origin(hint) is tuple and is_dataclass(get_args(hint)[0])
            raise ValueError(f"{here} has no {f'[[{key}]]' if rows else key}")
    return kind(**values)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _placed(value: Any, hint: Any, what: str, path: str) -> Any:
    """``value`` as the annotation has it; the tables in it know where they are."""
    optional = [option for option in get_args(hint) if option is not NoneType]
    if get_origin(hint) in (Union, UnionType) and len(optional) == 1:
        return None if value is None else _placed(value, optional[0], what, path)
    if is_dataclass(hint) and isinstance(hint, type):
        return record(hint, value, what=what, path=path)
    inner = get_args(hint)[-1] if get_origin(hint) is Mapping else None
    if is_dataclass(inner) and isinstance(value, Mapping):
        return {key: _placed(entry, inner, what, f"{path}.{key}") for key, entry in value.items()}
    row = get_args(hint)[0] if get_origin(hint) is tuple else None
    if is_dataclass(row) and isinstance(value, list | tuple):
        return tuple(_placed(entry, row, _row_name(path, entry), "") for entry in value)
    try:
        return _fitted(value, hint)
    except _MisfitError:
        here = f"{path} of {what}" if what else path
        raise ValueError(f"{here} is {_shown(value)}; expected {_words(hint)}") from None


def _row_name(path: str, entry: Any) -> str:
    """A row of a list of tables, by what tells it from the others."""
    name = entry.get("name", entry.get("sensor")) if isinstance(entry, Mapping) else None
    return f"[[{path}]]" if name is None else f"{path} {name!r}"


def _fitted(value: Any, hint: Any) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    fits = False
    if origin in (Union, UnionType):
        return _first_fit(value, arguments)
    if origin is tuple and isinstance(value, list | tuple):
        kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(kinds) == len(value):
            return tuple(_fitted(entry, kind) for entry, kind in zip(value, kinds, strict=True))
    elif origin is Mapping and isinstance(value, Mapping):
        return {key: _fitted(entry, arguments[1]) for key, entry in value.items()}
    elif origin is Literal:
        fits = isinstance(value, str) and value in arguments
    elif hint is float:
        fits = type(value) in (int, float) and abs(value) <= sys.float_info.max
    else:
        # By its exact type: True is an int to Python, not to who writes a file.
        fits = hint is Any or type(value) is hint
    if not fits:
        raise _MisfitError
    return value


def _first_fit(value: Any, options: tuple[Any, ...]) -> Any:
    for option in options:
        try:
            return _fitted(value, option)
        except _MisfitError:
            continue
    raise _MisfitError


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _words(hint: Any) -> str:
    """What an annotation asks for."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"a list of {_words(arguments[0])}"
    if origin is tuple:
        return f"[{', '.join(_words(argument) for argument in arguments)}]"
    if origin is Literal:
        return " or ".join(repr(argument) for argument in arguments)
    if origin in (Union, UnionType):
        return " or ".join(_words(option) for option in arguments if option is not NoneType)
    return _WORDS.get(hint, "a table")
