"""A part of a store as a store of its own: samples that match, and a choice of modalities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from salibi_data.assembly.shards import make_store
from salibi_data.derived.derived_store import DerivedStore, check_output_path
from salibi_data.derived.selection import Selection
from salibi_data.derived.source_store import CONNECTIONS, SourceStore
from salibi_data.store.schema import SPLITS

if TYPE_CHECKING:
    from salibi_data.store.progress import Progress


@dataclass(frozen=True, kw_only=True)
class SubsetReport:
    """What a subset holds."""

    store: Path
    num_samples: int
    num_in_source: int
    """Samples of the store it is a part of."""
    splits: Mapping[str, int]
    was_complete: bool
    """Whether it was there already."""


def subset(
    store: str | Path,
    output: str | Path,
    selection: Selection | None = None,
    *,
    workers: int = 1,
    connections: int = CONNECTIONS,
    progress: Progress | None = None,
) -> SubsetReport:
    """Make a store of the samples that match, in their order, or go on where it was stopped.

    Splits stay as they are; statistics are those of the new store's own training pixels. The same
    source and selection give the same bytes.

    Args:
        store: path or URL of a finished store, or of a published dataset; of one in a bucket the
            index, the table, and the images wanted are fetched.
        output: path of the one to make.
        selection: what to take; default all of it.
        workers: processes that read and write.
        connections: runs of samples of a store in a bucket that a process fetches at a time.
        progress: called with (shards done, shards in all).

    Raises:
        SelectionError: no sample matches.
        UsageError: the store lacks what is asked for, or the output lies in it.
        StoreError: there is no finished store, it cannot be reached, is damaged or replaced
            meanwhile, or something else is at the output's path.

    Example:
        >>> report = salibi_data.subset(
        ...     store_path, folder / "part.zarr", salibi_data.Selection(modalities=("sar", "lores"), limit=2)
        ... )
        >>> report.num_samples
        2
    """
    wanted = selection or Selection()
    output, source = Path(output), SourceStore.open(store)
    check_output_path(output, [source])
    attributes = wanted.narrowed(source.attributes)
    rows = wanted.rows(source.attributes, source.index, source.table(wanted.columns))
    split = source.index["split"][rows]
    made = DerivedStore(
        sources=(source,),
        source=np.zeros(len(rows), np.int64),
        row=rows,
        split=split,
        attributes=attributes,
        asked={"how": "subset", "selection": wanted.to_dict()},
        variant={},
        connections=connections,
    )
    new = make_store(output, made.contents(), workers=workers, progress=progress)
    return SubsetReport(
        store=output,
        num_samples=len(rows),
        num_in_source=len(source),
        splits={name: int((split == code).sum()) for name, code in SPLITS.items()},
        was_complete=not new,
    )
