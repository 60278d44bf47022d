"""Cloud masks: what no scene saw is filled by the next, and what failed for now is not cloudy."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from salibi_data.builds.blocks import Block, make_samples
from salibi_data.catalog.providers import Catalog, catalog_from_dict, load_catalog
from salibi_data.catalog.scenes import Scene
from salibi_data.catalog.variants import load_variant
from salibi_data.plans.cloud_scores import CellClouds
from salibi_data.plans.picks import SceneChoice
from salibi_data.plans.planner import plan
from salibi_data.store.errors import ReadError, SalibiError
from salibi_data.store.tiles import PixelGrid, Tiles, TileXYZ
from tests.support.data import samples
from tests.support.data.variants_toml import ALL_TRAIN
from tests.support.services.servers import RangeServer, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

ROW = [TileXYZ(5242 + column, 12662, 15) for column in range(2)]
TILES = Tiles(zoom=15, x=np.array([tile.x for tile in ROW]), y=np.array([tile.y for tile in ROW]))
BOTH = np.arange(2)
VEGETATION, CLOUD = 4, 9

VARIANT = (
    """
name = "optical"
summary = "Sentinel-2 alone"
base_zoom = 15
[[selection]]
sensor = "sentinel-2"
rank = ["newest"]
"""
    + ALL_TRAIN
    + """
[[modality]]
name = "lores"
sensor = "sentinel-2"
product = "visual"
bands = ["red", "green", "blue"]
units = "display"
"""
)


@pytest.fixture(params=["planetary-computer", "earth-search"])
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> Catalog:
    """A provider's rules for files on disk."""
    content = load_catalog(request.param).to_dict()
    content |= {"kind": "static", "url": "catalog.json", "signing": "none"}
    return catalog_from_dict(content, where="test", folder=tmp_path)


def draw(path: Path, classes: NDArray[np.uint8]) -> str:
    """Bands over both tiles, without a nodata tag; columns and rows spread evenly."""
    west, south, east, north = PixelGrid.around(ROW).bounds_3857
    bands, rows, columns = classes.shape
    pixel_m = (east - west) / columns
    with rasterio.open(
        path,
        "w",
        driver="COG",
        dtype="uint8",
        count=bands,
        width=columns,
        height=rows,
        crs="EPSG:3857",
        transform=from_origin(west, north, pixel_m, (north - south) / rows),
    ) as dataset:
        dataset.write(classes)
    return path.name


def mask(left: int, right: int) -> NDArray[np.uint8]:
    """One class over the western tile, another over the eastern."""
    classes = np.full((1, 128, 256), left, dtype=np.uint8)
    classes[:, :, 128:] = right
    return classes


def scene(catalog: Catalog, name: str, hrefs: dict[str, str]) -> Scene:
    clouds = catalog.sensors["sentinel-2"].clouds
    assert clouds is not None
    return Scene(
        id=name,
        sensor="sentinel-2",
        acquired_utc=datetime(2022, 6, 1, tzinfo=UTC),
        footprint={},
        hrefs={clouds.asset if key == "mask" else key: href for key, href in hrefs.items()},
        properties={},
    )


def test_pixels_that_a_scene_did_not_see_are_filled_while_planning(
    catalog: Catalog, tmp_path: Path
) -> None:
    swath = scene(catalog, "swath", {"mask": draw(tmp_path / "a.tif", mask(0, VEGETATION))})
    other = scene(catalog, "other", {"mask": draw(tmp_path / "b.tif", mask(VEGETATION, CLOUD))})
    shares = CellClouds(catalog, TILES)
    assert shares("sentinel-2", [swath], BOTH).tolist() == [1, 0]
    assert shares("sentinel-2", [swath, other], BOTH).tolist() == [0, 0]
    assert shares("sentinel-2", [other, swath], BOTH).tolist() == [0, 1]


def test_pixels_that_a_scene_did_not_see_are_filled_while_building(
    catalog: Catalog, tmp_path: Path
) -> None:
    seen = np.full((3, 128, 256), 100, dtype=np.uint8)
    half = np.where(np.arange(256) < 128, np.uint8(0), seen)
    scenes = []
    for name, image, classes in (
        ("swath", half, mask(0, VEGETATION)),
        ("other", seen, mask(VEGETATION, CLOUD)),
    ):
        image_name = draw(tmp_path / f"{name}.tif", image)
        mask_name = draw(tmp_path / f"{name}-mask.tif", classes)
        scenes.append(scene(catalog, name, {"visual": image_name, "mask": mask_name}))
    (tmp_path / "optical.toml").write_text(VARIANT)
    variant = load_variant(str(tmp_path / "optical.toml"))
    choices = tuple(SceneChoice(tile=tile, scenes={"sentinel-2": tuple(scenes)}) for tile in ROW)
    made = make_samples(
        variant, catalog, Block(positions=tuple(range(len(choices))), choices=choices, digest="")
    )
    assert made.positions == (0, 1)
    assert made.cloud_fraction.tolist() == [0, 0]
    assert made.valid_fraction.min() == 1


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RangeServer]:
    monkeypatch.setenv("SALIBI_HTTP_BACKOFF_S", "0.01")
    monkeypatch.setenv("SALIBI_HTTP_ATTEMPTS", "2")
    monkeypatch.setenv("SALIBI_HTTP_TIMEOUT_S", "0.3")
    draw(tmp_path / "a.tif", mask(VEGETATION, CLOUD))
    with serve(RangeServer(tmp_path, retry_after="0")) as server:
        yield server


def remote_scene(catalog: Catalog, host: RangeServer) -> Scene:
    return scene(catalog, "remote", {"mask": f"{host.url}/a.tif"})


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("reset", "connection"),
        ("stall", "timeout"),
        ("429", "throttled"),
        ("500", "server"),
        ("403", "forbidden"),
    ],
)
def test_a_mask_that_cannot_be_read_for_now_is_an_error(
    catalog: Catalog, host: RangeServer, tmp_path: Path, fault: str, kind: str
) -> None:
    shares = CellClouds(catalog, TILES, tmp_path / "kept")
    host.fault_rate, host.faults = 1.0, (fault,)
    with pytest.raises(ReadError) as caught:
        shares("sentinel-2", [remote_scene(catalog, host)], BOTH)
    assert caught.value.kind == kind
    host.fault_rate = 0.0
    assert shares("sentinel-2", [remote_scene(catalog, host)], BOTH).tolist() == [0, 1]


def test_a_mask_that_is_gone_counts_as_cloudy_until_it_is_back(
    catalog: Catalog, host: RangeServer, tmp_path: Path
) -> None:
    host.gone.add("a.tif")
    asked = "sentinel-2", [remote_scene(catalog, host)], BOTH
    assert CellClouds(catalog, TILES, tmp_path / "kept")(*asked).tolist() == [1, 1]
    host.gone.clear()
    assert CellClouds(catalog, TILES, tmp_path / "kept")(*asked).tolist() == [0, 1]


def test_masks_are_read_once_for_a_plan_however_often_it_is_stopped(
    catalog: Catalog, host: RangeServer, tmp_path: Path
) -> None:
    asked = "sentinel-2", [remote_scene(catalog, host)], BOTH
    kept = tmp_path / "kept"
    first = CellClouds(catalog, TILES, kept)(*asked)
    host.log.clear()
    assert np.array_equal(CellClouds(catalog, TILES, kept)(*asked), first)
    assert not host.log
    east = TILES.take(np.array([1]))  # another cell, so another part of the file
    assert CellClouds(catalog, east, kept)(*asked[:2], np.array([0])).tolist() == [1]
    assert host.log


def test_a_plan_through_a_fault_fails_and_goes_on_where_it_was(
    sample_catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never with other scenes, nor fewer samples, than without the fault."""
    monkeypatch.setenv("SALIBI_HTTP_BACKOFF_S", "0.01")
    monkeypatch.setenv("SALIBI_HTTP_ATTEMPTS", "2")
    output = tmp_path / "p.parquet"
    with serve(RangeServer(sample_catalog, retry_after="0")) as server:
        toml = samples.served(server.url, sample_catalog, tmp_path / "catalog")
        calm = plan("micro", catalog=toml, max_cloud=0.05)
        masks = {request.path for request in server.log}
        assert all(path.endswith("_SCL_20m.tif") for path in masks)
        server.plan, server.fault_rate, server.faults = [""] * (len(server.log) // 2), 1.0, ("503",)
        server.log.clear()
        with pytest.raises(SalibiError, match="SCL"):
            plan("micro", catalog=toml, output=output, max_cloud=0.05)
        read = {request.path for request in server.log if not request.fault}
        server.fault_rate = 0.0
        server.log.clear()
        made = plan("micro", catalog=toml, output=output, max_cloud=0.05)
        assert list(made.choices()) == list(calm.choices())
        again = {request.path for request in server.log}
    assert masks == read | again
    assert len(read & again) <= 1  # the one that was being read
    assert len(read) > 1
    assert not [path for path in tmp_path.iterdir() if "searches" in path.name]
