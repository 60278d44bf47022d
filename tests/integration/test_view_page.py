"""The page of a store in a real browser: quick, bounded, reachable by keys, and alone on its host."""

from __future__ import annotations

import io
import subprocess
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from statistics import median

import numpy as np
import pyarrow as pa
import pytest
import shapely
import zarr
from PIL import Image

from salibi_data.store import geoparquet
from salibi_data.store.render_rgb import as_rgb
from salibi_data.store.schema import SAMPLES_NAME, SPLITS, UNKNOWN_TIME
from salibi_data.viewer.basemap import open_basemap
from salibi_data.viewer.export import export
from salibi_data.viewer.samples import ViewedSamples
from salibi_data.viewer.server import Server
from salibi_data.viewer.site import Site
from tests.support.data import samples as commands
from tests.support.data.many_samples import SENSORS, write_many
from tests.support.data.real_catalogs import REAL, needs_real
from tests.support.services.page import (
    CHROMIUM,
    COUNT,
    QUIET,
    colour_of,
    opened,
    served,
    state,
    sync_api,
)

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no chromium; install Debian's package of that name"
    ),
]


TRIES = 6


SAMPLES_DRAWN_MS = """performance.timeOrigin + performance.getEntriesByName("ready")[0].startTime"""


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_many(tmp_path_factory.mktemp("view") / "many.zarr", num_samples=COUNT)


@pytest.fixture(scope="module")
def url(store):
    with served(Server(Site(ViewedSamples(store), as_rgb))) as address:
        yield address


def wait_for_images(page):
    """Not by ``wait_for_function``, which the page's policy forbids."""
    page.evaluate("Promise.all([...document.images].map((image) => image.decode()))")


def hash_of(page):
    page.wait_for_timeout(300)  # the address follows a little later
    return "#" + page.url.partition("#")[2]


def counted(page):
    return page.inner_text("#counted")


def map_pixels(page):
    image = Image.open(io.BytesIO(page.locator("#map canvas").first.screenshot()))
    below_the_tools = np.asarray(image.convert("RGB"))[80:]
    return below_the_tools.reshape(-1, 3).astype(int)


def num_like(pixels, colour, within=40):
    """Count the pixels of about one colour."""
    return int((np.abs(pixels - colour).max(axis=1) < within).sum())


def test_the_command_opens_twenty_thousand_samples_in_two_seconds(browser, store):
    took = [np.inf]
    # What else the machine does only adds to it: the best of some tries is the page's own time.
    while min(took) >= 2 and len(took) <= TRIES:
        began_s = time.time()
        with subprocess.Popen(
            commands.command("view", str(store), "--no-open"),
            env=commands.environment(),
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            address = process.stdout.readline().split(" at ")[1].split()[0]
            with opened(browser, address) as page:
                took.append(page.evaluate(SAMPLES_DRAWN_MS) / 1000 - began_s)
                assert counted(page) == "20,000 samples"
            process.terminate()
    assert min(took) < 2, took


def test_filters_answer_within_a_tenth_of_a_second(browser, url, store):
    cloud = zarr.open_group(store, mode="r")["cloud_fraction"][:]
    script = """async (value) => {
      const slider = document.getElementById("cloud");
      const began = performance.now();
      slider.value = value;
      slider.dispatchEvent(new Event("input", { bubbles: true }));
      await salibi.map.drawn();
      return performance.now() - began;
    }"""
    with opened(browser, url) as page:
        page.wait_for_timeout(1500)
        took = []
        for limit in (0.5, 0.2, 0.1, 0.05, 0.02, 0.3, 0.01):
            took.append(page.evaluate(script, limit))
            num_expected = int((cloud <= np.float32(limit)).sum())
            assert counted(page) == f"{num_expected:,} of 20,000 samples"
    assert median(took) < 100, took


def test_the_map_shows_what_matches(browser, url):
    with opened(browser, url, "#grid=0") as page:
        page.wait_for_timeout(1000)
        train, test = colour_of(page, "--train"), colour_of(page, "--test")
        all_of_them = map_pixels(page)
        assert num_like(all_of_them, train) > 4 * num_like(all_of_them, test) > 0
        page.click("text=train")
        page.click("text=validation")
        page.wait_for_timeout(500)
        only_test = map_pixels(page)
        assert num_like(only_test, train) == 0
        assert num_like(only_test, test) >= num_like(all_of_them, test)


def test_islands_at_the_date_line_do_not_lie_across_the_ocean(browser, url):
    with opened(browser, url, "#at=4/-17.5/-120") as page:
        page.wait_for_timeout(1500)
        ocean = map_pixels(page)
        assert num_like(ocean, colour_of(page, "--sea"), within=2) > 0.99 * len(ocean)


def test_memory_stays_bounded_over_many_samples(browser, url):
    with opened(browser, url) as page:
        cdp = page.context.new_cdp_session(page)

        def heap_mb():
            cdp.send("HeapProfiler.collectGarbage")
            return page.evaluate("performance.memory.usedJSHeapSize") / 1e6

        def look(steps):
            for number in range(steps):
                page.keyboard.press(str(number % 4 + 1))
                for _ in range(5):
                    page.keyboard.press("j")
                # Far away, as a hand at the map would go in hours.
                page.evaluate("i => salibi.change({ sample: i })", number * 977 % COUNT)
                page.keyboard.press("z")
                page.wait_for_timeout(60)

        look(8)
        early = heap_mb()
        look(32)
        late = heap_mb()
        assert late < 100
        assert late < early + 15, (early, late)
        assert page.evaluate("salibi.store.files.size") <= 16
        assert page.evaluate("document.querySelectorAll('#panels img').length") == 4


def test_a_sample_is_shown_side_by_side_with_all_that_is_known(browser, url, store):
    group = zarr.open_group(store, mode="r")
    tile = "/".join(str(part) for part in group["tile"][777].tolist())
    with opened(browser, url, f"#sample={tile}") as page:
        page.wait_for_selector("#facts dl")
        wait_for_images(page)
        sizes = page.evaluate(
            "[...document.querySelectorAll('#panels img')].map(i => i.naturalWidth)"
        )
        assert sizes == [256, 256, 256, 512]
        tops = page.evaluate(
            "[...document.querySelectorAll('#panels img')].map(i => i.getBoundingClientRect().top)"
        )
        assert len(set(tops)) == 1
        facts = page.inner_text("#facts")
        for text in (tile, "777", "naip-0", "sentinel-2", "vv, vh (dB)"):
            assert text in facts
        assert "secret" not in page.content()
        assert page.inner_text("#sheet-number") == "778 of 20,000"
        box = page.locator("#panels img").nth(1).bounding_box()
        page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
        crosses = page.evaluate(
            "[...document.querySelectorAll('.cross')].map(c => [getComputedStyle(c).display, c.offsetLeft])"
        )
        assert len({tuple(cross) for cross in crosses}) == 1
        assert crosses[0][0] == "block"


def test_a_click_chooses_the_sample_under_it(browser, url, store):
    x, y = zarr.open_group(store, mode="r")["tile"][5000, 1:].tolist()
    with opened(browser, url) as page:
        lon, lat = page.evaluate("salibi.store.lonLat(5000)")
        for zoom in (15, 11):
            page.evaluate("view => salibi.map.jump(view)", [zoom, lat, lon])
            page.wait_for_timeout(400)
            box = page.locator("#map").bounding_box()
            page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            assert page.inner_text("#sheet-title") == f"15/{x}/{y}"
            page.keyboard.press("Escape")
            assert page.locator("#sheet").is_hidden()


def test_the_address_keeps_what_is_seen(browser, url):
    with opened(browser, url) as page:
        page.evaluate("""() => {
          salibi.map.jump([11.5, 35.5, -77.5]);
          salibi.change({ modality: "sar", opacity: 0.6, grid: false, sample: 1234, filter: { ...salibi.state.filter,
            splits: [true, false, true, true], cloud: 0.2, shift: 3.5, sensor: "naip", from: 17500, to: 19000 } });
        }""")
        before, number, address = state(page), counted(page), hash_of(page)
    with opened(browser, url, address) as page:
        assert state(page) == before
        assert counted(page) == number
        assert hash_of(page) == address
        assert page.evaluate("salibi.map.at()") == [11.5, 35.5, -77.5]
    wrong = "#at=x/y&show=infrared&opacity=900&split=&cloud=many&from=nonsense&sample=15/1/1"
    with opened(browser, url, wrong) as page:
        assert state(page)["filter"]["cloud"] is None
        assert state(page)["sample"] == -1
        assert state(page)["opacity"] == 1


def test_the_browser_lets_the_page_ask_no_other_host(browser, url):
    with browser.new_page() as page:
        page.goto(url)
        directive = page.evaluate("""() => new Promise((resolve) => {
          addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective));
          new Image().src = "https://tiles.example/0/0/0.png";
        })""")
    assert directive == "img-src"


def test_unknown_dates_and_other_splits_are_said_to_be_so(browser, tmp_path):
    path = write_many(tmp_path / "unknown.zarr", num_samples=40, modalities=("lores", "hires_4x"))
    forget_when(path, sensor=0)
    zarr.open_group(path)["split"][:5] = SPLITS["guard"]
    with (
        served(Server(Site(ViewedSamples(path), as_rgb))) as address,
        opened(browser, address) as page,
    ):
        assert page.locator("#from").is_hidden()
        assert page.locator("text=no dates are known").is_visible()
        page.select_option("#sensor", "naip")
        assert page.input_value("#from") != ""
        assert page.locator("#splits label").all_inner_texts()[-1].split() == ["guard", "5"]
        page.click("text=guard")
        assert counted(page) == "35 of 40 samples"
        page.keyboard.press("j")
        page.wait_for_selector("#facts dl")
        wait_for_images(page)
        captions = page.locator("figcaption").all_inner_texts()
        assert [caption.split()[0] for caption in captions] == ["lores", "hires_4x"]
        seen = page.locator("#facts tbody tr", has_text="Seen").inner_text().split()
        assert seen[2] == "\u2013"  # a dash: not known
        assert not {"null", "undefined", "NaN", "Invalid"} & set(page.inner_text("#sheet").split())


def forget_when(path, *, sensor):
    """Make the time a sensor saw each sample unknown, in the array and in the table."""
    group = zarr.open_group(path)
    group["acquired"][:, sensor] = UNKNOWN_TIME
    table, _ = geoparquet.read(path / SAMPLES_NAME)
    outlines = shapely.from_wkb(table["geometry"].to_pylist())
    columns = {name: table[name] for name in table.column_names if name != "geometry"}
    name = f"{SENSORS[sensor]}_acquired"
    columns[name] = pa.nulls(len(table), columns[name].type)
    with geoparquet.write_rows(path / SAMPLES_NAME, dict) as add_rows:
        add_rows(columns, outlines)


@needs_real
def test_a_base_map_lies_below(browser, store):
    below = open_basemap(str(REAL / "pmtiles/stamen_toner_raster_z3.pmtiles"), attribution="Stamen")
    with (
        served(Server(Site(ViewedSamples(store, limit=100), as_rgb, basemap=below))) as address,
        opened(browser, address, "#at=3/40/-95&grid=0&split=") as page,
    ):
        page.wait_for_timeout(1500)
        assert num_like(map_pixels(page), [0, 0, 0], within=90) > 10_000  # toner's water is black
        assert "Stamen" in page.inner_text(".maplibregl-ctrl-attrib")


def test_an_export_needs_no_server_of_ours(browser, tmp_path):
    path = write_many(tmp_path / "two.zarr", num_samples=40, modalities=("sar", "lores"))
    export(Site(ViewedSamples(path), as_rgb, quality=80), tmp_path / "page")
    silent = type("Silent", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(silent, directory=tmp_path / "page"))
    server.daemon_threads, server.block_on_close = True, False
    with served(server) as address, opened(browser, address) as page:
        assert counted(page) == "40 samples"
        for _ in range(40):
            page.keyboard.press("j")
        page.keyboard.press("1")
        page.wait_for_timeout(1000)
        wait_for_images(page)
        sizes = page.evaluate(
            "[...document.querySelectorAll('#panels img')].map(i => i.naturalWidth)"
        )
        assert sizes == [256, 256]
        assert page.evaluate("salibi.map.map.areTilesLoaded()")
