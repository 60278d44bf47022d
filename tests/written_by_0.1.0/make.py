"""Writes this folder with salibi 0.1.0, and with no other version: what people have on their disks.

The sources are drawn here: fields of one colour each, so that everything compresses well. They lie in
``catalog`` below the folder that a command runs in; a plan names them by ``/proc/self/cwd``, and so
this folder can be copied to wherever it is needed. The model is far smaller than any size that the
command line knows.

Run, in an empty folder with salibi 0.1.0 installed: python make.py
"""

# ruff: noqa: I001, RUF100 - of modules that later versions may not have
from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

VERSION = "0.1.0"
UTM = "EPSG:32614"
BLOCKS = (7528, 12263)
"""Column and row of the first of two blocks of 4 x 4 tiles; samples of one train, of the other validate."""

MARGIN_M = 120.0
NUM_FIELDS = 14
NAIP_PIXEL_M = 2.0
COLOURS = np.array(
    [(30, 60, 90), (45, 90, 40), (110, 130, 60), (170, 150, 110), (150, 150, 150), (90, 70, 50)]
)
POWER = np.array([(0.01, 0.002), (0.15, 0.04), (0.09, 0.02), (0.05, 0.01), (0.4, 0.1), (0.1, 0.03)])
"""Backscatter, VV and VH, of the same covers."""

PROVIDER = """\
extends = "sample"
name = "drawn"
kind = "static"
url = "catalog/catalog.json"
"""
SIZE = {"dim": 8, "depth": 1, "num_heads": 2, "decoder_dim": 8, "decoder_heads": 2}
SETTINGS = {
    "steps": 6,
    "batch_size": 4,
    "crop_px": 64,
    "patch_px": 8,
    "checkpoint_every": 3,
    "keep_checkpoints": 1,
    "validation_samples": 4,
    "stop_on_collapse": False,
}
STOPPED_AFTER = 3


def call(line: str) -> None:
    """Run one of the two commands in this process."""
    sys.stderr.write(f"{line}\n")
    sys.argv = line.split()
    module = {"salibi-data": "salibi_cli.data", "salibi-model": "salibi_cli.model"}[sys.argv[0]]
    try:
        import_module(module).main()
    except SystemExit as ended:
        if ended.code:
            raise


def area() -> tuple[float, float, float, float]:
    """West, south, east and north of the two blocks, in degrees."""
    from salibi_data.grid import tile_bounds

    x, y = (4 * number for number in BLOCKS)
    west, _, _, north = tile_bounds(17, [x], [y])[0].tolist()
    _, south, east, _ = tile_bounds(17, [x + 7], [y + 3])[0].tolist()
    return west, south, east, north


def drawn(pixel_m: float) -> tuple[np.ndarray, Any]:
    """Covers of the ground, (rows, columns), and their transform: each is that of the nearest site."""
    from rasterio.transform import from_origin
    from rasterio.warp import transform_bounds

    west, south, east, north = transform_bounds("EPSG:4326", UTM, *area())
    west, north = 20 * np.floor((west - MARGIN_M) / 20), 20 * np.ceil((north + MARGIN_M) / 20)
    width, height = (int((length + MARGIN_M) / pixel_m) for length in (east - west, north - south))
    rng = np.random.default_rng(0)
    sites = rng.uniform(0, 1, (NUM_FIELDS, 2)) * (width * pixel_m, height * pixel_m)
    kinds = rng.integers(0, len(COLOURS), len(sites))
    y, x = (np.mgrid[:height, :width] + 0.5) * pixel_m
    nearest = np.argmin([(x - u) ** 2 + (y - v) ** 2 for u, v in sites], axis=0)
    return kinds[nearest], from_origin(west, north, pixel_m, pixel_m)


def write_raster(path: Path, bands: list[np.ndarray], transform: Any) -> None:
    """A tiled GeoTIFF with overviews."""
    import rasterio

    path.parent.mkdir(parents=True, exist_ok=True)
    rows, columns = bands[0].shape
    profile = {"driver": "COG", "crs": UTM, "transform": transform, "dtype": bands[0].dtype}
    packed = {"compress": "deflate", "level": 9, "blocksize": 512}
    with rasterio.open(
        path, "w", width=columns, height=rows, count=len(bands), **profile, **packed
    ) as file:
        for number, band in enumerate(bands, start=1):
            file.write(band, number)


def write_catalog(folder: Path) -> None:
    """One scene of each sensor, and a static STAC catalog of them."""
    west, south, east, north = area()
    box = (west - 0.001, south - 0.001, east + 0.001, north + 0.001)
    ring = [(box[a], box[b]) for a, b in ((0, 1), (2, 1), (2, 3), (0, 3), (0, 1))]
    naip, at_fine = drawn(NAIP_PIXEL_M)
    coarse, at_10m = drawn(10.0)
    classes, at_20m = drawn(20.0)
    images = {
        "naip": {"image": (list(COLOURS[naip].astype(np.uint8).transpose(2, 0, 1)), at_fine)},
        "sentinel-2-l2a": {
            "visual": (list(COLOURS[coarse].astype(np.uint8).transpose(2, 0, 1)), at_10m),
            "SCL": ([np.full_like(classes, 4, np.uint8)], at_20m),
        },
        "sentinel-1-rtc": {
            name: ([POWER[coarse, number].astype(np.float32)], at_10m)
            for number, name in enumerate(("vv", "vh"))
        },
    }
    properties: dict[str, dict[str, Any]] = {
        "naip": {"naip:year": "2022", "gsd": NAIP_PIXEL_M},
        "sentinel-2-l2a": {
            "s2:datatake_id": "take",
            "s2:mgrs_tile": "14TPM",
            "eo:cloud_cover": 0.0,
            "s2:generation_time": "2022-07-19T20:00:00Z",
            "s2:processing_baseline": "04.00",
        },
        "sentinel-1-rtc": {
            "sat:absolute_orbit": 44000,
            "sat:orbit_state": "descending",
            "sar:instrument_mode": "IW",
            "sar:polarizations": ["VV", "VH"],
        },
    }
    links = []
    for collection, assets in images.items():
        for key, (bands, transform) in assets.items():
            write_raster(folder / collection / f"{key}.tif", bands, transform)
        item = {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": f"{collection}-1",
            "collection": collection,
            "bbox": box,
            "links": [],
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {"datetime": "2022-07-19T17:00:00Z", **properties[collection]},
            "assets": {key: {"href": f"./{key}.tif"} for key in assets},
        }
        (folder / collection / "item.json").write_text(json.dumps(item, indent=1) + "\n")
        links.append({"rel": "item", "href": f"./{collection}/item.json"})
    head = {"type": "Catalog", "stac_version": "1.0.0", "id": "drawn", "description": "drawn"}
    content = json.dumps({**head, "links": links}, indent=1)
    (folder / "catalog.json").write_text(content + "\n")


def write_plan(path: Path) -> None:
    """As `salibi-data plan` does, which would write where the catalog is on this machine."""
    from salibi_data import plan
    from salibi_data.catalog import load_catalog

    catalog = replace(load_catalog("provider.toml"), url="/proc/self/cwd/catalog/catalog.json")
    path.parent.mkdir()
    plan("micro", catalog=catalog, output=path, bounds_lonlat=area(), limit=8)


def stop_building() -> None:
    """Build until the first of two blocks is there."""
    from salibi_data import build

    class Stopped(BaseException):
        pass

    def stop(step: Any) -> None:
        if step.stage == "samples" and step.done:
            raise Stopped

    try:
        build("unfinished.zarr", plan="plan/plan.parquet", progress=stop)
    except Stopped:
        (Path("unfinished.zarr.building") / "lock").unlink()


def train() -> None:
    """A run that was stopped in the middle, as a cluster does it, and one that came to its end."""
    from salibi_model.config import SIZES, Size
    from salibi_model.errors import StoppedError
    from salibi_model.settings import TrainingConfig
    from salibi_model.trainer import train

    SIZES["tiny"] = Size(**SIZE)  # type: ignore[index]
    config = TrainingConfig(stores=("finished.zarr",), size="tiny", **SETTINGS)  # type: ignore[arg-type]

    def stop(done: int, *_: object) -> None:
        if done == STOPPED_AFTER - 1:  # the step after it is the last one
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        train(config, out="run", device="cpu", on_step=stop)
    except StoppedError as error:
        sys.stderr.write(f"{error}\n")
    shutil.rmtree("run/events")  # TensorBoard's, named for the machine
    shutil.rmtree("run/samples")  # pictures: they are large, and nothing reads them


def stop_embedding() -> None:
    """Embed until the first of three modalities is there."""
    from salibi_model.embedding import embed

    class Stopped(BaseException):
        pass

    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise Stopped

    with contextlib.suppress(Stopped):
        embed("run", ["finished.zarr"], out="unfinished_embeddings", on_image=stop)


def main() -> None:
    """Write everything below the folder that this runs in."""
    from salibi_data import __version__

    if __version__ != VERSION:
        raise SystemExit(f"this is salibi {__version__}; {VERSION} is wanted.")
    torch.set_num_threads(1)
    Path("provider.toml").write_text(PROVIDER)
    write_catalog(Path("catalog"))
    write_plan(Path("plan/plan.parquet"))
    call("salibi-data build --plan plan/plan.parquet -o finished.zarr")
    stop_building()
    call("salibi-data subset finished.zarr -o part.zarr --modalities sar,lores --limit 4")
    call("salibi-data publish finished.zarr release")
    train()
    call("salibi-model export run -o exported")
    call("salibi-model embed run finished.zarr -o embeddings --device cpu")
    stop_embedding()
    call("salibi-model eval retrieval run --data finished.zarr -o results --device cpu")
    Path("results/results.png").unlink()


if __name__ == "__main__":
    main()
