"""Describes annotations, ranges and values in words, for messages."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from reprlib import Repr
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin

UNIONS: Final = (Union, UnionType)

_WORDS: Final[Mapping[Any, tuple[str, str]]] = {
    str: ("text", "texts"),
    int: ("a whole number", "whole numbers"),
    float: ("a finite number", "finite numbers"),
    bool: ("true or false", "true or false"),
    Path: ("a path", "paths"),
}
"""Singular and plural of each type in words."""

_repr = Repr()
_repr.maxstring = _repr.maxother = 60


def shown(value: Any) -> str:
    """Shorten any value to a few words on one line; safe for content of hostile files."""
    return "null" if value is None else _repr.repr(value)


def words(hint: Any, *, several: bool = False) -> str:
    """Describe an annotation in words."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple and arguments[-1] is Ellipsis:
        each = words(arguments[0], several=True)
        return f"a list, each {each}" if each.startswith("one of") else f"a list of {each}"
    if origin is tuple:
        return f"[{', '.join(words(argument) for argument in arguments)}]"
    if origin is Literal:
        return choice_words(arguments)
    if origin in UNIONS:
        return " or ".join(words(kind) for kind in arguments if kind is not NoneType)
    return _WORDS.get(hint, ("a table", "tables"))[several]


def choice_words(choices: Collection[Any]) -> str:
    """List choices in words."""
    names = [str(name) for name in choices if name != ""]
    return repr(names[0]) if len(names) == 1 else f"one of {', '.join(names)}"


def range_words(limits: Mapping[str, Any]) -> str:
    """Describe the range of a field in words; empty where it has none."""
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
