"""One reading of the environment's S3 settings for GDAL, obstore and stores, against a real server."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

from salibi_data.sources.gdal import open_raster
from salibi_data.sources.sentinel1_calibration import load_gamma
from salibi_data.store.errors import ReadError, UsageError
from salibi_data.store.s3.settings import S3Settings
from salibi_data.store.storage import open_storage
from tests.support.data import cogs
from tests.support.services.servers import RangeServer, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEYS = {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "not-to-be-told"}
PLAIN = {"AWS_ALLOW_HTTP": "true"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RangeServer]:
    folder = tmp_path_factory.mktemp("s3")
    (folder / "bucket").mkdir()
    cogs.write_cog(folder / "bucket/a.tif", pixels=600)
    with serve(RangeServer(folder)) as server:
        yield server


@pytest.fixture
def environment(
    server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> Callable[[dict[str, str]], None]:
    """Function that sets the AWS variables, and no others; ``{host}`` is the server's."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SALIBI_HTTP_ATTEMPTS", "1")
    server.log.clear()

    def set_variables(variables: dict[str, str]) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value.format(host=server.url.removeprefix("http://")))

    return set_variables


ENDPOINTS = {
    "AWS tools": {"AWS_ENDPOINT_URL": "http://{host}", **PLAIN},
    "AWS tools, with a slash": {"AWS_ENDPOINT_URL": "http://{host}/", **PLAIN},
    "AWS tools, for S3 alone": {
        "AWS_ENDPOINT_URL_S3": "http://{host}",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ALLOW_HTTP": "1",
    },
    "GDAL": {"AWS_S3_ENDPOINT": "{host}", "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE"},
    "GDAL before the AWS tools": {
        "AWS_S3_ENDPOINT": "http://{host}",
        "AWS_VIRTUAL_HOSTING": "NO",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    },
}


@pytest.mark.parametrize("variables", ENDPOINTS.values(), ids=ENDPOINTS)
def test_sources_are_read_from_the_endpoint(
    server: RangeServer,
    environment: Callable[[dict[str, str]], None],
    variables: dict[str, str],
) -> None:
    environment(variables)
    source = cogs.read("s3://bucket/a.tif")
    assert np.array_equal(source.values, cogs.oracle(server.folder / "bucket/a.tif", source))
    assert {request.path for request in server.log} == {"bucket/a.tif"}
    assert not any("Authorization" in request.headers for request in server.log)


@pytest.mark.parametrize(
    ("variables", "pays", "signed"),
    [
        ({}, False, False),
        (KEYS, False, True),
        (KEYS, True, True),
        ({**KEYS, "AWS_SKIP_SIGNATURE": "true"}, False, False),
        ({**KEYS, "AWS_SKIP_SIGNATURE": "true"}, True, False),
        ({**KEYS, "AWS_NO_SIGN_REQUEST": "YES"}, False, False),
        ({**KEYS, "AWS_NO_SIGN_REQUEST": "NO"}, True, True),
    ],
)
def test_requests_are_signed_with_credentials_unless_told_otherwise(
    server: RangeServer,
    environment: Callable[[dict[str, str]], None],
    variables: dict[str, str],
    pays: bool,
    signed: bool,
) -> None:
    environment({**ENDPOINTS["AWS tools"], **variables, "AWS_DEFAULT_REGION": "garage"})
    with open_raster("s3://bucket/a.tif", requester_pays=pays, region="us-west-2") as dataset:
        dataset.read(1)
    with pytest.raises(ReadError, match="no such object"):
        load_gamma("s3://bucket/a.xml", where="it", requester_pays=pays, region="us-west-2")
    credentials = [request.headers.get("Authorization", "") for request in server.log]
    assert {request.path for request in server.log} == {"bucket/a.tif", "bucket/a.xml"}
    assert [bool(text) for text in credentials] == [signed] * len(credentials)
    # The region of the catalog is that of Amazon's bucket.
    assert all("/garage/s3/" in text for text in credentials if signed)


def test_a_store_obeys_the_name_of_gdal_for_no_signature(
    server: RangeServer, environment: Callable[[dict[str, str]], None]
) -> None:
    environment({**ENDPOINTS["AWS tools"], **KEYS, "AWS_NO_SIGN_REQUEST": "YES"})
    open_storage("s3://bucket").get("a.tif")
    assert not any("Authorization" in request.headers for request in server.log)


def test_buckets_in_the_name_of_the_host(environment: Callable[[dict[str, str]], None]) -> None:
    environment(
        {
            "AWS_ENDPOINT_URL": "https://bucket.s3.example:8443/prefix/",
            "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true",
        }
    )
    options = S3Settings.from_environment().gdal_options("bucket")
    assert options["AWS_S3_ENDPOINT"] == "s3.example:8443/prefix"
    assert (options["AWS_HTTPS"], options["AWS_VIRTUAL_HOSTING"]) == ("YES", "TRUE")


def test_amazon_is_asked_as_before(environment: Callable[[dict[str, str]], None]) -> None:
    environment({})
    settings = S3Settings.from_environment()
    assert settings.gdal_options("bucket", region="us-west-2") == {
        "AWS_REGION": "us-west-2",
        "AWS_NO_SIGN_REQUEST": "YES",
    }
    environment({"AWS_ENDPOINT_URL": "https://host", "AWS_S3_ENDPOINT": "s3.amazonaws.com"})
    assert S3Settings.from_environment() == settings
    environment({"AWS_REGION": "eu-central-1", **KEYS})
    settings = S3Settings.from_environment()
    assert settings.gdal_options("bucket", requester_pays=True, region="us-west-2") == {
        "AWS_REGION": "us-west-2",
        "AWS_NO_SIGN_REQUEST": "NO",
        "AWS_REQUEST_PAYER": "requester",
    }


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"AWS_ENDPOINT_URL": "http://{host}"}, "set AWS_ALLOW_HTTP=true if that is meant"),
        ({"AWS_ENDPOINT_URL": "{host}"}, "AWS_ENDPOINT_URL is not the URL of a server"),
        ({"AWS_ENDPOINT_URL_S3": "s3://bucket"}, "AWS_ENDPOINT_URL_S3 is not the URL"),
        ({"AWS_ENDPOINT_URL": "https://host?sig=not-to-be-told"}, "is not the URL of a server"),
    ],
)
def test_an_endpoint_that_cannot_be_meant_is_told(
    server: RangeServer,
    environment: Callable[[dict[str, str]], None],
    variables: dict[str, str],
    message: str,
) -> None:
    environment(variables)
    with pytest.raises(UsageError, match=message) as caught:
        cogs.read("s3://bucket/a.tif")
    assert "not-to-be-told" not in str(caught.value)
    assert not server.log
