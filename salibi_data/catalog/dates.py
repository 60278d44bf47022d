"""Intervals of dates, as the command line and configuration state them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from salibi_data.store.errors import UsageError

Interval = tuple[datetime, datetime]
"""Closed interval of times, UTC."""


def parse_dates(text: str) -> Interval:
    """Parse ``A/B`` with ISO dates or times; a date alone means its whole day, UTC.

    Raises:
        UsageError: not two dates, or the first is after the second.
    """
    try:
        first, last = (datetime.fromisoformat(part) for part in text.split("/"))
    except ValueError as error:
        raise UsageError(f"dates {text!r} are not A/B, such as 2021-05-01/2022-09-30.") from error
    if ":" not in text.split("/")[1]:
        last += timedelta(days=1, microseconds=-1)
    first, last = (time if time.tzinfo else time.replace(tzinfo=UTC) for time in (first, last))
    if first > last:
        raise UsageError(f"dates {text!r} end before they begin; give the earlier one first.")
    return first, last


def parse_time(value: Any) -> datetime:
    """Parse a time as items of catalogs state it; without a zone it is UTC.

    Digits beyond microseconds are cut off.

    Raises:
        TypeError: not text.
        ValueError: not a time, or none that UTC can express.
    """
    if not isinstance(value, str):
        raise TypeError(f"time is {value!r}; expected text such as 2021-06-01T17:00:00Z")
    # RFC 3339 allows lower case; some catalogs write the zone as a word.
    text = value.strip().upper().replace(" UTC", "Z")
    time = datetime.fromisoformat(text)
    try:
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except OverflowError:
        raise ValueError(
            f"time is {value!r}, which lies outside the years 1..9999 in UTC"
        ) from None


def acquired_interval(properties: Any) -> Interval:
    """Return first and last moment of an item's acquisition; equal where it states one only.

    Raises:
        TypeError: a stated time is no text.
        ValueError: a stated time is malformed.
        LookupError: no time is stated.
    """
    moment = properties.get("datetime")
    first = properties.get("start_datetime") or moment
    last = properties.get("end_datetime") or moment or first
    if first is None:
        first = last
    if not first:
        raise LookupError("datetime")
    first, last = parse_time(first), parse_time(last)
    return min(first, last), max(first, last)
