"""Tokens for the Planetary Computer's blobs: asked for once, shared, renewed in time.

The provider limits how often a token may be asked for, and the SDK caches per process only, so
many workers would be throttled. One :class:`Broker` asks for all: this process's own, or, for the
workers of a Dask cluster on which :func:`share` was called, the scheduler's. Tokens live in memory.
https://planetarycomputer.microsoft.com/docs/concepts/sas/
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import parse_qs, urlsplit

from salibi_data.sources import rate_limits as limits
from salibi_data.store.errors import ReadError
from salibi_data.store.redaction import redact

if TYPE_CHECKING:
    from distributed import Client

MIN_INTERVAL_S: Final = 16.0
"""One container's token is never asked for more often, whoever wants it."""
_MARGIN: Final = 0.2
_MARGIN_MAX_S: Final = 600.0
_ASK_TIMEOUT_S: Final = 30.0
_ATTEMPTS: Final = 5
_BLOB_DOMAIN: Final = ".blob.core.windows.net"
_PUBLIC_HOST: Final = "ai4edatasetspublicassets.blob.core.windows.net"
"""Thumbnails that need no token."""


@dataclass(frozen=True, kw_only=True)
class Token:
    """A shared access signature for one container."""

    secret: str = field(repr=False)
    fresh_until: float
    """On this process's monotonic clock; a newer token should be got from then on."""
    expires_at: float
    """On this process's monotonic clock."""

    @property
    def digest(self) -> str:
        """Names the token without giving it away."""
        return hashlib.sha256(self.secret.encode()).hexdigest()[:16]


class TokenSource(Protocol):
    """Whoever gives tokens."""

    def token(self, account: str, container: str, rejected: str | None = None) -> Token:
        """A token that is not the one with digest ``rejected``."""


def container_of(href: str) -> tuple[str, str] | None:
    """Storage account and container of an href that needs a token, by the SDK's rules.

    Only hosts in Azure's blob domain without a port are signed, and only where no signature is.
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
    """The href with its token: never store, print or log it."""
    return f"{href}{'&' if '?' in href else '?'}{token.secret}"


def token(account: str, container: str, rejected: str | None = None) -> Token:
    """The token to use now, from the Dask scheduler where tokens are shared, else from the SDK.

    Args:
        account: storage account.
        container: in it.
        rejected: digest of the token that was refused; a newer one is got unless there is one.

    Raises:
        ReadError: of kind ``token``, or ``timeout`` if the deadline passes.
    """
    return _source.token(account, container, rejected)


def ask_planetary_computer(account: str, container: str) -> tuple[str, datetime]:
    """A new token and its expiry, from the unmodified SDK; one request, not retried.

    Raises:
        ReadError: of kind ``token``; ``unusable`` where asking again is in vain.
    """
    import requests
    from planetary_computer import sas
    from planetary_computer.settings import Settings

    # The SDK hands its last token out again until a minute before its end, refused or not.
    sas.TOKEN_CACHE.pop(f"{Settings.get().sas_url}/{account}/{container}", None)
    try:
        answer = sas.get_token(account, container, retry_total=0)
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        again = status in {408, 429} or status >= 500  # noqa: PLR2004
        problem, kind = f"HTTP {status}", "token" if again else "unusable"
    except requests.exceptions.RetryError:
        problem, kind = "the service is throttled or down", "token"
    except requests.ConnectionError:
        problem, kind = "the service cannot be reached", "token"
    except (requests.RequestException, ValueError) as error:
        # The message of a parser quotes what it could not parse: perhaps a token.
        problem, kind = f"the answer is not a token ({type(error).__name__})", "token"
    else:
        return answer.token, answer.expiry.astimezone(UTC)
    raise ReadError(problem, kind="token" if kind == "token" else "unusable")


Ask = Callable[[str, str], tuple[str, datetime]]


@dataclass(kw_only=True)
class _Container:
    """What is known of one container's token; ``changed`` guards all of it."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    token: Token | None = None
    asking: bool = False
    next_ask: float = 0.0
    num_answers: int = 0
    error: ReadError | None = None

    @property
    def fatal(self) -> bool:
        """Whether asking again is in vain."""
        return self.error is not None and self.error.kind == "unusable"


class Broker:
    """Asks for tokens: one at a time per container, never too often, always before they expire."""

    def __init__(
        self, ask: Ask = ask_planetary_computer, *, min_interval_s: float = MIN_INTERVAL_S
    ) -> None:
        self._ask = ask
        self._min_interval_s = min_interval_s
        self._containers: dict[tuple[str, str], _Container] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Broker({len(self._containers)} containers)"

    def token(self, account: str, container: str, rejected: str | None = None) -> Token:
        """See :func:`token`."""
        with self._lock:
            known = self._containers.setdefault((account, container), _Container())
        problem, num_errors = "", 0
        with known.changed:
            while True:
                usable = _usable(known, rejected)
                if usable is not None:
                    return usable
                seen = known.num_answers
                wait_s = known.next_ask - time.monotonic()
                if not known.asking and wait_s <= 0:
                    self._renew(known, account, container)
                else:
                    limits.check(0.0 if known.asking else wait_s, after=problem)
                    patience = min(limits.remaining_s(), _ASK_TIMEOUT_S if known.asking else wait_s)
                    known.changed.wait(patience)
                if known.num_answers == seen:
                    continue
                if known.error is None and known.token is not None:
                    return known.token  # the service may stand by the one that was refused
                problem, num_errors = str(known.error), num_errors + 1
                if num_errors >= _ATTEMPTS or known.fatal:
                    break
        raise ReadError(
            f"no token for container {container} of {account}: {problem}. Wait a little and run "
            "again, or set PC_SDK_SUBSCRIPTION_KEY",
            kind="token",
        )

    def _renew(self, known: _Container, account: str, container: str) -> None:
        """Ask, without holding the lock meanwhile, and note what came."""
        known.asking, known.next_ask = True, time.monotonic() + self._min_interval_s
        known.changed.release()
        try:
            answer = _within(_ASK_TIMEOUT_S, self._ask, account, container)
        finally:
            known.changed.acquire()
            known.asking = False
        known.num_answers += 1
        if isinstance(answer, ReadError):
            known.error = answer
        else:
            known.error = None
            known.token = self._dated(*answer)
        known.changed.notify_all()

    def _dated(self, secret: str, expiry: datetime) -> Token:
        now = time.monotonic()
        life_s = (expiry - datetime.now(UTC)).total_seconds()
        margin_s = min(_MARGIN * life_s, _MARGIN_MAX_S)
        # No sooner than the next may be asked for, though this machine's clock be wrong.
        fresh_s = max(life_s - margin_s, self._min_interval_s)
        return Token(
            secret=secret, fresh_until=now + fresh_s, expires_at=now + max(life_s, fresh_s)
        )


def _usable(known: _Container, rejected: str | None) -> Token | None:
    """The token, unless it was refused, or should be renewed and can be."""
    token, now = known.token, time.monotonic()
    if token is None or token.digest == rejected:
        return None
    if now < token.fresh_until:
        return token
    waiting = known.asking or now < known.next_ask
    return token if waiting and now < token.expires_at else None


def _within(
    seconds: float, ask: Ask, account: str, container: str
) -> tuple[str, datetime] | ReadError:
    """The answer, or the error: the SDK waits for ever, so it waits in a thread of its own."""
    answers: list[tuple[str, datetime] | Exception] = []

    def run() -> None:
        try:
            answers.append(ask(account, container))
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


_own: Broker = Broker()
_source: TokenSource = _own


def use(source: TokenSource) -> TokenSource:
    """Have :func:`token` ask ``source`` from now on; gives the one it asked until now."""
    global _own, _source
    before = _source
    _own, _source = (source if isinstance(source, Broker) else _own), source
    return before


def own_broker() -> Broker:
    """The broker of this process, whomever it asks at present.

    Two would ask too often: each knows of its own requests alone.
    """
    return _own


def share(client: Client) -> None:
    """Let one process, the scheduler's, ask for the tokens of all workers of a Dask cluster.

    Workers that join later are included. Calling it again changes nothing. The scheduler's
    environment must have this package, and ``PC_SDK_SUBSCRIPTION_KEY`` where one is used.
    """
    from salibi_data.sources.dask_plugins import TokenBroker, TokenClient

    client.register_plugin(TokenBroker(), name="salibi-token-broker")
    client.register_plugin(TokenClient(), name="salibi-token-client")
