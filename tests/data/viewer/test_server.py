"""The server of the page: what it answers, what it refuses, and its command."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from salibi_data.store.render_rgb import as_rgb
from salibi_data.viewer.basemap import open_basemap
from salibi_data.viewer.samples import ViewedSamples
from salibi_data.viewer.site import PAGE, Site
from tests.support.command_line import assert_one_line
from tests.support.data import samples as commands
from tests.support.data.many_samples import ZOOM
from tests.support.services.viewed import COUNT, tile_path


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
    assert Site(ViewedSamples(again), as_rgb).digest == site.digest
    (again / "manifest.json").write_text('{"files": {"x": {"bytes": 1, "sha256": "0"}}}')
    others = [
        Site(ViewedSamples(again), as_rgb),
        Site(ViewedSamples(store), as_rgb, quality=50),
        Site(ViewedSamples(store, limit=140), as_rgb),
        Site(ViewedSamples(store), as_rgb, basemap=open_basemap("https://x.example/{z}/{x}/{y}")),
    ]
    assert len({other.digest for other in (site, *others)}) == 5


def test_a_foreign_name_that_points_here_is_turned_away(ask):
    assert ask("/", {"Host": "evil.example:80"})[0] == 403
    assert ask("/", {"Host": "localhost:8000"})[0] == 200
    assert ask("/", {"Host": "[::1]:8000"})[0] == 200


def test_many_tiles_at_a_time_are_the_same_tiles(ask, site, store):
    paths = [tile_path(site, i, levels=i % 3) for i in range(24)] + ["/samples/0.json"] * 4
    with ThreadPoolExecutor(8) as threads:
        bodies = list(threads.map(lambda path: ask(path)[2], paths))
    new_site = Site(ViewedSamples(store), as_rgb)
    assert bodies == [new_site.get(path[1:]).body for path in paths]


def test_the_page_names_no_other_host(ask):
    html = ask("/")[2].decode()
    assert "default-src 'self'" in html
    assert "{basemap_origin}" not in html
    ours = [file for file in PAGE.iterdir() if file.suffix in (".js", ".css", ".html")]
    assert len(ours) > 5
    for file in ours:
        assert "://" not in file.read_text().replace("pictures://", "").replace(":\\/\\/", "")
        assert ask(f"/{file.name}")[0] == 200


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
            output = process.communicate(timeout=30)
    assert process.returncode == 0
    assert output == ("ended\n", "")


def test_mistakes_of_the_command_are_one_line(store, tmp_path):
    assert_one_line(commands.run("view", str(tmp_path)), 1, "is not a Salibi store")
    assert_one_line(commands.run("view", str(store), "--json"), 2, "--export")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = commands.run("view", str(store), "--no-open", "--port", port)
    assert_one_line(done, 2, "cannot listen", "--port")
