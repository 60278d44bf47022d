"""Compares samples of a store with their sources, by reading and aligning them again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data.builds.blocks import Block, make_samples
from salibi_data.catalog.providers import Catalog, catalog_from_dict, load_catalog
from salibi_data.catalog.search import resolve_catalog
from salibi_data.catalog.variants import Variant, variant_from_dict
from salibi_data.derived.provenance import NO_SOURCES_KEY
from salibi_data.plans.picks import SceneChoice
from salibi_data.plans.plan import scenes_from_dict
from salibi_data.store.errors import UsageError
from salibi_data.store.tiles import TileXYZ

if TYPE_CHECKING:
    from salibi_data.store.open import StoreFiles
    from salibi_data.store.progress import Progress
    from salibi_data.store.schema import StoreAttributes

TOLERANCE_STEPS: Final = 1
"""Largest accepted difference of stored values: another version of GDAL may round a value half-way
between two steps to the other one."""


@dataclass(frozen=True, kw_only=True)
class SourceComparison:
    """Differences between stored samples and the same samples read again."""

    num_samples: int
    max_difference: int
    """Largest difference over all values, in steps of 1/255 of a band's range."""
    mean_difference: float
    """Mean difference over all values, in the same steps."""
    problems: tuple[str, ...]
    """Messages about images with differences above :data:`TOLERANCE_STEPS`."""


def compare_with_sources(
    files: StoreFiles,
    group: Any,
    attributes: StoreAttributes,
    count: int,
    *,
    catalog: str | None = None,
    progress: Progress | None = None,
) -> SourceComparison:
    """Read samples, spread evenly over a store, again from their sources and compare them.

    Args:
        files: store to check.
        group: Zarr group of the store.
        attributes: attributes of the store.
        count: number of samples.
        catalog: name or TOML file of the catalog that locates the sources; default the store's own.
        progress: called with (samples compared, samples in total).

    Raises:
        UsageError: the catalog is not found, or the store does not record its scenes.
        ReadError: a source cannot be read.
    """
    table, metadata = _read_table(files, attributes)
    # Without filters, so that every sample can be read again.
    variant = replace(
        variant_from_dict(metadata["variant"], where=files.where),
        min_valid_fraction=0.0,
        max_cloud_fraction=1.0,
        alignment=None,
    )
    provider = _source_catalog(catalog or attributes.catalog, metadata["catalog"], files.where)
    scenes = scenes_from_dict(metadata["scenes"])
    shares = (np.arange(min(count, len(table))) + 0.5) / min(count, len(table))
    problems, max_difference, mean_differences = [], 0, []
    for num_done, position in enumerate((shares * len(table)).astype(int).tolist(), start=1):
        row = table.slice(position, 1).to_pylist()[0]
        choice = SceneChoice(
            tile=TileXYZ(row["x"], row["y"], row["z"]),
            scenes={
                sensor: tuple(scenes[sensor][item_id] for item_id in row[f"{sensor}_items"])
                for sensor in attributes.sensors
            },
        )
        for name, difference in _differences(group, position, variant, provider, choice):
            max_difference = max(max_difference, int(difference.max()))
            mean_differences.append(float(difference.mean()))
            share = float((difference > TOLERANCE_STEPS).mean())
            if share > 0:
                problems.append(
                    f"{name} of tile {row['z']}/{row['x']}/{row['y']} differs from its source by "
                    f"more than {TOLERANCE_STEPS} of 255 in {share:.2%} of its values"
                )
        if progress is not None:
            progress(num_done, len(shares))
    return SourceComparison(
        num_samples=len(shares),
        max_difference=max_difference,
        mean_difference=float(np.mean(mean_differences)),
        problems=tuple(problems),
    )


def _read_table(files: StoreFiles, attributes: StoreAttributes) -> tuple[Any, dict[str, Any]]:
    """Read tiles and scene ids of all samples, and the metadata that records the scenes."""
    columns = ["z", "x", "y", *(f"{sensor}_items" for sensor in attributes.sensors)]
    table, metadata = files.samples(columns)
    if "scenes" not in metadata:
        default_reason = f"it was not built but made from {attributes.catalog}"
        raise UsageError(
            f"{files.where} has no record of its samples' scenes, as "
            f"{metadata.get(NO_SOURCES_KEY, default_reason)}; verify it without --against-source."
        )
    return table, metadata


def _differences(
    group: Any, position: int, variant: Variant, catalog: Catalog, choice: SceneChoice
) -> list[tuple[str, Any]]:
    """Read one sample again. Return absolute differences by modality, (bands, rows, columns)."""
    # Signed 16 bit: the difference of two uint8 values would wrap around.
    again = make_samples(variant, catalog, Block(positions=(0,), choices=(choice,), digest=""))
    return [
        (name, np.abs(images[0].astype(np.int16) - group[name][position].astype(np.int16)))
        for name, images in again.images.items()
    ]


def _source_catalog(name_or_path: str, stored: Any, where: str) -> Catalog:
    """Return today's catalog with the sensors as the store records them.

    Sources may have moved since, but they must be read by the rules of that time.
    """
    try:
        catalog = resolve_catalog(load_catalog(name_or_path))
    except UsageError as error:
        raise UsageError(
            f"the sources of {where} cannot be found: {error} Name the catalog's TOML file with "
            "--catalog."
        ) from error
    stored_catalog = catalog_from_dict({**stored, "kind": "api"}, where=where, folder=Path())
    return replace(catalog, sensors=stored_catalog.sensors)
