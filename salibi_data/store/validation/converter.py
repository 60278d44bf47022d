"""Readers of tables as dataclasses, made by cattrs from annotations and the fields' metadata."""

from __future__ import annotations

import operator
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Literal,
    get_args,
    get_origin,
    get_type_hints,
)

from salibi_data.store.validation.wording import UNIONS, choice_words, range_words, shown, words

if TYPE_CHECKING:
    from cattrs import Converter

_Reader = Callable[[Any, Any], Any]
"""Takes a value and its annotation; gives the value as the dataclass has it."""

_Factory = Callable[[Any, "Converter"], _Reader]

_BOUNDS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "minimum": operator.ge,
    "maximum": operator.le,
    "above": operator.gt,
    "below": operator.lt,
}
"""Comparisons of a number with the bounds of its field."""

_BARE_KEY: Final = re.compile(r"[\w-]{1,64}")
"""A key that stands in a path without quotes."""


class RecordError(ValueError):
    """A table does not fit a dataclass; the message is one line that begins with the path."""


class _MisfitError(Exception):
    """A value does not fit its annotation or its range."""

    def __init__(self, value: Any, expected: str, suffix: str = "") -> None:
        super().__init__(f"{shown(value)}; expected {expected}")
        self.suffix = suffix


@cache
def field_checks(kind: Any) -> dict[str, _Reader]:
    """Checks of a dataclass's fields, by name; each takes a value and raises."""
    return _field_readers(kind, converter_for(as_floats=False))


@cache
def converter_for(as_floats: bool) -> Converter:
    """The converter that keeps whole numbers given for floats, or that converts them."""
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
        (lambda hint: get_origin(hint) in UNIONS, _union_reader),
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
            raise _MisfitError(value, words(hint))
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
        raise _MisfitError(value, words(hint))

    return read


def _exact(value: Any, kind: Any) -> Any:
    value = _python_scalar(value)
    # True is an int to Python, not to who writes a file.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise _MisfitError(value, words(kind))
    return value


def _python_scalar(value: Any) -> Any:
    """A scalar of NumPy as one of Python: options that a program computes are often such."""
    of_numpy = type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0
    return value.item() if of_numpy else value


def _path(value: Any, kind: Any) -> Any:
    if not isinstance(value, Path):
        raise _MisfitError(value, words(kind))
    return value


def _finite(value: Any, kind: Any) -> Any:
    value = _number(value, kind)
    if not abs(value) <= sys.float_info.max:
        raise _MisfitError(value, words(kind))
    return value


def _number(value: Any, kind: Any) -> Any:
    value = _python_scalar(value)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _MisfitError(value, words(kind))
    return value


def _to_float(value: Any, kind: Any) -> float:
    return float(_finite(value, kind))


def _one_of(value: Any, hint: Any) -> Any:
    if not isinstance(value, str) or value not in get_args(hint):
        raise _MisfitError(value, words(hint))
    return value


def _require(kind: Any, read: _Reader) -> _Reader:
    """``read`` for values of a kind: a text is no list of its letters."""

    def checked(value: Any, hint: Any) -> Any:
        if kind == list | tuple and type(value).__module__ == "numpy":
            value = value.tolist()  # bounds as GeoPandas gives them
        if not isinstance(value, kind):
            raise _MisfitError(value, words(hint))
        return read(value, hint)

    return checked


@cache
def hints_of(kind: type) -> dict[str, Any]:
    """Annotations of a dataclass, as types."""
    return get_type_hints(kind)


def _field_readers(kind: Any, converter: Converter) -> dict[str, _Reader]:
    """Readers of a dataclass's fields, which check type, range and choices."""
    hints = hints_of(kind)
    return {each.name: _field_reader(each, hints[each.name], converter) for each in fields(kind)}


def _field_reader(each: Field[Any], hint: Any, converter: Converter) -> _Reader:
    def read(value: Any, _: Any) -> Any:
        if not each.metadata.get("finite", True) and isinstance(_python_scalar(value), float):
            converted = float(value)
        else:
            converted = converter.structure(value, hint)
        if each.default is MISSING or converted != each.default:
            _check_limits(converted, hint, each.metadata, "")
        return converted

    return read


def _check_limits(value: Any, hint: Any, limits: Mapping[str, Any], suffix: str) -> None:
    """Refuse a number out of its range and a text that is no choice; in lists, each entry."""
    if get_origin(hint) in UNIONS:
        arms = [kind for kind in get_args(hint) if kind is not NoneType]
        hint = next(
            (kind for kind in arms if isinstance(value, tuple) and get_origin(kind) is tuple),
            next(iter(arms), hint),
        )
    if isinstance(value, tuple):
        kinds = get_args(hint)
        for index, entry in enumerate(value):
            kind = kinds[0] if kinds[-1] is Ellipsis else kinds[index]
            _check_limits(entry, kind, limits, f"{suffix}[{index}]")
    elif isinstance(value, str) and (choices := limits.get("choices")) is not None:
        if value not in choices:
            raise _MisfitError(value, choice_words(choices), suffix)
    elif type(value) in (int, float) and not all(
        fits(value, limits[name]) for name, fits in _BOUNDS.items() if name in limits
    ):
        raise _MisfitError(value, f"{words(hint)} {range_words(limits)}", suffix)


def located(error: Exception, path: str, table: Any = None) -> Exception:
    """The first error of those that cattrs collected, with the path to its key.

    Args:
        error: what reading a table raised.
        path: path to the table; empty for a whole file.
        table: the table, for the names of its rows: people know a row by its name, not its number.
    """
    from cattrs.errors import BaseValidationError, IterableValidationNote

    row = ""
    while isinstance(error, BaseValidationError):
        with_notes, others = error.group_exceptions()  # type: ignore[attr-defined]
        if (unknown := _unknown_key(others, path)) is not None:
            return RecordError(f"{unknown}{row}")
        if not with_notes:
            error = others[0]
            break
        kind = error.cl
        error, note = with_notes[0]
        if isinstance(note, IterableValidationNote):
            path = _join(path, note.index)
            table = _entry(table, note.index)
            if isinstance(note.index, int):
                row = _row_name(path, table) or row
            continue
        each = next(each for each in fields(kind) if each.name == note.name)
        key = each.metadata.get("key", each.name)
        path, table = _join(path, key), _entry(table, key)
        if isinstance(error, KeyError):
            expected = words(hints_of(kind)[each.name])
            return RecordError(f"{path} is missing; expected {expected}{row}")
    if isinstance(error, _MisfitError):
        return RecordError(f"{path or 'it'}{error.suffix} is {error}{row}")
    if isinstance(error, RecordError):
        return RecordError(f"{path}.{error}{row}" if path else str(error))
    if isinstance(error, ValueError | TypeError | ArithmeticError) or hasattr(error, "exit_code"):
        return RecordError(f"{path}: {error}" if path else str(error))
    return error


def _unknown_key(errors: Sequence[Exception], path: str) -> str | None:
    """Message on an unknown key; looked for first, as a misspelt key is missing as well."""
    from cattrs.errors import ForbiddenExtraKeysError

    for error in errors:
        if isinstance(error, ForbiddenExtraKeysError):
            keys = [each.metadata.get("key", each.name) for each in fields(error.cl)]
            path = _join(path, min(error.extra_fields, key=str))
            return f"{path} is unknown; expected one of {', '.join(keys)}"
    return None


def _entry(table: Any, key: Any) -> Any:
    """Entry of a table or a list; None where there is none."""
    if isinstance(table, Mapping):
        return table.get(key)
    return table[key] if isinstance(table, list | tuple) else None


def _row_name(path: str, row: Any) -> str:
    """What tells a row of a list of tables from the others, in brackets; empty if nothing does."""
    name = row.get("name", row.get("sensor")) if isinstance(row, Mapping) else None
    return f" ({path} is {shown(name)})" if isinstance(name, str) else ""


def _join(path: str, key: Any) -> str:
    if isinstance(key, int):
        return f"{path}[{key}]"
    if not isinstance(key, str) or not _BARE_KEY.fullmatch(key):
        return f"{path}[{shown(key)}]"
    return f"{path}.{key}" if path else key
