"""Open rasters for reading: local files and s3 through GDAL, http(s) through our own client."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from salibi_data.sources import rate_limits
from salibi_data.sources.http import HEADER_BYTES, RemoteFile, classify_status
from salibi_data.sources.rate_limits import HttpSettings
from salibi_data.store.errors import ReadError, ReadKind
from salibi_data.store.redaction import is_remote, redact
from salibi_data.store.s3.settings import S3Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

GDAL_OPTIONS: Final[Mapping[str, Any]] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    # Compressed bytes up to this size are fetched in parallel, the rest block after block.
    "GDAL_MAX_RAW_BLOCK_CACHE_SIZE": str(256 * 2**20),
    # GDAL would also print to stderr; rasterio passes what matters to Python's logging.
    "CPL_LOG_ERRORS": "OFF",
}
"""GDAL settings for reading COGs.

Source: https://gdal.org/en/stable/user/configoptions.html
"""

_MAX_PAUSES_S: Final = 240.0
"""Time of which a quarter at most is spent on GDAL's own pauses for one request."""
_REOPENINGS: Final = 2
"""Further openings of a remote file that GDAL could not decode."""

Result = TypeVar("Result")


def read_with_retries(where: str, read: Callable[[], Result]) -> Result:
    """Call ``read`` until it succeeds or a further attempt cannot help.

    A body of the right length may still be wrong, which shows only when GDAL decodes it: the file
    is opened again, twice at most. Requests to s3 are GDAL's own, so they are retried here.

    Args:
        where: local path or URL of the file.
        read: function that opens the file and reads from it.

    Raises:
        ReadError: the last failure.
    """
    settings = HttpSettings.from_environment()
    num_failures = 0
    while True:
        try:
            return read()
        except ReadError as error:
            failure, num_failures = error, num_failures + 1
        rate_limits.check_deadline(after=str(failure))
        if num_failures >= _max_attempts(where, failure.kind, settings):
            raise failure
        rate_limits.sleep(settings.backoff(num_failures), after=str(failure))


def _max_attempts(where: str, kind: ReadKind, settings: HttpSettings) -> int:
    if "://" not in where:
        return 1
    if kind == "damaged":
        return 1 + _REOPENINGS
    # http(s) requests have been retried by our own client already.
    is_transient = kind in {"throttled", "server", "timeout", "connection"}
    return settings.attempts if where.startswith("s3://") and is_transient else 1


@contextmanager
def open_raster(
    where: str, *, signed: bool = False, requester_pays: bool = False, region: str | None = None
) -> Iterator[Any]:
    """Open a rasterio dataset for the length of the block.

    Args:
        where: local path, or unsigned http(s) or s3 URL.
        signed: whether to sign requests for blobs of the Planetary Computer with a token.
        requester_pays: whether s3 may charge the reader, whose AWS credentials are used then.
        region: region of the s3 bucket, where the client has to name it.

    Raises:
        ReadError: opening or reading failed. Failed requests of a read may be reported only at the
            end of the block, so what was read must not be used before.
    """
    if where.startswith(("http://", "https://")):
        with _open_remote(RemoteFile(where, signed=signed), where) as dataset:
            yield dataset
    elif where.startswith("s3://"):
        bucket = where.removeprefix("s3://").partition("/")[0]
        options = _s3_options(where) | S3Settings.from_environment().gdal_options(
            bucket, requester_pays=requester_pays, region=region
        )
        with _open_with_gdal(f"/vsis3/{where[5:]}", options) as dataset:
            yield dataset
    else:
        with _open_with_gdal(where, {}) as dataset:
            yield dataset


@contextmanager
def translate_gdal_errors(where: str, advice: str) -> Iterator[None]:
    """Convert GDAL errors on readable data into one ReadError.

    Args:
        where: name of the file in the message.
        advice: what the reader of the message can do.

    Raises:
        ReadError: GDAL failed in the block; of kind ``unusable``.
    """
    problem = ""
    try:
        yield
    except _gdal_errors() as error:
        problem = describe_error(error)
    if problem:
        raise ReadError(f"{where} cannot be used: {problem}. {advice}", kind="unusable")


def _gdal_errors() -> tuple[type[Exception], ...]:
    """Return all exceptions that rasterio raises for GDAL; some of GDAL's own pass through it."""
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import CRSError, RasterioError

    return RasterioError, CRSError, CPLE_BaseError


@contextmanager
def _open_remote(file: RemoteFile, where: str) -> Iterator[Any]:
    import rasterio

    from salibi_data.sources.gdal_opener import SingleFileSystem

    # GDAL sees only the file name, so that neither its cache nor its messages hold the address.
    name = re.sub(r"[^\w.-]", "_", redact(where).rsplit("/", 1)[-1]) or "raster"
    container = SingleFileSystem(file, name)
    problem = ""
    try:
        with rasterio.Env(**GDAL_OPTIONS), rasterio.open(name, opener=container) as dataset:
            yield dataset
    except _gdal_errors() as error:
        problem = describe_error(error)
    except ReadError:
        # A request that failed inside the block is the cause, whatever its message became there.
        if container.failure is None:
            raise
    if container.failure is not None:
        raise container.failure
    if problem:
        raise ReadError(problem, kind="damaged")


def _s3_options(where: str) -> dict[str, str]:
    settings = HttpSettings.from_environment()
    left_s = rate_limits.remaining_s()
    return {
        "GDAL_HTTP_MAX_RETRY": str(_num_retries(settings, left_s)),
        "GDAL_HTTP_RETRY_DELAY": str(settings.backoff_s),
        "GDAL_HTTP_CONNECTTIMEOUT": str(math.ceil(settings.connect_timeout_s)),
        "GDAL_HTTP_LOW_SPEED_TIME": str(math.ceil(settings.timeout_s)),
        "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
        "GDAL_HTTP_TIMEOUT": str(max(1, math.ceil(left_s))) if math.isfinite(left_s) else "600",
        "GDAL_HTTP_MULTIPLEX": "YES",
        "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
        "GDAL_INGESTED_BYTES_AT_OPEN": str(HEADER_BYTES),
        # GDAL caches failed openings and damaged bodies, so a further attempt could not succeed.
        "CPL_VSIL_CURL_NON_CACHED": f"/vsis3/{where[5:]}",
    }


def _num_retries(settings: HttpSettings, left_s: float) -> int:
    """Return how often GDAL may repeat a request, so that its pauses fit in the time that is left.

    GDAL knows no deadline. Each of its pauses is up to 2.5 times the one before
    (``CPLHTTPGetNewRetryDelay``); whole reads are repeated by :func:`read_with_retries`.
    """
    num, pause_s, left_s = 0, settings.backoff_s, min(left_s, _MAX_PAUSES_S) / 4
    while num < settings.attempts and pause_s <= left_s:
        num, pause_s, left_s = num + 1, 2.5 * pause_s, left_s - pause_s
    return num


@contextmanager
def _open_with_gdal(path: str, options: Mapping[str, str]) -> Iterator[Any]:
    import rasterio

    problem = ""
    try:
        with rasterio.Env(**GDAL_OPTIONS, **options), rasterio.open(path) as dataset:
            yield dataset
    except _gdal_errors() as error:
        problem = describe_error(error)
    if problem:
        raise ReadError(problem, kind=_kind(path, problem))


def _kind(path: str, problem: str) -> ReadKind:
    """Classify GDAL's message, the only place where it states an HTTP status."""
    # Names of scenes contain digits that look like a status.
    name = path.rsplit("/", 1)[-1]
    text = problem.replace(path, "").replace(name, "").lower()
    if not is_remote(path):
        return "missing" if "no such file" in text or "does not exist" in text else "damaged"
    status = re.search(r"code\D{0,4}(\d{3})\b", text)
    if status is not None:
        return classify_status(int(status[1]))
    for kind, signs in _MESSAGE_SIGNS.items():
        if any(sign in text for sign in signs):
            return kind
    return "damaged"


_MESSAGE_SIGNS: Final[Mapping[ReadKind, tuple[str, ...]]] = {
    "missing": ("does not exist", "nosuchkey", "nosuchbucket"),
    "forbidden": ("access denied", "accessdenied", "credential", "aws_access_key_id"),
    "throttled": ("slow down", "slowdown"),
    "timeout": ("timed out", "timeout", "too slow"),
    "connection": ("curl error", "connect", "resolve host", "bytes, expected"),
}
"""Parts of messages of GDAL and curl, in lower case; the first kind that matches counts."""


def describe_error(error: BaseException) -> str:
    """Join the messages of GDAL's chain of errors to one line, root cause first, without secrets."""
    messages: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        messages.insert(0, " ".join(str(cause).split()).rstrip(". "))
        cause = cause.__cause__
    text = ". ".join(dict.fromkeys(message for message in messages if message))
    return redact(text)[:200].rstrip(". ") or type(error).__name__
