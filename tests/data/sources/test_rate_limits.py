"""Limits on requests: hosts that ask for patience, and requests at a time."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING

import pytest

from salibi_data.sources import http, rate_limits
from salibi_data.store.errors import ReadError
from tests.support.data import cogs

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.services.servers import RangeServer


pytestmark = pytest.mark.usefixtures("impatient")


@pytest.mark.parametrize("kind", ["seconds", "date", "date of an unknown place"])
def test_retry_after_holds_back_the_whole_process(
    folder: Path, server: RangeServer, kind: str
) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    if kind == "date of an unknown place":
        later = later.replace("GMT", "-0000")
    server.retry_after = "1" if kind == "seconds" else later
    http.RemoteFile(f"{server.url}/a.tif")  # the first 429 meets a warm process
    server.plan = ["429"]
    threads = [
        threading.Thread(target=http.RemoteFile, args=(f"{server.url}/a.tif",)) for _ in range(4)
    ]
    threads[0].start()
    while len(server.log) < 2:
        time.sleep(0.005)
    time.sleep(0.05)
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join()
    refused = next(request.at for request in server.log if request.status == 429)
    others = [request.at - refused for request in server.log if request.at > refused]
    assert len(others) == 4
    assert min(others) > 0.8  # a date has whole seconds only


def test_a_host_that_asks_for_an_hour_is_given_up(server: RangeServer) -> None:
    server.plan, server.retry_after = ["429"], "3600"
    with pytest.raises(ReadError) as caught:
        cogs.read(f"{server.url}/a.tif")
    assert caught.value.kind == "throttled"


def test_a_deadline_ends_retries_and_waits(
    server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SALIBI_HTTP_ATTEMPTS", "1000")
    monkeypatch.setenv("SALIBI_HTTP_TIMEOUT_S", "60")
    for fault in ("stall", "503", "429"):
        server.fault_rate, server.faults, server.retry_after = 1.0, (fault,), "30"
        began = time.monotonic()
        with (
            rate_limits.deadline(60),
            rate_limits.deadline(0.5),
            pytest.raises(ReadError) as caught,
        ):
            cogs.read(f"{server.url}/a.tif")
        assert caught.value.kind == "timeout"
        assert time.monotonic() - began < 20
    assert rate_limits.remaining_s() == float("inf")


def test_a_deadline_reaches_requests_side_by_side(
    folder: Path, server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SALIBI_HTTP_TIMEOUT_S", "60")
    file = http.RemoteFile(f"{server.url}/a.tif")
    server.fault_rate, server.faults = 1.0, ("stall",)
    began = time.monotonic()
    with rate_limits.deadline(0.5), pytest.raises(ReadError) as caught:
        file.read_spans([(i * 1_000_000, i * 1_000_000 + 1000) for i in range(3)])
    assert caught.value.kind == "timeout"
    assert len(server.log) == 4
    assert time.monotonic() - began < 20


def test_requests_at_a_time_stay_below_their_limit(
    folder: Path, server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SALIBI_HTTP_PARALLEL", "5")
    server.latency_s = 0.02
    file = http.RemoteFile(f"{server.url}/a.tif")
    wanted = [(start, start + 1000) for start in range(0, 10_000_000, 200_000)]
    content = (folder / "a.tif").read_bytes()
    for _ in range(2):
        assert file.read_spans(wanted) == [content[slice(*span)] for span in wanted]
    assert 3 <= server.most_active <= 5


def test_the_limit_halves_once_per_choking_and_grows_back() -> None:
    limit = rate_limits.HostLimit(8)
    assert limit.allowed == 4
    together = [limit.acquire() for _ in range(4)]
    for since in together:
        limit.release(since, choked=True)
    assert limit.allowed == 2
    for _ in range(100):
        limit.release(limit.acquire(), choked=False)
    assert limit.allowed == 8
    for _ in range(10):
        limit.release(limit.acquire(), choked=True)
    assert limit.allowed == 1
