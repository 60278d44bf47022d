"""Providers: where scenes are and what their assets mean. TOML in, frozen dataclasses out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from salibi_data.catalog import toml_files
from salibi_data.store.errors import UsageError
from salibi_data.store.redaction import redact
from salibi_data.store.validation import check_record, read_record

if TYPE_CHECKING:
    from collections.abc import Iterable

Units = Literal["power", "dB", "reflectance", "display"]
"""Physical units of a source or a modality. ``power`` is linear gamma0, ``display`` is 8-bit."""

_FOLDER: Final = "providers"


@dataclass(frozen=True, kw_only=True)
class Band:
    """Where one band of a product is found."""

    asset: str
    index: int = 1
    """Band number in the file, from 1."""
    gsd_m: float | None = None
    """Native pixel in metres where it is not the product's."""


@dataclass(frozen=True, kw_only=True)
class OffsetRule:
    """An offset that a provider's processing baseline decides, never the date."""

    property: str
    at_least: str
    offset: float
    dark_bands: tuple[str, ...] = ()
    """Bands that have dark pixels nearly everywhere, by which the rule is checked against the file;
    see :mod:`salibi_data.sources.sentinel2_offset`."""

    def applies(self, properties: Mapping[str, Any]) -> bool:
        """Whether an item with these properties carries the offset."""
        value = properties.get(self.property)
        return value is not None and _version(str(value)) >= _version(self.at_least)


@dataclass(frozen=True, kw_only=True)
class Product:
    """A set of bands of one sensor that share units, scale and nodata.

    Physical value = ``scale * digital number + offset``.
    """

    units: Units
    bands: Mapping[str, Band]
    nodata: float | Literal["footprint"] | None = None
    """The missing value; ``footprint``: outside the item's geometry; None: the file's own tag."""
    nodata_bands: Literal["any", "all"] = "any"
    """A pixel is missing where any band, or only where every band, has the missing value."""
    scale: float = 1.0
    offset: float = 0.0
    offset_from: OffsetRule | None = None
    gsd_m: float | None = None
    """Native pixel in metres, of the bands that do not give their own."""
    gsd_from: str | None = None
    """Property that holds an item's own native pixel in metres."""
    bytes_per_px: float | None = None
    """Typical compressed bytes of a pixel and band in the provider's files, for estimates."""
    block_px: int = 512
    """Edge of a block of the provider's files, the least that can be read."""
    geolocation: Literal["transform", "gcps"] = "transform"
    """``gcps``: the file has no CRS of its own, only ground control points."""
    calibration: Mapping[str, str] = field(default_factory=dict)
    """Asset of a band to the asset of its Sentinel-1 calibration annotation: digital numbers become
    gamma0 by its look-up table, and ``scale`` and ``offset`` are not used."""
    stands_in_for: str | None = None
    """A product that this one replaces, if asked for; see :func:`with_grd`."""

    def __post_init__(self) -> None:
        check_record(self)
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
        """Native pixel of a band in metres, for an item with these properties."""
        own = properties.get(self.gsd_from) if self.gsd_from else None
        return float(own) if own is not None else self.bands[band].gsd_m or self.gsd_m

    def offset_for(self, properties: Mapping[str, Any]) -> float:
        """The offset of an item with these properties."""
        if self.offset_from is not None and self.offset_from.applies(properties):
            return self.offset + self.offset_from.offset
        return self.offset


@dataclass(frozen=True, kw_only=True)
class CloudMask:
    """A categorical asset and the classes that make a pixel unusable; all others are clear."""

    asset: str
    cloudy: tuple[int, ...]
    nodata: float | None = None
    """The class of pixels that were not seen, which other scenes fill; None: the file's own tag."""
    gsd_m: float | None = None
    bytes_per_px: float | None = None
    block_px: int = 512

    @property
    def product(self) -> Product:
        """The mask as a product with one band, ``class``."""
        return Product(units="display", bands={"class": Band(asset=self.asset)}, nodata=self.nodata)


@dataclass(frozen=True, kw_only=True)
class LatestRule:
    """Of items alike in ``of``, only the one with the greatest ``by`` is kept."""

    of: tuple[str, ...]
    by: str


@dataclass(frozen=True, kw_only=True)
class Sensor:
    """One sensor's collection in a catalog."""

    name: str
    collection: str
    products: Mapping[str, Product]
    licence: str
    attribution: str
    group_by: tuple[str, ...] = ()
    """Properties that all scenes of one sample must share: a year, a pass. Needed of every item."""
    require: Mapping[str, Any] = field(default_factory=dict)
    """Property values an item must have; a list means that all its entries are contained."""
    cloud_cover: str | None = None
    """Property with the scene's cloud cover in percent."""
    latest: LatestRule | None = None
    clouds: CloudMask | None = None
    nodata_cover: str | None = None
    """Property with the share of the scene that holds no data, in percent."""
    requester_pays: bool = False
    region: str | None = None
    """Cloud region of the files' bucket, where a client has to name it."""

    @property
    def assets(self) -> tuple[str, ...]:
        """All asset keys that a build may open."""
        masks = (self.clouds.asset,) if self.clouds else ()
        images = (asset for product in self.products.values() for asset in product.assets)
        return tuple(dict.fromkeys((*images, *masks)))

    @property
    def used_properties(self) -> tuple[str, ...]:
        """Names of the item properties that choosing and reading scenes needs."""
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
    """What reading costs where the requester pays, from outside the provider's cloud region."""

    usd_per_gb: float = 0.0
    """Per 10^9 bytes."""
    usd_per_1000_requests: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """A provider of scenes."""

    name: str
    title: str
    kind: Literal["api", "static", "sample"]
    sensors: Mapping[str, Sensor]
    url: str = ""
    """STAC API endpoint, or path of a static catalog's ``catalog.json``."""
    signing: Literal["none", "planetary-computer"] = "none"
    search_method: Literal["POST", "GET"] = "POST"
    """How a STAC API is asked; GET for the few that offer nothing else."""
    prices: Prices = field(default_factory=Prices)
    """For the sensors whose requester pays; the others are free."""

    def __post_init__(self) -> None:
        check_record(self)

    def to_dict(self) -> dict[str, Any]:
        """JSON form, which :func:`catalog_from_dict` reads back."""
        content = asdict(self)
        for sensor in content["sensors"].values():
            del sensor["name"]
        return content


def catalog_names() -> list[str]:
    """Names of the providers that come with this software."""
    return toml_files.names(_FOLDER)


def load_catalog(name_or_path: str) -> Catalog:
    """The provider of that name, or the one a TOML file describes.

    Raises:
        UsageError: unknown name, unreadable TOML, or a field that is missing or unknown.
    """
    path = toml_files.find(_FOLDER, name_or_path, what="catalog", known=catalog_names())
    content = toml_files.resolved(path, _FOLDER)
    catalog = catalog_from_dict(content, where=str(path), folder=path.parent)
    if catalog.kind == "api" and not _is_url(catalog.url):
        raise UsageError(
            f"{path} is not a catalog: url is {redact(catalog.url)!r}; expected the http(s) address of a "
            'STAC API. For a catalog on disk set kind = "static".'
        )
    return catalog


def catalog_from_dict(content: Mapping[str, Any], *, where: str, folder: Path) -> Catalog:
    """A catalog from its TOML's content; a static one's url is relative to ``folder``.

    Raises:
        UsageError: a field is missing, unknown, of the wrong type or out of its range.
    """
    try:
        catalog = read_record(Catalog, {**content, "sensors": _named(content.get("sensors"))})
    except ValueError as error:
        raise UsageError(
            f"{where} is not a catalog: {error}; compare it with the files in catalogs/."
        ) from error
    if catalog.kind != "static":
        return catalog
    # An address comes with a provider that the file extends, and is not what is meant here.
    if _is_url(catalog.url) or not catalog.url:
        raise UsageError(
            f"{where} is not a catalog: its url is {redact(catalog.url)!r}, and a static one's is the path "
            "of its catalog.json or of a stac-geoparquet file; give it one of its own."
        )
    return replace(catalog, url=str((folder / catalog.url).resolve()))


def _named(sensors: Any) -> Any:
    """Sensors whose tables hold the names by which they are found."""
    if not isinstance(sensors, dict):
        return {} if sensors is None else sensors
    return {
        name: {**table, "name": name} if isinstance(table, dict) else table
        for name, table in sensors.items()
    }


def _is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def with_grd(catalog: Catalog) -> Catalog:
    """``catalog`` where a product that stands in for another one is found under its name, too.

    Sentinel-1 GRD then serves variants that ask for RTC. It is not corrected for terrain: pixels
    lie hundreds of metres off in mountains. A product that the catalog has itself is kept.
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
    return tuple(int(part) for part in text.split(".") if part.isdigit())
