"""A band set, a band and a zoom added in TOML alone: built, and compared with rasterio's warp.

``catalogs/variants/spectral.toml`` names ten bands of Sentinel-2 as reflectance, NAIP's
near-infrared, and NAIP two zooms finer. Nothing in the code knows of them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from salibi_data import build
from salibi_data.catalog.variants import load_variant
from salibi_data.inspection.verify import verify
from salibi_data.store.open import open_store
from salibi_data.store.tiles import TileXYZ, tile_bounds
from tests.support.data.oracle import warped
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from salibi_data.store.schema import Modality

TEN_BANDS = [
    *("blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08"),
    *("swir16", "swir22"),
]
ASSETS = dict(
    zip(
        TEN_BANDS,
        ["B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"],
        strict=True,
    )
)


@pytest.fixture(scope="module")
def store(sample_toml: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six samples."""
    path = tmp_path_factory.mktemp("spectral") / "spectral.zarr"
    build(path, variant="spectral", catalog=sample_toml, limit=6)
    return path


def items_of(folder: Path, collection: str) -> list[dict[str, Any]]:
    """Items of the sample catalog, each with its assets' paths."""
    items = []
    for path in sorted(folder.rglob("*.json")):
        item = json.loads(path.read_text())
        if item["type"] == "Feature" and item["collection"] == collection:
            hrefs = {key: path.parent / asset["href"] for key, asset in item["assets"].items()}
            items.append({**item, "paths": hrefs})
    return items


def stored(values: NDArray[np.float32], modality: Modality) -> NDArray[np.float64]:
    offset, scale = (
        np.array(column, np.float64)[:, None, None] for column in (modality.offset, modality.scale)
    )
    return np.clip(np.rint((values - offset) / scale), 1, 255)


def test_the_variant_is_toml_alone() -> None:
    variant = load_variant("spectral")
    shapes = {m.name: (len(m.bands), m.tile_px) for m in variant.modalities}
    assert shapes == {"sar": (2, 256), "s2": (10, 256), "hires": (4, 256), "hires_16x": (4, 1024)}
    code = "".join(
        path.read_text()
        for path in (ROOT / "salibi_data").rglob("*.py")
        if not {"synthetic", "viewer"} & set(path.parts)
    )
    for name in ("hires_16x", "spectral", "rededge", "swir16", '"nir"'):
        assert name not in code


def test_the_store_holds_what_the_variant_names(store: Path) -> None:
    group, attributes = open_store(store)
    num = group["tile"].shape[0]
    assert num == 6
    assert group["s2"].shape == (num, 10, 256, 256)
    assert group["hires"].shape == (num, 4, 256, 256)
    assert group["hires_16x"].shape == (num, 4, 1024, 1024)
    s2, fine = attributes.modalities["s2"], attributes.modalities["hires_16x"]
    assert list(s2.bands) == TEN_BANDS
    assert s2.units == "reflectance"
    assert (fine.zoom, fine.gsd_ratio) == (19, 0.25)
    verify(store)


def test_ten_bands_are_reflectance_with_the_offset_of_their_baseline(
    store: Path, sample_catalog: Path
) -> None:
    group, attributes = open_store(store)
    scenes = scenes_by_id(store, "sentinel-2")
    items = {item["id"]: item for item in items_of(sample_catalog, "sentinel-2-l2a")}
    modality = attributes.modalities["s2"]
    tiles = [TileXYZ(x, y, z) for z, x, y in group["tile"][:].tolist()]
    for sample, tile in enumerate(tiles):
        item = items[scenes[sample]]
        baseline = float(item["properties"]["s2:processing_baseline"])
        offset = -0.1 if baseline >= 4 else 0.0
        numbers = np.stack(
            [warped(item["paths"][ASSETS[band]], [1], tile, 256)[0] for band in TEN_BANDS]
        )
        expected = stored(numbers * np.float32(1e-4) + np.float32(offset), modality)
        differences = np.abs(group["s2"][sample] - expected)
        assert np.mean(differences <= 1) >= 0.999
        assert np.ptp(group["s2"][sample].reshape(10, -1), axis=1).min() > 5


def test_sixteen_grandchildren_and_near_infrared_are_naips(
    store: Path, sample_catalog: Path
) -> None:
    """Two zooms finer and one band more; the quads of a sample cover it together."""
    group, _ = open_store(store)
    quads = items_of(sample_catalog, "naip")
    compared = 0
    for sample, (z, x, y) in enumerate(group["tile"][:].tolist()):
        west, south, east, north = tile_bounds(z, [x], [y])[0].tolist()
        candidates = [
            warped(quad["paths"]["image"], [1, 2, 3, 4], TileXYZ(x, y, z), 1024)
            for quad in quads
            if quad["bbox"][0] <= west < east <= quad["bbox"][2]
            and quad["bbox"][1] <= south < north <= quad["bbox"][3]
        ]
        differences = [np.abs(group["hires_16x"][sample] - np.rint(image)) for image in candidates]
        whole = [
            a for a, image in zip(differences, candidates, strict=True) if np.isfinite(image).all()
        ]
        compared += bool(whole)
        assert not whole or max(np.mean(a <= 1) for a in whole) >= 0.999
        fourth = group["hires_16x"][sample][3].astype(float)
        means = fourth.reshape(256, 4, 256, 4).mean(axis=(1, 3))
        assert np.abs(means - group["hires"][sample][3]).mean() < 3
    assert compared > 2


def scenes_by_id(store: Path, sensor: str) -> list[str]:
    """Per sample the one item of a sensor, from ``samples.parquet``."""
    import pyarrow.parquet as pq

    table = pq.read_table(store / "samples.parquet")
    column = next(n for n in table.column_names if n.startswith(sensor) and "item" in n)
    return [ids[0] for ids in table[column].to_pylist()]
