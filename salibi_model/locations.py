"""Where a store is: a folder, or a URL of a bucket or web server, opened for reading.

At an address where a dataset was published (``docs/publishing.md``) it is the newest release, the one
that is newest when it is opened.

Credentials and endpoints come from the environment, as the providers' own tools take them:
``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_REGION``, ``AWS_ENDPOINT_URL``,
``AWS_ALLOW_HTTP``, ``AWS_SKIP_SIGNATURE`` (public buckets); ``GOOGLE_APPLICATION_CREDENTIALS``;
``AZURE_STORAGE_ACCOUNT_NAME`` and ``AZURE_STORAGE_ACCOUNT_KEY`` or ``AZURE_STORAGE_SAS_KEY``.
Nothing of them, and nothing that a server says beyond its status, is part of an error.
"""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from salibi_data.store.errors import StoreError, UsageError
from salibi_data.store.schema import LATEST_NAME, Release, SchemaError

if TYPE_CHECKING:
    import zarr

REMOTE = ("s3", "gs", "az", "abfs", "abfss", "http", "https")
"""Schemes of URLs that are read over the network."""

MAX_RETRIES = 4
RETRY_FOR = timedelta(seconds=60)
"""A request is tried again so often, and for so long, with growing pauses."""

_REASONS = (
    (r"NoSuchBucket|ContainerNotFound|bucket does not exist", "its bucket does not exist"),
    (
        r"169\.254\.169\.254|metadata\.google",
        "there are no credentials; set AWS_ACCESS_KEY_ID and the like, or AWS_SKIP_SIGNATURE=true",
    ),
    (r"BadScheme", "its endpoint is plain http; set AWS_ALLOW_HTTP=true if that is meant"),
    (r"incorrectly configured region", "its bucket is in another region; set AWS_REGION"),
    (r"Unable to recognise URL", "it is no address of a store"),
    (r"Account must be specified", "set AZURE_STORAGE_ACCOUNT_NAME"),
    (r"error sending request|timed out|TimedOut", "the server cannot be reached"),
)
"""What errors of the storage say, and what that means to a user."""

_REFUSED = (
    "access is refused; look at the credentials in the environment, and at what they may read"
)


def open_group(location: str) -> zarr.Group:
    """Open the Zarr group at ``location``: a path, or a URL of :data:`REMOTE` or ``file``.

    Raises:
        StoreError: there is none, it is damaged, or it cannot be reached.
        UsageError: a URL of another kind, or one with a password or query in it.
    """
    import zarr
    from obstore.exceptions import BaseError
    from zarr.errors import GroupNotFoundError

    from salibi_model.shards import Shards

    try:
        return zarr.open_group(Shards(_storage(location)), mode="r", zarr_format=3)
    except (GroupNotFoundError, FileNotFoundError, NotADirectoryError) as error:
        raise StoreError(
            f"{location} is not a Zarr group. Build a store with `salibi-data build`, or give "
            "the path or URL of one."
        ) from error
    except BaseError as error:
        raise StoreError(f"{location} cannot be read: {reason(error)}.") from error
    except SchemaError as error:
        raise StoreError(str(error)) from error
    except (ValueError, TypeError, KeyError) as error:
        raise StoreError(damaged(location, error)) from error


def open_array(group: zarr.Group, name: str, *, where: str) -> zarr.Array[Any]:
    """Open an array of a group.

    Raises:
        StoreError: there is none of that name, or its metadata are damaged.
    """
    import zarr
    from obstore.exceptions import BaseError

    try:
        array = group[name]
    except KeyError:
        array = None
    except BaseError as error:
        raise StoreError(f"{where} cannot be read: {reason(error)}.") from error
    except (ValueError, TypeError) as error:
        raise StoreError(damaged(f"{where}: array {name!r}", error)) from error
    if not isinstance(array, zarr.Array):
        raise StoreError(
            f"{where} has no array {name!r}, though a Salibi store must. Build or pull it again."
        )
    return array


def damaged(what: str, error: Exception) -> str:
    """Say in one line that something cannot be read, why, and what to do."""
    from obstore.exceptions import BaseError

    if isinstance(error, BaseError):
        return f"{what} cannot be read: {reason(error)}."
    said = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
    return (
        f"{what} cannot be read ({said}). `salibi-data verify` tells which of a store's files are "
        "damaged; pull or build it again."
    )


def reason(error: Exception) -> str:
    """Say why storage could not be read, without addresses, keys, or the server's own words."""
    from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

    said = str(error)
    for pattern, meaning in _REASONS:
        if re.search(pattern, said):
            return meaning
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        return _REFUSED
    status = re.search(r"status code: (\d{3})", said)
    return (
        f"the server answered {status[1]}" if status else f"storage failed ({type(error).__name__})"
    )


def _storage(location: str) -> Any:
    """Give zarr's storage at a location; what is remote has been found to be there."""
    from zarr.storage import LocalStore

    scheme = location.partition("://")[0] if "://" in location else ""
    if scheme in ("", "file"):
        folder = Path(unquote(urlsplit(location).path) if scheme else location)
        return LocalStore(_newest(folder, location), read_only=True)
    if scheme in REMOTE:
        return _bucket(location, scheme)
    raise UsageError(
        f"no stores are read from {scheme}://; give a path, file://, or one of "
        f"{', '.join(f'{known}://' for known in REMOTE)}."
    )


def _newest(folder: Path, location: str) -> Path:
    """Give the folder of the newest release where a dataset was published, else the folder."""
    latest = folder / LATEST_NAME
    if (folder / "zarr.json").exists() or not latest.is_file():
        return folder
    return folder / Release.from_json(latest.read_bytes(), where=location).store


def _bucket(location: str, scheme: str) -> Any:
    import obstore
    from obstore.store import from_url
    from zarr.storage import ObjectStore

    parts = urlsplit(location)
    if parts.query or parts.fragment or (parts.username and not scheme.startswith("abfs")):
        raise UsageError(
            f"the address {scheme}://{parts.hostname}{parts.path} has more to it, as a password or a "
            "signature; leave that out, and give credentials in the environment."
        )
    options: Any = {"allow_http": True} if scheme == "http" else None
    retries: Any = {"max_retries": MAX_RETRIES, "retry_timeout": RETRY_FOR}
    try:
        storage = from_url(location, client_options=options, retry_config=retries)
        # Zarr takes a bucket that is not there for an empty one.
        if _has(storage, "zarr.json"):
            return ObjectStore(storage, read_only=True)
        latest = bytes(obstore.get(storage, LATEST_NAME).bytes())
    except FileNotFoundError as error:
        if "bucket" in (why := reason(error)):
            raise StoreError(f"{location} cannot be read: {why}.") from error
        raise
    release = Release.from_json(latest, where=location)
    address = f"{location.rstrip('/')}/{release.store}"
    storage = from_url(address, client_options=options, retry_config=retries)
    return _kept(ObjectStore(storage, read_only=True), release)


def _kept(storage: Any, release: Release) -> Any:
    """Give storage that keeps on disk what it read, if the environment asks for it."""
    from salibi_model.disk_cache import CachedRelease, cache_of_environment

    cache = cache_of_environment()
    return storage if cache is None else CachedRelease(storage, cache, release.manifest_sha256)


def _has(storage: Any, name: str) -> bool:
    import obstore

    try:
        obstore.head(storage, name)
    except FileNotFoundError:
        return False
    return True
