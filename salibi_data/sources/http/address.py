"""Requests for the file at an address: signed, redirected, within the deadline."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final
from urllib.parse import urljoin, urlsplit

from salibi_data.sources import rate_limits, sas_tokens
from salibi_data.sources.http import traffic
from salibi_data.sources.http.answers import Failure
from salibi_data.store.errors import ReadError

if TYPE_CHECKING:
    from requests import Response

    from salibi_data.sources.rate_limits import HttpSettings

_MAX_REDIRECTS: Final = 10


class Address:
    """Address of a file, and the one that it redirects to.

    Every address is asked with what is meant for itself: a token for a container of the Planetary
    Computer is sent to that container alone, and a password in the address to its host alone.

    Args:
        href: unsigned http(s) URL.
        signed: whether to sign requests for blobs of the Planetary Computer with a token.
        settings: time limits.
    """

    def __init__(self, href: str, *, signed: bool, settings: HttpSettings) -> None:
        self.container = sas_tokens.container_of(href) if signed else None
        """Storage account and container that need a token; None where none is needed."""
        self.redirected: str | None = None
        """Address of the last answer that a redirect led to. It is asked directly, until it fails."""
        self._href = href
        self._settings = settings

    def get(
        self, byte_range: str | None, token: sas_tokens.Token | None
    ) -> tuple[str, Response] | Failure:
        """Send one request, and follow redirects.

        Args:
            byte_range: value of the header ``Range``; None for the whole file.
            token: token for the container.

        Returns:
            The address that answered, and the answer with its body unread.
        """
        from salibi_data.sources.http.session import session

        url = self.redirected or self._href
        for _ in range(_MAX_REDIRECTS + 1):
            response = self._send(url, byte_range, token)
            location = session(os.getpid()).get_redirect_target(response)
            if location is None:
                return url, response
            response.close()
            url = urljoin(url, location)
            if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
                return Failure(kind="unusable", reason="it is redirected to no address of http(s)")
        return Failure(kind="unusable", reason=f"it is redirected more than {_MAX_REDIRECTS} times")

    def keep(self, url: str) -> None:
        """Ask ``url`` from now on, which :meth:`get` has returned."""
        self.redirected = None if url == self._href else url

    def _send(self, url: str, byte_range: str | None, token: sas_tokens.Token | None) -> Response:
        from salibi_data.sources.http.session import session

        settings = self._settings
        rate_limits.check_deadline()
        traffic.count(requests=1)
        remaining_s = max(0.001, rate_limits.remaining_s())
        return session(os.getpid()).get(
            sas_tokens.sign(url, token) if token and self._is_signable(url) else url,
            headers={"Range": byte_range} if byte_range else {},
            stream=True,
            allow_redirects=False,
            timeout=(
                min(settings.connect_timeout_s, remaining_s),
                min(settings.timeout_s, remaining_s),
            ),
        )

    def _is_signable(self, url: str) -> bool:
        """Return whether the container's token may be sent to a URL."""
        if url == self._href:
            return True
        try:
            in_container = sas_tokens.container_of(url) == self.container
        except ReadError:
            return False
        return in_container and urlsplit(url).scheme == urlsplit(self._href).scheme
