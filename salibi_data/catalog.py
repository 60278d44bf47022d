"""Providers and variants: TOML in, frozen dataclasses out.

A provider says where scenes are and what their assets mean; a variant says which modalities a
dataset has, at which zoom, and how scenes are chosen. Both are data: a new one needs no code.
``extends = "other"`` starts from another file of the same folder and overrides what it names.
"""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from salibi_data.errors import UsageError
from salibi_data.schema import TILE_PX, Modality, gsd_ratio

if TYPE_CHECKING:
    from collections.abc import Mapping

Units = Literal["power", "dB", "reflectance", "display"]
"""Physical units of a source or a modality. ``power`` is linear gamma0, ``display`` is 8-bit."""

CATALOG_KINDS: Final = ("api", "static", "sample")


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
    """Properties that all scenes of one sample must share: a year, a pass."""
    require: Mapping[str, Any] = field(default_factory=dict)
    """Property values an item must have; a list means that all its entries are contained."""
    cloud_cover: str | None = None
    """Property with the scene's cloud cover in percent."""
    latest: LatestRule | None = None
    clouds: CloudMask | None = None
    requester_pays: bool = False


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

    def to_dict(self) -> dict[str, Any]:
        """JSON form, which :func:`catalog_from_dict` reads back."""
        content = asdict(self)
        for sensor in content["sensors"].values():
            del sensor["name"]
        return content


@dataclass(frozen=True, kw_only=True)
class SelectionRule:
    """How scenes of one sensor are chosen for a tile."""

    sensor: str
    rank: tuple[Literal["newest", "cloud", "time"], ...]
    near: str | None = None
    """Sensor whose date this one follows."""
    within_days: float | None = None


@dataclass(frozen=True, kw_only=True)
class ModalityRecipe:
    """One image array of a variant, and what it is made from."""

    name: str
    sensor: str
    product: str
    bands: tuple[str, ...]
    units: Units
    zoom_offset: int = 0
    """Zoom of the pixels minus the variant's base zoom."""
    range: tuple[tuple[float, float], ...] = ()
    """Physical (low, high) per band, stored as 1 and 255. Empty for ``display``."""

    @property
    def tile_px(self) -> int:
        """Edge of the image in pixels."""
        return int(TILE_PX * 2**self.zoom_offset)

    @property
    def scale(self) -> tuple[float, ...]:
        """Physical units per stored step, per band."""
        if self.units == "display":
            return (1.0,) * len(self.bands)
        return tuple((high - low) / 254 for low, high in self.range)

    @property
    def offset(self) -> tuple[float, ...]:
        """Physical value of a stored 0, per band (0 itself means nodata)."""
        if self.units == "display":
            return (0.0,) * len(self.bands)
        return tuple(low - (high - low) / 254 for low, high in self.range)


@dataclass(frozen=True, kw_only=True)
class Region:
    """A named parent tile whose children are candidates."""

    name: str
    tile: str
    """``zoom/x/y``."""
    reason: str


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What a dataset is made of."""

    name: str
    summary: str
    base_zoom: int
    modalities: tuple[ModalityRecipe, ...]
    selection: tuple[SelectionRule, ...]
    regions: tuple[Region, ...] = ()
    target_samples: int | None = None
    min_valid_fraction: float = 1.0
    max_cloud_fraction: float = 0.1
    split_zoom_offset: int = 2
    """Samples are split by parent tiles this many zooms above the base zoom."""
    validation_share: float = 0.15
    test_share: float = 0.1

    @property
    def sensors(self) -> tuple[str, ...]:
        """Sensors in the order of the modalities: the columns of the per-sensor arrays."""
        return tuple(dict.fromkeys(recipe.sensor for recipe in self.modalities))

    @property
    def bytes_per_sample(self) -> int:
        """Bytes of a sample's images before compression."""
        return sum(len(recipe.bands) * recipe.tile_px**2 for recipe in self.modalities)

    def to_dict(self) -> dict[str, Any]:
        """JSON form, which :func:`variant_from_dict` reads back."""
        content = asdict(self)
        content["modality"] = content.pop("modalities")
        content["region"] = content.pop("regions")
        return content

    def modality(self, recipe: ModalityRecipe, catalog: Catalog) -> Modality:
        """The store's description of ``recipe``, without statistics."""
        sensor = catalog.sensors[recipe.sensor]
        zoom = self.base_zoom + recipe.zoom_offset
        return Modality(
            name=recipe.name,
            sensor=recipe.sensor,
            zoom=zoom,
            gsd_ratio=gsd_ratio(zoom, self.base_zoom),
            size_px=recipe.tile_px,
            bands=recipe.bands,
            units=recipe.units,
            scale=recipe.scale,
            offset=recipe.offset,
            collection=sensor.collection,
            licence=sensor.licence,
            attribution=sensor.attribution,
        )


def catalogs_folder() -> Path:
    """Folder of the TOML files: in the wheel, or beside the package in a checkout."""
    shipped = Path(__file__).parent / "catalogs"
    return shipped if shipped.is_dir() else Path(__file__).parent.parent / "catalogs"


def catalog_names() -> list[str]:
    """Names of the providers that come with this software."""
    return sorted(path.stem for path in (catalogs_folder() / "providers").glob("*.toml"))


def variant_names() -> list[str]:
    """Names of the variants that come with this software."""
    variants = (catalogs_folder() / "variants").glob("*.toml")
    return sorted(path.stem for path in variants if "base_zoom" in _read_toml(path))


def load_catalog(name_or_path: str) -> Catalog:
    """The provider of that name, or the one a TOML file describes.

    Raises:
        UsageError: unknown name, unreadable TOML, or a field that is missing or unknown.
    """
    path = _find("providers", name_or_path, "catalog", catalog_names())
    return catalog_from_dict(_resolved(path, "providers"), where=str(path), folder=path.parent)


def load_variant(name_or_path: str) -> Variant:
    """The variant of that name, or the one a TOML file describes.

    Raises:
        UsageError: unknown name, unreadable TOML, or a field that is missing or unknown.
    """
    path = _find("variants", name_or_path, "variant", variant_names())
    return variant_from_dict(_resolved(path, "variants"), where=str(path))


def catalog_from_dict(content: Mapping[str, Any], *, where: str, folder: Path) -> Catalog:
    """A catalog from its TOML's content; a static one's url is relative to ``folder``."""
    try:
        top = {key: value for key, value in content.items() if key != "sensors"}
        sensors = {name: _sensor(name, table) for name, table in content["sensors"].items()}
        catalog = Catalog(sensors=sensors, **top)
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{where} is not a catalog: {error}; compare it with {_EXAMPLE}."
        ) from error
    if catalog.kind not in CATALOG_KINDS:
        raise UsageError(f"{where}: kind is {catalog.kind!r}; expected one of {CATALOG_KINDS}.")
    if catalog.kind != "static":
        return catalog
    return Catalog(sensors=sensors, **{**top, "url": str((folder / catalog.url).resolve())})


def variant_from_dict(content: Mapping[str, Any], *, where: str) -> Variant:
    """A variant from its TOML's content."""
    try:
        top = dict(content)
        quality = {**top.pop("quality", {}), **top.pop("split", {})}
        variant = Variant(
            modalities=tuple(_modality(row) for row in top.pop("modality")),
            selection=tuple(SelectionRule(**_tuples(row)) for row in top.pop("selection")),
            regions=tuple(Region(**row) for row in top.pop("region", ())),
            **top,
            **quality,
        )
    except (KeyError, TypeError) as error:
        raise UsageError(
            f"{where} is not a variant: {error}; compare it with {_EXAMPLE}."
        ) from error
    unchosen = set(variant.sensors) - {rule.sensor for rule in variant.selection}
    if unchosen:
        raise UsageError(f"{where}: no [[selection]] row for {sorted(unchosen)}; add one for each.")
    return variant


_EXAMPLE: Final = "the files in catalogs/"


def _sensor(name: str, table: Mapping[str, Any]) -> Sensor:
    fields = _tuples(table)
    fields["products"] = {key: _product(value) for key, value in table["products"].items()}
    if fields.get("latest"):
        fields["latest"] = LatestRule(**_tuples(fields["latest"]))
    if fields.get("clouds"):
        fields["clouds"] = CloudMask(**_tuples(fields["clouds"]))
    return Sensor(name=name, **fields)


def _product(table: Mapping[str, Any]) -> Product:
    fields = dict(table)
    fields["bands"] = {key: Band(**value) for key, value in table["bands"].items()}
    if fields.get("offset_from"):
        fields["offset_from"] = OffsetRule(**fields["offset_from"])
    return Product(**fields)


def _modality(row: Mapping[str, Any]) -> ModalityRecipe:
    fields = _tuples(row)
    fields["range"] = tuple((float(low), float(high)) for low, high in row.get("range", ()))
    recipe = ModalityRecipe(**fields)
    if recipe.units != "display" and len(recipe.range) != len(recipe.bands):
        raise TypeError(
            f"modality {recipe.name!r} in {recipe.units} needs a range per band: "
            f"{len(recipe.bands)} bands, {len(recipe.range)} ranges"
        )
    return recipe


def _tuples(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}


def _find(folder: str, name_or_path: str, what: str, known: list[str]) -> Path:
    path = Path(name_or_path)
    if path.suffix == ".toml":
        if not path.is_file():
            raise UsageError(f"no {what} file at {name_or_path}; give the path of a TOML file.")
        return path
    if name_or_path not in known:
        raise UsageError(
            f"unknown {what} {name_or_path!r}; known are {', '.join(known)}, "
            "or give the path of a TOML file."
        )
    return catalogs_folder() / folder / f"{name_or_path}.toml"


def _resolved(path: Path, folder: str) -> dict[str, Any]:
    content = _read_toml(path)
    base = content.pop("extends", None)
    if base is None:
        return content
    beside = path.parent / f"{base}.toml"
    parent = beside if beside.is_file() else catalogs_folder() / folder / f"{base}.toml"
    if not parent.is_file():
        raise UsageError(f"{path} extends {base!r}, which is neither beside it nor built in.")
    return _merged(_resolved(parent, folder), content)


def _merged(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both_tables = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both_tables else value
    return merged


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}.") from error


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())
