"""The page of a store over HTTP and as files: true columns, true pixels, nothing but the site."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import io
import json
import shutil
import signal
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import shapely
import zarr
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pmtiles.reader import MmapSource, Reader

from salibi_data.store import geoparquet
from salibi_data.store.errors import StoreError, UsageError
from salibi_data.store.schema import ATTRIBUTES_KEY, SAMPLES_NAME, StoreAttributes
from salibi_data.viewer import basemap as basemaps
from salibi_data.viewer.export import STAMP, expected_bytes, export
from salibi_data.viewer.samples import SAMPLES_PER_FILE, Samples, spread
from salibi_data.viewer.server import Server
from salibi_data.viewer.site import PAGE, Site
from salibi_data.viewer.tiles import MAX_LEVELS
from salibi_model.data.render_rgb import as_rgb
from tests.cli.test_cli_data import assert_one_line
from tests.support.data import samples as commands
from tests.support.data.many_samples import ZOOM, write_many
from tests.support.data.real_catalogs import REAL, needs_real

COUNT = 150
RASTER = REAL / "pmtiles" / "stamen_toner_raster_z3.pmtiles"
VECTOR = REAL / "pmtiles" / "test_fixture_1.pmtiles"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_many(tmp_path_factory.mktemp("view") / "many.zarr", num_samples=COUNT)
    with_hole = zarr.open_group(path, mode="r+")["lores"]
    with_hole[0, :, :64, :64] = 0
    return path


@pytest.fixture(scope="module")
def site(store: Path) -> Site:
    return Site(Samples(store), as_rgb)


@contextlib.contextmanager
def serving(site: Site):
    """A function that asks a running server: (path, headers, method) to (status, headers, body)."""
    with Server(site) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()

        def ask(path, headers=None, method="GET"):
            connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1])
            try:
                connection.request(method, path, headers={"Connection": "close", **(headers or {})})
                answer = connection.getresponse()
                return answer.status, dict(answer.getheaders()), answer.read()
            finally:
                connection.close()

        try:
            yield ask
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def ask(site):
    with serving(site) as asking:
        yield asking


def tile_path(site, position, modality="lores", levels=0):
    x, y = int(site.samples.x[position]) >> levels, int(site.samples.y[position]) >> levels
    return f"/tiles/{modality}/{ZOOM - levels}/{x}/{y}.webp"


def pixels(body):
    with Image.open(io.BytesIO(body)) as image:
        assert image.format == "WEBP"
        return np.asarray(image.convert("RGBA"))


def attributes_of(group):
    return StoreAttributes.from_dict(dict(group.attrs), where="the store")


def test_the_index_holds_the_stores_columns(ask, store):
    about = json.loads(ask("/store.json")[2])
    body = gzip.decompress(ask("/index.bin")[2])
    column = {
        place["name"]: np.frombuffer(body, place["type"], about["count"], place["offset"])
        for place in about["columns"]
    }
    group = zarr.open_group(store, mode="r")
    table, _ = geoparquet.read(store / SAMPLES_NAME)
    assert about["count"] == COUNT
    assert np.array_equal(np.stack([column["x"], column["y"]], 1), group["tile"][:, 1:])
    assert np.array_equal(column["split"], group["split"][:])
    assert np.array_equal(column["cloud"], group["cloud_fraction"][:], equal_nan=True)
    shift = np.array(table["alignment_shift_m"].to_pylist(), np.float32)
    assert np.array_equal(column["shift"], shift, equal_nan=True)
    for number, sensor in enumerate(about["sensors"]):
        days = group["acquired"][:, number] // 86_400
        assert np.array_equal(column[f"day {sensor}"], days)
    west, south, east, north = about["boundsLonLat"]
    assert west < east
    assert south < north


@pytest.mark.parametrize("modality", ["sar", "lores", "hires", "hires_4x"])
def test_a_tile_at_the_base_zoom_is_the_samples_image(ask, site, store, modality):
    group = zarr.open_group(store, mode="r")
    for position in (0, COUNT - 1):
        stored = group[modality][position]
        status, headers, body = ask(tile_path(site, position, modality))
        assert (status, headers["Content-Type"]) == (200, "image/webp")
        found = pixels(body)
        seen = (stored != 0).any(axis=0)
        assert np.array_equal(found[..., 3], np.where(seen, 255, 0))
        wanted = as_rgb(stored, attributes_of(group).modalities[modality])
        assert np.array_equal(found[seen][:, :3], wanted[seen])


@pytest.mark.parametrize("levels", range(1, MAX_LEVELS + 1))
@pytest.mark.parametrize("modality", ["lores", "hires_4x"])
def test_a_tile_below_it_is_made_of_all_samples_in_it(ask, site, store, modality, levels):
    group = zarr.open_group(store, mode="r")
    tile = group["tile"][:]
    described = attributes_of(group).modalities[modality]
    parent = tile[40, 1:] >> levels
    factor = 2**levels
    edge = described.size_px // factor
    wanted = np.zeros((described.size_px, described.size_px, 4))
    for position in np.flatnonzero((tile[:, 1:] >> levels == parent).all(axis=1)):
        column, row = (tile[position, 1:] - (parent << levels)) * edge
        rgb = as_rgb(group[modality][position], described).astype(float)
        means = rgb.reshape(edge, factor, edge, factor, 3).mean(axis=(1, 3))
        wanted[row : row + edge, column : column + edge, :3] = means
        wanted[row : row + edge, column : column + edge, 3] = 255
    found = pixels(ask(tile_path(site, 40, modality, levels))[2])
    assert np.array_equal(found[..., 3], wanted[..., 3])
    filled = wanted[..., 3] > 0
    assert filled.sum() > 0
    assert np.abs(found[filled].astype(float) - wanted[filled]).max() <= 1


def test_what_was_not_observed_does_not_darken_smaller_tiles(site, store):
    # The hole is 64 px of 256, so at half the size its edge lies between pixels.
    found = pixels(site.get(tile_path(site, 0, levels=1)[1:]).body)
    x, y = (int(v[0]) % 2 * 128 for v in (site.samples.x, site.samples.y))
    part = found[y : y + 128, x : x + 128]
    assert (part[:32, :32, 3] == 0).all()
    assert (part[32:, :, 3] == 255).all()


def test_all_that_the_table_says_of_a_sample_is_given(site, store):
    table, _ = geoparquet.read(store / SAMPLES_NAME)
    rows = table.drop(["geometry"]).to_pylist()
    found = [one for n in range(site.samples.num_files) for one in site.samples.described(n)]
    assert [one["row"] for one in found] == list(range(len(rows)))
    for one, row in zip(found, rows, strict=True):
        assert one.keys() - {"row"} == row.keys()
        assert one["naip_items"] == row["naip_items"]
        assert one["naip_hrefs"] == [href.removesuffix("?sig=secret") for href in row["naip_hrefs"]]
        assert one["sentinel-1_acquired"] == row["sentinel-1_acquired"].isoformat()
        assert one["gsd_m"] == pytest.approx(row["gsd_m"], rel=1e-5)
        shift = row["alignment_shift_m"]
        assert one["alignment_shift_m"] == (
            None if np.isnan(shift) else pytest.approx(shift, rel=1e-5)
        )
    assert json.loads(site.get("samples/0.json").body) == found[:SAMPLES_PER_FILE]


@pytest.mark.parametrize(
    "path",
    [
        "/nothing.html",
        "/tiles/lores/15/0/0.webp",
        "/tiles/infrared/{tile}.webp",
        "/tiles/lores/11/1/1.webp",
        "/tiles/lores/99/1/1.webp",
        "/samples/99999.json",
        "/basemap/0/0/0.png",
        "/../server.py",
        "/..%2f..%2ferrors.py",
        "/%2e%2e/site.py",
        "//etc/passwd",
        "/vendor/../../server.py",
        "/page/index.html",
        "/samples/..%2f0.json",
    ],
)
def test_nothing_else_is_there(ask, site, path):
    tile = f"{ZOOM}/{site.samples.x[0]}/{site.samples.y[0]}"
    status, _, body = ask(path.format(tile=tile))
    assert status == 404
    assert body == b"404 Not Found\n"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_but_reading_is_answered(ask, method):
    assert ask("/store.json", method=method)[0] == 501


def test_head_tells_what_get_would(ask, site):
    path = tile_path(site, 3)
    _, headers, body = ask(path)
    status, of_head, nothing = ask(path, method="HEAD")
    assert (status, nothing) == (200, b"")
    assert of_head["Content-Length"] == headers["Content-Length"] == str(len(body))


def test_what_the_browser_has_is_not_sent_again(ask, site, store, tmp_path):
    for path in (
        "/",
        "/store.json",
        "/index.bin",
        "/app.js",
        "/samples/0.json",
        tile_path(site, 3),
    ):
        etag = ask(path)[1]["ETag"]
        status, headers, body = ask(path, {"If-None-Match": etag})
        assert (status, body, headers["ETag"]) == (304, b"", etag)
        assert ask(path, {"If-None-Match": '"other"'})[0] == 200


def test_another_store_or_option_is_another_site(site, store, tmp_path):
    again = shutil.copytree(store, tmp_path / "again.zarr")
    assert Site(Samples(again), as_rgb).digest == site.digest
    (again / "manifest.json").write_text('{"files": {"x": {"bytes": 1, "sha256": "0"}}}')
    others = [
        Site(Samples(again), as_rgb),
        Site(Samples(store), as_rgb, quality=50),
        Site(Samples(store, limit=140), as_rgb),
        Site(Samples(store), as_rgb, basemap=basemaps.load("https://x.example/{z}/{x}/{y}")),
    ]
    assert len({one.digest for one in (site, *others)}) == 5


def test_a_foreign_name_that_points_here_is_turned_away(ask):
    assert ask("/", {"Host": "evil.example:80"})[0] == 403
    assert ask("/", {"Host": "localhost:8000"})[0] == 200
    assert ask("/", {"Host": "[::1]:8000"})[0] == 200


def test_many_tiles_at_a_time_are_the_same_tiles(ask, site):
    paths = [tile_path(site, i, levels=i % 3) for i in range(24)] + ["/samples/0.json"] * 4
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda path: ask(path)[2], paths))
    fresh = Site(Samples(site.samples.folder), as_rgb)
    assert found == [fresh.get(path[1:]).body for path in paths]


def test_the_page_names_no_other_host(ask):
    html = ask("/")[2].decode()
    assert "default-src 'self'" in html
    assert "{basemap_origin}" not in html
    ours = [file for file in PAGE.iterdir() if file.suffix in (".js", ".css", ".html")]
    assert len(ours) > 5
    for file in ours:
        assert "://" not in file.read_text().replace("pictures://", "").replace(":\\/\\/", "")
        assert ask(f"/{file.name}")[0] == 200


@given(count=st.integers(1, 2000), limit=st.none() | st.integers(1, 2500))
def test_a_limit_keeps_runs_all_over_the_store(count, limit):
    rows = spread(count, limit)
    assert len(rows) <= (limit or count)
    assert np.all(np.diff(rows) > 0)
    assert rows[0] >= 0
    assert rows[-1] < count
    if limit is None or limit >= count:
        assert len(rows) == count
    elif count >= 2 * limit:
        assert len(rows) == limit
        assert len(np.flatnonzero(np.diff(rows) > 1)) < -(-limit // SAMPLES_PER_FILE)


def test_a_limited_page_is_whole_for_its_samples(store):
    site = Site(Samples(store, limit=70), as_rgb)
    assert len(site.samples) == 70
    described = [one for n in range(site.samples.num_files) for one in site.samples.described(n)]
    tiles = np.array([[one["x"], one["y"]] for one in described])
    assert np.array_equal(tiles, np.stack([site.samples.x, site.samples.y], axis=1))
    assert [one["row"] for one in described] == site.samples.rows.tolist()
    assert all(site.get(path) is not None for path in list(site.paths())[::7])
    left_out = np.setdiff1d(np.arange(COUNT), site.samples.rows)[0]
    z, x, y = zarr.open_group(store, mode="r")["tile"][int(left_out)]
    assert site.get(f"tiles/lores/{z}/{x}/{y}.webp") is None


def test_an_export_is_what_the_server_gives(store, tmp_path):
    site = Site(Samples(store, limit=20), as_rgb, quality=80)
    seen = []
    done = export(site, tmp_path / "page", progress=lambda *now: seen.append(now))
    files = commands.tree(tmp_path / "page")
    del files[STAMP]
    assert set(files) == set(site.paths())
    assert done.num_files == done.num_written == len(files)
    assert seen[-1] == (len(files), len(files))
    with serving(site) as ask:
        for name in files:
            assert ask(f"/{name}")[2] == (tmp_path / "page" / name).read_bytes()
    pictures = sum(f.stat().st_size for f in (tmp_path / "page/tiles").rglob("*.webp"))
    assert expected_bytes(site) == pytest.approx(pictures, rel=0.3)


def test_an_export_goes_on_where_it_was(store, tmp_path):
    site = Site(Samples(store, limit=12), as_rgb, quality=80)
    folder = tmp_path / "page"

    def kill(done, _total):
        if done == 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(site, folder, progress=kill)
    assert not (folder / "index.html").exists()
    (folder / "tiles/lores").mkdir(parents=True, exist_ok=True)
    (folder / "tiles/lores/.1.webp.0.partial").write_bytes(b"half")
    kept = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    done = export(site, folder)
    assert 0 < done.num_written < done.num_files
    assert not list(folder.rglob("*.partial"))
    for path, time in kept.items():
        assert path.suffix == ".partial" or path.stat().st_mtime_ns == time
    export(site, tmp_path / "once")
    assert commands.tree(folder) == commands.tree(tmp_path / "once")
    assert export(site, folder).num_written == 0
    with pytest.raises(UsageError, match="another store, or with other options"):
        export(Site(Samples(store, limit=13), as_rgb, quality=80), folder)


def test_a_folder_of_something_else_is_left_alone(site, tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UsageError, match="not empty"):
        export(site, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@needs_real
def test_a_base_map_comes_from_its_archive(store, tmp_path):
    below = basemaps.load(str(RASTER), attribution="<b onclick=x>Stamen</b> &amp; OSM")
    assert below.attribution == "Stamen & OSM"
    site = Site(Samples(store, limit=5), as_rgb, quality=50, basemap=below)
    with RASTER.open("rb") as file:
        wanted = Reader(MmapSource(file)).get(3, 2, 3)
    with serving(site) as ask:
        status, headers, body = ask("/basemap/3/2/3.png")
        assert (status, headers["Content-Type"], body) == (200, "image/png", wanted)
        assert ask("/basemap/9/2/3.png")[0] == 404
        assert json.loads(ask("/store.json")[2])["basemap"]["maxZoom"] == 3
    export(site, tmp_path / "page")
    assert (tmp_path / "page/basemap/3/2/3.png").read_bytes() == wanted


@needs_real
def test_an_archive_of_vectors_is_refused():
    with pytest.raises(UsageError, match="holds no pictures"):
        basemaps.load(str(VECTOR))


def test_what_is_no_base_map_is_refused(tmp_path):
    (tmp_path / "x.pmtiles").write_bytes(b"PMTiles, but not really" * 10)
    for place in (str(tmp_path / "x.pmtiles"), str(tmp_path / "missing.pmtiles")):
        with pytest.raises(UsageError, match="cannot be read as a PMTiles archive"):
            basemaps.load(place)
    with pytest.raises(UsageError, match=r"needs \{z\}, \{x\} and \{y\}") as caught:
        basemaps.load("https://tiles.example/map.png?key=secret")
    assert "secret" not in str(caught.value)


def test_only_a_base_map_that_is_asked_for_opens_the_page_to_its_host(store, tmp_path):
    below = basemaps.load("https://tiles.example/{z}/{x}/{y}.png?key=secret")
    site = Site(Samples(store, limit=5), as_rgb, basemap=below)
    assert b"connect-src 'self' data: https://tiles.example;" in site.get("").body
    with pytest.raises(UsageError, match="may be a secret") as caught:
        export(site, tmp_path / "page")
    assert "key=secret" not in str(caught.value)
    assert not (tmp_path / "page").exists()


def test_a_store_without_alignment_or_clouds_is_shown_without(store, tmp_path):
    copy = shutil.copytree(store, tmp_path / "copy.zarr")
    table, _ = geoparquet.read(copy / SAMPLES_NAME)
    with geoparquet.writing(copy / SAMPLES_NAME, dict) as add_rows:
        kept = table.drop(["alignment_shift_m", "geometry"])
        outlines = shapely.from_wkb(table["geometry"].to_pylist())
        add_rows({name: kept[name] for name in kept.column_names}, outlines)
    columns = Samples(copy).columns
    assert np.isnan(columns["shift"]).all()
    assert len(columns["shift"]) == COUNT


def test_a_store_of_no_samples_says_so(store, tmp_path):
    group = zarr.open_group(tmp_path / "empty.zarr", mode="w")
    group.attrs[ATTRIBUTES_KEY] = zarr.open_group(store, mode="r").attrs[ATTRIBUTES_KEY]
    group.create_array("tile", shape=(0, 3), dtype="int32", chunks=(1, 3))
    (tmp_path / "empty.zarr/manifest.json").write_text('{"files": {}}')
    with pytest.raises(StoreError, match="has no sample"):
        Samples(tmp_path / "empty.zarr")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_told_to_end(store, number):
    with subprocess.Popen(
        commands.command("view", str(store), "--no-open"),
        env=commands.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        line = process.stdout.readline()
        assert line.startswith(f"{COUNT} samples at http://127.0.0.1:")
        port = int(line.split("127.0.0.1:")[1].split("/")[0])
        # Connected and silent, as a browser is.
        with socket.create_connection(("127.0.0.1", port)):
            process.send_signal(number)
            said = process.communicate(timeout=30)
    assert process.returncode == 0
    assert said == ("ended\n", "")


def test_the_command_exports_and_reports(store, tmp_path):
    page = tmp_path / "page"
    asked = ("view", str(store), "--export", str(page), "--limit", "3", "--quality", "50")
    done = commands.run(*asked, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["samples"] == 3
    assert found["files"] == found["written"] == len(commands.tree(page)) - 1
    assert "about" in done.stderr
    again = commands.run(*asked)
    assert "python -m http.server" in again.stdout


def test_mistakes_of_the_command_are_one_line(store, tmp_path):
    assert_one_line(commands.run("view", str(tmp_path)), 1, "is not a Salibi store")
    assert_one_line(commands.run("view", str(store), "--json"), 2, "--export")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = commands.run("view", str(store), "--no-open", "--port", port)
    assert_one_line(done, 2, "cannot listen", "--port")
