"""Contents of the store of a plan: its attributes, index arrays, table, and shards of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from salibi_data.assembly.shards import StoreContents
from salibi_data.builds.parts import read_part
from salibi_data.builds.samples_table import acquired_columns, rows_of, write_samples
from salibi_data.store import __version__
from salibi_data.store.schema import StoreAttributes

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from salibi_data.builds.layout import Layout, Row
    from salibi_data.catalog.variants import Variant
    from salibi_data.plans.plan import Plan


@dataclass(frozen=True, kw_only=True)
class PartsShard:
    """The images of one shard, as finished blocks hold them."""

    folder: Path
    """Where the parts are."""
    variant: Variant
    rows: tuple[Row, ...]

    def read(self) -> dict[str, NDArray[np.uint8]]:
        """Per modality the rows' images, (n, bands, size, size)."""
        names = {row.part for row in self.rows}
        parts = {name: read_part(self.folder / name, self.variant) for name in names}
        return {
            recipe.name: np.stack(
                [parts[row.part].images[recipe.name][row.index] for row in self.rows]
            )
            for recipe in self.variant.modalities
        }


def contents_of(plan: Plan, layout: Layout, parts_folder: Path) -> StoreContents:
    """What the store of a plan holds, once its blocks are made."""
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
            plan_digest=plan.digest,
            software_version=__version__,
        ),
        index=_index(plan, layout),
        shard=lambda number: PartsShard(
            folder=parts_folder, variant=plan.variant, rows=layout.shard(number)
        ),
        write_samples=lambda path: write_samples(path, plan, layout),
        digest=layout.digest,
    )


def _index(plan: Plan, layout: Layout) -> dict[str, Any]:
    table = rows_of(plan, layout, ["z", "x", "y", "gsd_m", *acquired_columns(plan)])
    return {
        "tile": np.stack([table[name].to_numpy() for name in "zxy"], axis=1),
        "gsd_m": table["gsd_m"].to_numpy(),
        "acquired": np.stack(
            [table[name].to_numpy().astype("datetime64[s]") for name in acquired_columns(plan)],
            axis=1,
        ).astype(np.int64),
        "valid_fraction": np.array([row.valid_fraction for row in layout.rows], np.float32),
        "cloud_fraction": np.array([row.cloud_fraction for row in layout.rows], np.float32),
        "split": np.array([row.split for row in layout.rows], np.uint8),
    }
