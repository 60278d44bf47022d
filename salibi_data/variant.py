"""Variants: which modalities a dataset has, at which zoom, and how its scenes are chosen.

A modality is a row of a variant's TOML file, not code.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from salibi_data import toml_files
from salibi_data.errors import UsageError
from salibi_data.schema import INDEX_ARRAYS, TILE_PX, Modality, gsd_ratio

if TYPE_CHECKING:
    from collections.abc import Mapping

    from salibi_data.catalog import Catalog, Units

RANKS: Final = ("newest", "cloud", "time")
MAX_BASE_ZOOM: Final = 22
MAX_ZOOM_OFFSET: Final = 4
"""A modality of 4096 px a sample; beyond it blocks would not fit in memory."""

_FOLDER: Final = "variants"


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


def variant_names() -> list[str]:
    """Names of the variants that come with this software."""
    return toml_files.names(_FOLDER, with_key="base_zoom")


def load_variant(name_or_path: str) -> Variant:
    """The variant of that name, or the one a TOML file describes.

    Raises:
        UsageError: unknown name, unreadable TOML, or a field that is missing or unknown.
    """
    path = toml_files.find(_FOLDER, name_or_path, what="variant", known=variant_names())
    return variant_from_dict(toml_files.resolved(path, _FOLDER), where=str(path))


def variant_from_dict(content: Mapping[str, Any], *, where: str) -> Variant:
    """A variant from its TOML's content."""
    try:
        top = dict(content)
        quality = {**top.pop("quality", {}), **top.pop("split", {})}
        variant = Variant(
            modalities=tuple(_modality(row) for row in top.pop("modality")),
            selection=tuple(
                SelectionRule(**toml_files.with_tuples(row)) for row in top.pop("selection")
            ),
            regions=tuple(Region(**row) for row in top.pop("region", ())),
            **top,
            **quality,
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UsageError(
            f"{where} is not a variant: {error}; compare it with the files in catalogs/."
        ) from error
    return variant


def check_fit(variant: Variant, catalog: Catalog) -> None:
    """Every modality's sensor, product and bands are in the catalog.

    Raises:
        UsageError: one is not.
    """
    for recipe in variant.modalities:
        sensor = catalog.sensors.get(recipe.sensor)
        product = sensor.products.get(recipe.product) if sensor else None
        unknown = set(recipe.bands) - set(product.bands) if product else set(recipe.bands)
        if unknown:
            raise UsageError(
                f"catalog {catalog.name!r} cannot give modality {recipe.name!r} of variant "
                f"{variant.name!r}: it has no {recipe.sensor} {recipe.product} with bands "
                f"{', '.join(sorted(unknown))}. Choose another catalog or variant."
            )


def used_assets(variant: Variant, catalog: Catalog, sensor_name: str) -> tuple[str, ...]:
    """Asset keys of a sensor that a build opens, the cloud mask's last."""
    sensor = catalog.sensors[sensor_name]
    recipes = [recipe for recipe in variant.modalities if recipe.sensor == sensor_name]
    assets = [
        sensor.products[recipe.product].bands[band].asset
        for recipe in recipes
        for band in recipe.bands
    ]
    if sensor.clouds is not None:
        assets.append(sensor.clouds.asset)
    return tuple(dict.fromkeys(assets))


def _modality(row: Mapping[str, Any]) -> ModalityRecipe:
    fields = toml_files.with_tuples(row)
    fields["range"] = tuple((float(low), float(high)) for low, high in row.get("range", ()))
    return ModalityRecipe(**fields)
