"""Sentinel-1 GRD: refused by default, and placed by its real control points when asked for.

The scene is drawn here: a known backscatter on the ground, seen through a tilted and bent mapping
and a calibration that varies over the swath, as digital numbers without a CRS.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pystac
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.warp import transform
from shapely.geometry import shape

from salibi_data import build
from salibi_data.catalog.providers import Catalog, catalog_from_dict, load_catalog, with_grd
from salibi_data.catalog.scenes import Scene
from salibi_data.catalog.variants import check_fit, load_variant, used_assets
from salibi_data.pixels import radiometry, warp
from salibi_data.sources.georeference import ControlPoints
from salibi_data.sources.read import read_asset
from salibi_data.sources.sentinel1_calibration import GammaTable, parse_gamma
from salibi_data.store.errors import ReadError, UsageError
from salibi_data.store.open import open_store
from salibi_data.store.tiles import PixelGrid, TileXYZ
from tests.support.data.tiles import tiles_within
from tests.support.data.variants_toml import ALL_TRAIN, SAR

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from salibi_data.sources.georeference import SceneRaster

WIDTH, HEIGHT = 1500, 1200
ORIGIN = (-105.5, 40.5)
PIXEL_M = 10.0
HEADING_DEG = 12.5
BORDER_PX = 25
"""Columns at the left without data, as at a swath's edge."""

Floats = Any


def to_lonlat(column: Floats, row: Floats) -> tuple[Floats, Floats]:
    """The scene's true geometry: turned by the orbit's heading and bent by a few pixels."""
    turn = np.deg2rad(HEADING_DEG)
    east = (column * np.cos(turn) + row * np.sin(turn)) * PIXEL_M + 40 * np.sin(column / 500)
    north = (column * np.sin(turn) - row * np.cos(turn)) * PIXEL_M + 30 * (row / HEIGHT) ** 2
    lat = ORIGIN[1] + north / 111_320
    return ORIGIN[0] + east / (111_320 * np.cos(np.deg2rad(ORIGIN[1]))), lat


def ground_power(lon: Floats, lat: Floats, band: str) -> Floats:
    """Linear gamma0 of a place: waves of about 1.5 km."""
    waves = np.sin(lon * 350) * np.cos(lat * 400)
    return (0.12 if band == "vv" else 0.02) * (1 + 0.6 * waves)


def gamma_at(column: Floats, row: Floats) -> Floats:
    """The calibration's A: it falls along the swath and drifts along the track."""
    return 650 - 0.12 * column + 0.02 * row


def calibration_xml() -> str:
    """An annotation as the processor writes it: lines that begin before the image, 40 px apart."""
    vectors = []
    for line in range(-300, HEIGHT + 300, 300):
        pixels = np.append(np.arange(0, WIDTH, 40), WIDTH - 1)
        gamma = " ".join(f"{value:.6e}" for value in gamma_at(pixels, line))
        vectors.append(
            f"<calibrationVector><azimuthTime>2024-04-19T04:59:04.2</azimuthTime>"
            f'<line>{line}</line><pixel count="{len(pixels)}">{" ".join(map(str, pixels))}</pixel>'
            f'<sigmaNought count="1">1.0</sigmaNought>'
            f'<gamma count="{len(pixels)}">{gamma}</gamma></calibrationVector>'
        )
    return (
        '<?xml version="1.0" encoding="UTF-8"?><calibration><calibrationVectorList '
        f'count="{len(vectors)}">{"".join(vectors)}</calibrationVectorList></calibration>'
    )


def write_grd(folder: Path) -> dict[str, str]:
    """The scene's files, by asset key."""
    column, row = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    lon, lat = to_lonlat(column, row)
    mesh = [(c, r) for c in np.linspace(0, WIDTH, 11) for r in np.linspace(0, HEIGHT, 9)]
    points = [GroundControlPoint(r, c, *map(float, to_lonlat(c, r)), 0.0) for c, r in mesh]
    hrefs = {}
    for band in ("vv", "vh"):
        numbers = np.sqrt(ground_power(lon, lat, band)) * gamma_at(column - 0.5, row - 0.5)
        numbers = np.clip(np.rint(numbers), 1, 65535).astype(np.uint16)
        numbers[:, :BORDER_PX] = 0
        path = folder / f"iw-{band}.tiff"
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            width=WIDTH,
            height=HEIGHT,
            count=1,
            dtype="uint16",
            gcps=points,
            crs="EPSG:4326",
            tiled=True,
        ) as dataset:
            dataset.write(numbers, 1)
        with rasterio.open(path) as dataset:
            assert dataset.crs is None  # as the real files: the CRS is that of the points
        hrefs[band] = str(path)
        (folder / f"calibration-{band}.xml").write_text(calibration_xml())
        hrefs[f"schema-calibration-{band}"] = str(folder / f"calibration-{band}.xml")
    return hrefs


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """The scene as a plan has it; what its item says of the geometry is not even kept."""
    column, row = np.array([0, WIDTH, WIDTH, 0, 0]), np.array([0, 0, HEIGHT, HEIGHT, 0])
    ring = np.stack(to_lonlat(column, row), axis=1).tolist()
    return Scene(
        id="S1A_IW_GRDH_1SDV_20240419T045904",
        sensor="sentinel-1",
        acquired_utc=datetime(2024, 4, 19, 4, 59, 4, tzinfo=UTC),
        footprint={"type": "Polygon", "coordinates": [ring]},
        hrefs=write_grd(tmp_path_factory.mktemp("grd")),
        properties={"sat:absolute_orbit": 53498},
    )


@pytest.fixture
def catalog() -> Catalog:
    """Earth Search's rules, for files on disk."""
    return local(load_catalog("earth-search"))


def local(catalog: Catalog) -> Catalog:
    content = catalog.to_dict() | {"kind": "static", "url": "catalog.json"}
    return catalog_from_dict(content, where="test", folder=Path("/nowhere"))


def read(catalog: Catalog, scene: Scene, band: str, grid: PixelGrid) -> SceneRaster | None:
    product = catalog.sensors["sentinel-1"].products["grd"]
    return read_asset(catalog, scene, band, product, [product.bands[band]], grid)


def inner_tiles() -> list[Any]:
    lon, lat = to_lonlat(np.array([WIDTH / 2]), np.array([HEIGHT / 2]))
    west, north = float(lon[0]) - 0.04, float(lat[0]) + 0.03
    return tiles_within((west, north - 0.06, west + 0.08, north), 14)


def truth_on(grid: PixelGrid, band: str) -> NDArray[np.float64]:
    rows, columns = grid.shape
    west, _, _, north = grid.bounds_3857
    x = west + (np.arange(columns) + 0.5) * grid.pixel_m
    y = north - (np.arange(rows) + 0.5) * grid.pixel_m
    lon, lat = transform("EPSG:3857", "OGC:CRS84", *(a.ravel() for a in np.meshgrid(x, y)))
    return ground_power(np.array(lon), np.array(lat), band).reshape(rows, columns)


@pytest.mark.parametrize("band", ["vv", "vh"])
def test_calibrated_pixels_lie_where_the_control_points_say(
    catalog: Catalog, scene: Scene, band: str
) -> None:
    """Values within 2 %: half a digital number, and bilinear between pixels of 10 m, allow it.

    A shift of half a pixel would already be seen: the waves' slope makes 4 % of it.
    """
    grid = PixelGrid.around(inner_tiles())
    source = read(catalog, scene, band, grid)
    assert source is not None
    assert source.transform is None
    warped = warp.warp(source, grid)[0]
    truth = truth_on(grid, band)
    assert np.isfinite(warped).mean() > 0.99
    seen = np.isfinite(warped)
    relative_error = np.abs(warped[seen] / truth[seen] - 1)
    assert np.quantile(relative_error, 0.999) < 0.02
    decibel = radiometry.convert_units(warped, "power", "dB")[seen]
    assert np.abs(decibel - 10 * np.log10(truth[seen])).mean() < 0.05


def test_two_windows_of_a_scene_meet_without_a_seam(catalog: Catalog, scene: Scene) -> None:
    tiles = inner_tiles()
    whole = PixelGrid.around(tiles)
    together = read(catalog, scene, "vv", whole)
    assert together is not None
    everything = warp.warp(together, whole)[0]
    for tile in tiles[:3]:
        grid = PixelGrid.around([tile])
        alone = read(catalog, scene, "vv", grid)
        assert alone is not None
        assert alone.values.size < together.values.size
        pixels = warp.warp(alone, grid)[0]
        relative_error = np.abs(pixels / everything[whole.window(tile)] - 1)
        # 0.1 px of the scene: GDAL looks up places along a row to 0.125 px.
        assert np.nanmax(relative_error) < 0.005


def test_the_swaths_edge_is_missing_not_dark(catalog: Catalog, scene: Scene) -> None:
    lon, lat = to_lonlat(np.array([BORDER_PX]), np.array([HEIGHT / 2]))
    at = float(lon[0]), float(lat[0])
    grid = PixelGrid.around(
        tiles_within((at[0] - 0.03, at[1] - 0.03, at[0] + 0.03, at[1] + 0.03), 14)
    )
    source = read(catalog, scene, "vv", grid)
    assert source is not None
    warped = warp.warp(source, grid)[0]
    missing = np.isnan(warped)
    assert 0.1 < missing.mean() < 0.9
    assert warped[~missing].min() > 0.5 * truth_on(grid, "vv").min()


def test_a_place_outside_the_scene_gives_nothing(catalog: Catalog, scene: Scene) -> None:
    grid = PixelGrid.around(tiles_within((-104.2, 40.3, -104.1, 40.4), 14))
    assert read(catalog, scene, "vv", grid) is None


def test_without_its_calibration_a_scene_is_unusable(catalog: Catalog, scene: Scene) -> None:
    hrefs = {key: href for key, href in scene.hrefs.items() if "calibration" not in key}
    bare = Scene(**{**vars(scene), "hrefs": hrefs})
    with pytest.raises(ReadError, match="no asset 'schema-calibration-vv'") as raised:
        read(catalog, bare, "vv", PixelGrid.around(inner_tiles()))
    assert raised.value.kind == "unusable"


def test_a_missing_or_damaged_calibration_is_a_failure(
    catalog: Catalog, scene: Scene, tmp_path: Path
) -> None:
    grid = PixelGrid.around(inner_tiles())
    for name, content in (("gone", None), ("cut", calibration_xml()[:900]), ("no", "<a/>")):
        path = tmp_path / f"{name}.xml"
        if content is not None:
            path.write_text(content)
        hrefs = {**scene.hrefs, "schema-calibration-vv": str(path)}
        with pytest.raises(ReadError, match=r"cannot be read|no Sentinel-1 calibration annotation"):
            read(catalog, Scene(**{**vars(scene), "hrefs": hrefs}), "vv", grid)


def test_a_file_that_is_placed_otherwise_says_so(
    catalog: Catalog, scene: Scene, tmp_path: Path
) -> None:
    """A raster with a transform where points are expected, and points where a CRS is expected."""
    path = tmp_path / "projected.tif"
    placed = {"crs": "EPSG:32613", "transform": rasterio.Affine(10, 0, 4e5, 0, -10, 4.4e6)}
    profile = {"driver": "GTiff", "width": 8, "height": 8, "count": 1, "dtype": "uint16"}
    with rasterio.open(path, "w", **profile, **placed) as dataset:
        dataset.write(np.ones((1, 8, 8), np.uint16))
    projected = Scene(**{**vars(scene), "hrefs": {**scene.hrefs, "vv": str(path)}})
    grid = PixelGrid.around(inner_tiles())
    with pytest.raises(ReadError, match="0 ground control points") as raised:
        read(catalog, projected, "vv", grid)
    assert raised.value.kind == "unusable"
    rtc = local(load_catalog("planetary-computer"))
    product = rtc.sensors["sentinel-1"].products["rtc"]
    with pytest.raises(ReadError, match=r"no CRS.*sentinel-1-rtc"):
        read_asset(rtc, scene, "vv", product, [product.bands["vv"]], grid)


def test_the_gamma_table_is_bilinear_between_its_vectors() -> None:
    table = parse_gamma(calibration_xml().encode(), where="test")
    top, left, shape = 137, 211, (400, 700)
    row, column = np.meshgrid(top + np.arange(400), left + np.arange(700), indexing="ij")
    np.testing.assert_allclose(
        table.interpolate(top, left, shape), gamma_at(column, row), rtol=1e-5
    )


def test_beyond_its_vectors_the_gamma_table_keeps_the_last_value() -> None:
    table = GammaTable(
        lines=np.array([0.0, 10.0]),
        pixels=(np.array([0.0, 10.0]), np.array([0.0, 5.0, 10.0])),
        gamma=(np.array([1.0, 2.0]), np.array([3.0, 4.0, 4.0])),
    )
    values = table.interpolate(-5, 0, (30, 20))
    assert values[0, 0] == 1
    assert values[0, 19] == 2
    assert values[29, 0] == 3
    assert values[10, 15] == 2 + (4 - 2) * 0.5  # line 5: between the two vectors' last values


def test_control_points_of_a_plain_grid_are_its_affine_transform() -> None:
    column, row = (a.ravel() for a in np.meshgrid([0.0, 50.0, 100.0], [0.0, 30.0, 60.0]))
    points = ControlPoints(column=column, row=row, x=10 + column / 1e4, y=50 - row / 2e4)
    columns, rows = points.to_pixels([10.0033], [49.9991])
    assert columns[0] == pytest.approx(33, abs=1e-3)
    assert rows[0] == pytest.approx(18, abs=1e-3)
    shifted, _ = points.relative_to(20, 5).to_pixels([10.0033], [49.9991])
    assert shifted[0] == pytest.approx(13, abs=1e-3)


def test_grd_is_refused_by_default_and_taken_when_asked_for() -> None:
    micro, catalog = load_variant("micro"), load_catalog("earth-search")
    with pytest.raises(UsageError, match=r"only as GRD.*sentinel-1-rtc.*--allow-grd"):
        check_fit(micro, catalog)
    allowed = with_grd(catalog)
    check_fit(micro, allowed)
    assert used_assets(micro, allowed, "sentinel-1") == (
        "vv",
        "vh",
        "schema-calibration-vv",
        "schema-calibration-vh",
    )
    assert catalog == load_catalog("earth-search")


def test_real_rtc_is_not_replaced_by_grd() -> None:
    catalog = load_catalog("planetary-computer")
    assert with_grd(catalog) == catalog


VARIANT = (
    """
name = "radar"
summary = "SAR alone"
base_zoom = 14
[[selection]]
sensor = "sentinel-1"
rank = ["newest"]
"""
    + ALL_TRAIN
    + SAR
)


def test_a_whole_build_takes_grd_only_when_asked_to(scene: Scene, tmp_path: Path) -> None:
    """From a static catalog with Earth Search's own rules, to decibels in the store."""
    item = pystac.Item(
        scene.id,
        dict(scene.footprint),
        list(shape(scene.footprint).bounds),
        scene.acquired_utc,
        {
            **scene.properties,
            "sar:instrument_mode": "IW",
            "sar:polarizations": ["VV", "VH"],
            "proj:epsg": 4326,  # what the providers invent, and nobody must believe
            "proj:shape": [WIDTH, HEIGHT],
            "proj:transform": [1e-4, 0, ORIGIN[0], 0, -1e-4, ORIGIN[1]],
        },
    )
    item.collection_id = "sentinel-1-grd"
    for key, href in scene.hrefs.items():
        item.add_asset(key, pystac.Asset(href))
    root = pystac.Catalog("local", "one GRD scene")
    root.add_item(item)
    root.normalize_and_save(str(tmp_path), pystac.CatalogType.SELF_CONTAINED)
    toml, variant = tmp_path / "grd.toml", tmp_path / "radar.toml"
    toml.write_text('extends = "earth-search"\nname = "grd"\nkind = "static"\nurl = "catalog.json"')
    variant.write_text(VARIANT)
    arguments = {"variant": str(variant), "catalog": str(toml)}
    with pytest.raises(UsageError, match=r"only as GRD.*--allow-grd"):
        build(tmp_path / "refused.zarr", **arguments)
    assert not (tmp_path / "refused.zarr").exists()
    build(tmp_path / "out.zarr", **arguments, allow_grd=True)
    group, attributes = open_store(tmp_path / "out.zarr")
    modality = attributes.modalities["sar"]
    assert modality.collection == "sentinel-1-grd"
    tiles = [TileXYZ(x, y, z) for z, x, y in group["tile"][:].tolist()]
    assert len(tiles) > 4
    for tile, image in zip(tiles, group["sar"][:].astype(float), strict=True):
        for band, name in enumerate(("vv", "vh")):
            decibel = modality.offset[band] + modality.scale[band] * image[band]
            truth = 10 * np.log10(truth_on(PixelGrid.around([tile]), name))
            assert np.abs(decibel - truth).max() < 2 * modality.scale[band]
