"""Numbers the samples of one split of one or several stores as if they were one data set."""

from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import Dataset

from salibi_data.store.errors import UsageError
from salibi_data.store.schema import INDEX_ARRAYS, Modality
from salibi_model.data.modalities import gsd_scales
from salibi_model.data.store import SampleStore, open_stores


class StoreDataset(Dataset[dict[str, Tensor]]):
    """The samples of a split, for :class:`torch.utils.data.DataLoader`.

    Sample ``i`` is a dictionary of tensors: per modality a ``uint8`` image (C, H, W) in stored
    values, per index array of the store the sample's row. Stores may be of different variants:
    of other base zooms (``gsd_m`` of a sample is metres per base pixel), and without some of the
    modalities, whose images are then all nodata. Where stores differ in their sensors, the rows of
    ``acquired`` and ``valid_fraction`` differ in length, and the loader needs a ``collate_fn``.

    :class:`~salibi_model.data.loader.DataLoader`, which training uses, reads these samples, and
    adds seeded augmentation, crops, weights of stores, and a position to resume from.

    Example:
        >>> dataset = StoreDataset(store_path, modalities=("sar", "lores"))
        >>> len(dataset), dataset[0]["lores"].shape, dataset[0]["tile"].tolist()
        (10, torch.Size([3, 256, 256]), [15, 5000, 12000])
        >>> batch = next(iter(torch.utils.data.DataLoader(dataset, batch_size=4)))
        >>> batch["sar"].shape, batch["gsd_m"].shape
        (torch.Size([4, 2, 256, 256]), torch.Size([4]))
    """

    counts: tuple[int, ...]
    """Number of samples of each store."""
    modalities: tuple[Modality, ...]
    """Modalities asked for, each as the first store that has it describes it."""
    gsd_scales: tuple[float, ...]
    """Ground size of each store's base pixels over that of the first store's."""

    def __init__(
        self,
        stores: SampleStore | str | Path | Sequence[SampleStore | str | Path],
        *,
        modalities: Sequence[str] | None = None,
        split: str = "train",
    ) -> None:
        """Find a split's samples; no image is read yet.

        Args:
            stores: one or several stores: paths, URLs or open stores.
            modalities: names of the image arrays; ``None``: all those of the first store.
            split: ``train``, ``validation`` or ``test``.

        Raises:
            UsageError: no store has one of the modalities, or there is no such split.
            StoreError: a store is missing or damaged.
        """
        self._stores = open_stores(stores)
        names = self._stores[0].attributes.modalities if modalities is None else modalities
        self._indices = [store.split_indices(split) for store in self._stores]
        self.counts = tuple(len(indices) for indices in self._indices)
        self._starts = np.cumsum([0, *self.counts[:-1]]).tolist()
        self.modalities = tuple(_first_description(name, self._stores) for name in names)
        self.gsd_scales = gsd_scales(self._stores)
        self._cached_images: dict[tuple[int, str], UInt8[np.ndarray, "samples _ _ _"]] = {}
        self._index_arrays: dict[tuple[int, str], np.ndarray] = {}

    def __len__(self) -> int:
        return sum(self.counts)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Read sample ``index``: the image of every modality, and a row of every index array.

        Raises:
            IndexError: there is no such sample.
            StoreError: an array is damaged, or cannot be reached.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"the data set has {len(self)} samples; there is no {index}.")
        row = index % len(self)
        sample: dict[str, Tensor] = {}
        for modality in self.modalities:
            image = self.image(row, modality.name)
            if image is None:
                shape = (len(modality.bands), modality.size_px, modality.size_px)
                sample[modality.name] = torch.full(shape, modality.nodata, dtype=torch.uint8)
            else:
                # torch.tensor copies: images may be read-only, of which PyTorch warns.
                sample[modality.name] = torch.tensor(image)
        for name in INDEX_ARRAYS:
            sample[name] = torch.tensor(self._index_row(row, name))
        return sample

    @property
    def num_bytes(self) -> int:
        """Bytes of all images, not compressed."""
        return sum(
            len(self._indices[number]) * len(modality.bands) * modality.size_px**2
            for number, modality in self._stored_modalities()
        )

    def cache_images(self, executor: Executor) -> None:
        """Read all images with the executor's threads, and keep them in memory.

        Raises:
            StoreError: an image cannot be read; none is kept then.
        """
        cache = {
            (number, modality.name): np.empty(
                (self.counts[number], len(modality.bands), modality.size_px, modality.size_px),
                np.uint8,
            )
            for number, modality in self._stored_modalities()
        }

        def fill(item: tuple[int, str, int]) -> None:
            number, name, position = item
            cache[number, name][position] = self._read(number, name, position)

        items = [
            (*key, position) for key, images in cache.items() for position in range(len(images))
        ]
        for _ in executor.map(fill, items):
            pass
        # Assigned once it is full: other threads see a whole cache or none.
        self._cached_images = cache

    def image(self, row: int, name: str) -> UInt8[np.ndarray, "bands edge edge"] | None:
        """Return one image (C, H, W) of a sample, not to be written to.

        Returns:
            Stored values; ``None`` where the sample's store lacks the modality.

        Raises:
            StoreError: the image is damaged, or cannot be reached.
        """
        number = self.store_of(row)
        position = row - self._starts[number]
        if (number, name) in self._cached_images:
            image: np.ndarray = self._cached_images[number, name][position]
            return image
        if name not in self._stores[number].attributes.modalities:
            return None
        return self._read(number, name, position)

    def store_of(self, row: int) -> int:
        """Return the number of a sample's store."""
        # Stores without samples share a start with the next one; the last of them has the sample.
        return bisect_right(self._starts, row) - 1

    def _read(self, number: int, name: str, position: int) -> np.ndarray:
        index = int(self._indices[number][position])
        return self._stores[number].image(name, index)

    def _index_row(self, row: int, name: str) -> np.ndarray:
        """Return a sample's row of an index array, which is read whole once."""
        number = self.store_of(row)
        if (number, name) not in self._index_arrays:
            store = self._stores[number]
            self._index_arrays[number, name] = store.read(name, range(len(store)))
        index = int(self._indices[number][row - self._starts[number]])
        return np.asarray(self._index_arrays[number, name][index])

    def _stored_modalities(self) -> list[tuple[int, Modality]]:
        """Pairs of a store's number and a modality that it has."""
        return [
            (number, modality)
            for number, store in enumerate(self._stores)
            for modality in self.modalities
            if modality.name in store.attributes.modalities
        ]


def _first_description(name: str, stores: Sequence[SampleStore]) -> Modality:
    """Return modality ``name`` as the first store that has it describes it."""
    for store in stores:
        if name in store.attributes.modalities:
            return store.attributes.modalities[name]
    available = sorted({name for store in stores for name in store.attributes.modalities})
    raise UsageError(
        f"no store has a modality {name!r}; there are {', '.join(available)}. Name those to use "
        "with --modalities."
    )
