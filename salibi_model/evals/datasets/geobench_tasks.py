"""Describes the twelve tasks of GEO-Bench v1: bands, classes, sizes and GSDs of their files.

Names of bands are those of STAC's ``eo`` extension (``rededge1`` to ``rededge3`` as in this
project's catalogs); the files' own names are those of the benchmark's converters
(https://github.com/ServiceNow/geo-bench).

Source of classes, sizes and GSDs: Lacoste et al. 2023 (arXiv 2306.03831), tables 1 and 2.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

Kind = Literal["classification", "multilabel", "segmentation"]
"""Kind of a task: one class per image, several labels per image, or one class per pixel."""


@dataclass(frozen=True, kw_only=True)
class BandSource:
    """Location of a band in a sample's file."""

    name: str
    """Name of the data set in the file, without the date that some tasks append."""
    plane: int | None = None
    """Index along the last axis, for a data set of many bands."""
    to_decibel: bool = False
    """Whether the file holds linear power, to be converted to dB."""


@dataclass(frozen=True, kw_only=True)
class GeoBenchSpec:
    """One task of the benchmark."""

    name: str
    kind: Kind
    num_classes: int
    gsd_m: float
    """Metres per pixel of the first band of ``bands``; the others are brought to its grid."""
    size_px: int
    """Edge of an image in pixels."""
    bands: Mapping[str, BandSource]
    """Bands by common name, in the order of the files."""
    classes: tuple[str, ...] = ()
    """Names of the classes by the converter, where ``task_specs.pkl`` has none."""

    @property
    def benchmark(self) -> str:
        """Name of the folder in ``$GEO_BENCH_DIR`` that holds the task."""
        return SEGMENTATION_FOLDER if self.kind == "segmentation" else CLASSIFICATION_FOLDER


CLASSIFICATION_FOLDER: Final = "classification_v1.0"
SEGMENTATION_FOLDER: Final = "segmentation_v1.0"


def _named(**files: str) -> dict[str, BandSource]:
    return {common: BandSource(name=name) for common, name in files.items()}


_RGB = _named(red="Red", green="Green", blue="Blue")

_SENTINEL2 = _named(
    coastal="01 - Coastal aerosol",
    blue="02 - Blue",
    green="03 - Green",
    red="04 - Red",
    rededge1="05 - Vegetation Red Edge",
    rededge2="06 - Vegetation Red Edge",
    rededge3="07 - Vegetation Red Edge",
    nir="08 - NIR",
    nir08="08A - Vegetation Red Edge",
    nir09="09 - Water vapour",
    cirrus="10 - SWIR - Cirrus",
    swir16="11 - SWIR",
    swir22="12 - SWIR",
)

# The converter assumed EuroSAT's channels in the order of wavelength, but B8A comes last
# (https://github.com/phelber/EuroSAT/issues/7, https://github.com/ServiceNow/geo-bench/issues/28).
# The means in band_stats.json confirm it: 12 for "water vapour", low enough only for cirrus.
_EUROSAT = {
    **{name: _SENTINEL2[name] for name in list(_SENTINEL2)[:8]},
    **_named(
        nir09="08A - Vegetation Red Edge",
        cirrus="09 - Water vapour",
        swir16="10 - SWIR - Cirrus",
        swir22="11 - SWIR",
        nir08="12 - SWIR",
    ),
}

# Exported as B1-B5, B7, B8A, B8, B11, B12 and an 8-bit true-colour image, then named as if they
# were the thirteen bands (https://github.com/ServiceNow/geo-bench/issues/29; the last three never
# exceed 255).
_BRICK_KILN = {
    **{name: _SENTINEL2[name] for name in list(_SENTINEL2)[:5]},
    **_named(
        rededge3="06 - Vegetation Red Edge",
        nir08="07 - Vegetation Red Edge",
        nir="08 - NIR",
        swir16="08A - Vegetation Red Edge",
        swir22="09 - Water vapour",
        true_colour_red="10 - SWIR - Cirrus",
        true_colour_green="11 - SWIR",
        true_colour_blue="12 - SWIR",
    ),
}

# Zhu et al. 2020 (So2Sat LCZ42), section "Sentinel-1": single-look complex values, then the
# intensities and the covariance after a refined Lee filter, all linear.
_SO2SAT_RADAR = {
    **_named(
        vh_real="01 - VH.Real",
        vh_imaginary="02 - VH.Imaginary",
        vv_real="03 - VV.Real",
        vv_imaginary="04 - VV.Imaginary",
    ),
    "vh": BandSource(name="05 - VH.LEE Filtered", to_decibel=True),
    "vv": BandSource(name="06 - VV.LEE Filtered", to_decibel=True),
    **_named(
        covariance_real="07 - VH.LEE Filtered.Real",
        covariance_imaginary="08 - VV.LEE Filtered.Imaginary",
    ),
}


def _without(*names: str) -> dict[str, BandSource]:
    return {name: source for name, source in _SENTINEL2.items() if name not in names}


_CLOUDY_SENTINEL2 = {**_without("cirrus"), **_named(cloud_probability="Cloud Probability")}

_NUM_HYPERSPECTRAL = 369

_TASKS = (
    GeoBenchSpec(
        name="m-bigearthnet",
        kind="multilabel",
        num_classes=43,
        gsd_m=10.0,
        size_px=120,
        bands=_without("cirrus"),
    ),
    GeoBenchSpec(
        name="m-so2sat",
        kind="classification",
        num_classes=17,
        gsd_m=10.0,
        size_px=32,
        bands={**_SO2SAT_RADAR, **_without("coastal", "nir09", "cirrus")},
    ),
    GeoBenchSpec(
        name="m-brick-kiln",
        kind="classification",
        num_classes=2,
        gsd_m=10.0,
        size_px=64,
        bands=_BRICK_KILN,
        classes=("not brick kiln", "brick kiln"),
    ),
    GeoBenchSpec(
        name="m-forestnet",
        kind="classification",
        num_classes=12,
        gsd_m=15.0,
        size_px=332,
        bands=_named(
            red="04 - Red",
            green="03 - Green",
            blue="02 - Blue",
            nir="05 - NIR",
            swir16="06 - SWIR1",
            swir22="07 - SWIR2",
        ),
    ),
    GeoBenchSpec(
        name="m-eurosat",
        kind="classification",
        num_classes=10,
        gsd_m=10.0,
        size_px=64,
        bands=_EUROSAT,
    ),
    GeoBenchSpec(
        name="m-pv4ger",
        kind="classification",
        num_classes=2,
        gsd_m=0.1,
        size_px=320,
        bands=_RGB,
        classes=("no solar pv", "solar pv"),
    ),
    GeoBenchSpec(
        name="m-pv4ger-seg",
        kind="segmentation",
        num_classes=2,
        gsd_m=0.1,
        size_px=320,
        bands=_RGB,
        classes=("no solar pv", "solar pv"),
    ),
    GeoBenchSpec(
        name="m-chesapeake",
        kind="segmentation",
        num_classes=7,
        gsd_m=1.0,
        size_px=256,
        bands={**_RGB, **_named(nir="NearInfrared")},
        classes=(
            *("water", "tree canopy", "low vegetation", "barren land"),
            *("impervious, other", "impervious, roads", "no data"),
        ),
    ),
    GeoBenchSpec(
        name="m-cashew-plant",
        kind="segmentation",
        num_classes=7,
        gsd_m=10.0,
        size_px=256,
        bands=_CLOUDY_SENTINEL2,
        classes=(
            *("no data", "well-managed plantation", "poorly managed plantation"),
            *("non-plantation", "residential", "background", "uncertain"),
        ),
    ),
    GeoBenchSpec(
        name="m-SA-crop-type",
        kind="segmentation",
        num_classes=10,
        gsd_m=10.0,
        size_px=256,
        bands=_CLOUDY_SENTINEL2,
        classes=(
            *("no data", "lucerne or medics", "planted pasture", "fallow", "wine grapes", "weeds"),
            *("small grain grazing", "wheat", "canola", "rooibos"),
        ),
    ),
    GeoBenchSpec(
        name="m-nz-cattle",
        kind="segmentation",
        num_classes=2,
        gsd_m=0.1,
        size_px=500,
        bands=_RGB,
        classes=("no cattle", "cattle"),
    ),
    GeoBenchSpec(
        name="m-NeonTree",
        kind="segmentation",
        num_classes=2,
        gsd_m=0.1,
        size_px=400,
        bands={
            **_RGB,
            **_named(canopy_height="Canopy Height Model"),
            **{
                f"hyperspectral_{k:03d}": BandSource(name="Neon", plane=k)
                for k in range(_NUM_HYPERSPECTRAL)
            },
        },
        classes=("no tree", "tree"),
    ),
)

GEOBENCH_TASKS: Final[Mapping[str, GeoBenchSpec]] = MappingProxyType(
    {task.name: task for task in _TASKS}
)
"""Tasks by name."""
