"""Object storage through obstore: S3, Google, Azure, web servers, and folders on disk.

Credentials and endpoints come from the environment, as the providers' own tools take them:
``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_REGION``, ``AWS_ENDPOINT_URL``,
``AWS_ALLOW_HTTP``, ``AWS_SKIP_SIGNATURE`` (public buckets); ``GOOGLE_APPLICATION_CREDENTIALS``;
``AZURE_STORAGE_ACCOUNT_NAME`` and ``AZURE_STORAGE_ACCOUNT_KEY`` or ``AZURE_STORAGE_SAS_KEY``.
No error repeats any of them, nor a server's own words: only its status.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

from salibi_data.store.errors import StoreError, UsageError
from salibi_data.store.s3.settings import skips_signature

if TYPE_CHECKING:
    from obstore.store import ObjectStore

WRITABLE: Final = ("s3", "gs", "az", "abfs", "abfss", "file")
"""Schemes of URLs that can be written to."""

READABLE: Final = (*WRITABLE, "http", "https")
"""Schemes of URLs that can be read."""

BLOCK_BYTES: Final = 8 << 20
"""Bytes read or sent with one request where whole files are transferred."""

BLOCK_TIMEOUT: Final = timedelta(minutes=5)
"""Time limit of one request. obstore's own 30 s would cut off blocks on a slow, shared line."""

SAMPLE_TIMEOUT: Final = timedelta(seconds=30)
"""Time limit of one request for single samples: a stalled connection is noticed and replaced."""

_RETRIES: Final = {"max_retries": 6, "retry_timeout": timedelta(seconds=120)}
"""Retries of every request, with growing pauses; none starts after the timeout."""

_ENVIRONMENT_PREFIX: Final = {
    "s3": "AWS",
    "gs": "GOOGLE",
    "az": "AZURE",
    "abfs": "AZURE",
    "abfss": "AZURE",
}

_LOOK_AT_CREDENTIALS: Final = "look at the credentials in the environment, and at what they allow"
_BAD_CREDENTIALS: Final = r"InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|InvalidToken"
"""Error codes of S3 that mean the credentials, whatever the object."""

_REASONS: Final = (
    (r"NoSuchBucket|ContainerNotFound|bucket does not exist", "its bucket does not exist"),
    (
        r"QuotaExceeded|StorageFull|InsufficientStorage|status code: 507|os error (28|27|122)\b",
        "it is full; make room, or raise its quota",
    ),
    (
        # Where no key is set, the AWS and Google clients ask the machine's metadata service.
        r"169\.254\.169\.254|metadata\.google",
        "there are no credentials; set AWS_ACCESS_KEY_ID and the like, or AWS_SKIP_SIGNATURE=true",
    ),
    (r"BadScheme", "its endpoint is plain http; set AWS_ALLOW_HTTP=true if that is meant"),
    (r"incorrectly configured region", "its bucket is in another region; set AWS_REGION"),
    (r"Unable to recognise URL", "it is not the address of a store"),
    (r"Account must be specified", "set AZURE_STORAGE_ACCOUNT_NAME"),
    (_BAD_CREDENTIALS, f"access is refused; {_LOOK_AT_CREDENTIALS}"),
    (
        # Without the right to list, S3 and Google answer 403 or 401 for what is not there as well.
        r"(?s)performing (GET|HEAD)\b.*status code: 40[13]",
        f"it is missing, or access is refused; check the address, and {_LOOK_AT_CREDENTIALS}",
    ),
    (
        r"status code: 40[13]|AccessDenied|AuthenticationFailed|os error 13\b",
        f"access is refused; {_LOOK_AT_CREDENTIALS}",
    ),
    (
        r"error sending request|error decoding response|timed out|TimedOut|connection",
        "the server cannot be reached, or the connection was lost",
    ),
)
"""Patterns in errors of obstore and the reason to give a user; the first that matches counts."""

_NO_LISTING: Final = frozenset({400, 401, 403, 404, 405, 501})
"""Statuses by which servers refuse to list."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def is_url(location: str | Path) -> bool:
    """Tell a URL from a path."""
    return isinstance(location, str) and "://" in location


def local_path(location: str | Path) -> Path:
    """Path that a path or a ``file://`` URL names."""
    if is_url(location):
        return Path(unquote(urlsplit(str(location)).path))
    return Path(location)


def open_storage(
    location: str | Path, *, writing: bool = False, timeout: timedelta = BLOCK_TIMEOUT
) -> ObjectStore:
    """Open the storage at a location, which need not hold anything yet.

    Args:
        location: a path, or a URL of :data:`READABLE`.
        writing: whether it will be written to; a folder is made then.
        timeout: time limit of one request.

    Raises:
        UsageError: a URL of another scheme, or one with a password or query.
        StoreError: the environment lacks what is needed to open it.
    """
    from obstore.store import LocalStore, from_url

    scheme = str(location).partition("://")[0] if is_url(location) else "file"
    allowed = WRITABLE if writing else READABLE
    if scheme not in allowed:
        raise UsageError(
            f"{'nothing is written to' if writing else 'no stores are read from'} {scheme}://; give "
            f"a path, or one of {', '.join(f'{name}://' for name in allowed)}."
        )
    if scheme == "file":
        return LocalStore(local_path(location), mkdir=writing)
    _refuse_secrets(str(location), scheme)
    options: Any = {"timeout": timeout, "allow_http": _allows_plain_http(scheme)}
    retries: Any = _RETRIES
    unsigned: Any = {"skip_signature": True} if scheme == "s3" and skips_signature() else {}
    with translate_errors(str(location), "opened"):
        return from_url(str(location), client_options=options, retry_config=retries, **unsigned)


def _allows_plain_http(scheme: str) -> bool:
    """Tell whether requests may go unencrypted."""
    # obstore ignores its own variable as soon as any client option is given in code.
    variable = f"{_ENVIRONMENT_PREFIX.get(scheme, '')}_ALLOW_HTTP"
    return scheme == "http" or os.environ.get(variable, "").lower() in ("true", "1")


def _refuse_secrets(location: str, scheme: str) -> None:
    parts = urlsplit(location)
    # abfs://container@account/path keeps the container where others keep the user.
    if parts.query or parts.fragment or (parts.username and not scheme.startswith("abfs")):
        raise UsageError(
            f"the address {scheme}://{parts.hostname}{parts.path} has more to it, as a password or a "
            "signature; leave that out, and give credentials in the environment."
        )


@contextmanager
def translate_errors(where: str, done: str, *, advice: str = "") -> Iterator[None]:
    """Turn errors of the storage into one line for the user.

    Args:
        where: address, without secrets.
        done: what cannot be done with it, as a participle: ``read``.
        advice: what to do about it, as a sentence.

    Raises:
        StoreError: in place of the storage's error.
    """
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, FileNotFoundError, NotImplementedError) as error:
        message = f"{where} cannot be {done}: {failure_reason(error)}."
        raise StoreError(f"{message} {advice}".rstrip()) from error


def failure_reason(error: Exception) -> str:
    """Reason why storage failed, without addresses, keys, or the server's own words."""
    from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

    text = str(error)
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        text += " status code: 403"
    for pattern, meaning in _REASONS:
        if re.search(pattern, text):
            return meaning
    if isinstance(error, FileNotFoundError):
        return "it is not there"
    if (status := http_status(error)) is not None:
        return f"the server answered {status}"
    return f"storage failed ({type(error).__name__})"


def get_if_present(storage: ObjectStore, name: str, refusals: list[Exception] | None = None) -> Any:
    """Object as obstore returns it; None where the bucket exists but the object does not.

    Args:
        storage: storage of the object.
        name: name of the object.
        refusals: list to which a refusal of access is added, and None returned: buckets that may
            not be listed refuse access to objects that do not exist. Without a list it is raised.
    """
    import obstore
    from obstore.exceptions import BaseError

    try:
        return obstore.get(storage, name)
    except FileNotFoundError as error:
        # obstore raises the same error for a bucket that does not exist.
        if "bucket" in failure_reason(error):
            raise
        return None
    except BaseError as error:
        if refusals is None or not is_refusal(error):
            raise
        refusals.append(error)
        return None


def is_refusal(error: Exception) -> bool:
    """Whether an object is missing in a bucket that may not be listed, or access to it refused.

    False where the credentials themselves are refused.
    """
    from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

    if re.search(_BAD_CREDENTIALS, str(error)):
        return False
    is_denied = isinstance(error, PermissionDeniedError | UnauthenticatedError)
    return is_denied or http_status(error) in (401, 403)


def http_status(error: Exception) -> int | None:
    """HTTP status that obstore's message states."""
    status = re.search(r"status code: (\d{3})", str(error))
    return int(status[1]) if status else None


def read_blocks(storage: ObjectStore, name: str, num_bytes: int) -> Iterator[bytes]:
    """Content of an object, block by block, so that a lost connection costs one block."""
    import obstore

    for start in range(0, num_bytes, BLOCK_BYTES):
        end = min(start + BLOCK_BYTES, num_bytes)
        yield bytes(obstore.get_range(storage, name, start=start, end=end))


def list_sizes(storage: ObjectStore, prefix: str = "") -> dict[str, int]:
    """Size in bytes of every object below ``prefix``, by its full name."""
    import obstore

    return {
        entry["path"]: entry["size"]
        for batch in obstore.list(storage, prefix or None)
        for entry in batch
    }


def names_at(storage: ObjectStore) -> list[str] | None:
    """Names of folders and objects at the top; None where the server does not let them be listed."""
    import obstore

    listing = _if_allowed(lambda: obstore.list_with_delimiter(storage))
    if listing is None:
        return None
    return [*listing["common_prefixes"], *(entry["path"] for entry in listing["objects"])]


def list_sizes_if_allowed(storage: ObjectStore, prefix: str = "") -> dict[str, int] | None:
    """Result of :func:`list_sizes`; None where the server does not let names be listed."""
    from obstore.store import HTTPStore

    # Web servers list by WebDAV, if at all.
    if isinstance(storage, HTTPStore):
        return None
    return _if_allowed(lambda: list_sizes(storage, prefix))


def _if_allowed(list_names: Callable[[], _Result]) -> _Result | None:
    from obstore.exceptions import BaseError

    try:
        return list_names()
    except NotImplementedError:
        return None
    except (BaseError, FileNotFoundError) as error:
        if http_status(error) in _NO_LISTING:
            return None
        raise


def sizes_of(storage: ObjectStore, names: Sequence[str], *, workers: int) -> dict[str, int]:
    """Size in bytes of some objects, by name, without those that are missing or may not be read."""
    sizes = parallel_map(lambda name: _size_if_readable(storage, name), names, workers=workers)
    return {name: size for name, size in zip(names, sizes, strict=True) if size is not None}


def _size_if_readable(storage: ObjectStore, name: str) -> int | None:
    import obstore
    from obstore.exceptions import BaseError

    try:
        return int(obstore.head(storage, name)["size"])
    except FileNotFoundError:
        return None
    except BaseError:
        pass  # some servers and signed addresses allow GET alone
    try:
        return int(obstore.get(storage, name, options={"range": (0, 1)}).meta["size"])
    except FileNotFoundError:
        return None
    except BaseError as error:
        if http_status(error) == 416:  # noqa: PLR2004 - it is empty
            return 0
        if not is_refusal(error):
            raise
        return None


def parallel_map(
    work: Callable[[_Item], _Result], items: Sequence[_Item], *, workers: int
) -> Iterator[_Result]:
    """Results of ``work`` in the order of ``items``, by threads; an error cancels what is queued."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="salibi-transfer")
    try:
        yield from pool.map(work, items)
    finally:
        pool.shutdown(cancel_futures=True)
