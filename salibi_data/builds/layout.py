"""Rows of a build's store: its samples in order, and the part that each comes from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from salibi_data.assembly.writer import SAMPLES_PER_SHARD

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from salibi_data.builds.blocks import BlockSamples
    from salibi_data.plans.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Row:
    """One sample of the store, and where it comes from."""

    position: int
    """Position in the plan."""
    part: str
    """File name of its block's part."""
    index: int
    """Row within the part."""
    split: int
    valid_fraction: tuple[float, ...]
    cloud_fraction: float
    alignment: Mapping[str, float]
    replaced: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Ids of the scenes that gave the pixels, by sensor, where these are not the planned ones."""


@dataclass(frozen=True, kw_only=True)
class StoreRows:
    """Samples of a store, in order."""

    rows: tuple[Row, ...]

    def shard(self, number: int) -> tuple[Row, ...]:
        """Rows of one shard."""
        return self.rows[number * SAMPLES_PER_SHARD : (number + 1) * SAMPLES_PER_SHARD]

    @property
    def is_replaced(self) -> bool:
        """Whether any sample is made of other scenes than the planned ones."""
        return any(row.replaced for row in self.rows)

    @property
    def digest(self) -> str:
        """Digest of the rows; another row, part or order gives another digest."""
        content = [[row.position, row.part, row.index] for row in self.rows]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]


@dataclass(frozen=True, kw_only=True)
class FinishedBlock:
    """A finished block, without its images."""

    positions: tuple[int, ...]
    """Positions of the block's samples in the plan."""
    part: str
    """File name of the part."""
    samples: BlockSamples


def store_rows(blocks: Iterable[FinishedBlock], plan: Plan) -> StoreRows:
    """List the rows of the store in the plan's order.

    Where the plan has a target, the rows of lowest sampling rank are taken, as many as the target.
    """
    split = plan.table(["split"])["split"].to_numpy()
    rows = [
        Row(
            position=block.positions[position],
            part=block.part,
            index=index,
            split=int(split[block.positions[position]]),
            valid_fraction=tuple(block.samples.valid_fraction[index].tolist()),
            cloud_fraction=float(block.samples.cloud_fraction[index]),
            alignment={
                name: float(values[index]) for name, values in block.samples.alignment.items()
            },
            replaced={
                each.sensor: each.used
                for each in block.samples.replaced
                if each.position == position
            },
        )
        for block in blocks
        for index, position in enumerate(block.samples.positions)
    ]
    if plan.target_samples is not None:
        rows = sorted(rows, key=lambda row: plan.ranks[row.position])[: plan.target_samples]
    return StoreRows(rows=tuple(sorted(rows, key=lambda row: row.position)))
