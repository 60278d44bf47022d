"""Describes the sample's scenes as STAC items like those of the Planetary Computer.

Property names, asset keys and extension versions are those of real items of the collections
``naip``, ``sentinel-1-rtc`` and ``sentinel-2-l2a`` at
https://planetarycomputer.microsoft.com/api/stac/v1 ; the values describe the written pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from salibi_data.synthetic.frame import EPSG, MGRS_TILE, Frame, to_lonlat
from salibi_data.synthetic.ground.materials import BANDS
from salibi_data.synthetic.products import FINE_BANDS, swath
from salibi_data.synthetic.rasters import RasterGrid, sentinel1_grid, sentinel2_grid
from salibi_data.synthetic.sensors.acquisitions import NAIP_PIXEL_M, Flight, Granule, Pass, Quad

Json = dict[str, Any]

COG_TYPE: Final = "image/tiff; application=geotiff; profile=cloud-optimized"
STAC_VERSION: Final = "1.0.0"

_EXTENSIONS: Final = "https://stac-extensions.github.io"
_BAND_DESCRIPTIONS: Final = {
    "B02": ("blue", "Band 2 - Blue", 0.49, 0.098),
    "B03": ("green", "Band 3 - Green", 0.56, 0.045),
    "B04": ("red", "Band 4 - Red", 0.665, 0.038),
    "B05": ("rededge", "Band 5 - Vegetation red edge 1", 0.704, 0.019),
    "B06": ("rededge", "Band 6 - Vegetation red edge 2", 0.74, 0.018),
    "B07": ("rededge", "Band 7 - Vegetation red edge 3", 0.783, 0.028),
    "B08": ("nir", "Band 8 - NIR", 0.842, 0.145),
    "B8A": ("rededge", "Band 8A - Vegetation red edge 4", 0.865, 0.033),
    "B11": ("swir16", "Band 11 - SWIR (1.6)", 1.61, 0.143),
    "B12": ("swir22", "Band 12 - SWIR (2.2)", 2.19, 0.242),
}
"""Common name, title, central wavelength and full width at half maximum, in micrometres."""
_SCL_PROPERTIES: Final = {
    "2": "s2:dark_features_percentage",
    "3": "s2:cloud_shadow_percentage",
    "4": "s2:vegetation_percentage",
    "5": "s2:not_vegetated_percentage",
    "6": "s2:water_percentage",
    "7": "s2:unclassified_percentage",
    "8": "s2:medium_proba_clouds_percentage",
    "9": "s2:high_proba_clouds_percentage",
    "10": "s2:thin_cirrus_percentage",
    "11": "s2:snow_ice_percentage",
}
"""Item property that states the share of each code of the scene classification."""
_CLOUD_CODES: Final = ("8", "9", "10")


def _projection(frame: Frame, grid: RasterGrid, *, num_coefficients: int) -> Json:
    """Return the ``proj:*`` fields of a raster.

    The transform has 9 coefficients in some of the real collections and 6 in others.
    """
    west, north = frame.to_utm(grid.bounds[0], grid.bounds[3])
    east, south = frame.to_utm(grid.bounds[2], grid.bounds[1])
    transform = [grid.pixel_m, 0.0, west, 0.0, -grid.pixel_m, north, 0.0, 0.0, 1.0]
    return {
        "proj:bbox": [west, south, east, north],
        "proj:shape": list(grid.shape),
        "proj:transform": [float(value) for value in transform[:num_coefficients]],
    }


def _corners(grid: RasterGrid) -> np.ndarray[Any, np.dtype[np.float64]]:
    west, south, east, north = grid.bounds
    return np.asarray([(west, south), (east, south), (east, north), (west, north)])


def _item(
    *, item_id: str, collection: str, ring: list[list[float]], properties: Json, assets: Json
) -> Json:
    """Return an item with the fields and links that all items share."""
    lon, lat = zip(*ring, strict=True)
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": _extensions(collection),
        "id": item_id,
        "collection": collection,
        "bbox": [min(lon), min(lat), max(lon), max(lat)],
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": properties,
        "assets": assets,
        "links": [
            {"rel": "root", "href": "../../catalog.json", "type": "application/json"},
            {"rel": "parent", "href": "../collection.json", "type": "application/json"},
            {"rel": "collection", "href": "../collection.json", "type": "application/json"},
        ],
    }


def _extensions(collection: str) -> list[str]:
    """Return the addresses of the STAC extensions that real items of a collection name."""
    names = {
        "naip": ("eo/v1.0.0", "projection/v1.0.0"),
        "sentinel-2-l2a": ("eo/v1.0.0", "sat/v1.0.0", "projection/v1.1.0"),
        "sentinel-1-rtc": (
            "sar/v1.0.0",
            "sat/v1.0.0",
            "projection/v1.1.0",
            "file/v2.0.0",
            "raster/v1.1.0",
        ),
    }
    return [f"{_EXTENSIONS}/{name}/schema.json" for name in names[collection]]


def naip_item(frame: Frame, quad: Quad, flight: Flight) -> Json:
    """Return the item of one quad in one year."""
    item_id = quad.item_id(flight)
    grid = RasterGrid(bounds=quad.bounds, pixel_m=NAIP_PIXEL_M)
    centre = _corners(grid).mean(axis=0)
    lon, lat = to_lonlat(centre[:1] + frame.origin_e, centre[1:] + frame.origin_n)
    image = {
        "href": f"./{item_id.removeprefix('ia_')}.tif",
        "type": COG_TYPE,
        "roles": ["data"],
        "title": "RGBIR COG tile",
        "eo:bands": [
            {"name": "Red", "common_name": "red"},
            {"name": "Green", "common_name": "green"},
            {"name": "Blue", "common_name": "blue"},
            {"name": "NIR", "common_name": "nir", "description": "near-infrared"},
        ],
    }
    properties = {
        "datetime": _timestamp(flight.flown_utc),
        "gsd": NAIP_PIXEL_M,
        "naip:year": str(flight.year),
        "naip:state": "ia",
        "proj:epsg": EPSG,
        **_projection(frame, grid, num_coefficients=9),
        "proj:centroid": {"lat": round(lat[0], 5), "lon": round(lon[0], 5)},
    }
    ring = frame.ring_lonlat(_corners(grid))
    return _item(
        item_id=item_id,
        collection="naip",
        ring=ring,
        properties=properties,
        assets={"image": image},
    )


def sentinel1_item(frame: Frame, overflight: Pass, paths: Mapping[str, Path]) -> Json:
    """Return the item of one radar pass; ``paths`` are its files by asset key."""
    titles = {
        "vv": "VV: vertical transmit, vertical receive",
        "vh": "VH: vertical transmit, horizontal receive",
    }
    raster = {"nodata": -32768, "data_type": "float32", "spatial_resolution": 10.0}
    assets = {
        key: {
            "href": f"./{path.name}",
            "file:size": path.stat().st_size,
            "type": COG_TYPE,
            "roles": ["data"],
            "title": titles[key],
            "description": "Terrain-corrected gamma naught in linear power.",
            "raster:bands": [raster],
        }
        for key, path in paths.items()
    }
    return _item(
        item_id=overflight.id,
        collection="sentinel-1-rtc",
        ring=frame.ring_lonlat(swath(frame, overflight)),
        properties=_sentinel1_properties(frame, overflight),
        assets=assets,
    )


def _sentinel1_properties(frame: Frame, overflight: Pass) -> Json:
    grid = sentinel1_grid(frame)
    middle = overflight.started_utc + (overflight.stopped_utc - overflight.started_utc) / 2
    return {
        "datetime": _timestamp(middle),
        "start_datetime": overflight.started_utc.isoformat(sep=" "),
        "end_datetime": overflight.stopped_utc.isoformat(sep=" "),
        "platform": "SENTINEL-1A",
        "constellation": "Sentinel-1",
        "sat:orbit_state": overflight.orbit_state,
        "sat:absolute_orbit": overflight.absolute_orbit,
        "sat:relative_orbit": overflight.relative_orbit,
        "sat:platform_international_designator": "2014-016A",
        "sar:instrument_mode": "IW",
        "sar:frequency_band": "C",
        "sar:center_frequency": 5.405,
        "sar:polarizations": ["VV", "VH"],
        "sar:product_type": "GRD",
        "sar:looks_range": 5,
        "sar:looks_azimuth": 1,
        "sar:looks_equivalent_number": 4.4,
        "sar:resolution_range": 20,
        "sar:resolution_azimuth": 22,
        "sar:pixel_spacing_range": 10,
        "sar:pixel_spacing_azimuth": 10,
        "sar:observation_direction": "right",
        "s1:shape": list(reversed(grid.shape)),
        "s1:resolution": "high",
        "s1:datatake_id": str(overflight.datatake),
        "s1:orbit_source": "RESORB",
        "s1:processing_level": "1",
        "s1:product_timeliness": "Fast-24h",
        "s1:instrument_configuration_ID": "7",
        "proj:epsg": EPSG,
        **_projection(frame, grid, num_coefficients=9),
    }


def sentinel2_item(frame: Frame, granule: Granule, scl_shares: Mapping[str, float]) -> Json:
    """Return the item of one optical product.

    ``scl_shares`` is the share of the image, 0..1, by code of the scene classification.
    """
    grid = sentinel2_grid(frame)
    return _item(
        item_id=granule.id,
        collection="sentinel-2-l2a",
        ring=frame.ring_lonlat(_corners(grid)),
        properties=_sentinel2_properties(granule, scl_shares),
        assets=_sentinel2_assets(frame, granule),
    )


def _sentinel2_assets(frame: Frame, granule: Granule) -> Json:
    """Return the assets ``B02`` .. ``B12``, ``SCL`` and ``visual``."""
    stem = f"T{MGRS_TILE}_{granule.acquired_utc:%Y%m%dT%H%M%S}"

    def asset(name: str, gsd_m: int, title: str, bands: Sequence[str]) -> Json:
        grid = RasterGrid(bounds=sentinel2_grid(frame).bounds, pixel_m=gsd_m)
        fields = {
            "href": f"./{stem}_{name}_{gsd_m}m.tif",
            **_projection(frame, grid, num_coefficients=6),
            "gsd": float(gsd_m),
            "type": COG_TYPE,
            "roles": ["data"],
            "title": title,
        }
        return fields | ({"eo:bands": [_eo_band(band) for band in bands]} if bands else {})

    assets = {}
    for band in BANDS:
        gsd_m = 10 if band in FINE_BANDS else 20
        title = f"{_BAND_DESCRIPTIONS[band][1]} - {gsd_m}m"
        assets[band] = asset(band, gsd_m, title, [band])
    # The real items misspell this title in the same way.
    assets["SCL"] = asset("SCL", 20, "Scene classfication map (SCL)", [])
    assets["visual"] = asset("TCI", 10, "True color image", ["B04", "B03", "B02"])
    return assets


def _eo_band(band: str) -> Json:
    common_name, description, wavelength_um, width_um = _BAND_DESCRIPTIONS[band]
    return {
        "name": band,
        "common_name": common_name,
        "description": description,
        "center_wavelength": wavelength_um,
        "full_width_half_max": width_um,
    }


def _sentinel2_properties(granule: Granule, scl_shares: Mapping[str, float]) -> Json:
    acquired, generated = (
        f"{moment:%Y%m%dT%H%M%S}" for moment in (granule.acquired_utc, granule.generated_utc)
    )
    valid = 1 - scl_shares["0"]
    percent = {
        name: round(100 * scl_shares[code] / valid, 6) for code, name in _SCL_PROPERTIES.items()
    }
    cloud_share = sum(scl_shares[code] for code in _CLOUD_CODES) / valid
    baseline = f"N{granule.baseline}"
    mission, orbit = granule.platform, f"A{granule.orbit_number:06d}"
    return {
        "datetime": _timestamp(granule.acquired_utc),
        "platform": f"Sentinel-2{mission[-1]}",
        "constellation": "Sentinel 2",
        "instruments": ["msi"],
        "eo:cloud_cover": round(100 * cloud_share, 6),
        "sat:orbit_state": "descending",
        "sat:relative_orbit": granule.relative_orbit,
        "proj:epsg": EPSG,
        "s2:mgrs_tile": MGRS_TILE,
        "s2:granule_id": f"{mission}_OPER_MSI_L2A_TL_ESRI_{generated}_{orbit}_T{MGRS_TILE}_{baseline}",
        "s2:datatake_id": f"G{mission}_{acquired}_{granule.orbit_number:06d}_{baseline}",
        "s2:datastrip_id": f"{mission}_OPER_MSI_L2A_DS_ESRI_{generated}_S{acquired}_{baseline}",
        "s2:product_uri": granule.product_uri,
        "s2:product_type": "S2MSI2A",
        "s2:datatake_type": "INS-NOBS",
        "s2:generation_time": _timestamp(granule.generated_utc),
        "s2:processing_baseline": granule.baseline,
        "s2:mean_solar_zenith": 90.0 - granule.sun.elevation_deg,
        "s2:mean_solar_azimuth": granule.sun.azimuth_deg,
        "s2:nodata_pixel_percentage": round(100 * scl_shares["0"], 6),
        "s2:saturated_defective_pixel_percentage": round(100 * scl_shares["1"], 6),
        **percent,
    }


def _timestamp(moment: Any) -> str:
    """Return an RFC 3339 time with Z; microseconds only where they are not zero, as in real items."""
    return str(moment.isoformat()).replace("+00:00", "Z")
