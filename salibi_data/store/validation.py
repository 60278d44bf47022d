"""Typed records: frozen dataclasses from the tables of TOML and JSON files, checked key by key.

A table fits a dataclass if it has every required key and no unknown one, if each value has the
annotated type, and if it lies in the range or among the choices of the field's metadata. Types are
exact: ``true`` is no whole number, ``"3"`` and ``3.7`` are none, infinity is no finite number. Lists
become tuples; numbers stay as they were written.

Fields are described by their metadata, which :func:`option` sets:

=================  ==============================================================================
``key``            name in the table, where it differs from the field's
``minimum``        least value
``maximum``        greatest value
``above``          bound that a value must exceed
``below``          bound that a value must not reach
``choices``        names that a text is one of: a collection, which may change at run time
``help``, ``unit``  what a person reads of it
=================  ==============================================================================

Ranges and choices hold for the entries of a list, too. A field's default is always allowed.

The tables are read by cattrs, which is imported when the first one is read.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, Field, field, fields, is_dataclass
from functools import cache
from math import inf
from pathlib import Path
from reprlib import Repr
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from salibi_data.store.errors import UsageError

if TYPE_CHECKING:
    from cattrs import Converter

Record = TypeVar("Record")
Value = TypeVar("Value")

_WORDS: Final[Mapping[Any, tuple[str, str]]] = {
    str: ("text", "texts"),
    int: ("a whole number", "whole numbers"),
    float: ("a finite number", "finite numbers"),
    bool: ("true or false", "true or false"),
    Path: ("a path", "paths"),
}
"""One value of a type in words, and several."""

_UNIONS: Final = (Union, UnionType)

_Reader = Callable[[Any, Any], Any]
"""Takes a value and its annotation; gives the value as the dataclass has it."""

_Factory = Callable[[Any, "Converter"], _Reader]

_BARE_KEY: Final = re.compile(r"[\w-]{1,64}")
"""A key that stands in a path without quotes."""

_repr = Repr()
_repr.maxstring = _repr.maxother = 60


class RecordError(ValueError):
    """A table does not fit a dataclass; the message is one line that begins with the path."""


class _MisfitError(Exception):
    """A value does not fit its annotation or its range."""

    def __init__(self, value: Any, expected: str, suffix: str = "") -> None:
        super().__init__(f"{shown(value)}; expected {expected}")
        self.suffix = suffix


def option(default: Value, *, help: str = "", **metadata: Any) -> Value:  # noqa: A002 - typer's word
    """Declare a dataclass field with a default, and describe it.

    Args:
        default: the field's default.
        help: one or two sentences for ``--help`` and the documentation.
        metadata: the other keys of this module's table, and whatever else its readers agree on.
    """
    described: Any = field(default=default, metadata={"help": help, **metadata})
    return described  # type: ignore[no-any-return]


def read_record(kind: type[Record], table: Any, *, as_floats: bool = False) -> Record:
    """Make a dataclass from a table whose keys are its fields.

    Args:
        kind: the dataclass; its annotations may hold others.
        table: content as ``tomllib`` or ``json`` gives it.
        as_floats: convert whole numbers that are given for floats; else they stay whole, and JSON
            written from the record has the same digits.

    Raises:
        RecordError: a key is unknown or missing, a value has another type or is out of its range,
            or the dataclass refuses the values together.
    """
    try:
        return _converter(as_floats).structure(table, kind)
    except Exception as error:
        raise _explained(error, "") from error


def check_record(record: Any) -> None:
    """Check the fields of a dataclass made in Python as :func:`read_record` does.

    Raises:
        RecordError: a value has another type than its field, or is out of its range.
    """
    kind: Any = type(record)
    for name, check in _checks(kind).items():
        try:
            check(getattr(record, name), None)
        except Exception as error:
            raise _explained(error, name) from error


def check_options(record: Any) -> None:
    """Check options that a caller gives, as :func:`check_record` does.

    Raises:
        UsageError: a value has another type than its field, or is out of its range.
    """
    try:
        check_record(record)
    except RecordError as error:
        raise UsageError(f"{error}.") from error


def expectation(kind: Any, name: str) -> str:
    """What a field takes, in the words of the errors."""
    hint, (each,) = _hints(kind)[name], [each for each in fields(kind) if each.name == name]
    limits = _range_words(each.metadata)
    if (choices := each.metadata.get("choices")) is not None:
        return _choice_words(choices).replace("one of", "some of" if get_args(hint) else "one of")
    return f"{_words(hint)} {limits}".strip()


def shown(value: Any) -> str:
    """A value of any kind in a few words of one line; safe for what a hostile file holds."""
    return "null" if value is None else _repr.repr(value)


@cache
def _checks(kind: Any) -> dict[str, _Reader]:
    return _field_readers(kind, _converter(as_floats=False))


@cache
def _converter(as_floats: bool) -> Converter:
    from cattrs import Converter

    converter = Converter(forbid_extra_keys=True)
    for kind in (str, int, bool):
        converter.register_structure_hook(kind, _exact)
    converter.register_structure_hook(Path, _path)
    converter.register_structure_hook(float, _to_float if as_floats else _finite)
    factories: Sequence[tuple[Callable[[Any], bool], _Factory]] = (
        (lambda hint: get_origin(hint) is tuple, _list_reader),
        (lambda hint: get_origin(hint) is Mapping, _mapping_reader),
        (lambda hint: isinstance(hint, type) and is_dataclass(hint), _table_reader),
        (lambda hint: get_origin(hint) in _UNIONS, _union_reader),
        (lambda hint: get_origin(hint) is Literal, lambda _hint, _converter: _one_of),
    )
    for fits, factory in factories:
        converter.register_structure_hook_factory(fits, factory)
    return converter


def _list_reader(hint: Any, converter: Converter) -> _Reader:
    from cattrs.cols import homogenous_tuple_structure_factory

    kinds = get_args(hint)
    if kinds[-1] is Ellipsis:
        return _require(list | tuple, homogenous_tuple_structure_factory(hint, converter))
    of_fixed_length = converter.gen_structure_hetero_tuple(hint)

    def read(value: Any, hint: Any) -> Any:
        if len(value) != len(kinds):
            raise _MisfitError(value, _words(hint))
        return of_fixed_length(value, hint)

    return _require(list | tuple, read)


def _mapping_reader(hint: Any, converter: Converter) -> _Reader:
    from cattrs.cols import mapping_structure_factory

    return _require(Mapping, mapping_structure_factory(hint, converter))


def _table_reader(kind: Any, converter: Converter) -> _Reader:
    from cattrs.gen import make_dict_structure_fn, override

    hooks = _field_readers(kind, converter)
    overrides: dict[str, Any] = {
        each.name: override(rename=each.metadata.get("key"), struct_hook=hooks[each.name])
        for each in fields(kind)
    }
    read = make_dict_structure_fn(kind, converter, _cattrs_forbid_extra_keys=True, **overrides)
    read_table = _require(Mapping, read)
    return lambda value, hint: value if isinstance(value, kind) else read_table(value, hint)


def _union_reader(hint: Any, converter: Converter) -> _Reader:
    from cattrs.errors import BaseValidationError

    kinds = [kind for kind in get_args(hint) if kind is not NoneType]

    def read(value: Any, hint: Any) -> Any:
        if value is None and NoneType in get_args(hint):
            return None
        if len(kinds) == 1:
            return converter.structure(value, kinds[0])
        for kind in kinds:
            try:
                return converter.structure(value, kind)
            except (_MisfitError, BaseValidationError):
                continue
        raise _MisfitError(value, _words(hint))

    return read


def _exact(value: Any, kind: Any) -> Any:
    # By its exact type: True is an int to Python, not to who writes a file.
    if type(value) is not kind:
        raise _MisfitError(value, _words(kind))
    return value


def _path(value: Any, kind: Any) -> Any:
    if not isinstance(value, Path):
        raise _MisfitError(value, _words(kind))
    return value


def _finite(value: Any, kind: Any) -> Any:
    # NumPy's float64 is a float, too.
    fits = type(value) is int or isinstance(value, float)
    if not fits or not abs(value) <= sys.float_info.max:
        raise _MisfitError(value, _words(kind))
    return value


def _to_float(value: Any, kind: Any) -> float:
    return float(_finite(value, kind))


def _one_of(value: Any, hint: Any) -> Any:
    if not isinstance(value, str) or value not in get_args(hint):
        raise _MisfitError(value, _words(hint))
    return value


def _require(kind: Any, read: _Reader) -> _Reader:
    """``read`` for values of a kind: a text is no list of its letters."""

    def checked(value: Any, hint: Any) -> Any:
        if not isinstance(value, kind):
            raise _MisfitError(value, _words(hint))
        return read(value, hint)

    return checked


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _field_readers(kind: Any, converter: Converter) -> dict[str, _Reader]:
    """Readers of a dataclass's fields, which check type, range and choices."""
    hints = _hints(kind)
    return {each.name: _field_reader(each, hints[each.name], converter) for each in fields(kind)}


def _field_reader(each: Field[Any], hint: Any, converter: Converter) -> _Reader:
    def read(value: Any, _: Any) -> Any:
        converted = converter.structure(value, hint)
        if each.default is MISSING or converted != each.default:
            _check_limits(converted, hint, each.metadata, "")
        return converted

    return read


def _check_limits(value: Any, hint: Any, limits: Mapping[str, Any], suffix: str) -> None:
    """Refuse a number out of its range and a text that is no choice; in lists, each entry."""
    hint = (
        next((kind for kind in get_args(hint) if kind is not NoneType), hint)
        if (get_origin(hint) in _UNIONS)
        else hint
    )
    if isinstance(value, tuple):
        kinds = get_args(hint)
        for index, entry in enumerate(value):
            kind = kinds[0] if kinds[-1] is Ellipsis else kinds[index]
            _check_limits(entry, kind, limits, f"{suffix}[{index}]")
    elif isinstance(value, str) and (choices := limits.get("choices")) is not None:
        if value not in choices:
            raise _MisfitError(value, _choice_words(choices), suffix)
    elif type(value) in (int, float) and not (
        limits.get("minimum", -inf) <= value <= limits.get("maximum", inf)
        and limits.get("above", -inf) < value < limits.get("below", inf)
    ):
        raise _MisfitError(value, f"{_words(hint)} {_range_words(limits)}", suffix)


def _explained(error: Exception, path: str) -> Exception:
    """The error of a value, of those that cattrs found, with the path to its key."""
    from cattrs.errors import (
        BaseValidationError,
        ForbiddenExtraKeysError,
        IterableValidationNote,
    )

    while isinstance(error, BaseValidationError):
        with_notes, others = error.group_exceptions()  # type: ignore[attr-defined]
        unknown = [each for each in others if isinstance(each, ForbiddenExtraKeysError)]
        if unknown:  # first: a misspelt key is missing under its own name as well
            keys = [each.metadata.get("key", each.name) for each in fields(unknown[0].cl)]
            path = _join(path, min(unknown[0].extra_fields, key=str))
            return RecordError(f"{path} is unknown; expected one of {', '.join(keys)}")
        if not with_notes:
            error = others[0]
            break
        kind = error.cl
        error, note = with_notes[0]
        if isinstance(note, IterableValidationNote):
            path = _join(path, note.index)
            continue
        each = next(each for each in fields(kind) if each.name == note.name)
        path = _join(path, each.metadata.get("key", each.name))
        if isinstance(error, KeyError):
            return RecordError(f"{path} is missing; expected {_words(_hints(kind)[each.name])}")
    if isinstance(error, _MisfitError):
        return RecordError(f"{path or 'it'}{error.suffix} is {error}")
    if isinstance(error, RecordError):
        return RecordError(f"{path}.{error}" if path else str(error))
    if isinstance(error, ValueError | TypeError | ArithmeticError) or hasattr(error, "exit_code"):
        return RecordError(f"{path}: {error}" if path else str(error))
    return error


def _join(path: str, key: Any) -> str:
    if isinstance(key, int):
        return f"{path}[{key}]"
    if not isinstance(key, str) or not _BARE_KEY.fullmatch(key):
        return f"{path}[{shown(key)}]"
    return f"{path}.{key}" if path else key


def _words(hint: Any, *, several: bool = False) -> str:
    """What an annotation asks for, in words."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple and arguments[-1] is Ellipsis:
        each = _words(arguments[0], several=True)
        return f"a list, each {each}" if each.startswith("one of") else f"a list of {each}"
    if origin is tuple:
        return f"[{', '.join(_words(argument) for argument in arguments)}]"
    if origin is Literal:
        return _choice_words(arguments)
    if origin in _UNIONS:
        return " or ".join(_words(kind) for kind in arguments if kind is not NoneType)
    return _WORDS.get(hint, ("a table", "tables"))[several]


def _choice_words(choices: Collection[Any]) -> str:
    names = [str(name) for name in choices if name != ""]
    return repr(names[0]) if len(names) == 1 else f"one of {', '.join(names)}"


def _range_words(limits: Mapping[str, Any]) -> str:
    bounds = {
        name: str(limits[name]) if isinstance(limits[name], int) else f"{limits[name]:g}"
        for name in ("minimum", "above", "maximum", "below")
        if name in limits
    }
    if bounds.keys() == {"minimum", "maximum"}:
        return f"from {bounds['minimum']} to {bounds['maximum']}"
    words = {
        "minimum": "of {} or more",
        "above": "above {}",
        "maximum": "{} at most",
        "below": "below {}",
    }
    return ", ".join(words[name].format(bound) for name, bound in bounds.items())
