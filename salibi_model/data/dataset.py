"""The samples of a split of one or several stores, numbered as if they were one."""

from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import Executor

import numpy as np
from jaxtyping import UInt8

from salibi_data.store.errors import UsageError
from salibi_data.store.schema import Modality
from salibi_model.data.store import SampleStore, gsd_scales


class Samples:
    """Images of samples, read one by one or kept in memory.

    Stores may be of different variants: of other base zooms, and without some of the modalities.
    """

    counts: tuple[int, ...]
    """Samples of each store."""
    modalities: tuple[Modality, ...]
    """Those asked for, as the first store describes each that has it."""
    gsd_scales: tuple[float, ...]
    """Ground size of each store's base pixels over that of the first store's."""

    def __init__(self, stores: Sequence[SampleStore], names: Sequence[str], split: str) -> None:
        """Find a split's samples; no image is read yet.

        Raises:
            UsageError: no store has one of the modalities, or there is no such split.
        """
        self._stores = tuple(stores)
        self._indices = [store.split_indices(split) for store in self._stores]
        self.counts = tuple(len(found) for found in self._indices)
        self._starts = np.cumsum([0, *self.counts[:-1]]).tolist()
        self.modalities = tuple(_described(name, self._stores) for name in names)
        self.gsd_scales = gsd_scales(self._stores)
        self._kept: dict[tuple[int, str], UInt8[np.ndarray, "samples _ _ _"]] = {}

    def __len__(self) -> int:
        return sum(self.counts)

    @property
    def num_bytes(self) -> int:
        """Bytes of all images, not compressed."""
        return sum(
            len(self._indices[number]) * len(modality.bands) * modality.size_px**2
            for number, modality in self._there()
        )

    def keep(self, executor: Executor) -> None:
        """Read all images, by the executor's threads, and keep them in memory.

        Raises:
            StoreError: an image cannot be read; nothing is kept then.
        """
        kept = {
            (number, modality.name): np.empty(
                (self.counts[number], len(modality.bands), modality.size_px, modality.size_px),
                np.uint8,
            )
            for number, modality in self._there()
        }

        def fill(place: tuple[int, str, int]) -> None:
            number, name, position = place
            kept[number, name][position] = self._read(number, name, position)

        places = [
            (*key, position) for key, images in kept.items() for position in range(len(images))
        ]
        for _ in executor.map(fill, places):
            pass
        self._kept = kept

    def image(self, row: int, name: str) -> UInt8[np.ndarray, "bands edge edge"] | None:
        """Give one image (C, H, W) of a sample; ``None`` where its store lacks the modality.

        Raises:
            StoreError: it is damaged, or cannot be reached.
        """
        number = self.store_of(row)
        position = row - self._starts[number]
        if (number, name) in self._kept:
            kept: np.ndarray = self._kept[number, name][position]
            return kept
        if name not in self._stores[number].attributes.modalities:
            return None
        return self._read(number, name, position)

    def store_of(self, row: int) -> int:
        """Give the number of a sample's store."""
        # Of stores without samples that begin at the same row, the last is the one that has it.
        return bisect_right(self._starts, row) - 1

    def _read(self, number: int, name: str, position: int) -> np.ndarray:
        index = int(self._indices[number][position])
        return self._stores[number].image(name, index)

    def _there(self) -> list[tuple[int, Modality]]:
        return [
            (number, modality)
            for number, store in enumerate(self._stores)
            for modality in self.modalities
            if modality.name in store.attributes.modalities
        ]


def _described(name: str, stores: Sequence[SampleStore]) -> Modality:
    for store in stores:
        if name in store.attributes.modalities:
            return store.attributes.modalities[name]
    there = sorted({name for store in stores for name in store.attributes.modalities})
    raise UsageError(
        f"no store has a modality {name!r}; there are {', '.join(there)}. Name those to use with "
        "--modalities."
    )
