"""Providers of scenes, from TOML: their sensors, products and bands, and how files are read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from salibi_data.catalog import toml_files
from salibi_data.store.errors import UsageError
from salibi_data.store.redaction import redact
from salibi_data.store.validation import check_record, read_record

if TYPE_CHECKING:
    from collections.abc import Iterable

Units = Literal["power", "dB", "reflectance", "display"]
"""Physical units of a product or a modality. ``power`` is linear gamma0, ``display`` is 8-bit."""

_FOLDER: Final = "providers"


@dataclass(frozen=True, kw_only=True)
class Band:
    """Location of one band of a product."""

    asset: str
    """STAC asset key of the file."""
    index: int = 1
    """Band number in the file, from 1."""
    gsd_m: float | None = None
    """Native pixel in metres; None: that of the product."""


@dataclass(frozen=True, kw_only=True)
class OffsetRule:
    """Offset that depends on a provider's processing baseline, never on the date."""

    property: str
    """Item property that states the baseline."""
    at_least: str
    """First baseline with the offset, such as ``04.00``."""
    offset: float
    """Offset in the product's units."""
    dark_bands: tuple[str, ...] = ()
    """Bands with dark pixels nearly everywhere, which show whether a file follows the rule; see
    :mod:`salibi_data.sources.sentinel2_offset`."""

    def applies(self, properties: Mapping[str, Any]) -> bool:
        """Return whether the offset applies to an item with these properties."""
        # Not the date: ESA reprocesses old scenes with new baselines (Collection 1).
        value = properties.get(self.property)
        return value is not None and _version(str(value)) >= _version(self.at_least)


@dataclass(frozen=True, kw_only=True)
class Product:
    """A set of bands of one sensor that share units, scale and nodata.

    Physical value = ``scale * digital number + offset``. A product that states none of ``scale``,
    ``offset``, ``offset_from`` and ``calibration`` takes what its items or files declare.
    """

    units: Units
    """Units of the physical values."""
    bands: Mapping[str, Band]
    """Bands by name."""
    nodata: float | Literal["footprint"] | tuple[float, ...] | None = field(
        default=None, metadata={"finite": False}
    )
    """Missing value, or a list of them; ``footprint``: outside the item's geometry; None: the value
    that the file states, or the item. Masks and alpha bands of the file count besides."""
    nodata_bands: Literal["any", "all"] = "any"
    """Bands that must have the missing value for a pixel to be missing: any one, or all."""
    scale: float = 1.0
    """Physical units per digital number."""
    offset: float = 0.0
    """Physical value of the digital number 0."""
    offset_from: OffsetRule | None = None
    """Rule for a further offset, which is added to ``offset``."""
    gsd_m: float | None = None
    """Native pixel in metres, of the bands that do not state their own."""
    gsd_from: str | None = None
    """Property that states an item's own native pixel in metres."""
    bytes_per_px: float | None = None
    """Typical compressed bytes per pixel and band in the provider's files, for estimates."""
    block_px: int = 512
    """Edge of a block of the provider's files, the smallest unit that can be read."""
    geolocation: Literal["transform", "gcps"] = "transform"
    """Kind of georeference; ``gcps``: the file has no CRS of its own, only ground control points."""
    calibration: Mapping[str, str] = field(default_factory=dict)
    """Asset of the Sentinel-1 calibration annotation by asset of the band. Its look-up table converts
    digital numbers to gamma0; ``scale`` and ``offset`` have no effect then."""
    stands_in_for: str | None = None
    """Product that this one may replace on request; see :func:`with_grd`."""

    def __post_init__(self) -> None:
        check_record(self)
        if isinstance(self.nodata, float) and not math.isfinite(self.nodata):
            # NaN and infinity are missing in every file, and JSON has no word for them.
            object.__setattr__(self, "nodata", ())
        if self.geolocation == "gcps" and self.nodata == "footprint":
            raise ValueError("a product placed by control points needs a nodata value of its own")
        uncalibrated = {band.asset for band in self.bands.values()} - set(self.calibration)
        if self.calibration and uncalibrated:
            raise ValueError(f"calibration names no annotation for {sorted(uncalibrated)}")

    @property
    def assets(self) -> tuple[str, ...]:
        """Asset keys that reading this product opens, annotations last."""
        return self.assets_of(self.bands)

    def assets_of(self, bands: Iterable[str]) -> tuple[str, ...]:
        """Asset keys that reading these bands opens, annotations last."""
        images = dict.fromkeys(self.bands[name].asset for name in bands)
        annotations = (self.calibration[asset] for asset in images if asset in self.calibration)
        return tuple(dict.fromkeys((*images, *annotations)))

    def native_gsd_m(self, band: str, properties: Mapping[str, Any]) -> float | None:
        """Return the native pixel of a band in metres, for an item with these properties."""
        own = properties.get(self.gsd_from) if self.gsd_from else None
        return float(own) if own is not None else self.bands[band].gsd_m or self.gsd_m

    @property
    def nodata_values(self) -> tuple[float, ...] | None:
        """Missing values; None where the file's own count."""
        if self.nodata is None or isinstance(self.nodata, tuple):
            return self.nodata
        return () if isinstance(self.nodata, str) else (self.nodata,)

    @property
    def takes_declared_scale(self) -> bool:
        """Whether scale and offset are those that items or files declare."""
        is_stated = self.scale != 1 or self.offset != 0 or self.offset_from is not None
        return not is_stated and not self.calibration

    def offset_for(self, properties: Mapping[str, Any]) -> float:
        """Return the offset for an item with these properties."""
        if self.offset_from is not None and self.offset_from.applies(properties):
            return self.offset + self.offset_from.offset
        return self.offset


@dataclass(frozen=True, kw_only=True)
class CloudMask:
    """A categorical asset and the classes that make a pixel unusable; all others are clear."""

    asset: str
    """STAC asset key of the file."""
    cloudy: tuple[int, ...]
    """Classes that count as cloudy."""
    nodata: float | None = None
    """Class of unobserved pixels, which other scenes may fill; None: the file's own tag."""
    gsd_m: float | None = None
    """Native pixel in metres."""
    bytes_per_px: float | None = None
    """Typical compressed bytes per pixel in the provider's files, for estimates."""
    block_px: int = 512
    """Edge of a block of the provider's files, the smallest unit that can be read."""

    @property
    def product(self) -> Product:
        """Product with the mask as its one band, ``class``."""
        return Product(units="display", bands={"class": Band(asset=self.asset)}, nodata=self.nodata)


@dataclass(frozen=True, kw_only=True)
class LatestRule:
    """Rule that deduplicates items: of those equal in ``of``, keep the one with the largest ``by``."""

    of: tuple[str, ...]
    """Item properties that identify an acquisition."""
    by: str
    """Item property that orders its processings."""


@dataclass(frozen=True, kw_only=True)
class Sensor:
    """One sensor's collection in a catalog."""

    name: str
    """Name by which variants refer to the sensor."""
    collection: str
    """Id of the STAC collection."""
    products: Mapping[str, Product]
    """Products by name."""
    licence: str
    """Licence of the data."""
    attribution: str
    """Attribution that the licence asks for."""
    group_by: tuple[str, ...] = ()
    """Properties that all scenes of one sample must share (a year, a pass), and every item must have."""
    require: Mapping[str, Any] = field(default_factory=dict)
    """Property values that an item must have; of a list, the item must contain all entries."""
    cloud_cover: str | None = None
    """Property with the scene's cloud cover in percent."""
    latest: LatestRule | None = None
    """Rule that removes superseded processings; None keeps all."""
    clouds: CloudMask | None = None
    """Mask of clouds, if the collection has one."""
    nodata_cover: str | None = None
    """Property with the share of the scene without data, in percent."""
    requester_pays: bool = False
    """Whether the reader pays for requests and bytes, with AWS credentials."""
    region: str | None = None
    """Cloud region of the files' bucket, where a client has to name it."""

    @property
    def assets(self) -> tuple[str, ...]:
        """Asset keys that a build may open, masks last."""
        masks = (self.clouds.asset,) if self.clouds else ()
        images = (asset for product in self.products.values() for asset in product.assets)
        return tuple(dict.fromkeys((*images, *masks)))

    @cached_property
    def products_by_asset(self) -> dict[str, tuple[Product, ...]]:
        """Products with bands in each asset, that of the cloud mask included."""
        masks = [self.clouds.product] if self.clouds else []
        by_asset: dict[str, tuple[Product, ...]] = {}
        for product in (*self.products.values(), *masks):
            for asset in sorted({band.asset for band in product.bands.values()}):
                by_asset[asset] = (*by_asset.get(asset, ()), product)
        return dict(sorted(by_asset.items()))

    @property
    def used_properties(self) -> tuple[str, ...]:
        """Item properties that choosing and reading scenes need."""
        names = [*self.group_by, self.cloud_cover, self.nodata_cover]
        if self.latest is not None:
            names += [*self.latest.of, self.latest.by]
        for product in self.products.values():
            names.append(product.gsd_from)
            if product.offset_from is not None:
                names.append(product.offset_from.property)
        return tuple(dict.fromkeys(name for name in names if name))

    def __post_init__(self) -> None:
        check_record(self)


@dataclass(frozen=True, kw_only=True)
class Prices:
    """Prices of reading where the requester pays, from outside the provider's cloud region."""

    usd_per_gb: float = 0.0
    """Price of 10^9 bytes, in US dollars."""
    usd_per_1000_requests: float = 0.0
    """Price of 1000 requests, in US dollars."""


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """A provider of scenes."""

    name: str
    """Name by which users choose the catalog."""
    title: str
    """Title for people."""
    kind: Literal["api", "static", "sample"]
    """STAC API, items on disk, or the offline sample that this software draws."""
    sensors: Mapping[str, Sensor]
    """Sensors by name."""
    url: str = ""
    """STAC API endpoint, or path of a static catalog's ``catalog.json``."""
    signing: Literal["none", "planetary-computer"] = "none"
    """Signing of requests for files."""
    search_method: Literal["POST", "GET"] = "POST"
    """HTTP method of searches; GET for the few APIs that support only it."""
    prices: Prices = field(default_factory=Prices)
    """Prices of the sensors whose requester pays; the others are free."""

    def __post_init__(self) -> None:
        check_record(self)

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON; :func:`catalog_from_dict` is the inverse."""
        content = asdict(self)
        for sensor in content["sensors"].values():
            del sensor["name"]
        return content


def catalog_names() -> list[str]:
    """Return the names of the providers that come with this software."""
    return toml_files.file_names(_FOLDER)


def load_catalog(name_or_path: str) -> Catalog:
    """Load a provider.

    Args:
        name_or_path: name of a built-in provider, or path of a TOML file.

    Raises:
        UsageError: unknown name, unreadable TOML, or a field that is missing or unknown.

    Example:
        >>> sorted(salibi_data.load_catalog("planetary-computer").sensors)
        ['naip', 'sentinel-1', 'sentinel-2']
    """
    path = toml_files.find_file(_FOLDER, name_or_path, what="catalog", known=catalog_names())
    content = toml_files.load_extended(path, _FOLDER)
    catalog = catalog_from_dict(content, where=str(path), folder=path.parent)
    if catalog.kind == "api" and not _is_url(catalog.url):
        raise UsageError(
            f"{path} is not a catalog: url is {redact(catalog.url)!r}; expected the http(s) address of a "
            'STAC API. For a catalog on disk set kind = "static".'
        )
    return catalog


def catalog_from_dict(content: Mapping[str, Any], *, where: str, folder: Path) -> Catalog:
    """Create a catalog from the content of its TOML file.

    Args:
        content: parsed content.
        where: name of the file in messages.
        folder: folder to which a static catalog's url is relative.

    Raises:
        UsageError: a field is missing, unknown, of the wrong type or out of its range.
    """
    try:
        catalog = read_record(Catalog, {**content, "sensors": _add_names(content.get("sensors"))})
    except ValueError as error:
        raise UsageError(
            f"{where} is not a catalog: {error}; compare it with the files in catalogs/."
        ) from error
    if catalog.kind != "static":
        return catalog
    # A file that extends an API's inherits its address, which is no path of a static catalog.
    if _is_url(catalog.url) or not catalog.url:
        raise UsageError(
            f"{where} is not a catalog: its url is {redact(catalog.url)!r}, and a static one's is the path "
            "of its catalog.json or of a stac-geoparquet file; give it one of its own."
        )
    return replace(catalog, url=str((folder / catalog.url).resolve()))


def _add_names(sensors: Any) -> Any:
    """Add each sensor's key to its table as ``name``."""
    if not isinstance(sensors, dict):
        return {} if sensors is None else sensors
    return {
        name: {**table, "name": name} if isinstance(table, dict) else table
        for name, table in sensors.items()
    }


def _is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def with_grd(catalog: Catalog) -> Catalog:
    """Return a catalog in which substitutes are also available under the replaced product's name.

    Sentinel-1 GRD then serves variants that use RTC. GRD is not corrected for terrain: in mountains
    pixels are displaced by hundreds of metres. Products that the catalog has itself stay.
    """
    sensors = {}
    for name, sensor in catalog.sensors.items():
        substitutes = {
            product.stands_in_for: product
            for product in sensor.products.values()
            if product.stands_in_for is not None
        }
        sensors[name] = replace(sensor, products={**substitutes, **sensor.products})
    return replace(catalog, sensors=sensors)


def _version(text: str) -> tuple[int, ...]:
    # Names of Sentinel-2 products state the baseline 05.09 as N0509.
    compact = re.fullmatch(r"N?(\d\d)(\d\d)", text.strip(), re.IGNORECASE)
    parts = compact.groups() if compact else text.strip().split(".")
    # As text "10.00" would come before "4.00".
    numbers = [int(part) for part in parts if part.isdigit()]
    while numbers and numbers[-1] == 0:  # 4, 4.0 and 04.00 are the same
        numbers.pop()
    return tuple(numbers)
