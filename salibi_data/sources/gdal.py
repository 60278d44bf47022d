"""Opens rasters for reading, wherever they are: local files, http(s), and s3 through GDAL."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from salibi_data.sources import rate_limits as limits
from salibi_data.sources.http import HEADER_BYTES, RemoteFile, kind_of_status
from salibi_data.sources.rate_limits import HttpSettings
from salibi_data.store.errors import ReadError, ReadKind
from salibi_data.store.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Iterator

GDAL_OPTIONS: Final[Mapping[str, Any]] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    # So many compressed bytes are fetched side by side; GDAL fetches the rest block after block.
    "GDAL_MAX_RAW_BLOCK_CACHE_SIZE": str(256 * 2**20),
    # All other warnings of GDAL reach Python's logging; a file's odd tags are not the user's worry.
    "CPL_LOG_ERRORS": "OFF",
}
"""Settings for reading COGs; see GDAL's "Configuration options"."""

_REOPENINGS: Final = 2
Result = TypeVar("Result")


def persistently(where: str, read: Callable[[], Result]) -> Result:
    """Call ``read``, which opens ``where`` and reads from it; again after what may be passing.

    A body of the right length may still be wrong, which shows only when GDAL decodes it: the file
    is opened afresh, twice at most. Requests to s3 are GDAL's, so they are tried again here.

    Raises:
        ReadError: the last failure.
    """
    settings = HttpSettings.from_environment()
    num = 0
    while True:
        try:
            return read()
        except ReadError as error:
            failure, num = error, num + 1
        limits.check(after=str(failure))
        if num >= _attempts(where, failure.kind, settings):
            raise failure
        limits.sleep(settings.backoff(num), after=str(failure))


def _attempts(where: str, kind: ReadKind, settings: HttpSettings) -> int:
    if "://" not in where:
        return 1
    if kind == "damaged":
        return 1 + _REOPENINGS
    passing = kind in {"throttled", "server", "timeout", "connection"}
    return settings.attempts if where.startswith("s3://") and passing else 1


@contextmanager
def opened(
    where: str, *, signed: bool = False, requester_pays: bool = False, region: str | None = None
) -> Iterator[Any]:
    """A rasterio dataset, open for the length of the block.

    Args:
        where: local path, or unsigned http(s) or s3 URL.
        signed: whether blobs of the Planetary Computer get a token.
        requester_pays: whether s3 may charge the reader, whose AWS credentials are used then.
        region: of the s3 bucket, where it has to be named.

    Raises:
        ReadError: by the block's end at the latest, whatever it made of what it read.
    """
    if where.startswith(("http://", "https://")):
        with _through_remote(RemoteFile(where, signed=signed), where) as dataset:
            yield dataset
    elif where.startswith("s3://"):
        options = _s3_options(where, requester_pays, region)
        with _by_gdal(f"/vsis3/{where[5:]}", options) as dataset:
            yield dataset
    else:
        with _by_gdal(where, {}) as dataset:
            yield dataset


@contextmanager
def usable(where: str, advice: str) -> Iterator[None]:
    """Turn whatever GDAL cannot do with data that it could read into one error.

    Raises:
        ReadError: of kind ``unusable``, with ``where``, GDAL's reason and ``advice``.
    """
    problem = ""
    try:
        yield
    except _gdal_errors() as error:
        problem = reason(error)
    if problem:
        raise ReadError(f"{where} cannot be used: {problem}. {advice}", kind="unusable")


def _gdal_errors() -> tuple[type[Exception], ...]:
    """All that rasterio raises for GDAL: some of GDAL's errors pass through it as they are."""
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import CRSError, RasterioError

    return RasterioError, CRSError, CPLE_BaseError


@contextmanager
def _through_remote(file: RemoteFile, where: str) -> Iterator[Any]:
    import rasterio

    from salibi_data.sources.gdal_opener import OneFile

    # GDAL sees a bare name: what it caches or complains about by name holds no address.
    name = re.sub(r"[^\w.-]", "_", redact(where).rsplit("/", 1)[-1]) or "raster"
    container = OneFile(file, name)
    problem = ""
    try:
        with rasterio.Env(**GDAL_OPTIONS), rasterio.open(name, opener=container) as dataset:
            yield dataset
    except _gdal_errors() as error:
        problem = reason(error)
    if container.failure is not None:
        raise container.failure
    if problem:
        raise ReadError(problem, kind="damaged")


def _s3_options(where: str, requester_pays: bool, region: str | None) -> dict[str, str]:
    settings = HttpSettings.from_environment()
    left_s = limits.remaining_s()
    options = {
        "GDAL_HTTP_MAX_RETRY": str(int(settings.attempts)),
        "GDAL_HTTP_RETRY_DELAY": str(settings.backoff_s),
        "GDAL_HTTP_CONNECTTIMEOUT": str(math.ceil(settings.connect_timeout_s)),
        "GDAL_HTTP_LOW_SPEED_TIME": str(math.ceil(settings.timeout_s)),
        "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
        "GDAL_HTTP_TIMEOUT": str(max(1, math.ceil(left_s))) if math.isfinite(left_s) else "600",
        "GDAL_HTTP_MULTIPLEX": "YES",
        "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
        "GDAL_INGESTED_BYTES_AT_OPEN": str(HEADER_BYTES),
        # Else GDAL remembers that an opening failed, and what a damaged body held.
        "CPL_VSIL_CURL_NON_CACHED": f"/vsis3/{where[5:]}",
    }
    if region is not None:
        options["AWS_REGION"] = region
    if requester_pays:
        options["AWS_REQUEST_PAYER"] = "requester"
    elif not {"AWS_ACCESS_KEY_ID", "AWS_PROFILE"} & set(os.environ):
        options["AWS_NO_SIGN_REQUEST"] = "YES"
    return options


@contextmanager
def _by_gdal(path: str, options: Mapping[str, str]) -> Iterator[Any]:
    import rasterio

    problem = ""
    try:
        with rasterio.Env(**GDAL_OPTIONS, **options), rasterio.open(path) as dataset:
            yield dataset
    except _gdal_errors() as error:
        problem = reason(error)
    if problem:
        raise ReadError(problem, kind=_kind(path, problem))


def _kind(path: str, problem: str) -> ReadKind:
    """What GDAL's words mean: it tells of a status only in its message."""
    # Names of scenes are full of figures that could be a status.
    name = path.rsplit("/", 1)[-1]
    text = problem.replace(path, "").replace(name, "").lower()
    if not path.startswith("/vsis3/"):
        return "missing" if "no such file" in text or "does not exist" in text else "damaged"
    status = re.search(r"code\D{0,4}(\d{3})\b", text)
    if status is not None:
        return kind_of_status(int(status[1]))
    for kind, words in _WORDS.items():
        if any(word in text for word in words):
            return kind
    return "damaged"


_WORDS: Final[Mapping[ReadKind, tuple[str, ...]]] = {
    "missing": ("does not exist", "nosuchkey", "nosuchbucket"),
    "forbidden": ("access denied", "accessdenied", "credential", "aws_access_key_id"),
    "throttled": ("slow down", "slowdown"),
    "timeout": ("timed out", "timeout", "too slow"),
    "connection": ("curl error", "connect", "resolve host", "bytes, expected"),
}
"""Signs in the messages of GDAL and curl, lower case; the first that fits counts."""


def reason(error: BaseException) -> str:
    """GDAL's words in one line, the first cause first, without anything like a signature."""
    words: list[str] = []
    at: BaseException | None = error
    while at is not None:
        words.insert(0, " ".join(str(at).split()).rstrip(". "))
        at = at.__cause__
    text = ". ".join(dict.fromkeys(word for word in words if word))
    return redact(text)[:200].rstrip(". ") or type(error).__name__
