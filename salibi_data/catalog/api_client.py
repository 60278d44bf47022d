"""Requests to a STAC API: limits on the time in all, retries, and redirects that keep the query.

pystac-client's own requests have a time limit per read only, so that a server that sends a byte now
and then is waited for without end, and they turn a redirected POST into a GET without its query.
"""

from __future__ import annotations

import json
import math
import os
import queue
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urljoin, urlsplit

from salibi_data.store.errors import UsageError
from salibi_data.store.redaction import redact, redact_requests_log, redacted_line

if TYPE_CHECKING:
    from requests import Session

_PREFIX: Final = "SALIBI_SEARCH_"
_CONNECT_S: Final = 15.0
_MAX_BACKOFF_S: Final = 30.0
_MAX_REDIRECTS: Final = 10
_MAX_BODY_BYTES: Final = 2**29
"""No page of items is as long; a body without an end must not fill the memory."""
_TRIES: Final = 6
"""Tries of one request."""
_CONNECTION_TRIES: Final = 3
"""The same where no connection is made: the address may be misspelt."""
_SLOW_TRIES: Final = 3
"""The same where the server is too slow or broken, so that an outage is told within half a minute."""
_LARGE_TRIES: Final = 2
"""The same for pages that may be too large, which are asked for in smaller ones then."""

TOO_SLOW: Final = frozenset({500, 502, 504})
"""Statuses of gateways whose server cannot make, or may not send, an answer as large."""
_BUSY: Final = frozenset({408, 429, 503})
"""Statuses of hosts that have too much to do at the moment."""


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """Settings of searches in an API; ``SALIBI_SEARCH_<FIELD>`` in the environment overrides."""

    page_items: int = 250
    """Items per page that an API is asked for at first."""
    timeout_s: float = 45.0
    """Seconds for one request with its whole body. An API that has not answered a search yet has
    no more for all tries of a page."""
    deadline_s: float = 900.0
    """Seconds for a page with all tries and pauses, from an API that has answered before."""
    backoff_s: float = 0.5
    """First wait between tries of a request; it doubles with every further one."""

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if not (math.isfinite(value) and value > 0):
                raise UsageError(f"{_variable(one.name)} is {value}; expected a number above 0.")

    @classmethod
    def from_environment(cls) -> SearchSettings:
        """Return the defaults with the environment's overrides.

        Raises:
            UsageError: a variable is not a number above 0.
        """
        overrides: dict[str, Any] = {}
        for one in fields(cls):
            text = os.environ.get(_variable(one.name))
            if text is None:
                continue
            try:
                overrides[one.name] = int(text) if isinstance(one.default, int) else float(text)
            except ValueError:
                raise UsageError(
                    f"{_variable(one.name)} is {text!r}; expected a number above 0."
                ) from None
        return cls(**overrides)


def _variable(name: str) -> str:
    return f"{_PREFIX}{name.upper()}"


class ApiRequestError(Exception):
    """A request that has failed for good, or as often as it may be sent."""

    def __init__(
        self,
        reason: str,
        *,
        status: int | None = None,
        tries: int = 1,
        pause_s: float | None = None,
    ) -> None:
        super().__init__(reason)
        self.status = status
        """HTTP status of the last answer; 504 where the answer took too long, None without any."""
        self.tries = tries
        """Number of times that such a request may be sent."""
        self.pause_s = pause_s
        """Seconds of pause that the host asks for."""


class Deadline:
    """Limit on the time without progress, over all tries and pauses."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.restart()

    def restart(self) -> None:
        """Begin anew, as there was progress."""
        self._end = time.monotonic() + self.seconds

    def remaining_s(self) -> float:
        """Return the seconds that are left."""
        return self._end - time.monotonic()

    def sleep(self, seconds: float, *, after: ApiRequestError) -> None:
        """Sleep, or raise at once where the deadline would pass before the end."""
        if seconds >= self.remaining_s():
            raise ApiRequestError(
                f"{after}; a pause of {seconds:.0f} s would exceed the limit of {self.seconds:g} s "
                f"({_PREFIX}TIMEOUT_S, {_PREFIX}DEADLINE_S)",
                status=after.status,
            )
        time.sleep(seconds)


@dataclass(frozen=True, kw_only=True)
class ApiRequest:
    """One request; :attr:`key` tells whether two ask for the same."""

    method: str
    url: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """JSON body of a POST, further query of a GET."""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Text that is equal for requests with the same answer."""
        parts, parameters = urlsplit(self.url), dict(self.parameters)
        if self.method == "GET":
            stated = [(name, str(value)) for name, value in parameters.items()]
            query: Any = sorted([*parse_qsl(parts.query), *stated])
        else:
            query = [parts.query, parameters]
        place = parts._replace(query="", fragment="").geturl()
        return json.dumps([self.method, place, query], sort_keys=True, default=str)


@dataclass(frozen=True, kw_only=True)
class ApiAnswer:
    """Answer to a request."""

    status: int
    url: str
    """Address that answered, after redirects."""
    headers: Mapping[str, str]
    body: bytes


class ApiClient:
    """Sends the requests of searches in one API."""

    def __init__(self, settings: SearchSettings) -> None:
        import requests

        self.settings = settings
        self.deadline = Deadline(settings.timeout_s)
        self._session = requests.Session()
        redact_requests_log()
        self._moved: dict[str, str] = {}

    def ask(self, request: ApiRequest, *, is_large: bool = False) -> ApiAnswer:
        """Send a request until it is answered.

        Args:
            request: request to send.
            is_large: whether a smaller page could be asked for instead.

        Raises:
            ApiRequestError: it is refused, has failed too often, or the deadline has passed.
        """
        num_failures = 0
        while True:
            answer = self._attempt(request)
            if isinstance(answer, ApiAnswer):
                return answer
            failure, num_failures = answer, num_failures + 1
            is_slow = is_large and failure.status in TOO_SLOW
            tries = _LARGE_TRIES if is_slow else failure.tries
            if num_failures >= tries or self.deadline.remaining_s() <= 0:
                raise failure
            pause_s = failure.pause_s
            if pause_s is None:
                wait_s = min(_MAX_BACKOFF_S, self.settings.backoff_s * 2.0 ** (num_failures - 1))
                pause_s = wait_s * random.uniform(0.5, 1.5)
            self.deadline.sleep(pause_s, after=failure)

    def _attempt(self, request: ApiRequest) -> ApiAnswer | ApiRequestError:
        """Send a request, and return the answer of status 2xx, or what went wrong."""
        import requests
        import urllib3

        try:
            answer = self._follow(request)
        except (requests.Timeout, urllib3.exceptions.TimeoutError):
            limit = f"{self.settings.timeout_s:g} s ({_PREFIX}TIMEOUT_S)"
            return ApiRequestError(
                f"{request.method} {redact(request.url)} is not answered within {limit}",
                status=504,
                tries=_SLOW_TRIES,
            )
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
            return ApiRequestError(f"an address is none: {redacted_line(error)}")
        except (OSError, urllib3.exceptions.HTTPError) as error:
            return ApiRequestError(redacted_line(error), tries=_CONNECTION_TRIES)
        if 200 <= answer.status < 300:  # noqa: PLR2004
            return answer
        return ApiRequestError(
            _reason(request, answer),
            status=answer.status,
            tries=_tries(answer.status),
            pause_s=_retry_after_s(answer),
        )

    def _follow(self, request: ApiRequest) -> ApiAnswer:
        """Send a request, and again to where it is redirected."""
        if request.method != "GET":
            request = replace(request, url=self._moved.get(request.url, request.url))
        asked = request
        for _ in range(_MAX_REDIRECTS):
            answer = self._send(asked)
            location = answer.headers.get("Location")
            if answer.status not in (301, 302, 303, 307, 308) or not location:
                return answer
            asked = _redirected(asked, answer, location)
            if answer.status in (301, 308) and asked.method != "GET":
                self._moved[request.url] = asked.url
        raise ApiRequestError(f"{redact(request.url)} redirects more than {_MAX_REDIRECTS} times")

    def _send(self, request: ApiRequest) -> ApiAnswer:
        """Send one request; an answer that is not complete in time is given up.

        Time limits of sockets start again with every byte, so the request runs in a thread, which is
        left behind where it is too slow. It is a daemon, and ends with its connection.
        """
        import requests

        limit_s = min(self.settings.timeout_s, self.deadline.remaining_s())
        if limit_s <= 0:
            raise requests.Timeout
        outcomes: queue.SimpleQueue[ApiAnswer | BaseException] = queue.SimpleQueue()
        session = self._session

        def work() -> None:
            try:
                outcomes.put(_receive(session, request, limit_s))
            except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
                outcomes.put(error)

        threading.Thread(target=work, name="salibi-search", daemon=True).start()
        try:
            outcome = outcomes.get(timeout=limit_s)
        except queue.Empty:
            self._session = requests.Session()  # a session serves one thread at a time
            raise requests.Timeout from None
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


def _tries(status: int) -> int:
    if status in TOO_SLOW:
        return _SLOW_TRIES
    return _TRIES if status in _BUSY else 1


def _receive(session: Session, request: ApiRequest, limit_s: float) -> ApiAnswer:
    import requests

    end = time.monotonic() + limit_s
    parameters, has_body = dict(request.parameters), request.method != "GET"
    prepared = session.prepare_request(
        requests.Request(
            request.method,
            request.url,
            headers=dict(request.headers),
            json=parameters if has_body else None,
            params=None if has_body else parameters,
        )
    )
    environment = session.merge_environment_settings(prepared.url or "", {}, True, None, None)
    body = bytearray()
    with session.send(
        prepared, timeout=(min(_CONNECT_S, limit_s), limit_s), allow_redirects=False, **environment
    ) as response:
        for chunk in response.iter_content(65_536):
            body += chunk
            if len(body) > _MAX_BODY_BYTES or time.monotonic() > end:
                raise requests.Timeout
        return ApiAnswer(
            status=response.status_code,
            url=response.url,
            headers=response.headers,
            body=bytes(body),
        )


def _redirected(request: ApiRequest, answer: ApiAnswer, location: str) -> ApiRequest:
    """Return the request for the address that an answer names, with the same query."""
    target = urlsplit(urljoin(answer.url, location))
    if target.scheme not in ("http", "https") or not target.netloc:
        raise ApiRequestError(f"{redact(answer.url)} redirects to {redact(location)!r}")
    origin = urlsplit(answer.url)
    # Headers and passwords of an address are for the host that they were given for.
    is_same_host = (target.scheme, target.hostname, target.port) == (
        origin.scheme,
        origin.hostname,
        origin.port,
    )
    user = urlsplit(request.url).netloc.rpartition("@")[0]
    if is_same_host and user and "@" not in target.netloc:
        target = target._replace(netloc=f"{user}@{target.netloc}")
    parameters = request.parameters
    method = "GET" if answer.status == 303 else request.method  # noqa: PLR2004
    if method == "GET" and request.method == "GET":
        # The query that was sent: some gateways leave it out of the address.
        target = target._replace(query=target.query or origin.query)
        parameters = {}
    elif method == "GET":
        parameters = {} if target.query else query_of(parameters)
    return ApiRequest(
        method=method,
        url=target.geturl(),
        parameters=parameters,
        headers=request.headers if is_same_host else {},
    )


def query_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the body of a search to the query of a GET."""
    query: dict[str, Any] = {}
    for name, value in body.items():
        if isinstance(value, dict) or (isinstance(value, list) and any(map(_is_nested, value))):
            query[name] = json.dumps(value, separators=(",", ":"))
        elif isinstance(value, list | tuple):
            query[name] = ",".join(map(str, value))
        elif value is not None:
            query[name] = value
    return query


def _is_nested(value: Any) -> bool:
    return isinstance(value, dict | list)


def _retry_after_s(answer: ApiAnswer) -> float | None:
    """Return the seconds of pause that the host asks for, as a number or a date; RFC 9110, 10.2.3."""
    import urllib3

    text = answer.headers.get("Retry-After")
    if text is None:
        return None
    try:
        return urllib3.Retry().parse_retry_after(text)
    except (urllib3.exceptions.InvalidHeader, ValueError, OverflowError):
        return None


def _reason(request: ApiRequest, answer: ApiAnswer) -> str:
    """Status of an answer, and what it says where that is JSON."""
    text = f"{request.method} {redact(answer.url)} answers HTTP {answer.status}"
    try:
        content = json.loads(answer.body)
    except ValueError:
        return text
    if isinstance(content, dict):
        names = ("detail", "description", "message", "title", "error")
        content = next((content[name] for name in names if content.get(name)), None)
    return f"{text} ({redact(' '.join(str(content).split()))[:120]})" if content else text
