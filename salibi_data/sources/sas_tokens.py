"""Access tokens for the Planetary Computer's blobs: requested once, shared, renewed in time.

The provider limits how often tokens may be requested, and its SDK caches them per process only, so
many workers would be throttled. One :class:`Broker` requests for all threads: this process's own, or
the scheduler's for the workers of a Dask cluster (see
:func:`salibi_data.sources.dask_plugins.share_tokens`). Tokens are kept in memory only.

Source: https://planetarycomputer.microsoft.com/docs/concepts/sas/
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol
from urllib.parse import parse_qs, urlsplit

from salibi_data.sources import rate_limits
from salibi_data.store.errors import ReadError
from salibi_data.store.redaction import redact

MIN_INTERVAL_S: Final = 16.0
"""Least time between two requests for one container's token."""
_MARGIN: Final = 0.2
"""Share of a token's lifetime left when it is renewed."""
_MAX_MARGIN_S: Final = 600.0
_REQUEST_TIMEOUT_S: Final = 30.0
_ATTEMPTS: Final = 5
_BLOB_DOMAIN: Final = ".blob.core.windows.net"
_PUBLIC_HOST: Final = "ai4edatasetspublicassets.blob.core.windows.net"
"""Host of thumbnails, which need no token."""


@dataclass(frozen=True, kw_only=True)
class Token:
    """A shared access signature for one container."""

    secret: str = field(repr=False)
    """Query string that signs a URL."""
    fresh_until: float
    """Moment from which on it should be renewed, on this process's monotonic clock."""
    expires_at: float
    """Moment of expiry, on this process's monotonic clock."""

    @property
    def digest(self) -> str:
        """Short hash that identifies the token without revealing it."""
        return hashlib.sha256(self.secret.encode()).hexdigest()[:16]


class TokenSource(Protocol):
    """Object that provides tokens: a broker, or a client of one."""

    def token(self, account: str, container: str, rejected: str | None = None) -> Token:
        """Return a token other than the one with digest ``rejected``, if there is one."""


def container_of(href: str) -> tuple[str, str] | None:
    """Return storage account and container of an href that needs a token, by the SDK's rules.

    Only hosts in Azure's blob domain without a port need one, and no href that is signed already.

    Raises:
        ReadError: the href names no blob; of kind ``unusable``.
    """
    parts = urlsplit(href.rstrip("/"))
    if not parts.netloc.endswith(_BLOB_DOMAIN) or parts.netloc == _PUBLIC_HOST:
        return None
    if {"st", "se", "sp"} & set(parse_qs(parts.query)):
        return None
    container, slash, _ = parts.path.lstrip("/").partition("/")
    if not slash:
        raise ReadError(f"{redact(href)} names no blob in a container", kind="unusable")
    return parts.netloc.split(".")[0], container


def sign(href: str, token: Token) -> str:
    """Return the href with its token. Never store, print or log it."""
    return f"{href}{'&' if '?' in href else '?'}{token.secret}"


def get_token(account: str, container: str, rejected: str | None = None) -> Token:
    """Return the current token, from the Dask scheduler where tokens are shared, else from the SDK.

    Args:
        account: storage account.
        container: container in the account.
        rejected: digest of a token that the host refused; a newer one is requested unless known.

    Raises:
        ReadError: of kind ``token``, or ``timeout`` if the deadline passes.
    """
    return _source.token(account, container, rejected)


def request_token(account: str, container: str) -> tuple[str, datetime]:
    """Request a new token through the provider's SDK, once; return it with its expiry.

    Raises:
        ReadError: of kind ``token``, or ``unusable`` where another request cannot help.
    """
    import requests
    from planetary_computer import sas
    from planetary_computer.settings import Settings

    # The SDK would return its last token until a minute before expiry, even if it was refused.
    sas.TOKEN_CACHE.pop(f"{Settings.get().sas_url}/{account}/{container}", None)
    try:
        answer = sas.get_token(account, container, retry_total=0)
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        is_transient = status in {408, 429} or status >= 500  # noqa: PLR2004
        problem, kind = f"HTTP {status}", "token" if is_transient else "unusable"
    except requests.exceptions.RetryError:
        problem, kind = "the service is throttled or down", "token"
    except requests.ConnectionError:
        problem, kind = "the service cannot be reached", "token"
    except (requests.RequestException, ValueError) as error:
        # A parser's message quotes the text that it could not parse, which may be a token.
        problem, kind = f"the answer is not a token ({type(error).__name__})", "token"
    else:
        return answer.token, answer.expiry.astimezone(UTC)
    raise ReadError(problem, kind="token" if kind == "token" else "unusable")


TokenRequest = Callable[[str, str], tuple[str, datetime]]
"""Function from (account, container) to (token, expiry)."""


@dataclass(kw_only=True)
class _Container:
    """State of one container's token; ``changed`` guards all fields."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    token: Token | None = None
    """Last token that the service gave."""
    requesting: bool = False
    """Whether a thread is requesting a token at present."""
    next_request: float = 0.0
    """Moment from which on the next request is allowed, on the monotonic clock."""
    num_answers: int = 0
    error: ReadError | None = None
    """Error of the last request, if it failed."""

    @property
    def is_hopeless(self) -> bool:
        """Whether another request cannot help."""
        return self.error is not None and self.error.kind == "unusable"


class Broker:
    """Requests tokens: one request at a time per container, rate-limited, before they expire.

    Args:
        request: function that requests a new token.
        min_interval_s: least time between two requests for one container.
    """

    def __init__(
        self, request: TokenRequest = request_token, *, min_interval_s: float = MIN_INTERVAL_S
    ) -> None:
        self._request = request
        self._min_interval_s = min_interval_s
        self._containers: dict[tuple[str, str], _Container] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Broker({len(self._containers)} containers)"

    def token(self, account: str, container: str, rejected: str | None = None) -> Token:
        """See :func:`get_token`."""
        with self._lock:
            state = self._containers.setdefault((account, container), _Container())
        problem, num_errors = "", 0
        with state.changed:
            while True:
                token = _usable_token(state, rejected)
                if token is not None:
                    return token
                num_answers = state.num_answers
                wait_s = state.next_request - time.monotonic()
                if not state.requesting and wait_s <= 0:
                    self._renew(state, account, container)
                else:
                    least_s = 0.0 if state.requesting else wait_s
                    rate_limits.check_deadline(least_s, after=problem)
                    timeout_s = _REQUEST_TIMEOUT_S if state.requesting else wait_s
                    state.changed.wait(min(rate_limits.remaining_s(), timeout_s))
                if state.num_answers == num_answers:
                    continue
                if state.error is None and state.token is not None:
                    return state.token  # the service may insist on the token that was refused
                problem, num_errors = str(state.error), num_errors + 1
                if num_errors >= _ATTEMPTS or state.is_hopeless:
                    break
        raise ReadError(
            f"no token for container {container} of {account}: {problem}. Wait a little and run "
            "again, or set PC_SDK_SUBSCRIPTION_KEY",
            kind="token",
        )

    def _renew(self, state: _Container, account: str, container: str) -> None:
        """Request a token, with the lock released meanwhile, and record the answer."""
        state.requesting, state.next_request = True, time.monotonic() + self._min_interval_s
        state.changed.release()
        try:
            answer = _request_within(_REQUEST_TIMEOUT_S, self._request, account, container)
        finally:
            state.changed.acquire()
            state.requesting = False
        state.num_answers += 1
        if isinstance(answer, ReadError):
            state.error = answer
        else:
            state.error = None
            state.token = self._to_token(*answer)
        state.changed.notify_all()

    def _to_token(self, secret: str, expiry: datetime) -> Token:
        now = time.monotonic()
        life_s = (expiry - datetime.now(UTC)).total_seconds()
        margin_s = min(_MARGIN * life_s, _MAX_MARGIN_S)
        # If this machine's clock is wrong, a new token may look expired: do not request another one
        # before the minimal interval is over.
        fresh_s = max(life_s - margin_s, self._min_interval_s)
        return Token(
            secret=secret, fresh_until=now + fresh_s, expires_at=now + max(life_s, fresh_s)
        )


def _usable_token(state: _Container, rejected: str | None) -> Token | None:
    """Return the token, unless it was refused, or is due for renewal and can be renewed now."""
    token, now = state.token, time.monotonic()
    if token is None or token.digest == rejected:
        return None
    if now < token.fresh_until:
        return token
    must_wait = state.requesting or now < state.next_request
    return token if must_wait and now < token.expires_at else None


def _request_within(
    seconds: float, request: TokenRequest, account: str, container: str
) -> tuple[str, datetime] | ReadError:
    """Request a token; return it, or the error.

    The SDK has no time-out, so it runs in a thread of its own, which is abandoned if it hangs.
    """
    answers: list[tuple[str, datetime] | Exception] = []

    def run() -> None:
        try:
            answers.append(request(account, container))
        except Exception as error:  # noqa: BLE001 - handed to the thread that waits
            answers.append(error)

    thread = threading.Thread(target=run, daemon=True, name="salibi-token")
    thread.start()
    thread.join(seconds)
    if not answers:
        return ReadError(f"the service did not answer within {seconds:g} s", kind="token")
    answer = answers[0]
    if isinstance(answer, Exception) and not isinstance(answer, ReadError):
        raise answer
    return answer


_broker: Broker = Broker()
_source: TokenSource = _broker


def set_token_source(source: TokenSource) -> TokenSource:
    """Make :func:`get_token` use ``source`` from now on; return the previous source."""
    global _broker, _source
    previous = _source
    _broker, _source = (source if isinstance(source, Broker) else _broker), source
    return previous


def process_broker() -> Broker:
    """Return this process's broker, whether or not it is the source in use.

    A process must have only one: a broker counts its own requests alone, so two together would
    exceed the provider's limit.
    """
    return _broker
