"""A scene's files behind HTTP are read side by side, and are what they are on disk."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from salibi_data.builds.layers import Layer, sources_of, warp_layer
from salibi_data.catalog.providers import Band, Product
from salibi_data.store.errors import ReadError
from tests.support.data import cogs
from tests.support.services.servers import RangeServer, serve

if TYPE_CHECKING:
    from pathlib import Path

    from salibi_data.catalog.scenes import Scene

NAMES = ("red", "green", "blue")
LAYER = Layer(
    name="picture",
    sensor="naip",
    product=Product(units="display", bands={name: Band(asset=name) for name in NAMES}),
    bands=NAMES,
    tile_px=256,
    units="display",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bands")
    for seed, name in enumerate(NAMES):
        cogs.write_cog(folder / f"{name}.tif", bands=1, pixels=768, seed=seed)
    return folder


def scene_at(base: str) -> Scene:
    return replace(cogs.scene(""), hrefs={name: f"{base}/{name}.tif" for name in NAMES})


def test_remote_files_are_asked_for_at_a_time_and_hold_the_same_pixels(folder: Path) -> None:
    local = sources_of(cogs.catalog(), scene_at(str(folder)), [(LAYER, cogs.GRID)])
    with serve(RangeServer(folder, latency_s=0.2)) as server:
        remote = sources_of(cogs.catalog(), scene_at(server.url), [(LAYER, cogs.GRID)])
        # The first three are the headers, which wait for nothing.
        assert sorted(request.path for request in server.log[:3]) == sorted(
            f"{name}.tif" for name in NAMES
        )
        assert server.most_active >= len(NAMES)
    pixels = [warp_layer(LAYER, cogs.GRID, cogs.TILES, sources) for sources in (local, remote)]
    assert np.isfinite(pixels[0]).all()
    assert np.array_equal(*pixels)


def test_the_first_file_in_order_that_fails_is_named(folder: Path) -> None:
    with (
        serve(RangeServer(folder, gone={"green.tif", "blue.tif"})) as server,
        pytest.raises(ReadError, match="'green'") as caught,
    ):
        sources_of(cogs.catalog(), scene_at(server.url), [(LAYER, cogs.GRID)])
    assert caught.value.kind == "missing"


def test_a_file_that_two_layers_need_is_read_once(folder: Path) -> None:
    finer = replace(LAYER, name="finer", bands=("red",), tile_px=512)
    coarser = replace(finer, name="coarser", tile_px=256)
    with serve(RangeServer(folder)) as server:
        scene = scene_at(server.url)
        layers = [(layer, cogs.GRID) for layer in (finer, coarser)]
        assert len(sources_of(cogs.catalog(), scene, layers)) == 1
        num = len(server.log)
        sources_of(cogs.catalog(), scene, layers[:1])
        assert len(server.log) == 2 * num
