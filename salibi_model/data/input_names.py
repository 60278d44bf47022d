"""Names of inputs: the shortest that tell them apart, and those of the few that differ from most."""

import hashlib
import os.path
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

from salibi_data.store.errors import UsageError
from salibi_data.store.redaction import is_remote, redact, shown_location
from salibi_data.store.storage import local_path

_MAX_NAMES: Final = 3
"""Number of images that a message names; of the others it gives the count."""


def describe_odd(groups: Mapping[str, Sequence[str]]) -> str:
    """Say which images differ from most, without a full stop.

    What the largest group has is right, and no image of it is named: its owner would repair what
    is whole. Without a largest group, each is given with its number and an example.

    Args:
        groups: names of images by what they have, in words: ``"1 band"``.
    """
    ordered = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    if len(ordered) == 1:
        return f"all have {ordered[0][0]}"
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


def distinct_names(locations: Sequence[str]) -> list[str]:
    """Return a name for each input: its last part, with as many folders before it as are needed.

    ``scene1/TCI.tif`` and ``scene2/TCI.tif`` keep these names, wherever their folder lies and in
    whatever order they are given; ``a.tif`` alone is ``a.tif``. URLs that differ in their queries
    alone get the beginning of a hash of these, as a query may be secret.

    Args:
        locations: paths and URLs.

    Raises:
        UsageError: an input is given twice.
    """
    _refuse_repeats(locations)
    parts = [_parts(location) for location in locations]
    alike: dict[str, list[int]] = defaultdict(list)
    for number, each in enumerate(parts):
        alike[each[-1]].append(number)
    names = [""] * len(parts)
    for numbers in alike.values():
        # Of URLs that differ in their queries, the whole path is one and the same.
        longest = max(len(parts[number]) for number in numbers)
        targets = len({parts[number] for number in numbers})
        depth = next(
            depth
            for depth in range(1, longest + 1)
            if len({parts[number][-depth:] for number in numbers}) == targets
        )
        for number in numbers:
            names[number] = "/".join(parts[number][-depth:])
    counts = Counter(names)
    return [
        f"{name}~{_query_hash(location)}" if counts[name] > 1 else name
        for name, location in zip(names, locations, strict=True)
    ]


def identity_of(location: str) -> str:
    """Return what two spellings of one path have in common: ``a.zarr``, ``./a.zarr``, ``file://``."""
    return location.rstrip("/") if is_remote(location) else _absolute(location)


def _refuse_repeats(locations: Sequence[str]) -> None:
    first: dict[str, str] = {}
    for location in locations:
        key = identity_of(location)
        if key in first:
            again = "" if first[key] == location else f", also as {shown_location(location)}"
            raise UsageError(
                f"{shown_location(first[key])} is given twice{again}; its rows would have the same "
                "ids. Give each input once."
            )
        first[key] = location


def _absolute(location: str) -> str:
    # Not resolved: two links to one file are two names, and get an id each.
    return os.path.abspath(local_path(location))  # noqa: PTH100


def _parts(location: str) -> tuple[str, ...]:
    """Parts of a path from the root, or of a URL from its host, without secrets."""
    text = redact(location) if is_remote(location) else shown_location(_absolute(location))
    parts = text.partition("://")[2] or text
    return tuple(part for part in parts.replace("\\", "/").split("/") if part) or (text,)


def _query_hash(location: str) -> str:
    return hashlib.sha256(urlsplit(location).query.encode()).hexdigest()[:8]
