"""Which samples a build's store has, in order, and where each of them was made."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from salibi_data.assembly.writer import SAMPLES_PER_SHARD

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from salibi_data.builds.blocks import Samples
    from salibi_data.plans.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Row:
    """Where one sample of the store comes from."""

    position: int
    """In the plan."""
    part: str
    """File name of its block's part."""
    index: int
    """Row within the part."""
    split: int
    valid_fraction: tuple[float, ...]
    cloud_fraction: float
    alignment: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The samples of a store, in order."""

    rows: tuple[Row, ...]

    def shard(self, number: int) -> tuple[Row, ...]:
        """The rows of one shard."""
        return self.rows[number * SAMPLES_PER_SHARD : (number + 1) * SAMPLES_PER_SHARD]

    @property
    def digest(self) -> str:
        """Changes whenever any sample does."""
        content = [[row.position, row.part, row.index] for row in self.rows]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]


@dataclass(frozen=True, kw_only=True)
class Part:
    """A finished block, without its images."""

    positions: tuple[int, ...]
    """Of the block's samples in the plan."""
    name: str
    """Of its file."""
    samples: Samples


def layout_of(parts: Iterable[Part], plan: Plan) -> Layout:
    """The store's rows, in the plan's order: as many as it aims at, by lot, or all there are."""
    split = plan.table(["split"])["split"].to_numpy()
    rows = [
        Row(
            position=part.positions[position],
            part=part.name,
            index=index,
            split=int(split[part.positions[position]]),
            valid_fraction=tuple(part.samples.valid_fraction[index].tolist()),
            cloud_fraction=float(part.samples.cloud_fraction[index]),
            alignment={key: float(found[index]) for key, found in part.samples.alignment.items()},
        )
        for part in parts
        for index, position in enumerate(part.samples.positions)
    ]
    if plan.target_samples is not None:
        rows = sorted(rows, key=lambda row: plan.ranks[row.position])[: plan.target_samples]
    return Layout(rows=tuple(sorted(rows, key=lambda row: row.position)))
