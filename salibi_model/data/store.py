"""Reading a Salibi store: a Zarr group, in a folder or in a bucket."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from salibi_data.store.errors import StoreError, UsageError
from salibi_data.store.open import damage_message, open_array, open_group, parse_attributes
from salibi_data.store.schema import (
    INDEX_ARRAYS,
    SPLITS,
    Modality,
    StoreAttributes,
    gsd_ratio,
)
from salibi_model.data.chunk_reader import Chunks

if TYPE_CHECKING:
    from salibi_model.data.loader import Batches


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
        """Open the store at ``location``: a folder, or a URL (s3://, gs://, az://, http(s)://, file://).

        Credentials come from the environment: see :mod:`salibi_data.store.storage`.

        Raises:
            StoreError: there is no store, it cannot be reached, it is damaged, or its schema is
                newer.
            UsageError: the URL is of no kind that is read, or has a password or query in it.
        """
        self.location = str(location)
        group = open_group(self.location)
        self.attributes = parse_attributes(group.attrs, where=self.location)
        self._arrays = {
            name: open_array(group, name, where=self.location)
            for name in (*self.attributes.modalities, *INDEX_ARRAYS)
        }
        self._check_shapes()
        found = {name: Chunks.of(self._arrays[name]) for name in self.attributes.modalities}
        self._chunks = {name: chunks for name, chunks in found.items() if chunks is not None}
        self._split = self.read("split", range(self._arrays["split"].shape[0]))

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
        return {name: self.read(name, [position])[0] for name in self._arrays}

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
        array = self._arrays[name]
        for index in (wanted.min(), wanted.max()) if len(wanted) else ():
            if not 0 <= index < array.shape[0]:
                raise self._no_sample(int(index))
        out = np.empty((len(wanted), *array.shape[1:]), array.dtype)
        # Slices only: an index array makes zarr decode whole shards to pick samples from them.
        breaks = np.flatnonzero(np.diff(wanted) != 1) + 1
        for start, stop in pairwise([0, *breaks.tolist(), len(wanted)]):
            if start < stop:
                run = range(int(wanted[start]), int(wanted[stop - 1]) + 1)
                self._read_run(name, run, out[start:stop])
        return out

    def image(self, name: str, index: int) -> np.ndarray:
        """Give the image (C, H, W) of a sample, without a copy that could be written to.

        Args:
            name: of a modality that the store has.
            index: of a sample that it has.

        Raises:
            StoreError: it is damaged, or cannot be reached.
        """
        with self._explained(name):
            if name in self._chunks:
                return next(self._chunks[name].read(index, index + 1))
            return np.asarray(self._arrays[name][index])

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
        from salibi_model.data.loader import Batches

        options.setdefault("modalities", tuple(self.attributes.modalities))
        return Batches([self], **options)

    def _read_run(self, name: str, rows: range, out: np.ndarray) -> None:
        """Fill ``out`` with consecutive rows of array ``name``."""
        with self._explained(name):
            if name in self._chunks:
                images = self._chunks[name].read(rows.start, rows.stop)
                for row, image in zip(out, images, strict=True):
                    row[...] = image
            else:
                out[...] = self._arrays[name][rows.start : rows.stop]

    @contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        """Tell of damage to array ``name`` in our words."""
        try:
            yield
        except (MemoryError, StoreError):
            raise
        except Exception as error:
            # Each codec, and each kind of storage, raises errors of its own.
            raise StoreError(damage_message(f"{self.location}: array {name!r}", error)) from error

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


def shared_modalities(
    stores: Sequence[SampleStore], names: Sequence[str], weights: Sequence[float] = ()
) -> tuple[Modality, ...]:
    """Give the modalities ``names`` with statistics pooled over the stores' training splits.

    Base zooms may differ; zooms are given relative to the first store's. Of several stores some
    may lack a modality: it is pooled over the others.

    Args:
        stores: one or more.
        names: of arrays.
        weights: how much of what is drawn comes from each store; empty: as they have samples.

    Raises:
        UsageError: no store has one of them, a store has fewer than two of them (or than one
            where one is asked for), or two stores disagree on bands, units, scale or ground sample
            distance, so that equal values would mean different things.
        StoreError: a store has no statistics.
    """
    for store in stores:
        _check_enough(store, names, alone=len(stores) == 1)
    shares = _shares(stores, weights)
    return tuple(_pool(name, stores, shares) for name in names)


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


def gsd_scales(stores: Sequence[SampleStore]) -> tuple[float, ...]:
    """Give the ground size of each store's base pixels over that of the first store's."""
    reference = stores[0].attributes.base_zoom
    return tuple(gsd_ratio(store.attributes.base_zoom, reference) for store in stores)


def mean_gsd_m(stores: Sequence[SampleStore], weights: Sequence[float] = ()) -> float | None:
    """Give the metres per base pixel of the first store's zoom; ``None`` without any sample.

    The mean over the training samples of all stores, each store's counted by its weight where
    there are weights.
    """
    values = [store.read("gsd_m", store.split_indices("train")) for store in stores]
    shares = _shares(stores, weights) * [len(found) > 0 for found in values]
    if not shares.any():
        return None
    means = [
        found.astype(np.float64).mean() / scale if len(found) else 0.0
        for found, scale in zip(values, gsd_scales(stores), strict=True)
    ]
    return float(np.average(means, weights=shares))


def _shares(stores: Sequence[SampleStore], weights: Sequence[float]) -> np.ndarray:
    """The weights of the stores; without any, their numbers of training samples."""
    if weights and len(weights) != len(stores):
        raise UsageError(
            f"there are {len(weights)} weights for {len(stores)} stores; give one for each."
        )
    counts = [len(store.split_indices("train")) for store in stores]
    return np.array(weights or counts, dtype=np.float64)


def _check_enough(store: SampleStore, names: Sequence[str], *, alone: bool) -> None:
    """Refuse a store that lacks what a lone one needs, or has too little to learn from."""
    there = store.attributes.modalities
    missing = [name for name in names if name not in there]
    if missing and (alone or len(names) - len(missing) < min(2, len(names))):
        needed = "Name those" if alone else "Name two at least that it has, or those"
        raise UsageError(
            f"{store.location} has no modality {missing[0]!r}; it has {', '.join(there)}. {needed} "
            "to use with --modalities."
        )


def _pool(name: str, stores: Sequence[SampleStore], shares: np.ndarray) -> Modality:
    having = [i for i, store in enumerate(stores) if name in store.attributes.modalities]
    if not having:
        raise UsageError(f"none of the {len(stores)} stores has a modality {name!r}.")
    found = [stores[i].attributes.modalities[name] for i in having]
    for i, modality in zip(having, found, strict=True):
        where = stores[i].location
        if not (modality.mean and modality.std):
            raise StoreError(
                f"{where} has no statistics of {name!r}; finish it with `salibi-data build`."
            )
        if apart := _differences(modality, found[0], _MEANING):
            raise UsageError(
                f"{where} and {stores[having[0]].location} disagree on {name!r}: {apart}. Train on "
                "them apart."
            )
    first = _at_zoom(found[0], stores[having[0]], stores[0])
    if len(found) == 1:
        return first
    share = shares[having] / max(shares[having].sum(), np.finfo(np.float64).tiny)
    means = np.array([modality.mean for modality in found])
    second = np.array([modality.std for modality in found]) ** 2 + means**2
    mean = share @ means
    std = np.sqrt(np.maximum(share @ second - mean**2, 0.0))
    return first.with_statistics(tuple(map(float, mean)), tuple(map(float, std)))


def _at_zoom(modality: Modality, store: SampleStore, reference: SampleStore) -> Modality:
    """A store's modality as it would be called in a store of another base zoom."""
    zooms = reference.attributes.base_zoom - store.attributes.base_zoom
    return replace(modality, zoom=modality.zoom + zooms)


def _differences(found: Modality, expected: Modality, compared: Sequence[str]) -> str:
    return "; ".join(
        f"{field} {_listed(getattr(found, field))} against {_listed(getattr(expected, field))}"
        for field in compared
        if getattr(found, field) != getattr(expected, field)
    )


def _listed(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
