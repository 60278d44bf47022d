"""Reading over http(s) against a real server: right bytes, few requests, every failure named."""

from __future__ import annotations

import os
import pickle
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from salibi_data.sources import byte_ranges, http, rate_limits
from salibi_data.sources.gdal import open_raster
from salibi_data.store.errors import ReadError, UsageError
from salibi_data.store.tiles import PixelGrid, TileXYZ
from tests.support.data import cogs
from tests.support.services.servers import RangeServer, serve

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.usefixtures("impatient")


def test_a_window_is_what_rasterio_reads_from_disk(folder: Path, server: RangeServer) -> None:
    before = http.counters()
    source = cogs.read(f"{server.url}/a.tif")
    assert np.array_equal(source.values, cogs.oracle(folder / "a.tif", source))
    assert {request.path for request in server.log} == {"a.tif"}  # no sidecar was looked for
    assert server.log[0].span == (0, 32_768)
    assert len(server.log) <= 4
    counted = http.counters() - before
    assert counted.requests == len(server.log)
    assert counted.bytes == sum(r.span[1] - r.span[0] for r in server.log if r.span)
    assert counted.retries == {}


def test_only_the_first_opening_asks_anything_twice(server: RangeServer) -> None:
    with open_raster(f"{server.url}/a.tif") as dataset:
        for _ in range(3):
            dataset.read(1, window=((0, 256), (0, 256)))
    assert len(server.log) == 2


@given(
    st.lists(
        st.tuples(st.integers(0, 9_000_000), st.integers(1, 5_000_000)), min_size=1, max_size=12
    )
)
def test_pieces_hold_all_spans_once(drawn: list[tuple[int, int]]) -> None:
    wanted = [(start, start + size) for start, size in drawn]
    pieces = byte_ranges.plan_requests(wanted)
    assert all(stop - start <= byte_ranges.MAX_REQUEST_BYTES for start, stop in pieces)
    assert all(a[1] <= b[0] for a, b in pairwise(pieces))
    whole = np.arange(14_000_000 // 4, dtype=np.uint32).tobytes()
    got = {piece: whole[slice(*piece)] for piece in pieces}
    assert all(byte_ranges.extract(span, got) == whole[slice(*span)] for span in wanted)
    asked = sum(stop - start for start, stop in pieces)
    assert asked <= sum(b - a for a, b in wanted) + byte_ranges.MAX_GAP_BYTES * (len(wanted) - 1)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("503", "throttled"),
        ("429", "throttled"),
        ("500", "server"),
        ("504", "server"),
        ("reset", "connection"),
        ("truncated", "connection"),
        ("stall", "timeout"),
        ("403", "forbidden"),
    ],
)
class TestFaults:
    def test_a_passing_one_is_read_through(
        self, folder: Path, server: RangeServer, fault: str, kind: str
    ) -> None:
        server.retry_after = "0"
        server.plan = [fault, "", fault, fault]
        before = http.counters()
        source = cogs.read(f"{server.url}/a.tif")
        assert np.array_equal(source.values, cogs.oracle(folder / "a.tif", source))
        assert (http.counters() - before).retries == {kind: 3}

    def test_one_that_stays_is_told_by_its_kind(
        self, server: RangeServer, monkeypatch: pytest.MonkeyPatch, fault: str, kind: str
    ) -> None:
        monkeypatch.setenv("SALIBI_HTTP_ATTEMPTS", "4")
        server.retry_after = "0"
        server.fault_rate, server.faults = 1.0, (fault,)
        with pytest.raises(ReadError, match="cannot be read") as caught:
            cogs.read(f"{server.url}/a.tif")
        assert caught.value.kind == kind
        assert len(server.log) == (3 if fault == "403" else 4)

    def test_one_in_the_middle_of_a_window_is_told_by_its_kind(
        self, server: RangeServer, monkeypatch: pytest.MonkeyPatch, fault: str, kind: str
    ) -> None:
        """GDAL loses the errors of its callbacks; ours must not be lost, nor taken for nodata."""
        monkeypatch.setenv("SALIBI_HTTP_ATTEMPTS", "1")
        server.retry_after = "0"
        server.plan, server.fault_rate, server.faults = [""], 1.0, (fault,)
        with pytest.raises(ReadError) as caught:
            cogs.read(f"{server.url}/a.tif")
        assert caught.value.kind == kind


def test_a_missing_file_is_asked_for_once(server: RangeServer) -> None:
    server.gone.add("a.tif")
    with pytest.raises(ReadError, match=r"HTTP 404.*restore it") as caught:
        cogs.read(f"{server.url}/a.tif")
    assert caught.value.kind == "missing"
    assert len(server.log) == 1


def test_a_missing_asset_is_missing(server: RangeServer) -> None:
    with pytest.raises(ReadError, match="has no asset 'other'") as caught:
        cogs.read_asset(cogs.catalog(), cogs.scene("x.tif"), "other", cogs.PRODUCT, [], cogs.GRID)
    assert caught.value.kind == "missing"


def test_a_host_that_is_not_there_is_a_connection_that_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SALIBI_HTTP_ATTEMPTS", "2")
    with pytest.raises(ReadError) as caught:
        cogs.read("http://127.0.0.1:9/a.tif")
    assert caught.value.kind == "connection"


def test_a_host_without_ranges_cannot_be_used(server: RangeServer) -> None:
    server.ranges = False
    with pytest.raises(ReadError, match="whole files only") as caught:
        cogs.read(f"{server.url}/a.tif")
    assert caught.value.kind == "unusable"


def test_a_file_replaced_meanwhile_is_not_mixed(tmp_path: Path) -> None:
    cogs.write_cog(tmp_path / "a.tif", seed=1)
    with serve(RangeServer(tmp_path)) as server:
        url = f"{server.url}/a.tif"
        first = cogs.read(url)
        file = http.RemoteFile(url)
        cogs.write_cog(tmp_path / "a.tif", seed=2)
        with pytest.raises(ReadError, match="replaced") as caught:
            file.read_at(100_000, 10)
        assert caught.value.kind == "damaged"
        second = cogs.read(url)  # and nothing of the old one is kept by its name
    assert np.array_equal(second.values, cogs.oracle(tmp_path / "a.tif", second))
    assert not np.array_equal(first.values, second.values)


def test_a_failed_opening_is_not_remembered(
    folder: Path, server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SALIBI_HTTP_ATTEMPTS", "1")
    server.plan = ["503"]
    with pytest.raises(ReadError):
        cogs.read(f"{server.url}/a.tif")
    source = cogs.read(f"{server.url}/a.tif")
    assert np.array_equal(source.values, cogs.oracle(folder / "a.tif", source))


def test_a_wrong_body_of_the_right_length_is_read_again(folder: Path, server: RangeServer) -> None:
    server.plan = ["", "corrupted", "corrupted"]
    source = cogs.read(f"{server.url}/a.tif")
    assert np.array_equal(source.values, cogs.oracle(folder / "a.tif", source))
    assert [request.span for request in server.log].count((0, 32_768)) == 2


def test_a_damaged_file_is_told_after_three_openings(server: RangeServer) -> None:
    server.fault_rate, server.faults = 1.0, ("corrupted",)
    with pytest.raises(ReadError, match="truncated or damaged") as caught:
        cogs.read(f"{server.url}/a.tif")
    assert caught.value.kind == "damaged"
    assert [request.span for request in server.log].count((0, 32_768)) == 3


def test_a_file_that_is_no_raster_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_text("<html>so sorry</html>")
    with serve(RangeServer(tmp_path)) as server, pytest.raises(ReadError) as caught:
        cogs.read(f"{server.url}/a.tif")
    assert caught.value.kind == "damaged"


def test_what_interrupts_a_callback_of_gdal_comes_out(
    server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_self: object, _spans: object) -> list[bytes]:
        raise KeyboardInterrupt

    def read() -> None:
        with open_raster(f"{server.url}/a.tif") as dataset:
            monkeypatch.setattr(http.RemoteFile, "read_spans", interrupted)
            dataset.read(1)

    with pytest.raises(KeyboardInterrupt):
        read()


def test_small_files_are_read_whole(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_bytes(os.urandom(50_000))
    with serve(RangeServer(tmp_path)) as server:
        content = http.read_bytes(f"{server.url}/a.xml")
    assert content == (tmp_path / "a.xml").read_bytes()


def test_scattered_reads_are_right_to_the_end_of_the_file(
    folder: Path, server: RangeServer
) -> None:
    content = (folder / "a.tif").read_bytes()
    file = http.RemoteFile(f"{server.url}/a.tif")
    generator = np.random.default_rng(0)
    for offset in [*generator.integers(0, len(content), 60).tolist(), len(content) - 5]:
        size = int(generator.integers(1, 400_000))
        assert file.read_at(offset, size) == content[offset : offset + size]
    assert file.read_at(len(content) + 1, 5) == b""


@pytest.mark.parametrize("num_bytes", [65_536, 98_304, 98_305])
def test_reads_from_the_end_on_are_empty(tmp_path: Path, num_bytes: int) -> None:
    """The file may end where a piece that is kept ends, or not."""
    (tmp_path / "a.bin").write_bytes(os.urandom(num_bytes))
    with serve(RangeServer(tmp_path)) as server:
        file = http.RemoteFile(f"{server.url}/a.bin")
        assert file.read_at(num_bytes - 1, 5) == (tmp_path / "a.bin").read_bytes()[-1:]
        for offset in (num_bytes, num_bytes + 1, 10 * num_bytes):
            assert file.read_at(offset, 5) == b""
        assert file.read_at(10, 0) == b""


def test_a_proxy_is_used(
    folder: Path, server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)
    monkeypatch.setenv("NO_PROXY", "localhost")
    source = cogs.read("http://data.example/a.tif")
    assert np.array_equal(source.values, cogs.oracle(folder / "a.tif", source))
    assert server.log[0].headers["Host"] == "data.example"


def test_a_local_file_is_read_without_any_ado(folder: Path) -> None:
    source = cogs.read(str(folder / "a.tif"))
    assert np.array_equal(source.values, cogs.oracle(folder / "a.tif", source))
    with pytest.raises(ReadError) as caught:
        cogs.read(str(folder / "b.tif"))
    assert caught.value.kind == "missing"


def test_a_window_elsewhere_is_none(server: RangeServer) -> None:
    far = PixelGrid.around([TileXYZ(0, 50650, 17)])
    bands = list(cogs.PRODUCT.bands.values())
    scene = cogs.scene(f"{server.url}/a.tif")
    assert cogs.read_asset(cogs.catalog(), scene, "image", cogs.PRODUCT, bands, far) is None
    assert len(server.log) == 1


def test_an_error_keeps_its_kind_between_processes() -> None:
    copy = pickle.loads(pickle.dumps(ReadError("gone", kind="missing")))  # noqa: S301
    assert (str(copy), copy.kind) == ("gone", "missing")


@pytest.mark.parametrize("value", ["soon", "0", "-1", "nan"])
def test_a_setting_that_is_no_number_is_a_mistake_of_the_user(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("SALIBI_HTTP_TIMEOUT_S", value)
    with pytest.raises(UsageError, match="SALIBI_HTTP_TIMEOUT_S"):
        rate_limits.HttpSettings.from_environment()
