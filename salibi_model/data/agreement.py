"""Names the images that differ from most others, where all have to be alike."""

from collections.abc import Mapping, Sequence
from typing import Final

_MAX_NAMES: Final = 3
"""Number of images that a message names; of the others it gives the count."""


def describe_odd(groups: Mapping[str, Sequence[str]]) -> str:
    """Say which images differ from most, without a full stop.

    What the largest group has is right, and no image of it is named: its owner would repair what
    is whole. Without a largest group, each is given with its number and an example.

    Args:
        groups: names of images by what they have, in words: ``"1 band"``. There are two or more.
    """
    ordered = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    (most, usual), (_, second) = ordered[:2]
    if len(usual) == len(second):
        examples = "; ".join(
            f"{len(names)} have {what}, such as {names[0]}"
            if len(names) > 1
            else f"{names[0]} has {what}"
            for what, names in ordered
        )
        return f"the images differ: {examples}"
    odd = "; ".join(f"{listed(names)} {_have(names)} {what}" for what, names in sorted(ordered[1:]))
    return f"{odd}, where most ({len(usual)} of {sum(map(len, groups.values()))}) have {most}"


def listed(names: Sequence[str]) -> str:
    """Join the first few names, and count the others."""
    more = len(names) - _MAX_NAMES
    shown = ", ".join(names[:_MAX_NAMES])
    return f"{shown} and {more} more" if more > 0 else shown


def _have(names: Sequence[str]) -> str:
    return "has" if len(names) == 1 else "have"
