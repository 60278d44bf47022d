"""Contents of the store of a plan: its attributes, index arrays, table, and shards of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from salibi_data.assembly.shards import StoreContents
from salibi_data.builds.parts import read_part
from salibi_data.builds.samples_table import acquired_columns, rows_of, store_digest, write_samples
from salibi_data.store import __version__
from salibi_data.store.schema import StoreAttributes

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from salibi_data.builds.layout import Row, StoreRows
    from salibi_data.catalog.variants import Variant
    from salibi_data.plans.plan import Plan


@dataclass(frozen=True, kw_only=True)
class PartsShard:
    """Images of one shard, read from the parts of finished blocks."""

    folder: Path
    """Folder of the parts."""
    variant: Variant
    rows: tuple[Row, ...]

    def read(self) -> dict[str, NDArray[np.uint8]]:
        """Read the rows' images per modality, each (rows, bands, size, size)."""
        names = {row.part for row in self.rows}
        parts = {name: read_part(self.folder / name, self.variant) for name in names}
        return {
            recipe.name: np.stack(
                [parts[row.part].images[recipe.name][row.index] for row in self.rows]
            )
            for recipe in self.variant.modalities
        }


def contents_of(plan: Plan, rows: StoreRows, parts_folder: Path) -> StoreContents:
    """Describe the store of a plan, once its blocks are finished."""
    return StoreContents(
        attributes=StoreAttributes(
            variant=plan.variant.name,
            catalog=plan.catalog.name,
            base_zoom=plan.variant.base_zoom,
            sensors=plan.variant.sensors,
            modalities={
                recipe.name: plan.variant.modality(recipe, plan.catalog)
                for recipe in plan.variant.modalities
            },
            plan_digest=store_digest(plan, rows),
            software_version=__version__,
        ),
        index=_index(plan, rows),
        shard=lambda number: PartsShard(
            folder=parts_folder, variant=plan.variant, rows=rows.shard(number)
        ),
        write_samples=lambda path: write_samples(path, plan, rows),
        digest=rows.digest,
    )


def _index(plan: Plan, rows: StoreRows) -> dict[str, Any]:
    """Index arrays of the store, by name."""
    table = rows_of(plan, rows, ["z", "x", "y", "gsd_m", *acquired_columns(plan)])
    return {
        "tile": np.stack([table[name].to_numpy() for name in "zxy"], axis=1),
        "gsd_m": table["gsd_m"].to_numpy(),
        "acquired": np.stack(
            [table[name].to_numpy().astype("datetime64[s]") for name in acquired_columns(plan)],
            axis=1,
        ).astype(np.int64),
        "valid_fraction": np.array([row.valid_fraction for row in rows.rows], np.float32),
        "cloud_fraction": np.array([row.cloud_fraction for row in rows.rows], np.float32),
        "split": np.array([row.split for row in rows.rows], np.uint8),
    }
