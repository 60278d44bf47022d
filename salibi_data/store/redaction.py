"""Text of messages: no tokens, passwords or signatures of addresses, and one line only."""

from __future__ import annotations

import logging
import re
from pathlib import PurePosixPath
from typing import Final

_MAX_LINE_LENGTH: Final = 300
"""Longest first line of another library's error that is repeated whole, in characters."""

_NETWORK_VSI: Final = re.compile(
    r"/vsi(curl|s3|gs|az|adls|oss|swift|hdfs|webhdfs)(_streaming)?[/?]"
)
"""GDAL's virtual file systems on other machines (https://gdal.org/user/virtual_file_systems.html);
archives and memory are on this one."""


def redact(text: str) -> str:
    """Remove queries, fragments, users and passwords from the URLs in a text.

    Everything from a question mark to the next space is removed: HTTP libraries also print the
    path of a URL without its host, and a signed URL keeps its secret there.
    """
    text = re.sub(r"(?<=://)[^/\s?#]*@", "", text)
    text = re.sub(r"\?\S+", "", text)
    return re.sub(r"(://[^\s#]*)#\S*", r"\1", text)


def is_remote(location: str) -> bool:
    """Tell whether a URL, or a path as GDAL takes them, leads to another machine."""
    if location.startswith("/vsi"):
        return "://" in location or _NETWORK_VSI.search(location) is not None
    return "://" in location.removeprefix("file://")


def shown_location(location: str) -> str:
    """Location as people and tables see it: without secrets if remote, a local path as it is.

    A path may hold any character, such as a question mark; bytes that are no UTF-8 are escaped, as
    neither Parquet nor a terminal takes them.
    """
    if is_remote(location):
        return redact(location)
    return location.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def redacted_line(error: BaseException, *, characters: int = 200) -> str:
    """Message of an error on one line, redacted and cut; its type where it has no message."""
    text = redact(" ".join(str(error).split()))
    return text[:characters].rstrip(". ") or type(error).__name__


def first_line(error: BaseException) -> str:
    """First line of an error's message without its full stop; its type where it has none.

    For repeating an error of another library, about a file on this machine, within a message.
    """
    line = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
    return line if len(line) <= _MAX_LINE_LENGTH else f"{line[:_MAX_LINE_LENGTH]} ..."


def redact_requests_log() -> None:
    """Redact the log of urllib3, which has the path of every request at level DEBUG, with its query."""
    logging.getLogger("urllib3.connectionpool").addFilter(_redact_record)


def _redact_record(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(
            argument if isinstance(argument, int | float) else redact(str(argument))
            for argument in record.args
        )
    return True


def name_only(location: str) -> str:
    """Last part of a path or URL: ``micro.zarr`` of ``/home/me/data/micro.zarr``."""
    return PurePosixPath(shown_location(location).replace("\\", "/").rstrip("/")).name
