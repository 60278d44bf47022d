"""The fault drill: a tenth of all requests fail, in every way at once, and no pixel is other.

And whatever goes wrong, for a while or for good: nothing of a token comes out.
"""

from __future__ import annotations

import logging
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest

from salibi_data.sources import http, sas_tokens
from salibi_data.sources.sas_tokens import Broker
from salibi_data.store.errors import ReadError
from salibi_data.store.tiles import PixelGrid
from tests.support.data import cogs
from tests.support.services.servers import FAULTS, RangeServer, TokenServer, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HREF = "http://acct.blob.core.windows.net/naip/{}.tif"
FILES = ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blobs")
    (folder / "naip").mkdir()
    for seed, name in enumerate(FILES):
        cogs.write_cog(folder / f"naip/{name}.tif", seed=seed)
    return folder


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[TokenServer]:
    from planetary_computer.settings import Settings

    with serve(TokenServer(life_s=1.0)) as server:
        monkeypatch.setenv("PC_SDK_SAS_URL", f"{server.url}/token")
        monkeypatch.setenv("PC_SDK_SUBSCRIPTION_KEY", "")
        Settings.get.cache_clear()
        before = sas_tokens.set_token_source(Broker(min_interval_s=0.3))
        yield server
        sas_tokens.set_token_source(before)
    Settings.get.cache_clear()


@pytest.fixture
def blobs(
    service: TokenServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RangeServer]:
    """Blobs for bearers of a token that lives for a second, behind a proxy."""
    monkeypatch.setenv("SALIBI_HTTP_BACKOFF_S", "0.01")
    monkeypatch.setenv("SALIBI_HTTP_TIMEOUT_S", "0.2")
    with serve(RangeServer(folder, signature=service.accepts)) as server:
        monkeypatch.setenv("HTTP_PROXY", server.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server


def grids() -> list[PixelGrid]:
    """Of one and of both tiles, so that windows differ."""
    return [PixelGrid.around(some) for some in (cogs.TILES[:1], cogs.TILES[1:], cogs.TILES)]


def test_windows_read_through_faults_equal_those_without(
    service: TokenServer, blobs: RangeServer
) -> None:
    wanted = [(name, grid) for _ in range(5) for name in FILES for grid in grids()]
    calm = {}
    for name, grid in wanted:
        source = cogs.read(str(blobs.folder / f"naip/{name}.tif"), grid)
        calm[name, grid.bounds_3857] = source.values
    blobs.fault_rate, blobs.faults = 0.1, (*FAULTS, "corrupted")
    before = http.counters()

    def same(name: str, grid: PixelGrid) -> bool:
        source = cogs.read(HREF.format(name), grid, signing="planetary-computer")
        return np.array_equal(source.values, calm[name, grid.bounds_3857])

    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(same, *zip(*wanted, strict=True)))
    suffered = {request.fault for request in blobs.log} - {""}
    assert suffered >= set(FAULTS)
    retries = (http.counters() - before).retries
    assert set(retries) == {"throttled", "connection", "timeout", "forbidden"}
    assert len(service.log) > 1  # tokens expired on the way


def test_a_file_that_is_gone_takes_one_request(blobs: RangeServer) -> None:
    blobs.fault_rate = 0.0
    blobs.gone.add("naip/a.tif")
    with pytest.raises(ReadError) as caught:
        cogs.read(HREF.format("a"), signing="planetary-computer")
    assert caught.value.kind == "missing"
    assert len(blobs.log) == 1


def everything_said(error: BaseException) -> str:
    """All texts of an error, and of whatever it came from."""
    texts, waiting = [], [error]
    while waiting:
        at = waiting.pop()
        texts += [str(at), repr(at), repr(at.__dict__), *traceback.format_exception(at)]
        waiting += [other for other in (at.__cause__, at.__context__) if other is not None]
    return "\n".join(texts)


@pytest.mark.parametrize("moment", ["opening", "reading"])
@pytest.mark.parametrize("fault", [*FAULTS, "500", "404", "416", "400", "corrupted", "proxy"])
def test_no_token_comes_out_whatever_happens(
    service: TokenServer,
    blobs: RangeServer,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    moment: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    word = f"hidden-{len(fault)}-word"  # tracebacks quote this source
    monkeypatch.setenv("SALIBI_HTTP_ATTEMPTS", "2")
    service.life_s, blobs.retry_after = 3600, "0"
    blobs.plan = [""] if moment == "reading" else []
    blobs.fault_rate, blobs.faults = 1.0, (fault,)
    if fault == "proxy":
        monkeypatch.setenv("HTTP_PROXY", f"http://someone:{word}@127.0.0.1:9")
    with pytest.raises(ReadError) as caught:
        cogs.read(f"{HREF.format('a')}?key={word}", signing="planetary-computer")
    out, err = capfd.readouterr()
    output = "\n".join([everything_said(caught.value), caplog.text, out, err])
    assert service.log
    assert "naip/a.tif" in output
    assert "secret-" not in output
    assert "sig=" not in output
    assert word not in output
