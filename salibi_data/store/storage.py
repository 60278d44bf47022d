"""Places that are read and written through obstore: S3, Google, Azure, web servers, folders.

Credentials and endpoints come from the environment, as the providers' own tools take them:
``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_REGION``, ``AWS_ENDPOINT_URL``,
``AWS_ALLOW_HTTP``, ``AWS_SKIP_SIGNATURE`` (public buckets); ``GOOGLE_APPLICATION_CREDENTIALS``;
``AZURE_STORAGE_ACCOUNT_NAME`` and ``AZURE_STORAGE_ACCOUNT_KEY`` or ``AZURE_STORAGE_SAS_KEY``.
Nothing of them, and nothing that a server says beyond its status, is part of an error.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from salibi_data.store.errors import StoreError, UsageError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

WRITABLE: Final = ("s3", "gs", "az", "abfs", "abfss", "file")
"""Schemes of URLs that are written to."""

READABLE: Final = (*WRITABLE, "http", "https")
"""Schemes of URLs that are read."""

BLOCK_BYTES: Final = 8 << 20
"""What is read or sent with one request."""

_RETRIES: Final = {"max_retries": 6, "retry_timeout": timedelta(seconds=120)}
_TIMEOUT: Final = timedelta(minutes=5)
"""For one request. obstore's own 30 s would cut off blocks on a slow line that many share."""

_VARIABLES: Final = {"s3": "AWS", "gs": "GOOGLE", "az": "AZURE", "abfs": "AZURE", "abfss": "AZURE"}
"""How the names of a provider's environment variables begin."""

_REASONS: Final = (
    (r"NoSuchBucket|ContainerNotFound|bucket does not exist", "its bucket does not exist"),
    (
        r"QuotaExceeded|StorageFull|InsufficientStorage|status code: 507|os error (28|27|122)\b",
        "it is full; make room, or raise its quota",
    ),
    (
        r"169\.254\.169\.254|metadata\.google",
        "there are no credentials; set AWS_ACCESS_KEY_ID and the like, or AWS_SKIP_SIGNATURE=true",
    ),
    (r"BadScheme", "its endpoint is plain http; set AWS_ALLOW_HTTP=true if that is meant"),
    (r"incorrectly configured region", "its bucket is in another region; set AWS_REGION"),
    (r"Unable to recognise URL", "it is no address of a dataset"),
    (r"Account must be specified", "set AZURE_STORAGE_ACCOUNT_NAME"),
    (
        r"status code: 40[13]|AccessDenied|AuthenticationFailed|os error 13\b",
        "access is refused; look at the credentials in the environment, and at what they allow",
    ),
    (
        r"error sending request|error decoding response|timed out|TimedOut|connection",
        "the server cannot be reached, or the connection was lost",
    ),
)
"""What errors of the storage say, and what that means to a user. The first that fits."""


def is_url(location: str | Path) -> bool:
    """Whether a location is a URL and no path."""
    return isinstance(location, str) and "://" in location


def place(location: str | Path, *, writing: bool = False) -> ObjectStore:
    """The storage at a location, which need not hold anything yet.

    Args:
        location: a path, or a URL of :data:`READABLE`.
        writing: whether it will be written to; a folder is made then.

    Raises:
        UsageError: a URL of another kind, or one with a password or query in it.
        StoreError: it cannot be opened, as the environment lacks what is needed.
    """
    from obstore.store import LocalStore, from_url

    scheme = str(location).partition("://")[0] if is_url(location) else "file"
    known = WRITABLE if writing else READABLE
    if scheme not in known:
        raise UsageError(
            f"{'nothing is written to' if writing else 'no stores are read from'} {scheme}://; give "
            f"a path, or one of {', '.join(f'{one}://' for one in known)}."
        )
    if scheme == "file":
        return LocalStore(local_path(location), mkdir=writing)
    _refuse_secrets(str(location), scheme)
    options: Any = {"timeout": _TIMEOUT, "allow_http": _plain_http_is_meant(scheme)}
    retries: Any = _RETRIES
    with explained(str(location), "opened"):
        return from_url(str(location), client_options=options, retry_config=retries)


def _plain_http_is_meant(scheme: str) -> bool:
    """Whether requests may go unencrypted; options given in code hide obstore's own variables."""
    variable = f"{_VARIABLES.get(scheme, '')}_ALLOW_HTTP"
    return scheme == "http" or os.environ.get(variable, "").lower() in ("true", "1")


def local_path(location: str | Path) -> Path:
    """The folder that a path or a ``file://`` URL names."""
    if is_url(location):
        return Path(unquote(urlsplit(str(location)).path))
    return Path(location)


def _refuse_secrets(location: str, scheme: str) -> None:
    parts = urlsplit(location)
    if parts.query or parts.fragment or (parts.username and not scheme.startswith("abfs")):
        raise UsageError(
            f"the address {scheme}://{parts.hostname}{parts.path} has more to it, as a password or a "
            "signature; leave that out, and give credentials in the environment."
        )


@contextmanager
def explained(where: str, what: str, *, then: str = "") -> Iterator[None]:
    """Have errors of the storage told in one line.

    Args:
        where: the address, without secrets.
        what: what cannot be done with it: ``read``.
        then: what to do, as a sentence.

    Raises:
        StoreError: in place of what the storage raises.
    """
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, FileNotFoundError, NotImplementedError) as error:
        tail = f" {then}" if then else ""
        raise StoreError(f"{where} cannot be {what}: {reason(error)}.{tail}") from error


def reason(error: Exception) -> str:
    """Say why storage failed, without addresses, keys, or the server's own words."""
    from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

    said = str(error)
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        said += " status code: 403"
    for pattern, meaning in _REASONS:
        if re.search(pattern, said):
            return meaning
    if isinstance(error, FileNotFoundError):
        return "it is not there"
    status = re.search(r"status code: (\d{3})", said)
    if status:
        return f"the server answered {status[1]}"
    return f"storage failed ({type(error).__name__})"


def blocks(storage: ObjectStore, name: str, num_bytes: int) -> Iterator[bytes]:
    """The content of an object, block by block, so that a lost connection costs one block."""
    import obstore

    for start in range(0, num_bytes, BLOCK_BYTES):
        end = min(start + BLOCK_BYTES, num_bytes)
        yield bytes(obstore.get_range(storage, name, start=start, end=end))


def listing(storage: ObjectStore, prefix: str = "") -> dict[str, int]:
    """Size in bytes of every object below ``prefix``, by its whole name."""
    import obstore

    return {
        entry["path"]: entry["size"]
        for batch in obstore.list(storage, prefix or None)
        for entry in batch
    }
