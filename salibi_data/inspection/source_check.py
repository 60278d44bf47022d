"""Samples of a store, read again from their sources and compared: does it hold what they hold?"""

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
"""Stored values may differ by so much: a value half way between two steps may be rounded to the other
by another version of GDAL."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How samples read again differ from those in the store."""

    num_samples: int
    max_difference: int
    """In stored steps of 1/255 of a band's range, over all pixels of all bands."""
    mean_difference: float
    problems: tuple[str, ...]
    """Modalities of samples that differ by more than :data:`TOLERANCE_STEPS` anywhere."""


def compare_with_sources(
    files: StoreFiles,
    group: Any,
    attributes: StoreAttributes,
    count: int,
    *,
    catalog: str | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Read ``count`` samples, spread evenly over the store, again from their sources.

    Args:
        files: of the store.
        group: its Zarr group.
        attributes: what it says of itself.
        count: how many samples.
        catalog: name or TOML file that says where the sources are; default the store's own name.
        progress: called with (samples done, samples in all).

    Raises:
        UsageError: the catalog is not known by the store's name for it, or the scenes are not.
        ReadError: a source cannot be read.
    """
    columns = ["z", "x", "y", *(f"{sensor}_items" for sensor in attributes.sensors)]
    table, kept = files.samples(columns)
    if "scenes" not in kept:
        told = f"it was not built but made from {attributes.catalog}"
        raise UsageError(
            f"{files.where} does not know the scenes its samples are from, as "
            f"{kept.get(NO_SOURCES_KEY, told)}; verify it without --against-source."
        )
    variant = replace(
        variant_from_dict(kept["variant"], where=files.where),
        min_valid_fraction=0.0,
        max_cloud_fraction=1.0,
        alignment=None,
    )
    provider = _provider(catalog or attributes.catalog, kept["catalog"], files.where)
    scenes = scenes_from_dict(kept["scenes"])
    shares = (np.arange(min(count, len(table))) + 0.5) / min(count, len(table))
    problems, largest, means = [], 0, []
    for done, position in enumerate((shares * len(table)).astype(int).tolist(), start=1):
        row = table.slice(position, 1).to_pylist()[0]
        choice = SceneChoice(
            tile=TileXYZ(row["x"], row["y"], row["z"]),
            scenes={
                sensor: tuple(scenes[sensor][id_] for id_ in row[f"{sensor}_items"])
                for sensor in attributes.sensors
            },
        )
        for name, difference in _differences(group, position, variant, provider, choice):
            largest = max(largest, int(difference.max()))
            means.append(float(difference.mean()))
            share = float((difference > TOLERANCE_STEPS).mean())
            if share > 0:
                problems.append(
                    f"{name} of tile {row['z']}/{row['x']}/{row['y']} differs from its source by "
                    f"more than {TOLERANCE_STEPS} of 255 in {share:.2%} of its values"
                )
        if progress is not None:
            progress(done, len(shares))
    return Comparison(
        num_samples=len(shares),
        max_difference=largest,
        mean_difference=float(np.mean(means)),
        problems=tuple(problems),
    )


def _differences(
    group: Any, position: int, variant: Variant, catalog: Catalog, choice: SceneChoice
) -> list[tuple[str, Any]]:
    again = make_samples(variant, catalog, Block(positions=(0,), choices=(choice,), digest=""))
    return [
        (name, np.abs(images[0].astype(np.int16) - group[name][position].astype(np.int16)))
        for name, images in again.images.items()
    ]


def _provider(name_or_path: str, kept: Any, where: str) -> Catalog:
    """Where the sources are now, with the rules by which they were read."""
    try:
        found = resolve_catalog(load_catalog(name_or_path))
    except UsageError as error:
        raise UsageError(
            f"the sources of {where} cannot be found: {error} Name the catalog's TOML file with "
            "--catalog."
        ) from error
    rules = catalog_from_dict({**kept, "kind": "api"}, where=where, folder=Path())
    return replace(found, sensors=rules.sensors)
