"""Writes embeddings to a Zarr group per modality, part by part, so that a run can resume.

The group is built in ``E.building`` and renamed to ``E`` when it is complete. A part is a run of
rows; ``progress.json`` is written after each, so that a run that was killed resumes after its last
complete part. Parts, and the batches within them, start at the same rows in every run, since the
last bits of an embedding depend on its batch.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import zarr
from jaxtyping import Float32

from salibi_data.store.errors import StoreError, UsageError
from salibi_data.store.filesystem import remove_partials, write_atomically
from salibi_data.store.validation import read_record
from salibi_model.embeddings.inputs import InputImage

ATTRIBUTES_KEY: Final = "salibi_embedding"
"""Key of the attributes, of the group and of each modality's group, that hold the provenance."""

TABLE_NAME: Final = "embeddings.parquet"

_PART_BYTES: Final = 2**26
"""Largest size of the embeddings and tokens of a part."""
_PART_ROWS: Final = 256
"""Largest number of rows of a part."""

_INDEX_ROWS: Final = 2**14
"""Rows in a chunk of the arrays of :data:`INDEX`."""

INDEX: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "source": ("int32", ()),
    "item": ("int64", ()),
    "window": ("int32", ("row_col_rows_cols",)),
    "bounds": ("float64", ("west_south_east_north",)),
    "gsd_m": ("float32", ()),
    "valid_fraction": ("float32", ()),
}
"""Arrays of one row per image, named as the fields of :class:`InputImage`: dtype, dimensions after
the first."""

Vectors = Float32[np.ndarray, "rows dim"]
Tokens = Float32[np.ndarray, "rows tokens dim"]


@dataclass(frozen=True, kw_only=True)
class ModalityProgress:
    """Progress of one modality."""

    images: int = 0
    """Number of images read, empty ones included."""
    rows: int = 0
    """Number of rows written."""
    complete: bool = False
    """Whether all rows are written, and the arrays cut to them."""


def rows_per_part(dim: int, num_tokens: int) -> int:
    """Return the number of rows of a part: a power of two, so that batches divide it."""
    fitting = _PART_BYTES // (4 * dim * (1 + num_tokens))
    return 1 << max(0, min(_PART_ROWS, fitting).bit_length() - 1)


class EmbeddingFolder:
    """The folder of complete embeddings, and the one that they are built in.

    Raises:
        UsageError: one of the folders holds other embeddings.
        StoreError: the unfinished embeddings are damaged.
    """

    def __init__(self, out: Path, identity: Mapping[str, Any]) -> None:
        self.out = out
        self.building = out.with_name(f"{out.name}.building")
        # As JSON reads it back: tuples become lists, and both sides compare equal.
        self._identity = json.loads(json.dumps(identity))
        self._state = self.building / "progress.json"
        self._progress: dict[str, ModalityProgress] = {}
        if out.exists():
            self._check_complete()
        elif self._state.exists():
            self._resume()

    @property
    def is_complete(self) -> bool:
        """Whether the embeddings are complete."""
        return self.out.exists()

    @property
    def result(self) -> Path:
        """Folder of the group while it is built."""
        return self.building / "result"

    def progress(self, modality: str) -> ModalityProgress:
        """Return the progress of a modality."""
        return self._progress.get(modality, ModalityProgress())

    def writer(
        self, modality: str, capacity: int, attributes: Mapping[str, Any]
    ) -> "ModalityWriter":
        """Create or open a modality's group; ``capacity`` is the largest number of its rows."""
        if not self.progress(modality).rows:
            zarr.open_group(self.result, mode="a", zarr_format=3)
            # A run that was killed during its first part may have left files.
            shutil.rmtree(self.result / modality, ignore_errors=True)
        return ModalityWriter(self.result / modality, capacity, attributes)

    def commit(self, modality: str, progress: ModalityProgress) -> None:
        """Record the progress on disk."""
        self._progress[modality] = progress
        content = {
            "identity": self._identity,
            "progress": {name: vars(each) for name, each in self._progress.items()},
        }
        self.building.mkdir(parents=True, exist_ok=True)
        with write_atomically(self._state) as partial:
            partial.write_text(json.dumps(content), encoding="utf-8")

    def finish(self, attributes: Mapping[str, Any]) -> None:
        """Write the group's own attributes, and rename it to its final name."""
        group = zarr.open_group(self.result, mode="r+")
        group.attrs[ATTRIBUTES_KEY] = dict(attributes)
        self.result.rename(self.out)
        shutil.rmtree(self.building)

    def _check_complete(self) -> None:
        try:
            attributes = zarr.open_group(self.out, mode="r").attrs[ATTRIBUTES_KEY]
            existing = {name: attributes[name] for name in self._identity}  # type: ignore[index]
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise UsageError(
                f"{self.out} exists and holds no embeddings of ours; name another place."
            ) from error
        if existing != self._identity:
            raise UsageError(
                f"{self.out} holds other embeddings: {_difference(existing, self._identity)}. Name "
                "another place, or remove it."
            )
        shutil.rmtree(self.building, ignore_errors=True)

    def _resume(self) -> None:
        try:
            content = json.loads(self._state.read_text(encoding="utf-8"))
            existing = content["identity"]
            progress = {
                name: read_record(ModalityProgress, images)
                for name, images in content["progress"].items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(
                f"{self._state} is damaged; remove {self.building} and begin again."
            ) from error
        if existing != self._identity:
            raise UsageError(
                f"{self.building} is the beginning of other embeddings: "
                f"{_difference(existing, self._identity)}. Go on with those, remove it, or name "
                "another place."
            )
        self._progress = progress
        remove_partials(self.building)


class ModalityWriter:
    """Writes the arrays of one modality."""

    def __init__(self, path: Path, capacity: int, attributes: Mapping[str, Any]) -> None:
        self._path, self._capacity = path, capacity
        self._attributes = {ATTRIBUTES_KEY: dict(attributes)}
        self._group: zarr.Group | None = None
        if path.exists():
            self._group = zarr.open_group(path, mode="r+")

    def add(
        self, first_row: int, images: Sequence[InputImage], vectors: Vectors, tokens: Tokens | None
    ) -> None:
        """Write a part that starts at ``first_row``."""
        if self._group is None:
            self._group = self._create(vectors, tokens)
        group, stop = self._group, first_row + len(images)
        columns: dict[str, Any] = {
            name: np.array([getattr(image, name) for image in images], dtype)
            for name, (dtype, _) in INDEX.items()
        }
        columns["embedding"] = vectors
        if tokens is not None:
            columns["tokens"] = tokens
        for name, values in columns.items():
            _array(group, name)[first_row:stop] = values

    def finish(self, num_rows: int) -> None:
        """Cut the arrays to the number of rows written."""
        if self._group is None:
            return
        for name in sorted(self._group.array_keys()):
            array = _array(self._group, name)
            array.resize((num_rows, *array.shape[1:]))

    def _create(self, vectors: Vectors, tokens: Tokens | None) -> zarr.Group:
        group = zarr.open_group(self._path, mode="w", zarr_format=3)
        group.attrs.update(self._attributes)
        row_shapes = {"window": (4,), "bounds": (4,)}
        for name, (dtype, dims) in INDEX.items():
            shape = (self._capacity, *row_shapes.get(name, ()))
            group.create_array(
                name,
                shape=shape,
                chunks=(_INDEX_ROWS, *shape[1:]),
                dtype=dtype,
                dimension_names=("row", *dims),
            )
        dim = vectors.shape[1]
        rows = rows_per_part(dim, 0 if tokens is None else tokens.shape[1])
        group.create_array(
            "embedding",
            shape=(self._capacity, dim),
            chunks=(rows, dim),
            dtype="float32",
            dimension_names=("row", "dim"),
        )
        if tokens is not None:
            group.create_array(
                "tokens",
                shape=(self._capacity, *tokens.shape[1:]),
                # One chunk per image, so that the tokens of one can be read alone.
                chunks=(1, *tokens.shape[1:]),
                shards=(rows, *tokens.shape[1:]),
                dtype="float32",
                dimension_names=("row", "token", "dim"),
            )
        return group


def read_shape(group: zarr.Group, modality: str) -> tuple[int, int]:
    """Return (rows, dim) of a modality's embeddings."""
    rows, dim = _array(group, f"{modality}/embedding").shape
    return rows, dim


def read_bounds(group: zarr.Group, modality: str) -> np.ndarray:
    """Return (west, south, east, north) of a modality's rows, (rows, 4) in degrees."""
    return np.asarray(_array(group, f"{modality}/bounds")[:])


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    assert isinstance(array, zarr.Array)  # noqa: S101 - written above
    return array


def _difference(existing: Any, new: Any, where: str = "") -> str:
    """Describe the first difference of two identities."""
    if isinstance(existing, dict) and isinstance(new, dict):
        for name in sorted({*existing, *new}):
            if existing.get(name) != new.get(name):
                return _difference(existing.get(name), new.get(name), f"{where} {name}".strip())
    if isinstance(existing, list) and isinstance(new, list) and len(existing) == len(new):
        for old_part, new_part in zip(existing, new, strict=True):
            if old_part != new_part:
                return _difference(old_part, new_part, where)
    return f"{where} is {_short(existing)} there, {_short(new)} here"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."  # noqa: PLR2004
