"""Writes embeddings as a GeoParquet table: one row per image, with its outline and its vector."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import zarr

from salibi_data.store.geoparquet import BOX_CORNERS, geo_metadata, write_groups
from salibi_model.embeddings.inputs import EmbeddingInput
from salibi_model.embeddings.writer import ATTRIBUTES_KEY, INDEX, read_bounds

_ROWS_PER_GROUP: Final = 4096

_HALF_TURN: Final = 180.0


def write_table(
    path: Path,
    group: zarr.Group,
    sources: Mapping[str, Sequence[EmbeddingInput]],
    attributes: Mapping[str, Any],
) -> None:
    """Write the table of all modalities' rows atomically, one row group after the other.

    Args:
        path: path of the table.
        group: Zarr group with a group per modality, see :mod:`salibi_model.embeddings.writer`.
        sources: inputs of each modality.
        attributes: entries of the file's metadata, as JSON under the key of the Zarr attributes.
    """
    header = {
        "geo": _geo(group, sources),
        ATTRIBUTES_KEY: json.dumps(attributes, sort_keys=True),
    }
    with write_groups(path, header) as add_rows:
        for modality, inputs in sources.items():
            for columns, outlines in _runs(group[modality], modality, inputs):
                add_rows(columns, outlines)


def _runs(
    group: Any, modality: str, sources: Sequence[EmbeddingInput]
) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Yield columns and outlines of a modality's rows, a row group at a time."""
    by_number = {source.number: source for source in sources}
    for first in range(0, group["embedding"].shape[0], _ROWS_PER_GROUP):
        rows = slice(first, first + _ROWS_PER_GROUP)
        index = {name: group[name][rows] for name in INDEX}
        vectors = group["embedding"][rows]
        outlines = np.full(len(vectors), None, dtype=object)
        ids = np.empty(len(vectors), dtype=object)
        for number in np.unique(index["source"]).tolist():
            source = by_number[number]
            positions = np.flatnonzero(index["source"] == number)
            items = index["item"][positions].tolist()
            outlines[positions] = source.outlines(items)
            ids[positions] = [source.identity(item) for item in items]
        names = [by_number[number].name for number in index["source"].tolist()]
        yield _columns(modality, first, index, vectors, ids.tolist(), names), outlines


def _columns(
    modality: str,
    first: int,
    index: Mapping[str, np.ndarray],
    vectors: np.ndarray,
    ids: list[str],
    names: list[str],
) -> dict[str, Any]:
    known = ~np.isnan(index["bounds"][:, 0])
    corners = [pa.array(values, mask=~known) for values in index["bounds"].T]
    flat = pa.array(vectors.reshape(-1), pa.float32())
    return {
        "id": pa.array(ids),
        "modality": pa.array([modality] * len(ids)),
        "row": pa.array(np.arange(first, first + len(ids), dtype=np.int64)),
        "source": pa.array(names),
        "item": pa.array(index["item"]),
        **{
            name: pa.array(index["window"][:, column])
            for column, name in enumerate(
                ("window_row", "window_col", "window_rows", "window_cols")
            )
        },
        "gsd_m": pa.array(index["gsd_m"], from_pandas=True),
        "valid_fraction": pa.array(index["valid_fraction"]),
        "bbox": pa.StructArray.from_arrays(corners, names=BOX_CORNERS, mask=pa.array(~known)),
        "embedding": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
    }


def _geo(group: zarr.Group, modalities: Iterable[str]) -> str:
    """Return the metadata of the column ``geometry``, from the bounds of all rows."""
    bounds = np.concatenate([read_bounds(group, name) for name in modalities])
    known = bounds[~np.isnan(bounds[:, 0])]
    if not len(known):
        return geo_metadata([], None, covering="bbox")
    # An outline that spans all longitudes was cut at the antimeridian.
    is_cut = ((known[:, 0] == -_HALF_TURN) & (known[:, 2] == _HALF_TURN)).any()
    return geo_metadata(
        ["MultiPolygon", "Polygon"] if is_cut else ["Polygon"],
        [*known[:, :2].min(axis=0).tolist(), *known[:, 2:].max(axis=0).tolist()],
        covering="bbox",
    )
