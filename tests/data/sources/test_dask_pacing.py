"""One limit of requests per host for all workers of a cluster, and one pause."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from salibi_data.assembly.executor import Executor, open_executor
from salibi_data.sources import http, rate_limits
from tests.support.services.servers import RangeServer, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WORKERS = 3


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SALIBI_HTTP_PARALLEL", "6")
        patch.setenv("SALIBI_HTTP_BACKOFF_S", "0.01")
        with open_executor(WORKERS, None) as executor:
            yield executor


@pytest.fixture
def host(tmp_path: Path) -> Iterator[RangeServer]:
    (tmp_path / "a.bin").write_bytes(os.urandom(8_000_000))
    with serve(RangeServer(tmp_path)) as server:
        yield server


def read_scattered(url: str) -> tuple[int, int]:
    """Forty pieces, too far apart to be had at once; the process, and its limit at the end."""
    file = http.RemoteFile(f"{url}/a.bin")
    file.read_spans([(start, start + 10) for start in range(0, 8_000_000, 200_000)])
    own = rate_limits.host_limit(url.removeprefix("http://"), 6)
    return os.getpid(), own.max_requests


def open_until(url: str, seconds: float) -> int:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        http.RemoteFile(f"{url}/a.bin")
        time.sleep(0.01)
    return os.getpid()


def test_all_workers_together_keep_to_the_limit(executor: Executor, host: RangeServer) -> None:
    host.latency_s = 0.03
    tasks = ((number, read_scattered, (host.url,)) for number in range(12))
    results = [result for _, result in executor.run(tasks)]
    assert {pid for pid, _ in results} - {os.getpid()} == {pid for pid, _ in results}
    assert len({pid for pid, _ in results}) == WORKERS
    assert {most for _, most in results} == {2}
    assert 4 <= host.most_active <= 6


def test_a_pause_that_one_worker_is_asked_for_holds_back_all(
    executor: Executor, host: RangeServer
) -> None:
    host.retry_after = "4"
    host.plan = [""] * 60 + ["429"]
    tasks = ((number, open_until, (host.url, 6.0)) for number in range(WORKERS))
    assert len({pid for _, pid in executor.run(tasks)}) == WORKERS
    (refused,) = [request.at for request in host.log if request.status == 429]
    later = [request.at - refused for request in host.log if request.at > refused]
    # The others learn of it within a second or two.
    assert not [seconds for seconds in later if 2.5 < seconds < 3.5]
    assert [seconds for seconds in later if seconds > 3.9]


def test_a_process_by_itself_has_the_whole_limit() -> None:
    assert rate_limits.host_limit("alone.example", 6).max_requests == 6
    rate_limits.set_share("tcp://one", 0.25)
    rate_limits.set_share("tcp://two", 0.25)
    try:
        assert rate_limits.host_limit("alone.example", 6).max_requests == 3
        assert rate_limits.host_limit("alone.example", 6).allowed <= 3
        rate_limits.set_share("tcp://two", None)
        rate_limits.set_share("tcp://one", 0.001)
        assert rate_limits.host_limit("alone.example", 6).max_requests == 1
    finally:
        rate_limits.set_share("tcp://one", None)
    assert rate_limits.host_limit("alone.example", 6).max_requests == 6
