"""Options as texts and TOML give them: what type each has, and how pairs and such are written."""

import math
from collections.abc import Collection
from typing import Any

from salibi_data.store.errors import UsageError
from salibi_model.models.config import MISTAKES


def check_type(name: str, kind: Any, value: Any) -> None:
    """Refuse a value that a TOML file gives another type than the field has.

    Raises:
        UsageError: says which type is expected.
    """
    parts = value if isinstance(value, tuple) else (None,)
    expected = {
        bool: ("true or false", isinstance(value, bool)),
        int: ("a whole number", isinstance(value, int) and not isinstance(value, bool)),
        float: ("a finite number", _is_number(value)),
        str: ("a text", isinstance(value, str)),
        tuple[float, ...]: ("a list of finite numbers", all(map(_is_number, parts))),
        tuple[str, ...]: (
            'a list of names, as ["sar", "lores"]',
            all(isinstance(part, str) for part in parts),
        ),
    }
    meaning, fits = expected[kind]
    if not fits:
        raise UsageError(f"{name} is {value!r}; expected {meaning}.")


def check_range(name: str, value: Any, low: Any, high: Any) -> None:
    """Refuse a number outside of ``low`` to ``high``.

    Raises:
        UsageError: says which numbers are expected.
    """
    if not low <= value <= high:
        limits = f"from {low:g} to {high:g}" if high < math.inf else f"{low:g} or more"
        raise UsageError(f"{name} is {value}; expected {limits}.")


def check_one_of(what: str, given: str, known: Collection[str]) -> None:
    """Refuse a name that is not ``known``.

    Raises:
        UsageError: lists those that are.
    """
    if given not in known:
        raise UsageError(f"no {what} {given!r}; take one of {', '.join(filter(None, known))}.")


def read_pair(text: str) -> tuple[str, str]:
    """Read a pair of modalities, as ``sar:lores``."""
    left, colon, right = text.partition(":")
    if not (left and colon and right):
        raise UsageError(f"{text!r} is no pair of modalities; write one as sar:lores.")
    return left, right


def read_depth(text: str) -> tuple[str, int]:
    """Read the depth of a modality's encoder, as ``sar:6``."""
    name, _, depth = text.partition(":")
    if not (name and depth.isdecimal()):
        raise UsageError(f"{text!r} is no depth of an encoder; write one as sar:6.")
    return name, int(depth)


def read_factor(text: str) -> tuple[str, float]:
    """Read the factor on a part's learning rate, as ``decoder:2``."""
    name, _, factor = text.partition(":")
    try:
        value = float(factor)
    except ValueError:
        value = math.nan
    if not (name and math.isfinite(value) and value >= 0):
        raise UsageError(f"{text!r} is no factor on a learning rate; write one as decoder:2.")
    return name, value


def read_mistakes(compat: str) -> tuple[int, ...]:
    """Read ``original`` (all mistakes) or ``original:1,4`` (these); without text there are none."""
    if compat in ("", "original"):
        return MISTAKES if compat else ()
    name, _, listed = compat.partition(":")
    chosen = tuple(number for number in MISTAKES if str(number) in listed.split(","))
    if name != "original" or not chosen or listed != ",".join(map(str, chosen)):
        raise UsageError(
            f"no compatibility {compat!r}; write original, or original:1,4 for some of its "
            f"mistakes ({', '.join(map(str, MISTAKES))}), in order."
        )
    return chosen


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
