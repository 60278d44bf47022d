"""Redacted addresses lack query, fragment, user and password, and nothing else."""

from __future__ import annotations

import pytest

from salibi_data.sources import sas_tokens
from salibi_data.store.errors import ReadError
from salibi_data.store.redaction import first_line, name_only, redact, redacted_line, shown_location


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("https://a.org/b.tif", "https://a.org/b.tif"),
        ("https://a.org/b.tif?sig=x&se=1", "https://a.org/b.tif"),
        ("https://user:word@a.org:8080/b.tif#part", "https://a.org:8080/b.tif"),
        ("s3://bucket/key.tif", "s3://bucket/key.tif"),
        ("a folder/#3 at night.tif", "a folder/#3 at night.tif"),
        (
            "GET http://u:p@a.org/x?sig=1 and https://b.org/y?z failed",
            "GET http://a.org/x and https://b.org/y failed",
        ),
        (
            "HTTPSConnectionPool(host='a.org'): url: /x?token=abc (Caused by a reset)",
            "HTTPSConnectionPool(host='a.org'): url: /x (Caused by a reset)",
        ),
        ("mail me@a.org, is it ready?", "mail me@a.org, is it ready?"),
    ],
)
def test_addresses_lose_what_may_be_secret_and_nothing_else(text: str, told: str) -> None:
    assert redact(text) == told


@pytest.mark.parametrize(
    ("location", "told", "name"),
    [
        ("data/tile?x=1.tif", "data/tile?x=1.tif", "tile?x=1.tif"),
        ("file:///data/a#1?.zarr", "file:///data/a#1?.zarr", "a#1?.zarr"),
        ("/vsizip/a?.zip/b?.tif", "/vsizip/a?.zip/b?.tif", "b?.tif"),
        ("https://u:p@a.org/b.tif?sig=x", "https://a.org/b.tif", "b.tif"),
        ("/vsicurl/https://a.org/b.tif?sig=x", "/vsicurl/https://a.org/b.tif", "b.tif"),
        (
            "/vsizip//vsicurl/https://a.org/b.zip?sig=x",
            "/vsizip//vsicurl/https://a.org/b.zip",
            "b.zip",
        ),
        ("/vsis3/bucket/b.tif?versionId=x", "/vsis3/bucket/b.tif", "b.tif"),
    ],
)
def test_a_local_name_is_a_name_and_an_address_loses_its_query(location, told, name) -> None:
    assert shown_location(location) == told
    assert name_only(location) == name


def test_an_error_is_told_in_one_line() -> None:
    assert (
        redacted_line(ValueError("no\n good:  http://a.org/b?sig=x .")) == "no good: http://a.org/b"
    )
    assert redacted_line(KeyError()) == "KeyError"
    assert len(redacted_line(ValueError("x" * 999))) == 200


def test_an_href_that_names_no_blob_is_told_without_its_query() -> None:
    with pytest.raises(ReadError, match="names no blob") as caught:
        sas_tokens.container_of("https://acct.blob.core.windows.net/naip?key=hidden")
    assert "acct.blob.core.windows.net/naip" in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_the_first_line_of_an_error_is_repeated() -> None:
    assert first_line(ValueError("cannot do this.\nas that is so")) == "cannot do this"
    assert first_line(AssertionError()) == "AssertionError"
    assert len(first_line(ValueError("x" * 999))) == 304


@pytest.mark.parametrize(
    ("location", "name"),
    [
        ("/home/me/data/micro.zarr/", "micro.zarr"),
        ("https://me:word@a.org/data/micro.zarr?sig=x/y", "micro.zarr"),
        ("C:\\data\\scene.tif", "scene.tif"),
    ],
)
def test_a_name_tells_no_folder_and_no_secret(location: str, name: str) -> None:
    assert name_only(location) == name
