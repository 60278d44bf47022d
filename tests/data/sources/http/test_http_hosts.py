"""Habits of hosts: redirects, ranges other than asked, whole files, compression, slow answers."""

from __future__ import annotations

import asyncio
import gzip
import os
import time
from math import inf
from typing import TYPE_CHECKING

import numpy as np
import pytest
from aiohttp import web

from salibi_data.sources import http, sas_tokens
from salibi_data.sources.http import range_requests
from salibi_data.store.errors import ReadError
from tests.support.data import cogs
from tests.support.services.hosts import Host, asked_range, part_of
from tests.support.services.servers import serve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONTENT = os.urandom(300_000)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALIBI_HTTP_BACKOFF_S", "0.01")
    monkeypatch.setenv("SALIBI_HTTP_TIMEOUT_S", "2")
    monkeypatch.setenv("SALIBI_HTTP_ATTEMPTS", "3")


def moved(status: int, location: str) -> web.Response:
    return web.Response(status=status, headers={"Location": location})


def refusal(url: str) -> ReadError:
    with pytest.raises(ReadError) as caught:
        http.read_bytes(url)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    return caught.value


class OneToken:
    """Gives the same token for every container."""

    def token(self, account: str, container: str, rejected: str | None = None) -> sas_tokens.Token:
        del account, container, rejected
        return sas_tokens.Token(secret="sig=secret", fresh_until=inf, expires_at=inf)  # noqa: S106


class TestRedirects:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    @pytest.mark.parametrize("location", ["/b/there.tif", "there.tif", "{url}/b/there.tif"])
    def test_of_each_kind_are_followed_with_the_range(
        self, tmp_path: Path, status: int, location: str
    ) -> None:
        path = cogs.write_cog(tmp_path / "a.tif", pixels=600, bands=4)

        def answer(_: int, request: web.Request) -> web.Response:
            if request.path == "/b/here.tif":
                return moved(status, location.format(url=host.url))
            return part_of(request, path.read_bytes(), ETag='"x"')

        with serve(Host(answer)) as host:
            source = cogs.read(f"{host.url}/b/here.tif")
            # What was found is asked directly from then on.
            assert host.paths.count("/b/here.tif") == 1
            assert all("Range" in request.headers for request in host.requests)
        assert np.array_equal(source.values, cogs.oracle(path, source))

    def test_a_circle_ends(self) -> None:
        with serve(Host(lambda _, __: moved(302, "/a.tif?secret=1"))) as host:
            error = refusal(f"{host.url}/a.tif")
            assert len(host.requests) == 11
        assert "redirected more than 10 times" in str(error)
        assert error.kind == "unusable"

    def test_a_chain_is_followed(self) -> None:
        def answer(_: int, request: web.Request) -> web.Response:
            step = int(request.path[1:])
            return part_of(request, CONTENT) if step == 9 else moved(302, f"/{step + 1}")

        with serve(Host(answer)) as host:
            assert http.read_bytes(f"{host.url}/0") == CONTENT

    @pytest.mark.parametrize("location", ["ftp://127.0.0.1/a", "file:///etc/passwd", "http://"])
    def test_to_no_web_server_are_refused(self, location: str) -> None:
        with serve(Host(lambda _, __: moved(302, location))) as host:
            assert "is redirected " in str(refusal(f"{host.url}/a"))

    def test_without_an_address_are_named(self) -> None:
        with serve(Host(lambda _, __: web.Response(status=302))) as host:
            assert "HTTP 302, which names no other address" in str(refusal(f"{host.url}/a"))

    def test_to_another_host_take_neither_password_nor_query_along(self) -> None:
        with serve(Host(lambda _, request: part_of(request, CONTENT))) as other:
            with serve(Host(lambda _, __: moved(302, f"{other.url}/b"))) as host:
                address = host.url.replace("//", "//reader:secret@")
                assert http.read_bytes(f"{address}/a?sig=secret") == CONTENT
                assert "Authorization" in host.requests[0].headers
            assert not any("Authorization" in request.headers for request in other.requests)
            assert not any("secret" in path for path in other.paths)

    @pytest.mark.parametrize(
        ("location", "signed"),
        [
            ("/naip/b.tif", True),
            ("http://acct.blob.core.windows.net/naip/deep/b.tif", True),
            ("http://acct.blob.core.windows.net/other/b.tif", False),
            ("http://thief.blob.core.windows.net/naip/b.tif", False),
            ("http://data.example/naip/b.tif", False),
        ],
    )
    def test_take_the_token_of_a_container_nowhere_else(
        self, monkeypatch: pytest.MonkeyPatch, location: str, signed: bool
    ) -> None:
        def answer(_: int, request: web.Request) -> web.Response:
            is_first = request.path == "/naip/a.tif"
            return moved(302, location) if is_first else part_of(request, CONTENT)

        before = sas_tokens.set_token_source(OneToken())
        try:
            with serve(Host(answer)) as host:
                monkeypatch.setenv("HTTP_PROXY", host.url)
                monkeypatch.setenv("NO_PROXY", "localhost")
                href = "http://acct.blob.core.windows.net/naip/a.tif"
                assert http.read_bytes(href, signed=True) == CONTENT
                queries = {request.path: request.query_string for request in host.requests}
        finally:
            sas_tokens.set_token_source(before)
        assert queries.pop("/naip/a.tif") == "sig=secret"
        assert list(queries.values()) == ["sig=secret" if signed else ""]

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
    def test_to_an_address_that_expires_are_asked_for_anew(self, status: int) -> None:
        signatures = []

        def answer(_: int, request: web.Request) -> web.Response:
            if request.path == "/a":
                signatures.append(0)
                return moved(307, f"/b?secret={len(signatures)}")
            current = request.query["secret"] == str(len(signatures))
            signatures[-1] += 1
            if not current or signatures[-1] > 2:
                return web.Response(status=status)
            return part_of(request, CONTENT, ETag='"x"')

        with serve(Host(answer)) as host:
            file = http.RemoteFile(f"{host.url}/a")
            for offset in range(0, 300_000, 50_000):
                assert file.read_at(offset, 40_000) == CONTENT[offset : offset + 40_000]
        assert len(signatures) > 2

    def test_to_an_address_that_never_works_end(self) -> None:
        def answer(_: int, request: web.Request) -> web.Response:
            return moved(302, "/b") if request.path == "/a" else web.Response(status=403)

        with serve(Host(answer)) as host:
            assert refusal(f"{host.url}/a").kind == "forbidden"
            assert len(host.requests) <= 6

    def test_no_head_is_asked(self) -> None:
        def answer(_: int, request: web.Request) -> web.Response:
            assert request.method == "GET"
            return part_of(request, CONTENT)

        with serve(Host(answer)) as host:
            assert http.read_bytes(f"{host.url}/a") == CONTENT


def capped(request: web.Request) -> web.Response:
    """At most 10,000 bytes of what was asked."""
    first, stop = asked_range(request, len(CONTENT)) or (0, 0)
    stop = min(stop, first + 10_000)
    headers = {"Content-Range": f"bytes {first}-{stop - 1}/{len(CONTENT)}"}
    return web.Response(status=206, body=CONTENT[first:stop], headers=headers)


def padded(request: web.Request) -> web.Response:
    """More than was asked, from the start of its block of 4096 bytes on."""
    first, stop = asked_range(request, len(CONTENT)) or (0, 0)
    first -= first % 4096
    headers = {"Content-Range": f"BYTES={first}-{stop - 1}/{len(CONTENT)}"}
    return web.Response(status=206, body=CONTENT[first:stop], headers=headers)


def unsized(request: web.Request) -> web.Response:
    answer = part_of(request, CONTENT)
    answer.headers["Content-Range"] = answer.headers["Content-Range"].split("/")[0] + "/*"
    return answer


class TestRanges:
    @pytest.mark.parametrize("answer", [capped, padded, unsized])
    def test_other_than_asked_are_used_as_far_as_they_fit(
        self, answer: Callable[[web.Request], web.Response]
    ) -> None:
        with serve(Host(lambda _, request: answer(request))) as host:
            file = http.RemoteFile(f"{host.url}/a")
            assert file.size == len(CONTENT)
            assert file.read_at(99_999, 150_001) == CONTENT[99_999:250_000]

    @pytest.mark.parametrize(
        "content_range",
        ["bytes 5-9/300000", "bytes 0-32767/20", "bytes x", "", "bytes 10-5/300000"],
    )
    def test_that_contradict_themselves_are_refused(self, content_range: str) -> None:
        headers = {"Content-Range": content_range}
        answer = {"status": 206, "body": CONTENT[:32_768], "headers": headers}
        with serve(Host(lambda _, __: web.Response(**answer))) as host:
            assert "range" in str(refusal(f"{host.url}/a"))

    def test_beyond_the_end_are_asked_again_within_it(self) -> None:
        """Strict hosts refuse the first request where the file is smaller than it."""

        def answer(number: int, request: web.Request) -> web.Response:
            if number == 1:
                return web.Response(status=416, headers={"Content-Range": "bytes */20000"})
            return part_of(request, CONTENT[:20_000])

        with serve(Host(answer)) as host:
            assert http.read_bytes(f"{host.url}/a") == CONTENT[:20_000]

    def test_of_an_empty_file_name_it_so(self) -> None:
        headers = {"Content-Range": "bytes */0"}
        with serve(Host(lambda _, __: web.Response(status=416, headers=headers))) as host:
            assert "it is empty" in str(refusal(f"{host.url}/a"))

    def test_of_a_file_that_shrank_are_not_mixed(self) -> None:
        def answer(number: int, request: web.Request) -> web.Response:
            if number == 1:
                return part_of(request, CONTENT)
            return web.Response(status=416, headers={"Content-Range": "bytes */1000"})

        with serve(Host(answer)) as host, pytest.raises(ReadError, match="replaced"):
            http.RemoteFile(f"{host.url}/a").read_at(200_000, 10)


class TestWholeFiles:
    @pytest.mark.parametrize("chunked", [False, True])
    def test_are_taken_once_if_small(self, tmp_path: Path, chunked: bool) -> None:
        path = cogs.write_cog(tmp_path / "a.tif", pixels=600)

        def answer(_: int, __: web.Request) -> web.Response:
            made = web.Response(body=path.read_bytes())
            if chunked:
                made.enable_chunked_encoding()
            return made

        with serve(Host(answer)) as host:
            source = cogs.read(f"{host.url}/a.tif")
            assert len(host.requests) == 1
        assert np.array_equal(source.values, cogs.oracle(path, source))

    @pytest.mark.parametrize("chunked", [False, True])
    def test_are_refused_if_large(self, monkeypatch: pytest.MonkeyPatch, chunked: bool) -> None:
        monkeypatch.setattr(range_requests, "WHOLE_FILE_BYTES", 100_000)

        def answer(_: int, __: web.Request) -> web.Response:
            made = web.Response(body=CONTENT)
            if chunked:
                made.enable_chunked_encoding()
            return made

        with serve(Host(answer)) as host:
            error = refusal(f"{host.url}/a")
        assert "whole files only" in str(error)
        assert error.kind == "unusable"

    def test_in_between_are_read_past(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A cache answers single requests with all of a large file."""
        monkeypatch.setattr(range_requests, "WHOLE_FILE_BYTES", 100_000)

        def answer(number: int, request: web.Request) -> web.Response:
            return web.Response(body=CONTENT) if number % 2 else part_of(request, CONTENT)

        with serve(Host(answer)) as host:
            assert http.read_bytes(f"{host.url}/a") == CONTENT

    def test_that_are_a_page_to_log_in_are_refused(self) -> None:
        page = {"text": "<html>Please log in</html>", "content_type": "text/html"}
        with serve(Host(lambda _, __: web.Response(**page))) as host:
            error = refusal(f"{host.url}/a.tif")
        assert "web page" in str(error)
        assert error.kind == "forbidden"


class TestCompression:
    def test_is_asked_not_to_be_done(self) -> None:
        with serve(Host(lambda _, request: part_of(request, CONTENT))) as host:
            http.read_bytes(f"{host.url}/a")
            assert {r.headers["Accept-Encoding"] for r in host.requests} == {"identity"}

    def test_of_a_range_on_its_way_is_undone(self) -> None:
        def answer(_: int, request: web.Request) -> web.Response:
            made = part_of(request, CONTENT, Content_Encoding="gzip")
            made.body = gzip.compress(bytes(made.body))
            return made

        with serve(Host(answer)) as host:
            assert http.read_bytes(f"{host.url}/a") == CONTENT

    def test_of_a_whole_small_file_is_undone(self) -> None:
        body = gzip.compress(CONTENT)
        headers = {"Content-Encoding": "gzip", "ETag": '"x-gzip"'}
        with serve(Host(lambda _, __: web.Response(body=body, headers=headers))) as host:
            assert http.read_bytes(f"{host.url}/a") == CONTENT

    def test_that_is_only_said_to_be_changes_nothing(self) -> None:
        with serve(
            Host(lambda _, request: part_of(request, CONTENT, Content_Encoding="gzip"))
        ) as host:
            assert http.read_bytes(f"{host.url}/a") == CONTENT

    def test_of_the_file_that_ranges_are_cut_from_is_refused(self) -> None:
        body = gzip.compress(CONTENT)
        with serve(
            Host(lambda _, request: part_of(request, body, Content_Encoding="gzip"))
        ) as host:
            error = refusal(f"{host.url}/a")
        assert "compresses it (gzip)" in str(error)
        assert error.kind == "unusable"

    def test_of_single_answers_is_read_past(self) -> None:
        body = gzip.compress(CONTENT)

        def answer(number: int, request: web.Request) -> web.Response:
            if number % 2 == 0:
                return part_of(request, body, Content_Encoding="gzip", ETag='"x-gzip"')
            return part_of(request, CONTENT, ETag='"x"')

        with serve(Host(answer)) as host:
            assert http.read_bytes(f"{host.url}/a") == CONTENT


class TestDeadlines:
    """A host that sends a byte now and then never lets a connection stall."""

    @staticmethod
    async def drip(request: web.Request, *, chunked: bool) -> web.StreamResponse:
        headers = {"Content-Range": f"bytes 0-32767/{len(CONTENT)}"}
        answer = web.StreamResponse(status=206, headers=headers)
        if chunked:
            answer.enable_chunked_encoding()
        else:
            answer.content_length = 32_768
        await answer.prepare(request)
        for _ in range(100):
            await answer.write(b"x")
            await asyncio.sleep(0.05)
        return answer

    @pytest.mark.parametrize("chunked", [False, True])
    def test_hold_for_a_body_that_drips(self, chunked: bool) -> None:
        with serve(Host(lambda _, request: self.drip(request, chunked=chunked))) as host:
            self.ends_in_time(f"{host.url}/a")

    def test_hold_for_headers_that_drip(self) -> None:
        async def answer(_: int, request: web.Request) -> web.StreamResponse:
            assert request.transport is not None
            request.transport.write(b"HTTP/1.1 206 Partial Content\r\n")
            while request.transport is not None:
                request.transport.write(b"X-Slow: 1\r\n")
                await asyncio.sleep(0.05)
            return web.Response()

        with serve(Host(answer)) as host:
            self.ends_in_time(f"{host.url}/a")

    def test_hold_for_redirects_without_an_end(self) -> None:
        async def answer(number: int, _: web.Request) -> web.StreamResponse:
            await asyncio.sleep(0.1)
            return moved(302, f"/{number}")

        with serve(Host(answer)) as host:
            self.ends_in_time(f"{host.url}/a")

    @staticmethod
    def ends_in_time(url: str) -> None:
        began = time.monotonic()
        with http.deadline(0.4), pytest.raises(ReadError, match=r"not done within its 0\.4 s"):
            http.RemoteFile(url)
        assert time.monotonic() - began < 1.5

    def test_there_is_one_for_every_range(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SALIBI_HTTP_TOTAL_S", "0.3")
        with (
            serve(Host(lambda _, request: self.drip(request, chunked=False))) as host,
            pytest.raises(ReadError, match=r"not done within its 0\.3 s") as caught,
        ):
            http.read_bytes(f"{host.url}/a")
        assert caught.value.kind == "timeout"
