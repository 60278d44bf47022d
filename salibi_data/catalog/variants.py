"""Variants of the dataset, from TOML: modalities, zoom, rules for scenes, regions and splits.

A new modality is a row of a variant's file, not code.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from salibi_data.catalog import toml_files
from salibi_data.catalog.variant_rows import (
    AlignmentPair,
    ModalityRecipe,
    Region,
    SelectionRule,
    check_name,
)
from salibi_data.store.errors import UsageError
from salibi_data.store.schema import INDEX_ARRAYS, Modality, gsd_ratio
from salibi_data.store.validation import check_record, option, read_record, shown

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from salibi_data.catalog.providers import Catalog, Sensor

__all__ = [
    "EXAMPLE",
    "AlignmentPair",
    "ModalityRecipe",
    "Region",
    "SelectionRule",
    "Variant",
    "check_fit",
    "example_variant",
    "load_variant",
    "native_gsd_m",
    "used_assets",
    "variant_from_dict",
    "variant_names",
]

CONVERSIONS: Final = frozenset(
    {("power", "dB"), *((units, units) for units in ("power", "dB", "reflectance", "display"))}
)
"""Possible pairs (units of a product, units of a modality); see
:func:`salibi_data.pixels.radiometry.convert_units`."""

MAX_BASE_ZOOM: Final = 22
EXAMPLE: Final = "micro"
"""Name of the variant with the modalities of the authors' release and the default rule for splits."""
_FOLDER: Final = "variants"
_SECTIONS: Final = {
    "quality": ("min_valid_fraction", "max_cloud_fraction"),
    "split": ("split_by", "split_zoom_offset", "validation_share", "test_share"),
}
"""Fields by the table of a variant's file that contains them."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Definition of a dataset."""

    name: str
    """Name by which users choose the variant."""
    summary: str
    """Description in one sentence."""
    base_zoom: int = field(metadata={"minimum": 0, "maximum": MAX_BASE_ZOOM})
    """Zoom of the tiles that are samples, whose modalities have 256 px at zoom offset 0."""
    modalities: tuple[ModalityRecipe, ...] = field(metadata={"key": "modality"})
    """Image arrays, in the order of the store."""
    selection: tuple[SelectionRule, ...]
    """Rules for choosing scenes, one per sensor, in the order in which sensors are chosen."""
    regions: tuple[Region, ...] = field(default=(), metadata={"key": "region"})
    """Regions with the candidate tiles."""
    alignment: AlignmentPair | None = None
    """Pair of modalities whose misalignment is measured."""
    target_samples: int | None = option(None, minimum=1)
    """Number of samples to aim at; None for all."""
    min_valid_fraction: float = option(1.0, minimum=0, maximum=1)
    """Least share of observed pixels in each modality of a sample."""
    max_cloud_fraction: float = option(0.1, minimum=0, maximum=1)
    """Largest cloudy share of a sample."""
    split_by: Literal["blocks", "scenes"] = "blocks"
    """Unit of the splits; ``scenes``: blocks that share a scene go to the same split."""
    split_zoom_offset: int = 2
    """Zooms between the samples and the parent tiles by which they are split."""
    validation_share: float = option(0.15, minimum=0, maximum=1)
    """Share of the validation split, of the blocks of samples."""
    test_share: float = option(0.1, minimum=0, maximum=1)
    """Share of the test split, of the blocks of samples."""

    def __post_init__(self) -> None:
        check_record(self)
        names = [recipe.name for recipe in self.modalities]
        if not names or len(set(names)) < len(names) or set(names) & set(INDEX_ARRAYS):
            raise ValueError(f"modalities are named {names}; expected names of their own")
        sizes = {recipe.name: recipe.tile_px for recipe in self.modalities}
        if (pair := self.aligned) and sizes[pair.modality] != sizes[pair.reference]:
            px = {name: sizes[name] for name in (pair.modality, pair.reference)}
            raise ValueError(f"alignment names two modalities of {px} px; expected one size")
        check_name("variant", self.name)
        self._check_shares()
        self._check_selection()
        for region in self.regions:
            if region.zoom > self.base_zoom:
                raise ValueError(
                    f"tile of region {region.name!r} is {region.tile}, finer than the base zoom "
                    f"{self.base_zoom}; give a parent tile"
                )

    def _check_shares(self) -> None:
        if not 0 <= self.split_zoom_offset <= self.base_zoom:
            raise ValueError(
                f"split_zoom_offset is {self.split_zoom_offset}; expected 0 to the base zoom "
                f"{self.base_zoom}"
            )
        if self.validation_share + self.test_share >= 1:
            raise ValueError(
                f"validation_share {self.validation_share} and test_share {self.test_share} leave "
                "nothing to train on; their sum must be below 1"
            )

    def _check_selection(self) -> None:
        rows = Counter(rule.sensor for rule in self.selection)
        if set(self.sensors) - set(rows):
            raise ValueError(f"no [[selection]] row for {sorted(set(self.sensors) - set(rows))}")
        if repeated := [sensor for sensor, count in rows.items() if count > 1]:
            raise ValueError(f"several [[selection]] rows for {repeated}; give each sensor one")
        before: set[str] = set()
        for rule in self.selection:
            if rule.near is not None and rule.near not in before:
                problem = (
                    "has no [[selection]] row" if rule.near not in rows else "is chosen after it"
                )
                raise ValueError(
                    f"near of {rule.sensor} is {rule.near!r}, which {problem}; name a sensor of an "
                    "earlier row"
                )
            before.add(rule.sensor)

    @property
    def sensors(self) -> tuple[str, ...]:
        """Sensors in the order of the modalities: the columns of the per-sensor arrays."""
        return tuple(dict.fromkeys(recipe.sensor for recipe in self.modalities))

    @property
    def aligned(self) -> AlignmentPair | None:
        """Pair whose alignment is measured; None where this variant lacks one of the two."""
        names = {recipe.name for recipe in self.modalities}
        pair = self.alignment
        return pair if pair and {pair.modality, pair.reference} <= names else None

    @property
    def bytes_per_sample(self) -> int:
        """Bytes of a sample's images before compression."""
        return sum(len(recipe.bands) * recipe.tile_px**2 for recipe in self.modalities)

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON; :func:`variant_from_dict` is the inverse."""
        content = asdict(self)
        content["modality"] = content.pop("modalities")
        content["region"] = content.pop("regions")
        return content

    def modality(self, recipe: ModalityRecipe, catalog: Catalog) -> Modality:
        """Create the store's description of a modality, without statistics."""
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


def example_variant(base_zoom: int) -> Variant:
    """Return the variant :data:`EXAMPLE` at another base zoom and without regions."""
    example = load_variant(EXAMPLE)
    offset = min(example.split_zoom_offset, base_zoom)
    return replace(example, base_zoom=base_zoom, regions=(), split_zoom_offset=offset)


def variant_names() -> list[str]:
    """Return the names of the variants that come with this software."""
    return toml_files.file_names(_FOLDER, with_key="base_zoom")


def load_variant(name_or_path: str) -> Variant:
    """Load a variant.

    Args:
        name_or_path: name of a built-in variant, or path of a TOML file.

    Raises:
        UsageError: unknown name, unreadable TOML, or a field that is missing or unknown.

    Example:
        >>> variant = salibi_data.load_variant("micro")
        >>> variant.base_zoom, [modality.name for modality in variant.modalities]
        (17, ['sar', 'lores', 'hires', 'hires_4x'])
    """
    path = toml_files.find_file(_FOLDER, name_or_path, what="variant", known=variant_names())
    variant = variant_from_dict(toml_files.load_extended(path, _FOLDER), where=str(path))
    _check_own_alignment(variant, path)
    return variant


def variant_from_dict(content: Mapping[str, Any], *, where: str) -> Variant:
    """Create a variant from the content of its TOML file.

    Args:
        content: parsed content.
        where: name of the file in messages.

    Raises:
        UsageError: a field is missing, unknown, of the wrong type or out of its range.
    """
    try:
        return read_record(Variant, _flatten(content))
    except ValueError as error:
        raise UsageError(
            f"{where} is not a variant: {error}; compare it with the files in catalogs/."
        ) from error


def _flatten(content: Mapping[str, Any]) -> dict[str, Any]:
    """Move the fields of the sections beside the others, as in a plan."""
    flat = {key: value for key, value in content.items() if key not in _SECTIONS}
    for name, keys in _SECTIONS.items():
        section = content.get(name, {})
        if not isinstance(section, dict):
            raise ValueError(f"{name} is {shown(section)}; expected a table")  # noqa: TRY004
        for key, value in section.items():
            if key not in keys:
                raise ValueError(f"{name}.{key} is unknown; expected one of {', '.join(keys)}")
            if key in flat:
                raise ValueError(f"{key} is given under [{name}] and outside of it; give it once")
            flat[key] = value
    return flat


def _check_own_alignment(variant: Variant, path: Path) -> None:
    """Check the pair that the file itself names; an inherited one may lack a modality."""
    names = [recipe.name for recipe in variant.modalities]
    own = toml_files.load(path).get("alignment", {})
    if unknown := [name for name in own.values() if name not in names]:
        raise UsageError(
            f"{path} is not a variant: alignment names {unknown}, and its modalities are "
            f"{', '.join(names)}; name two of these."
        )


def check_fit(variant: Variant, catalog: Catalog) -> None:
    """Check that a catalog has the sensor, product and bands of every modality, in suitable units.

    Raises:
        UsageError: one is missing, or its units cannot be converted.
    """
    for recipe in variant.modalities:
        sensor = catalog.sensors.get(recipe.sensor)
        product = sensor.products.get(recipe.product) if sensor else None
        unknown = set(recipe.bands) - set(product.bands) if product else set(recipe.bands)
        if product is not None and not unknown:
            if (product.units, recipe.units) not in CONVERSIONS:
                raise UsageError(
                    f"modality {recipe.name!r} of variant {variant.name!r} wants {recipe.units} and "
                    f"{recipe.sensor} {recipe.product} of catalog {catalog.name!r} is in "
                    f"{product.units}; give the modality units that can be made of it."
                )
            continue
        prefix = (
            f"catalog {catalog.name!r} cannot give modality {recipe.name!r} of variant "
            f"{variant.name!r}: it has "
        )
        substitute = _substitute(sensor, recipe)
        if substitute is not None:
            raise UsageError(
                f"{prefix}{recipe.sensor} only as {substitute}: no terrain correction, no CRS, "
                "control points only. Take collection sentinel-1-rtc of --catalog "
                f"planetary-computer, or {substitute} as it is with --allow-grd."
            )
        raise UsageError(
            f"{prefix}no {recipe.sensor} {recipe.product} with bands "
            f"{', '.join(sorted(unknown))}. Choose another catalog or variant."
        )


def _substitute(sensor: Sensor | None, recipe: ModalityRecipe) -> str | None:
    """Return the name in capitals of the product that may replace the recipe's, if there is one."""
    products = sensor.products if sensor else {}
    names = (name for name, p in products.items() if p.stands_in_for == recipe.product)
    return next((name.upper() for name in names), None)


def used_assets(variant: Variant, catalog: Catalog, sensor_name: str) -> tuple[str, ...]:
    """Return the asset keys of a sensor that a build opens, the cloud mask's last."""
    sensor = catalog.sensors[sensor_name]
    assets = [
        asset
        for recipe in variant.modalities
        if recipe.sensor == sensor_name
        for asset in sensor.products[recipe.product].assets_of(recipe.bands)
    ]
    if sensor.clouds is not None:
        assets.append(sensor.clouds.asset)
    return tuple(dict.fromkeys(assets))


def native_gsd_m(
    recipe: ModalityRecipe, catalog: Catalog, properties: Mapping[str, Any]
) -> float | None:
    """Return the native pixel in metres of a modality's coarsest band.

    Args:
        recipe: the modality.
        catalog: provider of its product.
        properties: properties of the item.

    Returns:
        None where the catalog does not state it.
    """
    product = catalog.sensors[recipe.sensor].products[recipe.product]
    sizes = [product.native_gsd_m(band, properties) for band in recipe.bands]
    return max((size for size in sizes if size is not None), default=None)
