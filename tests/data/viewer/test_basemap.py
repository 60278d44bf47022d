"""Base maps of the page: from an archive, or from a host that was asked for."""

from __future__ import annotations

import json

import pytest
from pmtiles.reader import MmapSource, Reader

from salibi_data.store.errors import UsageError
from salibi_data.store.render_rgb import as_rgb
from salibi_data.viewer.basemap import open_basemap
from salibi_data.viewer.export import export
from salibi_data.viewer.samples import ViewedSamples
from salibi_data.viewer.site import Site
from tests.support.data.real_catalogs import REAL, needs_real
from tests.support.services.viewed import serving

RASTER = REAL / "pmtiles" / "stamen_toner_raster_z3.pmtiles"


VECTOR = REAL / "pmtiles" / "test_fixture_1.pmtiles"


@needs_real
def test_a_base_map_comes_from_its_archive(store, tmp_path):
    basemap = open_basemap(str(RASTER), attribution="<b onclick=x>Stamen</b> &amp; OSM")
    assert basemap.attribution == "Stamen & OSM"
    site = Site(ViewedSamples(store, limit=5), as_rgb, quality=50, basemap=basemap)
    with RASTER.open("rb") as file:
        tile = Reader(MmapSource(file)).get(3, 2, 3)
    with serving(site) as ask:
        status, headers, body = ask("/basemap/3/2/3.png")
        assert (status, headers["Content-Type"], body) == (200, "image/png", tile)
        assert ask("/basemap/9/2/3.png")[0] == 404
        assert json.loads(ask("/store.json")[2])["basemap"]["maxZoom"] == 3
    export(site, tmp_path / "page")
    assert (tmp_path / "page/basemap/3/2/3.png").read_bytes() == tile


@needs_real
def test_an_archive_of_vectors_is_refused():
    with pytest.raises(UsageError, match="holds no pictures"):
        open_basemap(str(VECTOR))


def test_what_is_no_base_map_is_refused(tmp_path):
    (tmp_path / "x.pmtiles").write_bytes(b"PMTiles, but not really" * 10)
    for location in (str(tmp_path / "x.pmtiles"), str(tmp_path / "missing.pmtiles")):
        with pytest.raises(UsageError, match="cannot be read as a PMTiles archive"):
            open_basemap(location)
    with pytest.raises(UsageError, match=r"needs \{z\}, \{x\} and \{y\}") as caught:
        open_basemap("https://tiles.example/map.png?key=secret")
    assert "secret" not in str(caught.value)


def test_only_a_base_map_that_is_asked_for_opens_the_page_to_its_host(store, tmp_path):
    basemap = open_basemap("https://tiles.example/{z}/{x}/{y}.png?key=secret")
    site = Site(ViewedSamples(store, limit=5), as_rgb, basemap=basemap)
    assert b"connect-src 'self' data: https://tiles.example;" in site.get("").body
    with pytest.raises(UsageError, match="may be a secret") as caught:
        export(site, tmp_path / "page")
    assert "key=secret" not in str(caught.value)
    assert not (tmp_path / "page").exists()
