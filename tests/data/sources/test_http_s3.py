"""Reads of rasters in S3 buckets."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from salibi_data.sources.http import deadline
from salibi_data.store.errors import ReadError
from tests.support.data import cogs
from tests.support.services.servers import RangeServer, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


pytestmark = pytest.mark.usefixtures("impatient")


class TestS3:
    """GDAL's own client, with our attempts around it."""

    @pytest.fixture
    def bucket(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RangeServer]:
        (tmp_path / "bucket").mkdir()
        cogs.write_cog(tmp_path / "bucket/T404_20200503.tif")
        with serve(RangeServer(tmp_path, retry_after="0")) as server:
            monkeypatch.setenv("AWS_S3_ENDPOINT", server.url.removeprefix("http://"))
            monkeypatch.setenv("AWS_HTTPS", "NO")
            monkeypatch.setenv("AWS_VIRTUAL_HOSTING", "FALSE")
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "reader")
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
            yield server

    def test_the_requester_pays_where_the_sensor_says_so(self, bucket: RangeServer) -> None:
        for pays in (False, True):
            bucket.log.clear()
            source = cogs.read("s3://bucket/T404_20200503.tif", requester_pays=pays)
            expected = cogs.oracle(bucket.folder / "bucket/T404_20200503.tif", source)
            assert np.array_equal(source.values, expected)
            assert {r.headers.get("x-amz-request-payer") for r in bucket.log} == {
                "requester" if pays else None
            }
            assert {request.path for request in bucket.log} == {"bucket/T404_20200503.tif"}

    def test_public_buckets_need_no_credentials(
        self, bucket: RangeServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        cogs.read("s3://bucket/T404_20200503.tif")
        assert not any("Authorization" in request.headers for request in bucket.log)

    def test_passing_faults_are_read_through(self, bucket: RangeServer) -> None:
        bucket.plan = ["reset", "503", "", "truncated", "", "corrupted"]
        source = cogs.read("s3://bucket/T404_20200503.tif", requester_pays=True)
        expected = cogs.oracle(bucket.folder / "bucket/T404_20200503.tif", source)
        assert np.array_equal(source.values, expected)
        assert {r.fault for r in bucket.log} == {"", "reset", "503", "truncated", "corrupted"}

    def test_a_deadline_holds_for_a_bucket_that_is_throttled(
        self, bucket: RangeServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """GDAL's own retries, with growing pauses, know of none."""
        monkeypatch.setenv("SALIBI_HTTP_BACKOFF_S", "0.2")
        bucket.fault_rate, bucket.faults = 1.0, ("503",)
        began = time.monotonic()
        with deadline(1.0), pytest.raises(ReadError, match="not done within its 1 s"):
            cogs.read("s3://bucket/T404_20200503.tif", requester_pays=True)
        assert time.monotonic() - began < 3.0

    def test_a_refusal_may_mean_a_missing_file(
        self, bucket: RangeServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SALIBI_HTTP_ATTEMPTS", "1")
        bucket.fault_rate, bucket.faults = 1.0, ("403",)
        with pytest.raises(ReadError, match="refuse what is missing as well"):
            cogs.read("s3://bucket/T404_20200503.tif", requester_pays=True)

    @pytest.mark.parametrize(
        ("fault", "kind"),
        [
            ("404", "missing"),
            ("403", "forbidden"),
            ("503", "throttled"),
            ("500", "server"),
            ("reset", "connection"),
            ("truncated", "connection"),
            ("corrupted", "damaged"),
        ],
    )
    def test_one_that_stays_is_told_by_its_kind(
        self, bucket: RangeServer, monkeypatch: pytest.MonkeyPatch, fault: str, kind: str
    ) -> None:
        """GDAL tells of it in words only, and the file's name has the figures of a status."""
        monkeypatch.setenv("SALIBI_HTTP_ATTEMPTS", "1")
        bucket.fault_rate, bucket.faults = 1.0, (fault,)
        with pytest.raises(ReadError) as caught:
            cogs.read("s3://bucket/T404_20200503.tif", requester_pays=True)
        assert caught.value.kind == kind
