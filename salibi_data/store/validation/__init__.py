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
``finite``         false where NaN and infinity fit a number, too
``applies_to``     what an option is for, in words; see :func:`check_applicable`
``help``, ``unit``  what a person reads of it
=================  ==============================================================================

Ranges and choices hold for the entries of a list, too. A field's default is always allowed.

The tables are read by cattrs, which is imported when the first one is read.
"""

from __future__ import annotations

from dataclasses import field, fields
from typing import Any, TypeVar, get_args

from salibi_data.store.errors import UsageError
from salibi_data.store.validation.applicability import check_applicable, given_options, mark_given
from salibi_data.store.validation.converter import (
    RecordError,
    converter_for,
    field_checks,
    hints_of,
    located,
)
from salibi_data.store.validation.wording import choice_words, range_words, shown, words

__all__ = [
    "RecordError",
    "check_applicable",
    "check_options",
    "check_record",
    "expectation",
    "given_options",
    "mark_given",
    "option",
    "read_record",
    "shown",
]

Record = TypeVar("Record")
Value = TypeVar("Value")


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
        return converter_for(as_floats).structure(table, kind)
    except Exception as error:
        raise located(error, "", table) from error


def check_record(record: Any) -> None:
    """Check the fields of a dataclass made in Python as :func:`read_record` does.

    Lists become tuples, and NumPy's numbers and arrays Python's.

    Raises:
        RecordError: a value has another type than its field, or is out of its range.
    """
    kind: Any = type(record)
    for name, check in field_checks(kind).items():
        try:
            converted = check(getattr(record, name), None)
        except Exception as error:
            raise located(error, name) from error
        object.__setattr__(record, name, converted)


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
    hint, (each,) = hints_of(kind)[name], [each for each in fields(kind) if each.name == name]
    limits = range_words(each.metadata)
    if (choices := each.metadata.get("choices")) is not None:
        return choice_words(choices).replace("one of", "some of" if get_args(hint) else "one of")
    return f"{words(hint)} {limits}".strip()
