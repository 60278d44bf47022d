"""Reading a Salibi store: a Zarr group, in a folder or in a bucket."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from salibi_data.schema import (
    INDEX_ARRAYS,
    SPLITS,
    Modality,
    SchemaError,
    StoreAttributes,
)
from salibi_model.errors import StoreError, UsageError

if TYPE_CHECKING:
    import zarr

    from salibi_model.batches import Batches


RAW_UNITS = "raw"
"""Units of a converted model's modalities: whatever its authors' pixels were."""

_MEANING = ("bands", "units", "scale", "offset", "gsd_ratio", "nodata")
"""Fields of a modality that tell what its values mean."""


class SampleStore:
    """A store's samples, read on demand.

    Example:
        >>> store = SampleStore("data/micro.zarr")
        >>> store[0]["lores"].shape
        (3, 256, 256)
    """

    location: str
    """Where the store is, as given."""
    attributes: StoreAttributes
    """What the store says of itself: modalities, base zoom, plan digest."""

    def __init__(self, location: str | Path) -> None:
        """Open the store at ``location``: a folder, or a URL (s3://, gs://, az://, file://).

        Raises:
            StoreError: there is no store, it is damaged, or its schema is newer.
        """
        self.location = str(location)
        group = _open_group(self.location)
        try:
            self.attributes = StoreAttributes.from_dict(dict(group.attrs), where=self.location)
        except SchemaError as error:
            raise StoreError(str(error)) from error
        except (ValueError, ArithmeticError) as error:
            raise StoreError(
                f"{self.location} has damaged attributes ({error}). Build or pull the store again."
            ) from error
        self._arrays = {
            name: _open_array(group, name, where=self.location)
            for name in (*self.attributes.modalities, *INDEX_ARRAYS)
        }
        self._check_shapes()
        self._split = self._take("split", slice(None))

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Read sample ``index``: every modality (C, H, W), and its row of every index array.

        Raises:
            IndexError: there is no such sample.
            StoreError: an array is damaged, or cannot be reached.
        """
        if not -len(self) <= index < len(self):
            raise self._no_sample(index)
        position = index % len(self)
        return {name: self._take(name, position) for name in self._arrays}

    def read(self, name: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Read array ``name`` at ``indices``, in their order; one request per run of samples.

        Raises:
            UsageError: the store has no such array.
            IndexError: there is no such sample.
            StoreError: the array is damaged, or cannot be reached.
        """
        if name not in self._arrays:
            raise UsageError(f"{self.location} has no {name!r}; it has {', '.join(self._arrays)}.")
        wanted = np.asarray(indices, dtype=np.int64)
        for index in (wanted.min(), wanted.max()) if len(wanted) else ():
            if not 0 <= index < len(self):
                raise self._no_sample(int(index))
        array = self._arrays[name]
        out = np.empty((len(wanted), *array.shape[1:]), array.dtype)
        # Slices only: an index array makes zarr decode whole shards to pick samples from them.
        breaks = np.flatnonzero(np.diff(wanted) != 1) + 1
        for start, stop in pairwise([0, *breaks.tolist(), len(wanted)]):
            if start < stop:
                run = slice(int(wanted[start]), int(wanted[stop - 1]) + 1)
                out[start:stop] = self._take(name, run)
        return out

    def split_indices(self, split: str) -> np.ndarray:
        """Give the ascending indices of the samples in ``train``, ``validation`` or ``test``.

        Raises:
            UsageError: there is no split of that name.
        """
        if split not in SPLITS:
            raise UsageError(f"no split {split!r}; take one of {', '.join(SPLITS)}.")
        return np.flatnonzero(self._split == SPLITS[split])

    def batches(self, **options: Any) -> Batches:
        """Make batches of this store's samples; options as for :class:`batches.Batches`."""
        from salibi_model.batches import Batches

        options.setdefault("modalities", tuple(self.attributes.modalities))
        return Batches([self], **options)

    def _take(self, name: str, rows: int | slice) -> np.ndarray:
        """Take rows of array ``name``; damage is told in our words."""
        try:
            return np.asarray(self._arrays[name][rows])
        except MemoryError:
            raise
        except Exception as error:
            # Each codec, and each kind of storage, raises errors of its own.
            raise StoreError(_damaged(f"{self.location}: array {name!r}", error)) from error

    def _no_sample(self, index: int) -> IndexError:
        return IndexError(f"{self.location} has {len(self)} samples; there is no {index}.")

    def _check_shapes(self) -> None:
        count = self._arrays["split"].shape[0]
        for name, array in self._arrays.items():
            modality = self.attributes.modalities.get(name)
            expected: tuple[int, ...] = (count, *array.shape[1:])
            if modality is not None:
                expected = (count, len(modality.bands), modality.size_px, modality.size_px)
            if array.shape != expected:
                raise StoreError(
                    f"{self.location}: array {name!r} has shape {array.shape}, expected "
                    f"{expected}. Build or pull the store again."
                )


def shared_modalities(stores: Sequence[SampleStore], names: Sequence[str]) -> tuple[Modality, ...]:
    """Give the modalities ``names`` with statistics pooled over the stores' training splits.

    Raises:
        UsageError: a store lacks one of them, or two stores disagree on bands, units, scale or
            ground sample distance, so that equal values would mean different things.
        StoreError: a store has no statistics.
    """
    weights = np.array([len(store.split_indices("train")) for store in stores], dtype=np.float64)
    return tuple(_pool(name, stores, weights) for name in names)


def check_agreement(
    store: SampleStore, modalities: Iterable[Modality], *, all_needed: bool = True
) -> None:
    """Refuse a store whose values mean something else than those a model was trained on.

    What a converted model was trained on is not known but for bands and ground sample distance
    (:data:`RAW_UNITS`); only these are compared then, and whether its values fit is the caller's.

    Args:
        store: the store to be used.
        modalities: those of the checkpoint.
        all_needed: whether the store must have them all; otherwise those it has are compared.

    Raises:
        UsageError: the store lacks one, or they disagree on bands, units, scale, offset, ground
            sample distance or nodata.
    """
    there = store.attributes.modalities
    for expected in modalities:
        found = there.get(expected.name)
        if found is None and all_needed:
            raise UsageError(
                f"{store.location} has no {expected.name!r}, which the model was trained on; it "
                f"has {', '.join(there)}. Take a store of the kind it was trained on."
            )
        compared = ("bands", "gsd_ratio") if expected.units == RAW_UNITS else _MEANING
        if found is not None and (apart := _differences(found, expected, compared)):
            raise UsageError(
                f"store and checkpoint disagree on {expected.name!r}: {apart}. Take a store of the kind that the model was "
                f"trained on, not {store.location}."
            )


def mean_gsd_m(stores: Sequence[SampleStore]) -> float | None:
    """Give the metres per base pixel, the mean over all training samples; ``None`` without any."""
    values = [store.read("gsd_m", store.split_indices("train")) for store in stores]
    together = np.concatenate(values).astype(np.float64)
    return float(together.mean()) if len(together) else None


def _pool(name: str, stores: Sequence[SampleStore], weights: np.ndarray) -> Modality:
    found: list[Modality] = []
    for store in stores:
        modality = store.attributes.modalities.get(name)
        if modality is None:
            raise UsageError(
                f"{store.location} has no modality {name!r}; it has "
                f"{', '.join(store.attributes.modalities)}. Name those to use with --modalities."
            )
        if not (modality.mean and modality.std):
            raise StoreError(
                f"{store.location} has no statistics of {name!r}; finish it with "
                "`salibi-data build`."
            )
        found.append(modality)
        if _meaning(modality) != _meaning(found[0]):
            raise UsageError(
                f"{store.location} and {stores[0].location} disagree on {name!r}: "
                f"{_meaning(modality)} against {_meaning(found[0])}. Train on them apart."
            )
    if len(found) == 1:
        return found[0]
    share = weights / max(weights.sum(), 1.0)
    means = np.array([modality.mean for modality in found])
    second = np.array([modality.std for modality in found]) ** 2 + means**2
    mean = share @ means
    std = np.sqrt(np.maximum(share @ second - mean**2, 0.0))
    return found[0].with_statistics(tuple(map(float, mean)), tuple(map(float, std)))


def _meaning(modality: Modality) -> tuple[object, ...]:
    return tuple(getattr(modality, field) for field in _MEANING)


def _differences(found: Modality, expected: Modality, compared: Sequence[str]) -> str:
    return "; ".join(
        f"{field} {_listed(getattr(found, field))} against {_listed(getattr(expected, field))}"
        for field in compared
        if getattr(found, field) != getattr(expected, field)
    )


def _listed(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _open_group(location: str) -> zarr.Group:
    import zarr
    from zarr.errors import GroupNotFoundError

    local = location.removeprefix("file://")
    try:
        return zarr.open_group(local, mode="r")
    except (GroupNotFoundError, FileNotFoundError, NotADirectoryError) as error:
        raise StoreError(
            f"{location} is not a Zarr group. Build a store with `salibi-data build`, or give "
            "the path or URL of one."
        ) from error
    except (ValueError, TypeError, KeyError) as error:
        raise StoreError(_damaged(location, error)) from error
    except ImportError as error:
        raise StoreError(
            f"{location} needs a package that is not installed ({error}); install it, or "
            "`salibi-data pull` the store to a folder."
        ) from error


def _open_array(group: zarr.Group, name: str, *, where: str) -> zarr.Array[Any]:
    import zarr

    try:
        array = group[name]
    except KeyError:
        array = None
    except (ValueError, TypeError) as error:
        raise StoreError(_damaged(f"{where}: array {name!r}", error)) from error
    if not isinstance(array, zarr.Array):
        raise StoreError(
            f"{where} has no array {name!r}, though a Salibi store must. Build or pull it again."
        )
    return array


def _damaged(what: str, error: Exception) -> str:
    said = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
    return (
        f"{what} cannot be read ({said}). `salibi-data verify` tells which of a store's files are "
        "damaged; pull or build it again."
    )
