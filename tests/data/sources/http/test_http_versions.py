"""Versions of a file over http: unchanged ones are read whatever their tags look like, others never mixed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from salibi_data.sources import http
from salibi_data.sources.http.answers import FileVersion, parse_tag
from salibi_data.store.errors import ReadError
from tests.support.data import cogs
from tests.support.services.hosts import Host, part_of
from tests.support.services.servers import serve

if TYPE_CHECKING:
    from pathlib import Path

    from aiohttp import web

JANUARY, MAY = "Mon, 01 Jan 2024 00:00:00 GMT", "Wed, 01 May 2024 00:00:00 GMT"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALIBI_HTTP_BACKOFF_S", "0.01")
    monkeypatch.setenv("SALIBI_HTTP_TIMEOUT_S", "2")


@pytest.fixture(scope="module")
def cog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cogs.write_cog(tmp_path_factory.mktemp("cogs") / "a.tif")


UNCHANGED = {
    "strong and weak": ['"x"', 'W/"x"'],
    "compressed inside the quotes": ['"x"', 'W/"x-gzip"', '"x--gzip"', '"x;gzip"'],
    "compressed outside of the quotes": ['"x-gzip"', '"x"-gzip', '"x";gzip'],
    "without quotes": ["x", '"x"', 'w/"x"'],
    "at times missing": ['"x"', None, 'W/"x"'],
    "at first missing": [None, '"x"'],
    "at times empty": ['"x"', '""'],
}


@pytest.mark.parametrize("tags", UNCHANGED.values(), ids=UNCHANGED)
def test_an_unchanged_file_is_read_whatever_its_tags_look_like(
    cog: Path, tags: list[str | None]
) -> None:
    content = cog.read_bytes()

    def answer(number: int, request: web.Request) -> web.Response:
        tag = tags[(number - 1) % len(tags)]
        return part_of(request, content, **({} if tag is None else {"ETag": tag}))

    with serve(Host(answer)) as host:
        source = cogs.read(f"{host.url}/a.tif")
    assert np.array_equal(source.values, cogs.oracle(cog, source))


CHANGED = {
    "strong tags": ({"ETag": '"x"'}, {"ETag": '"y"'}),
    "weak tags": ({"ETag": 'W/"x"'}, {"ETag": 'W/"y"'}),
    "tags of compressed bodies": ({"ETag": '"x-gzip"'}, {"ETag": '"y-gzip"'}),
    "times alone": ({"Last-Modified": JANUARY}, {"Last-Modified": MAY}),
    "times under a weak tag": (
        {"ETag": 'W/"x"', "Last-Modified": JANUARY},
        {"ETag": 'W/"x"', "Last-Modified": MAY},
    ),
    "times where tags are missing": (
        {"ETag": '"x"', "Last-Modified": JANUARY},
        {"Last-Modified": MAY},
    ),
}


@pytest.mark.parametrize(("before", "after"), CHANGED.values(), ids=CHANGED)
def test_a_changed_file_of_the_same_size_is_noticed(
    before: dict[str, str], after: dict[str, str]
) -> None:
    old, new = os.urandom(200_000), os.urandom(200_000)

    def answer(number: int, request: web.Request) -> web.Response:
        return part_of(request, *((old,) if number == 1 else (new,)), **(before, after)[number > 1])

    with serve(Host(answer)) as host:
        file = http.RemoteFile(f"{host.url}/a.bin")
        with pytest.raises(ReadError, match="replaced while it was being read") as caught:
            file.read_at(100_000, 50_000)
    assert caught.value.kind == "damaged"


@pytest.mark.parametrize("missing", [0, 1])
@pytest.mark.parametrize("changes_after", [1, 2, 3, 4])
def test_versions_are_not_mixed_where_every_other_answer_has_no_tag(
    missing: int, changes_after: int
) -> None:
    """Whichever answers are the ones without a tag, what is read is all old or all new."""
    old, new = os.urandom(400_000), os.urandom(400_000)

    def answer(number: int, request: web.Request) -> web.Response:
        is_new = number > changes_after
        tag = {} if number % 2 == missing else {"ETag": '"new"' if is_new else '"old"'}
        return part_of(request, new if is_new else old, **tag)

    with serve(Host(answer)) as host:
        assert http.read_bytes(f"{host.url}/a.bin") in (old, new)


def test_a_host_that_states_no_versions_is_asked_once_for_each_range() -> None:
    content = os.urandom(100_000)
    with serve(Host(lambda _, request: part_of(request, content))) as host:
        assert http.read_bytes(f"{host.url}/a.bin") == content
        assert len(host.requests) == 2


def test_a_host_that_states_the_version_once_is_believed_in_the_end() -> None:
    content = os.urandom(100_000)

    def answer(number: int, request: web.Request) -> web.Response:
        return part_of(request, content, **({"ETag": '"x"'} if number == 1 else {}))

    with serve(Host(answer)) as host:
        assert http.read_bytes(f"{host.url}/a.bin") == content


def test_a_weak_tag_never_conditions_a_range() -> None:
    """A condition by a weak tag never holds: RFC 9110, 13.1.1 and 13.1.5."""
    content = os.urandom(100_000)
    with serve(Host(lambda _, request: part_of(request, content, ETag='W/"x"'))) as host:
        assert http.read_bytes(f"{host.url}/a.bin") == content
        for request in host.requests:
            assert not {"If-Range", "If-Match"} & set(request.headers)


SUFFIXES = st.sampled_from(["", "-gzip", "--gzip", ";gzip", "-br", ":zstd"])
OPAQUE = st.text("abcdefgh0123456789", min_size=1, max_size=12)


@given(OPAQUE, st.sampled_from(["", "W/", "w/"]), SUFFIXES, st.booleans(), st.booleans())
def test_a_tag_is_known_in_every_dress(
    opaque: str, weak: str, suffix: str, quoted: bool, outside: bool
) -> None:
    quote = '"' if quoted else ""
    inner = f"{quote}{opaque}{quote}{suffix}" if outside else f"{quote}{opaque}{suffix}{quote}"
    assert parse_tag(f"{weak}{inner}") == (opaque, bool(weak or suffix))


@given(OPAQUE, OPAQUE, SUFFIXES, SUFFIXES)
def test_tags_are_equal_exactly_if_what_they_identify_is(
    first: str, second: str, suffix: str, other_suffix: str
) -> None:
    versions = [
        FileVersion.of({"ETag": f'"{opaque}{end}"'})
        for opaque, end in ((first, suffix), (second, other_suffix))
    ]
    assert versions[0].is_same(versions[1]) == (first == second)
