"""Intervals of dates, as the command line and configuration state them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

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
