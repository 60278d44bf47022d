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
from salibi_data.schema import INDEX_ARRAYS, TILE_PX, Modality, gsd_ratio

if TYPE_CHECKING:
    from collections.abc import Mapping

Units = Literal["power", "dB", "reflectance", "display"]
"""Physical units of a source or a modality. ``power`` is linear gamma0, ``display`` is 8-bit."""

CATALOG_KINDS: Final = ("api", "static", "sample")
SIGNINGS: Final = ("none", "planetary-computer")
RANKS: Final = ("newest", "cloud", "time")
MAX_BASE_ZOOM: Final = 22
MAX_ZOOM_OFFSET: Final = 4
"""A modality of 4096 px a sample; beyond it blocks would not fit in memory."""


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


@dataclass(frozen=True, kw_only=True)
class SelectionRule:
    """How scenes of one sensor are chosen for a tile."""

    sensor: str
    rank: tuple[Literal["newest", "cloud", "time"], ...]
    near: str | None = None
    """Sensor whose date this one follows."""
    within_days: float | None = None

    def __post_init__(self) -> None:
        unknown = set(self.rank) - set(RANKS)
        if unknown or not self.rank:
            raise ValueError(f"rank of {self.sensor} is {self.rank}; expected some of {RANKS}")


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

    def __post_init__(self) -> None:
        if not (isinstance(self.zoom_offset, int) and 0 <= self.zoom_offset <= MAX_ZOOM_OFFSET):
            raise ValueError(
                f"zoom_offset of {self.name} is {self.zoom_offset}; expected 0..{MAX_ZOOM_OFFSET}"
            )
        if not self.bands or isinstance(self.bands, str):
            raise ValueError(f"bands of {self.name} is {self.bands!r}; expected a list of names")
        if self.units != "display" and len(self.range) != len(self.bands):
            raise ValueError(
                f"modality {self.name!r} in {self.units} needs a range per band: "
                f"{len(self.bands)} bands, {len(self.range)} ranges"
            )
        if any(low >= high for low, high in self.range):
            raise ValueError(f"a range of {self.name} is not (low, high): {self.range}")

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

    def __post_init__(self) -> None:
        names = [recipe.name for recipe in self.modalities]
        if not names or len(set(names)) < len(names) or set(names) & set(INDEX_ARRAYS):
            raise ValueError(f"modalities are named {names}; expected names of their own")
        if not (isinstance(self.base_zoom, int) and 0 <= self.base_zoom <= MAX_BASE_ZOOM):
            raise ValueError(f"base_zoom is {self.base_zoom!r}; expected 0..{MAX_BASE_ZOOM}")
        if not 0 <= self.split_zoom_offset <= self.base_zoom:
            raise ValueError(f"split_zoom_offset {self.split_zoom_offset} leaves no zoom")
        chosen = {rule.sensor for rule in self.selection}
        if set(self.sensors) - chosen:
            raise ValueError(f"no [[selection]] row for {sorted(set(self.sensors) - chosen)}")
        strangers = {rule.near for rule in self.selection if rule.near} - chosen
        if strangers:
            raise ValueError(f"near names {sorted(strangers)}, for which there is no selection")
        if any(len(region.tile.split("/")) != len("zxy") for region in self.regions):
            raise ValueError("a region's tile is not zoom/column/row")

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
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UsageError(
            f"{where} is not a catalog: {error}; compare it with {_EXAMPLE}."
        ) from error
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
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UsageError(
            f"{where} is not a variant: {error}; compare it with {_EXAMPLE}."
        ) from error
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
    return ModalityRecipe(**fields)


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
    if not parent.is_file() or parent.resolve() == path.resolve():
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
