"""Make a store of some samples and some modalities of another one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from salibi_data.assembly.shards import make_store
from salibi_data.builds.options import BuildOptions
from salibi_data.derived.derived_store import DerivedStore, check_output_path
from salibi_data.derived.selection import Selection
from salibi_data.derived.source_store import CONNECTIONS, SourceStore
from salibi_data.store.schema import SPLITS

if TYPE_CHECKING:
    from salibi_data.store.progress import Progress


@dataclass(frozen=True, kw_only=True)
class SubsetReport:
    """Content of a subset."""

    store: Path
    """Path of the subset."""
    num_samples: int
    """Samples of the subset."""
    num_in_source: int
    """Samples of the source."""
    splits: Mapping[str, int]
    """Samples of each split."""
    was_complete: bool
    """Whether the subset existed already."""


def subset(
    store: str | Path,
    output: str | Path,
    selection: Selection | None = None,
    *,
    workers: int = BuildOptions.workers,
    connections: int = CONNECTIONS,
    progress: Progress | None = None,
) -> SubsetReport:
    """Make a store of the samples that match, in their order, or continue an interrupted run.

    Splits do not change; statistics are those of the new store's own training pixels. The same
    source and selection give the same bytes.

    Args:
        store: path or URL of a finished store, or of a published dataset; of a remote one the
            index, the table, and the selected images are fetched.
        output: path of the store to make.
        selection: samples and modalities to take; default all.
        workers: processes that read and write.
        connections: runs of samples of a remote store that a process fetches in parallel.
        progress: called with (shards done, shards in all).

    Raises:
        SelectionError: no sample matches.
        UsageError: the store lacks what the selection names, or the output lies in it.
        StoreError: there is no finished store, it cannot be reached, is damaged or replaced
            during the run, or something else is at the output's path.

    Example:
        >>> report = salibi_data.subset(
        ...     store_path, folder / "part.zarr", salibi_data.Selection(modalities=("sar", "lores"), limit=2)
        ... )
        >>> report.num_samples
        2
    """
    selection = selection or Selection()
    output, source = Path(output), SourceStore.open(store)
    check_output_path(output, [source])
    attributes = selection.restrict(source.attributes)
    rows = selection.rows(source.attributes, source.index, source.table(selection.columns))
    split = source.index["split"][rows]
    derived = DerivedStore(
        sources=(source,),
        source=np.zeros(len(rows), np.int64),
        row=rows,
        split=split,
        attributes=attributes,
        operation={"how": "subset", "selection": selection.to_dict()},
        variant={},
        connections=connections,
    )
    is_new = make_store(output, derived.contents(), workers=workers, progress=progress)
    return SubsetReport(
        store=output,
        num_samples=len(rows),
        num_in_source=len(source),
        splits={name: int((split == code).sum()) for name, code in SPLITS.items()},
        was_complete=not is_new,
    )
