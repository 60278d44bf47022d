"""Parts: finished blocks on disk, one Arrow file each, whole or absent.

A store is dense, so a sample's row is known only when every block before it has been filtered.
Parts keep the blocks until then; a build that was killed finds them again by their digests.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from salibi_data.builds.blocks import ALIGNMENT_COLUMNS, BlockSamples
from salibi_data.builds.filling.replacing import Replacement
from salibi_data.store.errors import StoreError
from salibi_data.store.filesystem import write_atomically

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from salibi_data.catalog.variants import Variant


def write_part(path: Path, samples: BlockSamples) -> None:
    """Write the samples of a block with their checksums; the file appears whole or not at all."""
    import pyarrow as pa
    from pyarrow import feather

    columns: dict[str, Any] = {"position": pa.array(samples.positions, pa.int64())}
    for name, images in samples.images.items():
        columns[name] = _binary(images)
    columns["valid_fraction"] = _binary(samples.valid_fraction)
    columns["cloud_fraction"] = pa.array(samples.cloud_fraction, pa.float32())
    columns.update((name, pa.array(values)) for name, values in samples.alignment.items())
    metadata = {
        "block": path.stem,
        "sha256": _checksums(samples),
        "dropped": dict(samples.dropped),
        "warnings": list(samples.warnings),
        "replaced": [asdict(each) for each in samples.replaced],
        "left_out": dict(samples.left_out),
    }
    table = pa.table(columns).replace_schema_metadata({"about": json.dumps(metadata)})
    with write_atomically(path) as partial:
        feather.write_feather(table, str(partial), compression="lz4")


def read_part(path: Path, variant: Variant, *, images: bool = True) -> BlockSamples:
    """Read a part, with or without its images.

    Raises:
        StoreError: the file is missing or damaged; a damaged file is removed, to be made again.
    """
    import pyarrow as pa

    try:
        return _read(path, variant, images=images)
    except (pa.ArrowException, OSError, LookupError, TypeError, ValueError) as error:
        path.unlink(missing_ok=True)
        raise StoreError(
            f"{path.name}, a finished block, was damaged and is removed ({error}). Run the same "
            "command again to make it again."
        ) from error


def _read(path: Path, variant: Variant, *, images: bool) -> BlockSamples:
    from pyarrow import feather

    recipes = variant.modalities if images else ()
    aligned = ALIGNMENT_COLUMNS if variant.aligned is not None else ()
    index = ["position", "valid_fraction", "cloud_fraction", *aligned]
    names = [*index, *(recipe.name for recipe in recipes)]
    table = feather.read_table(str(path), columns=names, memory_map=False)
    count, metadata = len(table), json.loads(table.schema.metadata[b"about"])
    samples = BlockSamples(
        positions=tuple(table["position"].to_pylist()),
        images={
            recipe.name: _array(
                table[recipe.name],
                np.uint8,
                (count, len(recipe.bands), recipe.tile_px, recipe.tile_px),
            )
            for recipe in recipes
        },
        valid_fraction=_array(table["valid_fraction"], np.float32, (count, len(variant.sensors))),
        cloud_fraction=table["cloud_fraction"].to_numpy(),
        alignment={name: table[name].to_numpy() for name in aligned},
        dropped=metadata["dropped"],
        warnings=tuple(metadata["warnings"]),
        replaced=tuple(
            Replacement(**{**row, "planned": tuple(row["planned"]), "used": tuple(row["used"])})
            for row in metadata.get("replaced", ())
        ),
        left_out=metadata.get("left_out", {}),
    )
    if metadata["block"] != path.stem:
        raise ValueError(f"it holds block {metadata['block']}")
    for name, checksum in _checksums(samples).items():
        if metadata["sha256"][name] != checksum:
            raise ValueError(f"{name} differs from its checksum")
    return samples


def _checksums(samples: BlockSamples) -> dict[str, str]:
    """SHA-256 of each modality's pixels, and of all other columns together."""
    index = hashlib.sha256(np.array(samples.positions, "<i8").tobytes())
    for array in (samples.valid_fraction, samples.cloud_fraction, *samples.alignment.values()):
        index.update(np.ascontiguousarray(array).tobytes())
    if samples.replaced:
        index.update(json.dumps([asdict(each) for each in samples.replaced]).encode())
    pixels = {
        name: hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()
        for name, images in samples.images.items()
    }
    return {"index": index.hexdigest(), **pixels}


def _binary(array: NDArray[Any]) -> Any:
    """Arrow array with one fixed-size binary value per row."""
    import pyarrow as pa

    rows = np.ascontiguousarray(array)
    width = rows.dtype.itemsize * int(np.prod(rows.shape[1:]))
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(width), len(rows), [None, pa.py_buffer(rows)]
    )


def _array(column: Any, dtype: Any, shape: Sequence[int]) -> NDArray[Any]:
    """Array of :func:`_binary`'s values: its inverse."""
    if shape[0] == 0:
        return np.empty(tuple(shape), dtype)
    chunk = column.combine_chunks()
    values = np.frombuffer(chunk.buffers()[1], dtype=dtype)
    width = int(np.prod(shape[1:]))
    return values[chunk.offset * width :][: shape[0] * width].reshape(tuple(shape))
