"""Embeddings on their way to disk: a Zarr group per modality, written in parts, in order.

Everything is made in ``E.building`` and becomes ``E`` by one rename. A part is a run of rows;
``progress.json`` is written after each, so that a run that was killed goes on after its last whole
part. Parts, and the batches within them, begin at the same rows whenever that was.
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
from salibi_model.embeddings.inputs import View

ATTRIBUTES_KEY: Final = "salibi_embedding"
"""Key of the attributes of the group, and of each modality's group, that say how it was made."""

TABLE_NAME: Final = "embeddings.parquet"

_PART_BYTES: Final = 2**26
_PART_ROWS: Final = 256
"""A part has at most so many bytes of embeddings and tokens, and so many rows."""

_INDEX_ROWS: Final = 2**14
"""Rows in a chunk of the small arrays."""

INDEX: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "source": ("int32", ()),
    "item": ("int64", ()),
    "window": ("int32", ("row_col_rows_cols",)),
    "bounds": ("float64", ("west_south_east_north",)),
    "gsd_m": ("float32", ()),
    "valid_fraction": ("float32", ()),
}
"""Arrays of one row per image, named as the fields of :class:`View`: dtype, further dimensions."""

Vectors = Float32[np.ndarray, "rows dim"]
Tokens = Float32[np.ndarray, "rows tokens dim"]


@dataclass(frozen=True, kw_only=True)
class ModalityProgress:
    """How far a modality is."""

    images: int = 0
    """Images read, or found empty."""
    rows: int = 0
    """Rows written."""
    complete: bool = False


def rows_per_part(dim: int, num_tokens: int) -> int:
    """Count the rows of a part: a power of two, so that batches divide it."""
    fitting = _PART_BYTES // (4 * dim * (1 + num_tokens))
    return 1 << max(0, min(_PART_ROWS, fitting).bit_length() - 1)


class EmbeddingFolder:
    """The folder that embeddings are made in, and become complete in.

    Raises:
        UsageError: other embeddings are there, or in the making.
        StoreError: what is there is damaged.
    """

    def __init__(self, out: Path, identity: Mapping[str, Any]) -> None:
        self.out = out
        self.building = out.with_name(f"{out.name}.building")
        self._identity = json.loads(json.dumps(identity))
        self._state = self.building / "progress.json"
        self._progress: dict[str, ModalityProgress] = {}
        if out.exists():
            self._check_complete()
        elif self._state.exists():
            self._go_on()

    @property
    def is_complete(self) -> bool:
        """Whether there is nothing left to do."""
        return self.out.exists()

    @property
    def result(self) -> Path:
        """The group, while it is in the making."""
        return self.building / "result"

    def progress(self, modality: str) -> ModalityProgress:
        """How far a modality is."""
        return self._progress.get(modality, ModalityProgress())

    def writer(self, modality: str, capacity: int, attributes: Mapping[str, Any]) -> "Writer":
        """Make or open a modality's group; ``capacity`` is the most rows that it can have."""
        if not self.progress(modality).rows:
            zarr.open_group(self.result, mode="a", zarr_format=3)
            # A run that was killed before its first part may have left something.
            shutil.rmtree(self.result / modality, ignore_errors=True)
        return Writer(self.result / modality, capacity, attributes)

    def commit(self, modality: str, progress: ModalityProgress) -> None:
        """Take note of what is on the disk."""
        self._progress[modality] = progress
        content = {
            "identity": self._identity,
            "progress": {name: vars(one) for name, one in self._progress.items()},
        }
        self.building.mkdir(parents=True, exist_ok=True)
        with write_atomically(self._state) as partial:
            partial.write_text(json.dumps(content), encoding="utf-8")

    def finish(self, attributes: Mapping[str, Any]) -> None:
        """Write the group's own attributes; then it is there."""
        group = zarr.open_group(self.result, mode="r+")
        group.attrs[ATTRIBUTES_KEY] = dict(attributes)
        self.result.rename(self.out)
        shutil.rmtree(self.building)

    def _check_complete(self) -> None:
        try:
            found = zarr.open_group(self.out, mode="r").attrs[ATTRIBUTES_KEY]
            theirs = {name: found[name] for name in self._identity}  # type: ignore[index]
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise UsageError(
                f"{self.out} exists and holds no embeddings of ours; name another place."
            ) from error
        if theirs != self._identity:
            raise UsageError(
                f"{self.out} holds other embeddings: {_difference(theirs, self._identity)}. Name "
                "another place, or remove it."
            )
        shutil.rmtree(self.building, ignore_errors=True)

    def _go_on(self) -> None:
        try:
            content = json.loads(self._state.read_text(encoding="utf-8"))
            theirs = content["identity"]
            progress = {
                name: read_record(ModalityProgress, images)
                for name, images in content["progress"].items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(
                f"{self._state} is damaged; remove {self.building} and begin again."
            ) from error
        if theirs != self._identity:
            raise UsageError(
                f"{self.building} is the beginning of other embeddings: "
                f"{_difference(theirs, self._identity)}. Go on with those, remove it, or name "
                "another place."
            )
        self._progress = progress
        remove_partials(self.building)


class Writer:
    """A modality's arrays."""

    def __init__(self, path: Path, capacity: int, attributes: Mapping[str, Any]) -> None:
        self._path, self._capacity = path, capacity
        self._attributes = {ATTRIBUTES_KEY: dict(attributes)}
        self._group: zarr.Group | None = None
        if path.exists():
            self._group = zarr.open_group(path, mode="r+")

    def add(
        self, first_row: int, views: Sequence[View], vectors: Vectors, tokens: Tokens | None
    ) -> None:
        """Write a part that begins at ``first_row``."""
        if self._group is None:
            self._group = self._create(vectors, tokens)
        group, stop = self._group, first_row + len(views)
        columns: dict[str, Any] = {
            name: np.array([getattr(view, name) for view in views], dtype)
            for name, (dtype, _) in INDEX.items()
        }
        columns["embedding"] = vectors
        if tokens is not None:
            columns["tokens"] = tokens
        for name, values in columns.items():
            _array(group, name)[first_row:stop] = values

    def finish(self, num_rows: int) -> None:
        """Cut the arrays to the rows that there are."""
        if self._group is None:
            return
        for name in sorted(self._group.array_keys()):
            array = _array(self._group, name)
            array.resize((num_rows, *array.shape[1:]))

    def _create(self, vectors: Vectors, tokens: Tokens | None) -> zarr.Group:
        group = zarr.open_group(self._path, mode="w", zarr_format=3)
        group.attrs.update(self._attributes)
        wide = {"window": (4,), "bounds": (4,)}
        for name, (dtype, dims) in INDEX.items():
            shape = (self._capacity, *wide.get(name, ()))
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
                chunks=(1, *tokens.shape[1:]),
                shards=(rows, *tokens.shape[1:]),
                dtype="float32",
                dimension_names=("row", "token", "dim"),
            )
        return group


def read_shape(group: zarr.Group, modality: str) -> tuple[int, int]:
    """Rows and width of a modality's embeddings."""
    rows, dim = _array(group, f"{modality}/embedding").shape
    return rows, dim


def read_bounds(group: zarr.Group, modality: str) -> np.ndarray:
    """West, south, east, north of a modality's rows, (rows, 4)."""
    return np.asarray(_array(group, f"{modality}/bounds")[:])


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    assert isinstance(array, zarr.Array)  # noqa: S101 - of our own making
    return array


def _difference(theirs: Any, ours: Any, where: str = "") -> str:
    """Say where two identities differ first."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for name in sorted({*theirs, *ours}):
            if theirs.get(name) != ours.get(name):
                return _difference(theirs.get(name), ours.get(name), f"{where} {name}".strip())
    if isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        for one, other in zip(theirs, ours, strict=True):
            if one != other:
                return _difference(one, other, where)
    return f"{where} is {_short(theirs)} there, {_short(ours)} here"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."  # noqa: PLR2004
