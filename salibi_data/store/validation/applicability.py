"""Refuses options that nothing of the work at hand uses.

A field's metadata ``applies_to`` names, in words, what its option is for: ``rasters``, ``stores``.
Whoever knows the inputs says which of these are absent, and why; an option that was given for one
of them would change nothing, and would be recorded as if it had.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, Final

from salibi_data.store.errors import UsageError

_GIVEN: Final = "_given"
"""Attribute of a record that names the fields that were given."""


def given_options(options: Any) -> dict[str, Any]:
    """Values of the fields of a dataclass that were given, by name.

    Those are the ones that differ from their defaults, and those that :func:`mark_given` names.
    """
    marked: frozenset[str] = getattr(options, _GIVEN, frozenset())
    return {
        each.name: getattr(options, each.name)
        for each in fields(options)
        if each.name in marked
        or each.default is MISSING
        or getattr(options, each.name) != each.default
    }


def mark_given(options: Any, names: Collection[str]) -> None:
    """Remember which fields of a dataclass were given: a default may be given explicitly."""
    # Past frozen fields; a copy by dataclasses.replace does not have it.
    object.__setattr__(options, _GIVEN, frozenset(names))


def check_applicable(kind: Any, given: Mapping[str, Any], absent: Mapping[str, str]) -> None:
    """Refuse options that were given for something that is not there.

    Args:
        kind: dataclass whose fields are the options.
        given: values of the options that were given, by the fields' names.
        absent: for each value of ``applies_to`` that nothing at hand is, the reason in words.

    Raises:
        UsageError: such options were given; the message names them all, as the command line and as
            Python spell them.
    """
    refused: dict[str, list[str]] = {}
    for each in fields(kind):
        applies_to = str(each.metadata.get("applies_to", ""))
        if applies_to in absent and each.name in given:
            refused.setdefault(applies_to, []).append(_spelled(each, given[each.name]))
    if not refused:
        return
    reasons = [
        f"{' and '.join(names)} {'apply' if len(names) > 1 else 'applies'} to {applies_to}, but "
        f"{absent[applies_to]}"
        for applies_to, names in refused.items()
    ]
    several = len(reasons) > 1 or any(len(names) > 1 for names in refused.values())
    raise UsageError(f"{'; '.join(reasons)}. Leave {'them' if several else 'it'} out.")


def _spelled(each: Field[Any], value: Any) -> str:
    """An option as the command line spells it, and the name of the argument where it differs."""
    flag = str(each.metadata.get("flag", f"--{each.name.replace('_', '-')}"))
    spellings = [name for part in flag.split() for name in part.split("/")]
    negated = value is False and "flag" not in each.metadata
    spelling = f"--no-{each.name.replace('_', '-')}" if negated else spellings[0]
    same = spelling.lstrip("-") == each.name
    return spelling if same else f"{spelling} ({each.name})"
