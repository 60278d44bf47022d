"""Batches of a store's samples: shuffled by seed, shared among ranks, resumable.

Which samples make up a batch depends on the seed, the epoch and the batch's number alone: not on
the number of processes. Each rank reads and yields its own part of the global batch.
"""

from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from salibi_model.errors import StoreError, UsageError
from salibi_model.store import SampleStore

READ_AHEAD = 64
"""Samples per read while a split is loaded into memory."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One rank's part of a global batch."""

    images: dict[str, UInt8[Tensor, "batch _ _ _"]]
    """Per modality (B, C, H, W) in the store's units, all turned and flipped alike."""
    seeds: tuple[int, ...]
    """One per sample, from (seed, epoch, sample): for masks and whatever else is drawn."""
    seed: int
    """Of the batch as a whole, from (seed, epoch, batch): the same on all ranks."""


class Batches:
    """An iterator of batches that never ends, and knows where it is.

    A split no larger than ``cache_bytes`` is read once, in long runs, and kept in memory.
    Otherwise each batch's samples are read on their own (a chunk is one sample), all at the same
    time, one batch ahead.
    """

    def __init__(
        self,
        stores: Sequence[SampleStore],
        *,
        modalities: Sequence[str],
        batch_size: int = 32,
        split: str = "train",
        seed: int = 0,
        shuffle: bool = True,
        augment: bool = True,
        rank: int = 0,
        world_size: int = 1,
        cache_bytes: int = 2 << 30,
    ) -> None:
        """Set up; the first samples are read when the first batch is asked for.

        Args:
            stores: read as if they were one.
            modalities: names of the arrays to yield.
            batch_size: samples of all ranks together. The last, smaller batch of an epoch is
                left out; the next epoch's order differs.
            split: ``train``, ``validation`` or ``test``.
            seed: of order and augmentation.
            shuffle: whether each epoch has an order of its own.
            augment: whether samples are flipped and turned by quarters, all modalities alike.
            rank: this process among ``world_size``.
            world_size: number of processes.
            cache_bytes: how much of a split may be kept in memory, per process.

        Raises:
            UsageError: the batch does not divide among the ranks, or is larger than the split.
        """
        self._stores = tuple(stores)
        self._names = tuple(modalities)
        self._rows = np.concatenate(
            [
                np.stack([np.full(len(found), number), found], axis=1)
                for number, found in enumerate(store.split_indices(split) for store in stores)
            ]
        )
        if batch_size < 1 or batch_size % world_size:
            raise UsageError(
                f"batch size {batch_size} does not divide among {world_size} processes; "
                "it counts the samples of all processes together."
            )
        if len(self._rows) < batch_size:
            raise UsageError(
                f"the split {split!r} has {len(self._rows)} samples, fewer than one batch of "
                f"{batch_size}; lower the batch size or take a larger store."
            )
        self.batch_size = batch_size
        self.steps_per_epoch = len(self._rows) // batch_size
        self._seed, self._shuffle, self._augment = seed, shuffle, augment
        self._rank, self._local_size = rank, batch_size // world_size
        self._cache_bytes = cache_bytes
        self._cache: dict[str, np.ndarray] | None = None
        self._epoch, self._batch = 0, 0

    def state_dict(self) -> dict[str, int]:
        """Give the position: epoch and number of the batch that comes next."""
        return {"epoch": self._epoch, "batch": self._batch}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go to a position from :meth:`state_dict`; takes effect with the next ``iter()``."""
        self._epoch, self._batch = int(state["epoch"]), int(state["batch"])

    def __iter__(self) -> Generator[Batch]:
        if self._cache is None and self._split_bytes() <= self._cache_bytes:
            self._cache = self._read_split()
        # One thread reads and assembles the next batch while the model works on this one.
        with ThreadPoolExecutor(max_workers=1) as reader:
            position = (self._epoch, self._batch)
            coming = reader.submit(self._assemble, *position)
            while True:
                ready, position = coming.result(), self._after(*position)
                coming = reader.submit(self._assemble, *position)
                self._epoch, self._batch = position
                yield ready

    def _after(self, epoch: int, batch: int) -> tuple[int, int]:
        return (epoch, batch + 1) if batch + 1 < self.steps_per_epoch else (epoch + 1, 0)

    def _assemble(self, epoch: int, batch: int) -> Batch:
        first = batch * self.batch_size + self._rank * self._local_size
        chosen = self._order(epoch)[first : first + self._local_size]
        seeds = tuple(_drawn_seed(self._seed, epoch, int(row)) for row in chosen)
        images = {name: self._read(name, chosen) for name in self._names}
        if self._augment:
            images = {name: turn_and_flip(array, seeds) for name, array in images.items()}
        return Batch(
            images={name: torch.from_numpy(array) for name, array in images.items()},
            seeds=seeds,
            seed=_drawn_seed(self._seed, epoch, batch),
        )

    def _order(self, epoch: int) -> np.ndarray:
        if not self._shuffle:
            return np.arange(len(self._rows))
        rng = np.random.default_rng((self._seed, epoch))
        order: np.ndarray = rng.permutation(len(self._rows))
        return order

    def _read(self, name: str, chosen: np.ndarray) -> np.ndarray:
        if self._cache is not None:
            cached: np.ndarray = self._cache[name][chosen]
            return cached
        rows = self._rows[chosen]
        out: np.ndarray | None = None
        for number, store in enumerate(self._stores):
            mine = np.flatnonzero(rows[:, 0] == number)
            if len(mine):
                # Ascending reads: neighbours share a shard, and its index is read once.
                mine = mine[np.argsort(rows[mine, 1])]
                values = store.read(name, rows[mine, 1])
                if out is None:
                    out = np.empty((len(rows), *values.shape[1:]), values.dtype)
                out[mine] = values
        if out is None:
            raise StoreError(f"nothing to read of {name!r}.")
        return out

    def _split_bytes(self) -> int:
        per_sample = 0
        for name in self._names:
            modality = self._stores[0].attributes.modalities[name]
            per_sample += len(modality.bands) * modality.size_px**2
        return per_sample * len(self._rows)

    def _read_split(self) -> dict[str, np.ndarray]:
        rows = np.arange(len(self._rows))
        return {
            name: np.concatenate(
                [
                    self._read(name, rows[i : i + READ_AHEAD])
                    for i in range(0, len(rows), READ_AHEAD)
                ]
            )
            for name in self._names
        }


def _drawn_seed(*numbers: int) -> int:
    drawn = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return int(drawn[0] >> np.uint64(1))


def turn_and_flip(
    images: UInt8[np.ndarray, "batch bands edge edge"], seeds: Sequence[int]
) -> UInt8[np.ndarray, "batch bands edge edge"]:
    """Put each image in one of the square's eight positions, drawn from its sample's seed.

    The same seeds give the same positions, so that modalities stay aligned.
    """
    turned = np.empty_like(images)
    for out, image, seed in zip(turned, images, seeds, strict=True):
        quarter_turns, flipped = seed % 4, seed // 4 % 2
        view = np.rot90(image, quarter_turns, axes=(1, 2))
        out[...] = view[:, :, ::-1] if flipped else view
    return turned
