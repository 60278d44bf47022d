"""Rasters to embed, and what was embedded of them."""

from __future__ import annotations

import numpy as np
import rasterio
import zarr
from affine import Affine

UTM = "EPSG:32613"


PLACE = Affine(4.0, 0, 480_000, 0, -4.0, 4_000_000)


def raster(path, values, *, transform=PLACE, crs=UTM, names=(), **profile):
    """Write (bands, rows, columns) to a GeoTIFF."""
    bands, rows, cols = values.shape
    fields = {"driver": "GTiff", "dtype": values.dtype, "count": bands, "width": cols}
    fields |= {"height": rows, "crs": crs, "transform": transform} | profile
    with rasterio.open(path, "w", **fields) as dataset:
        dataset.write(values)
        for index, name in enumerate(names, 1):
            dataset.set_band_description(index, name)
    return path


def noise(rows, cols, bands=3, seed=0):
    return np.random.default_rng(seed).integers(1, 256, (bands, rows, cols), dtype=np.uint8)


def rows_of(out, modality):
    group = zarr.open_group(out, mode="r")[modality]
    return {name: group[name][:] for name in group.array_keys()}
