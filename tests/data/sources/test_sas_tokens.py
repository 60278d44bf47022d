"""Tokens with the unmodified SDK against a real token service, in threads and on Dask."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from salibi_data.sources import dask_plugins, rate_limits, sas_tokens
from salibi_data.sources.sas_tokens import Broker
from salibi_data.store.errors import ReadError
from tests.support.data import cogs
from tests.support.services.servers import RangeServer, TokenServer, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from distributed import Client


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[TokenServer]:
    from planetary_computer.settings import Settings

    with serve(TokenServer()) as server:
        monkeypatch.setenv("PC_SDK_SAS_URL", f"{server.url}/token")
        monkeypatch.setenv("PC_SDK_SUBSCRIPTION_KEY", "")
        Settings.get.cache_clear()
        yield server
    Settings.get.cache_clear()


@pytest.fixture
def broker(service: TokenServer) -> Iterator[Broker]:
    """This process's broker, in a hurry."""
    broker = Broker(min_interval_s=INTERVAL_S)
    before = sas_tokens.set_token_source(broker)
    yield broker
    sas_tokens.set_token_source(before)


INTERVAL_S = 0.3
"""Between two requests for one token; half of it allows for a request that arrives late."""


class Clock:
    """Stands still until a test moves it: no stall of the machine lets a token expire."""

    now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(service: TokenServer, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the broker and of the service."""
    clock = Clock()
    monkeypatch.setattr(sas_tokens, "time", clock)
    service.clock = clock.monotonic
    return clock


HREFS = [
    "https://naipeuwest.blob.core.windows.net/naip/v002/a.tif",
    "https://naipeuwest.blob.core.windows.net/naip/v002/a.tif?x=1",
    "https://naipeuwest.blob.core.windows.net/naip/v002/a.tif?st=1&se=2&sp=r&sig=x",
    "https://naipeuwest.blob.core.windows.net:10000/naip/a.tif",
    "https://ai4edatasetspublicassets.blob.core.windows.net/assets/a.png",
    "https://sentinel-cogs.s3.us-west-2.amazonaws.com/a.tif",
    "http://127.0.0.1:8000/naip/a.tif",
]


@pytest.mark.parametrize("href", HREFS)
def test_what_is_signed_is_what_the_sdk_signs(href: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from planetary_computer import sas

    asked: list[tuple[str, str]] = []

    def get_token(account: str, container: str) -> sas.SASToken:
        asked.append((account, container))
        return sas.SASToken(token="se=1", expiry=datetime.now(UTC))  # noqa: S106

    monkeypatch.setattr(sas, "get_token", get_token)
    signed = sas.sign_url(href)
    container = sas_tokens.container_of(href)
    assert [container] == (asked or [None])
    if container is not None and "?" not in href:
        token = sas_tokens.Token(secret="se=1", fresh_until=0, expires_at=0)  # noqa: S106
        assert sas_tokens.sign(href, token) == signed


def test_a_token_shows_itself_to_nobody(service: TokenServer, broker: Broker) -> None:
    token = sas_tokens.get_token("acct", "one")
    assert token.secret.endswith("secret-1")
    assert "secret" not in f"{token!r} {token} {broker!r} {token.digest}"


def test_many_threads_ask_once_per_container(service: TokenServer, broker: Broker) -> None:
    service.latency_s, service.life_s = 0.1, 3600
    with ThreadPoolExecutor(16) as pool:
        got = list(pool.map(lambda i: sas_tokens.get_token("acct", f"c{i % 2}").secret, range(64)))
    assert len(set(got)) == 2
    assert sorted(name for _, name in service.log) == ["acct/c0", "acct/c1"]


def test_it_is_renewed_before_it_expires(
    service: TokenServer, broker: Broker, clock: Clock
) -> None:
    service.life_s = 100.0
    secrets = set()
    for _ in range(250):
        token = sas_tokens.get_token("acct", "c")
        assert service.accepts(token.secret)
        secrets.add(token.secret)
        clock.now_s += 1
    assert len(secrets) == 4
    gaps = [b - a for (a, _), (b, _) in pairwise(service.log)]
    assert gaps == [80, 80, 80]  # a fifth of its life is left


def test_one_that_was_refused_is_replaced_once_for_all(
    service: TokenServer, broker: Broker
) -> None:
    service.life_s = 3600
    first = sas_tokens.get_token("acct", "c")
    with ThreadPoolExecutor(8) as pool:
        renewed = list(
            pool.map(lambda _: sas_tokens.get_token("acct", "c", rejected=first.digest), range(8))
        )
    assert {token.secret for token in renewed} == {sas_tokens.get_token("acct", "c").secret}
    assert renewed[0].secret != first.secret
    assert len(service.log) == 2
    assert service.log[1][0] - service.log[0][0] > INTERVAL_S / 2  # it waited: too young


def test_a_throttled_service_is_asked_again_but_not_often(
    service: TokenServer, broker: Broker
) -> None:
    service.failures = [429, 503]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda _: sas_tokens.get_token("acct", "c").secret, range(8)))
    assert len(set(got)) == 1
    assert len(service.log) == 3
    assert min(b - a for (a, _), (b, _) in pairwise(service.log)) > INTERVAL_S / 2


@pytest.mark.parametrize(("status", "times"), [(500, 5), (404, 1), (200, 5)])
def test_a_service_that_fails_for_good_is_told_without_secrets(
    service: TokenServer, status: int, times: int
) -> None:
    service.failures = [status] * 10
    broker = Broker(min_interval_s=0.05)
    with pytest.raises(ReadError, match="no token for container c of acct") as caught:
        broker.token("acct", "c")
    assert caught.value.kind == "token"
    assert len(service.log) == times
    assert "secret" not in str(caught.value)
    assert caught.value.__context__ is None


def test_a_failed_renewal_leaves_the_token_that_is_still_good(
    service: TokenServer, broker: Broker, clock: Clock
) -> None:
    service.life_s = 100.0
    first = sas_tokens.get_token("acct", "c")
    service.failures = [500]
    clock.now_s += 85
    assert sas_tokens.get_token("acct", "c").secret == first.secret
    clock.now_s += 30
    assert sas_tokens.get_token("acct", "c").secret != first.secret
    assert len(service.log) == 3


def test_a_service_that_hangs_is_left(
    service: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.latency_s = 2.0
    monkeypatch.setattr(sas_tokens, "_REQUEST_TIMEOUT_S", 0.2)
    monkeypatch.setattr(sas_tokens, "_ATTEMPTS", 2)
    began = time.monotonic()
    with pytest.raises(ReadError, match="did not answer") as caught:
        Broker(min_interval_s=0.05).token("acct", "c")
    assert caught.value.kind == "token"
    with rate_limits.deadline(0.1), pytest.raises(ReadError) as caught:
        Broker(min_interval_s=5).token("acct", "c")
    assert caught.value.kind == "timeout"
    assert time.monotonic() - began < service.latency_s


def test_a_wrong_clock_does_not_use_up_tokens(clock: Clock) -> None:
    """Here tokens seem to have expired before they came; the host thinks otherwise."""

    def ask(_account: str, _container: str) -> tuple[str, datetime]:
        asked.append(clock.now_s)
        return f"sig=secret-{len(asked)}", datetime.now(UTC) - timedelta(hours=2)

    asked: list[float] = []
    skewed = Broker(ask, min_interval_s=0.2)
    for _ in range(50):
        skewed.token("acct", "c")
        clock.now_s += 0.01
    assert len(asked) == 3


@pytest.fixture
def blobs(
    service: TokenServer, broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RangeServer]:
    """Blobs behind a proxy, under their real names, for bearers of a token only."""
    (tmp_path / "naip").mkdir()
    cogs.write_cog(tmp_path / "naip/a.tif")
    monkeypatch.setenv("SALIBI_HTTP_BACKOFF_S", "0.01")
    with serve(RangeServer(tmp_path, signature=service.accepts)) as server:
        monkeypatch.setenv("HTTP_PROXY", server.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server


HREF = "http://acct.blob.core.windows.net/naip/a.tif"


def test_blobs_are_read_with_a_token_and_not_without(blobs: RangeServer) -> None:
    source = cogs.read(HREF, signing="planetary-computer")
    assert np.array_equal(source.values, cogs.oracle(blobs.folder / "naip/a.tif", source))
    with pytest.raises(ReadError) as caught:
        cogs.read(HREF)
    assert caught.value.kind == "forbidden"


def test_a_token_that_expires_early_is_renewed_in_mid_read(
    service: TokenServer, blobs: RangeServer
) -> None:
    service.life_s = 3600
    cogs.read(HREF, signing="planetary-computer")
    service.revoked.add("secret-1")
    blobs.log.clear()
    source = cogs.read(HREF, signing="planetary-computer")
    assert np.array_equal(source.values, cogs.oracle(blobs.folder / "naip/a.tif", source))
    assert [request.status for request in blobs.log][:2] == [403, 206]
    assert len(service.log) == 2


def test_a_blob_that_no_token_opens_is_forbidden(service: TokenServer, blobs: RangeServer) -> None:
    blobs.signature = lambda _query: False
    with pytest.raises(ReadError) as caught:
        cogs.read(HREF, signing="planetary-computer")
    assert caught.value.kind == "forbidden"
    assert len(blobs.log) == len(service.log) == 3


@pytest.fixture
def client(service: TokenServer) -> Iterator[Client]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=3, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def hammer(seconds: float, containers: list[str]) -> tuple[int, list[str], list[tuple[float, str]]]:
    """Ask without pause; the process, the distinct tokens, and (expiry, token) that came late."""
    import os

    seen, late, end = set(), [], time.monotonic() + seconds
    while time.monotonic() < end:
        for container in containers:
            secret = sas_tokens.get_token("acct", container).secret
            seen.add(secret)
            expiry = float(secret.split("se=")[1].split("&")[0])
            if time.monotonic() > expiry:
                late.append((expiry, secret))
        time.sleep(0.001)
    return os.getpid(), sorted(seen), late


def replaced(rejected: str) -> str:
    return sas_tokens.get_token("acct", "c", rejected).secret


def problem(container: str) -> tuple[str, str]:
    with pytest.raises(ReadError) as caught, rate_limits.deadline(2):
        sas_tokens.get_token("acct", container)
    return caught.value.kind, str(caught.value)


def test_the_workers_of_a_cluster_share_one_token(service: TokenServer, client: Client) -> None:
    service.life_s = 3600
    dask_plugins.share_tokens(client)
    dask_plugins.share_tokens(client)
    futures = [client.submit(hammer, 0.5, ["c", "d"], pure=False) for _ in range(6)]
    results: Any = client.gather(futures)
    assert len({pid for pid, _, _ in results}) == 3
    assert len({secret for _, seen, _ in results for secret in seen}) == 2
    assert sorted(name for _, name in service.log) == ["acct/c", "acct/d"]

    client.cluster.scale(4)
    client.wait_for_workers(4, timeout=60)
    results = client.gather(
        [
            client.submit(hammer, 0.01, ["c"], workers=[address], pure=False)
            for address in client.scheduler_info()["workers"]
        ]
    )
    assert len({pid for pid, _, _ in results}) == 4
    assert len({secret for _, seen, _ in results for secret in seen}) == 1
    assert len(service.log) == 2  # nor does a worker that came later ask for itself

    with pytest.raises(RuntimeError, match="in a task only"):
        client.run(sas_tokens.get_token, "acct", "other")
    service.failures = [404]
    kind, message = client.submit(problem, "unknown").result()
    assert kind == "token"
    assert "HTTP 404" in message
    assert "no token for container unknown of acct" in message


@pytest.mark.slow
def test_short_lived_tokens_are_asked_for_below_once_in_15_seconds(
    service: TokenServer, client: Client
) -> None:
    """Tokens live for 20 s, workers never stop asking, and some tokens are refused."""
    dask_plugins.share_tokens(client)
    seconds = 40.0
    futures = [client.submit(hammer, seconds, ["c", "d"], pure=False) for _ in range(3)]
    results: Any = client.gather(futures)
    assert not [late for _, _, late in results if late]
    for name in ("acct/c", "acct/d"):
        times = [at for at, asked in service.log if asked == name]
        assert 3 <= len(times) <= 1 + seconds / 15
        assert min(b - a for a, b in pairwise(times)) > 15
    refused = client.submit(sas_tokens.get_token, "acct", "c").result()
    renewed = {client.submit(replaced, refused.digest, pure=False).result() for _ in range(3)}
    assert len(renewed) == 1
    times = [at for at, asked in service.log if asked == "acct/c"]
    assert min(b - a for a, b in pairwise(times)) > 15


def test_a_process_that_has_tokens_and_starts_a_cluster_asks_once(
    service: TokenServer, broker: Broker, client: Client
) -> None:
    """As a build does that scored clouds while it planned: the scheduler is in this process."""
    service.life_s = 3600
    own = sas_tokens.get_token("acct", "c").secret
    dask_plugins.share_tokens(client)
    assert client.submit(secret_of, "c").result() == own
    assert len(service.log) == 1


def secret_of(container: str) -> str:
    return sas_tokens.get_token("acct", container).secret


def test_threads_end_with_the_broker(service: TokenServer, broker: Broker) -> None:
    sas_tokens.get_token("acct", "c")
    assert not [thread for thread in threading.enumerate() if thread.name == "salibi-token"]
