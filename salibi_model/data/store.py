"""Reads the samples of a Salibi store: a Zarr group in a folder, in a bucket or on a web server."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Shaped, UInt8

from salibi_data.store.errors import StoreError, UsageError
from salibi_data.store.open import damage_message, open_array, open_group, parse_attributes
from salibi_data.store.schema import INDEX_ARRAYS, SPLITS, StoreAttributes
from salibi_model.data.chunk_reader import ChunkReader


class SampleStore:
    """The samples of one store, read on demand.

    A sample is a tile that several sensors saw: one ``uint8`` image ``(bands, rows, columns)`` per
    modality, all of the same ground in Web Mercator (EPSG:3857), and one row of every index array
    (``tile``, ``gsd_m``, ``acquired``, ``valid_fraction``, ``cloud_fraction``, ``split``).
    ``docs/format.md`` describes the arrays.

    Example:
        >>> store = SampleStore(store_path)
        >>> len(store), store[0]["sar"].shape, store[0]["sar"].dtype
        (16, (2, 256, 256), dtype('uint8'))
        >>> store.split_indices("validation")
        array([10, 11, 12, 13, 14, 15])
        >>> store.read("hires_4x", [3, 7]).shape
        (2, 3, 512, 512)
    """

    location: str
    """Path or URL of the store, as given."""
    attributes: StoreAttributes
    """Attributes of the store: modalities, base zoom, plan digest."""

    def __init__(self, location: str | Path) -> None:
        """Open the store at ``location``: a folder, or a URL (s3://, gs://, az://, http(s)://, file://).

        Credentials come from the environment: see :mod:`salibi_data.store.storage`.

        Raises:
            StoreError: there is no store, it cannot be reached, it is damaged, or its schema is
                newer than this software.
            UsageError: the scheme of the URL is not supported, or the URL has a password or query.
        """
        self.location = str(location)
        group = open_group(self.location)
        self.attributes = parse_attributes(group.attrs, where=self.location)
        self._arrays = {
            name: open_array(group, name, where=self.location)
            for name in (*self.attributes.modalities, *INDEX_ARRAYS)
        }
        self._check_shapes()
        readers = {
            name: ChunkReader.for_array(self._arrays[name]) for name in self.attributes.modalities
        }
        self._chunk_readers = {
            name: reader for name, reader in readers.items() if reader is not None
        }
        self._split = self.read("split", range(self._arrays["split"].shape[0]))

    def __len__(self) -> int:
        return len(self._split)

    def __repr__(self) -> str:
        """Path, samples per split, and one line per modality: shape, bands and mean GSD."""
        counts = [
            f"{count} {split}"
            for split, code in SPLITS.items()
            if (count := int((self._split == code).sum()))
        ]
        lines = [f"SampleStore({self.location!r}): {len(self)} samples ({', '.join(counts)})"]
        base_gsd_m = self._mean_gsd_m()
        for name, modality in self.attributes.modalities.items():
            shape = f"({len(modality.bands)}, {modality.size_px}, {modality.size_px})"
            gsd = "" if base_gsd_m is None else f", {base_gsd_m * modality.gsd_ratio:.3g} m"
            lines.append(f"  {name}: {shape}, {' '.join(modality.bands)}{gsd}")
        return "\n".join(lines)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Read sample ``index``: the image (C, H, W) of every modality, and a row of every index array.

        Raises:
            IndexError: the store has no such sample.
            StoreError: an array is damaged, or cannot be reached.
        """
        if not -len(self) <= index < len(self):
            raise self._no_sample(index)
        position = index % len(self)
        return {name: self.read(name, [position])[0] for name in self._arrays}

    def read(
        self, name: str, indices: Sequence[int] | np.ndarray
    ) -> Shaped[np.ndarray, "samples ..."]:
        """Read rows ``indices`` of array ``name``, in their order; one request per run of samples.

        Args:
            name: a modality or an index array.
            indices: numbers of samples, from 0.

        Returns:
            ``uint8`` (samples, bands, rows, columns) in stored values for a modality; for an index
            array, what :data:`salibi_data.store.schema.INDEX_ARRAYS` says.

        Raises:
            UsageError: the store has no such array.
            IndexError: the store has no such sample.
            StoreError: the array is damaged, or cannot be reached.
        """
        if name not in self._arrays:
            raise UsageError(f"{self.location} has no {name!r}; it has {', '.join(self._arrays)}.")
        rows = np.asarray(indices, dtype=np.int64)
        array = self._arrays[name]
        for index in (rows.min(), rows.max()) if len(rows) else ():
            if not 0 <= index < array.shape[0]:
                raise self._no_sample(int(index))
        out = np.empty((len(rows), *array.shape[1:]), array.dtype)
        # Slices only: an index array makes zarr decode whole shards to pick samples from them.
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        for start, stop in pairwise([0, *breaks.tolist(), len(rows)]):
            if start < stop:
                run = range(int(rows[start]), int(rows[stop - 1]) + 1)
                self._read_run(name, run, out[start:stop])
        return out

    def image(self, name: str, index: int) -> UInt8[np.ndarray, "bands rows columns"]:
        """Read the image of one sample; it may be read-only.

        Args:
            name: a modality that the store has.
            index: a sample that the store has.

        Raises:
            StoreError: the image is damaged, or cannot be reached.
        """
        with self._translate_errors(name):
            if name in self._chunk_readers:
                return next(self._chunk_readers[name].read(index, index + 1))
            return np.asarray(self._arrays[name][index])

    def split_indices(self, split: str) -> Int64[np.ndarray, " samples"]:
        """Return the ascending indices of the samples in ``train``, ``validation`` or ``test``.

        Raises:
            UsageError: there is no split of that name.
        """
        if split not in SPLITS:
            raise UsageError(f"no split {split!r}; take one of {', '.join(SPLITS)}.")
        return np.flatnonzero(self._split == SPLITS[split])

    def _read_run(self, name: str, rows: range, out: np.ndarray) -> None:
        """Fill ``out`` with consecutive rows of array ``name``."""
        with self._translate_errors(name):
            if name in self._chunk_readers:
                images = self._chunk_readers[name].read(rows.start, rows.stop)
                for row, image in zip(out, images, strict=True):
                    row[...] = image
            else:
                out[...] = self._arrays[name][rows.start : rows.stop]

    @contextmanager
    def _translate_errors(self, name: str) -> Iterator[None]:
        """Raise a StoreError that names array ``name`` for whatever reading it raises."""
        try:
            yield
        except (MemoryError, StoreError):
            raise
        except Exception as error:
            # Each codec, and each kind of storage, raises errors of its own.
            raise StoreError(damage_message(f"{self.location}: array {name!r}", error)) from error

    def _mean_gsd_m(self) -> float | None:
        """Metres per base pixel, the mean over all samples; ``None`` if it cannot be read."""
        try:
            # A repr must not fail: a debugger shows it while another error is looked at.
            values = self.read("gsd_m", range(len(self)))
        except StoreError:
            return None
        return float(values.mean(dtype=np.float64)) if len(values) else None

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


def open_stores(
    stores: SampleStore | str | Path | Sequence[SampleStore | str | Path],
) -> tuple[SampleStore, ...]:
    """Open one or several stores, given as paths, URLs or open stores.

    Raises:
        StoreError, UsageError: as :class:`SampleStore`; or no store is given.
    """
    if isinstance(stores, SampleStore | str | Path):
        stores = (stores,)
    if not stores:
        raise UsageError("no store was given; give one or more.")
    return tuple(
        store if isinstance(store, SampleStore) else SampleStore(store) for store in stores
    )
