"""A web server on 127.0.0.1 that answers as a function of the test says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web


@dataclass
class Host:
    """Answers every request by ``answer(number, request)``; numbers count from 1."""

    answer: Callable[[int, web.Request], Awaitable[web.StreamResponse] | web.StreamResponse]
    url: str = ""
    requests: list[web.Request] = field(default_factory=list)

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        return app

    @property
    def paths(self) -> list[str]:
        """Paths with queries, as asked."""
        return [request.raw_path for request in self.requests]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        answer = self.answer(len(self.requests), request)
        return answer if isinstance(answer, web.StreamResponse) else await answer


def asked_range(request: web.Request, size: int) -> tuple[int, int] | None:
    """Start and stop of the range that a request asks for, cut at the end of the file."""
    first, dash, last = request.headers.get("Range", "").removeprefix("bytes=").partition("-")
    if not dash:
        return None
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(size, int(last) + 1 if last else size)


def part_of(request: web.Request, content: bytes, **headers: str) -> web.Response:
    """The range of a content that a request asks for, or all of it."""
    span = asked_range(request, len(content))
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if span is None:
        return web.Response(body=content, headers=named)
    content_range = f"bytes {span[0]}-{span[1] - 1}/{len(content)}"
    return web.Response(
        status=206, body=content[slice(*span)], headers={"Content-Range": content_range} | named
    )
