"""Providers: where scenes are and what their assets mean. TOML in, frozen dataclasses out."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from salibi_data import toml_files
from salibi_data.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

Units = Literal["power", "dB", "reflectance", "display"]
"""Physical units of a source or a modality. ``power`` is linear gamma0, ``display`` is 8-bit."""

CATALOG_KINDS: Final = ("api", "static", "sample")
_FOLDER: Final = "providers"
SIGNINGS: Final = ("none", "planetary-computer")


@dataclass(frozen=True, kw_only=True)
class Band:
    """Where one band of a product is found."""

    asset: str
    index: int = 1
    """Band number in the file, from 1."""


@dataclass(frozen=True, kw_only=True)
class OffsetRule:
    """An offset that a provider's processing baseline decides, never the date."""

    property: str
    at_least: str
    offset: float

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

    def offset_for(self, properties: Mapping[str, Any]) -> float:
        """The offset of an item with these properties."""
        if self.offset_from is not None and self.offset_from.applies(properties):
            return self.offset + self.offset_from.offset
        return self.offset


@dataclass(frozen=True, kw_only=True)
class CloudMask:
    """A categorical asset and the classes that make a pixel unusable."""

    asset: str
    cloudy: tuple[int, ...]


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
    requester_pays: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.group_by, str):
            raise TypeError(f"group_by of {self.name} is a string; give a list of properties")


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

    def __post_init__(self) -> None:
        if self.kind not in CATALOG_KINDS:
            raise ValueError(f"kind is {self.kind!r}; expected one of {', '.join(CATALOG_KINDS)}")
        if self.signing not in SIGNINGS:
            raise ValueError(f"signing is {self.signing!r}; expected one of {', '.join(SIGNINGS)}")

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
    return catalog_from_dict(content, where=str(path), folder=path.parent)


def catalog_from_dict(content: Mapping[str, Any], *, where: str, folder: Path) -> Catalog:
    """A catalog from its TOML's content; a static one's url is relative to ``folder``."""
    try:
        top = {key: value for key, value in content.items() if key != "sensors"}
        sensors = {name: _sensor(name, table) for name, table in content["sensors"].items()}
        catalog = Catalog(sensors=sensors, **top)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UsageError(
            f"{where} is not a catalog: {error}; compare it with the files in catalogs/."
        ) from error
    if catalog.kind != "static":
        return catalog
    return Catalog(sensors=sensors, **{**top, "url": str((folder / catalog.url).resolve())})


def _sensor(name: str, table: Mapping[str, Any]) -> Sensor:
    fields = toml_files.with_tuples(table)
    fields["products"] = {key: _product(value) for key, value in table["products"].items()}
    if fields.get("latest"):
        fields["latest"] = LatestRule(**toml_files.with_tuples(fields["latest"]))
    if fields.get("clouds"):
        fields["clouds"] = CloudMask(**toml_files.with_tuples(fields["clouds"]))
    return Sensor(name=name, **fields)


def _product(table: Mapping[str, Any]) -> Product:
    fields = dict(table)
    fields["bands"] = {key: Band(**value) for key, value in table["bands"].items()}
    if fields.get("offset_from"):
        fields["offset_from"] = OffsetRule(**fields["offset_from"])
    return Product(**fields)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())
