"""Calibration annotations on s3, read by another library than the images beside them."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from salibi_data.sources import rate_limits
from salibi_data.sources.sentinel1_calibration import GammaTable, load_gamma
from salibi_data.store.errors import ReadError
from tests.support.services.servers import RangeServer, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ANNOTATION = """
<calibration><calibrationVectorList count="2">
<calibrationVector><line>0</line><pixel>0 40</pixel><gamma>200 210</gamma></calibrationVector>
<calibrationVector><line>500</line><pixel>0 40</pixel><gamma>202 212</gamma></calibrationVector>
</calibrationVectorList></calibration>
"""


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RangeServer]:
    (tmp_path / "s1").mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "s1/vv.xml").write_text(ANNOTATION)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SALIBI_HTTP_TIMEOUT_S", "0.3")
    with serve(RangeServer(tmp_path)) as server:
        monkeypatch.setenv("AWS_S3_ENDPOINT", server.url.removeprefix("http://"))
        monkeypatch.setenv("AWS_HTTPS", "NO")
        load_gamma.cache_clear()
        yield server


def load() -> GammaTable:
    return load_gamma("s3://s1/vv.xml", where="it", requester_pays=True, region="eu-central-1")


def write_profile(bucket: RangeServer, name: str) -> None:
    folder = bucket.folder / "home" / ".aws"
    folder.mkdir()
    (folder / "credentials").write_text(
        f"[{name}]\naws_access_key_id = reader\naws_secret_access_key = 100%secret\n"
    )


@pytest.mark.parametrize("profile", ["default", "work"])
def test_a_profile_is_used_as_gdal_uses_it(
    bucket: RangeServer, monkeypatch: pytest.MonkeyPatch, profile: str
) -> None:
    write_profile(bucket, profile)
    if profile != "default":
        monkeypatch.setenv("AWS_PROFILE", profile)
    table = load()
    assert table.lines.tolist() == [0, 500]
    assert [gamma.tolist() for gamma in table.gamma] == [[200, 210], [202, 212]]
    (request,) = bucket.log
    assert "Credential=reader/" in request.headers["Authorization"]
    assert request.headers["x-amz-request-payer"] == "requester"


def test_public_ones_need_no_credentials(bucket: RangeServer) -> None:
    load_gamma("s3://s1/vv.xml", where="it", region="eu-central-1")
    assert "Authorization" not in bucket.log[0].headers


def test_without_credentials_the_error_says_which_are_needed(bucket: RangeServer) -> None:
    with pytest.raises(ReadError, match=r"AWS_ACCESS_KEY_ID .* ~/\.aws/credentials") as caught:
        load()
    assert caught.value.kind == "forbidden"
    assert not bucket.log


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("404", "missing"),
        ("403", "forbidden"),
        ("503", "throttled"),
        ("500", "server"),
        ("reset", "connection"),
        ("stall", "timeout"),
        ("truncated", "connection"),
    ],
)
def test_a_fault_is_told_by_its_kind_after_one_attempt(
    bucket: RangeServer, fault: str, kind: str
) -> None:
    """Reading the scene is what is tried again."""
    write_profile(bucket, "default")
    bucket.fault_rate, bucket.faults = 1.0, (fault,)
    with pytest.raises(ReadError, match="it cannot be read") as caught:
        load()
    assert caught.value.kind == kind
    assert "secret" not in str(caught.value)
    assert len(bucket.log) == 1


def test_a_deadline_ends_it(bucket: RangeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    write_profile(bucket, "default")
    monkeypatch.setenv("SALIBI_HTTP_TIMEOUT_S", "60")
    bucket.fault_rate, bucket.faults = 1.0, ("stall",)
    began = time.monotonic()
    with rate_limits.deadline(0.5), pytest.raises(ReadError) as caught:
        load()
    assert caught.value.kind == "timeout"
    assert time.monotonic() - began < 20
