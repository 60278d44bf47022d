"""Makes batches of stores' samples: shuffled by seed, shared among ranks, resumable.

Which samples make up a batch depends on the seed, the epoch and the batch's number alone: not on
the number of processes or threads. Each rank reads and yields its own part of the global batch.
"""

import time
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from salibi_data.store.errors import UsageError
from salibi_data.store.schema import Modality
from salibi_model.data.crops import Crop
from salibi_model.data.dataset import StoreDataset
from salibi_model.data.sampler import epoch_order, quotas
from salibi_model.data.store import SampleStore
from salibi_model.errors import CheckpointError

MIN_AHEAD = 2
"""Batches that are prepared while the model works on one; more if threads would have no work."""

_SAMPLE_STREAM, _BATCH_STREAM = 1, 2
"""Numbers that keep the seeds of samples apart from those of batches."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One rank's part of a global batch."""

    images: dict[str, UInt8[Tensor, "batch _ _ _"]]
    """Images per modality, (B, C, H, W) in stored values, all cropped, rotated and flipped alike;
    nodata where a sample's store lacks the modality."""
    seeds: tuple[int, ...]
    """Random seed per sample, from (seed, epoch, position in the epoch), for masks and whatever
    else is drawn."""
    seed: int
    """Random seed of the batch, from (seed, epoch, batch number): the same on all ranks."""
    gsd_scale: Float[Tensor, " batch"] | None = None
    """Ground size of each sample's pixels over what its modalities' ``gsd_ratio`` says in the
    first store; ``None``: 1 for all, as nothing is cropped and the base zooms agree."""


class DataLoader:
    """An endless iterator of batches that knows its position.

    Threads prepare the samples of the next batches, in order: reading, decoding, cropping and
    rotating release Python's lock for the most part. Memory holds the batch in use, at
    least :data:`MIN_AHEAD` more (as many as give each thread two samples), and a split no
    larger than ``cache_bytes``, which is read once.

    Example:
        >>> loader = DataLoader([store_path], modalities=("sar", "lores"), batch_size=4, seed=0)
        >>> batch = next(iter(loader))
        >>> {name: tuple(images.shape) for name, images in batch.images.items()}
        {'sar': (4, 2, 256, 256), 'lores': (4, 3, 256, 256)}
        >>> loader.steps_per_epoch, loader.state_dict()["batch"]
        (2, 1)
    """

    waited_s: float = 0.0
    """Seconds that the last batch was waited for."""

    def __init__(
        self,
        stores: Sequence[SampleStore | str | Path],
        *,
        modalities: Sequence[str] | None = None,
        batch_size: int = 32,
        split: str = "train",
        seed: int = 0,
        shuffle: bool = True,
        augment: bool = True,
        rank: int = 0,
        world_size: int = 1,
        cache_bytes: int = 2 << 30,
        weights: Sequence[float] = (),
        crop: Crop | None = None,
        workers: int = 2,
        pin: bool = False,
    ) -> None:
        """Set up; the first samples are read when the first batch is asked for.

        Args:
            stores: paths, URLs or open stores, read as if they were one. Base zooms may differ
                (``Batch.gsd_scale`` has that), and a store may lack modalities that others have.
            modalities: names of the arrays to yield; ``None``: all those of the first store.
            batch_size: samples of all ranks together. The last, smaller batch of an epoch is
                left out; the next epoch's order differs.
            split: ``train``, ``validation`` or ``test``.
            seed: random seed of order and augmentation.
            shuffle: whether each epoch has a random order of its own, across all shards.
            augment: whether samples are flipped and rotated by quarters, all modalities alike.
            rank: number of this process among ``world_size``.
            world_size: number of processes.
            cache_bytes: largest split that is kept in memory, per process.
            weights: share of each store in the samples, whatever they sum to; an epoch then has as
                many samples as all stores together, and each store begins again only when all of
                its own have been read. Empty: each sample once per epoch.
            crop: the squares that are cut from samples, and their size; ``None``: whole samples.
            workers: number of threads; it changes no result. Buckets, where a sample takes a
                request per modality, can use a dozen.
            pin: whether batches lie in pinned memory, from which a GPU copies them while it works.

        Raises:
            UsageError: the batch does not divide among the ranks, or is larger than the split;
                weights or crops do not fit; or no store has one of the modalities.
            StoreError: a store is missing or damaged.
        """
        if batch_size < 1 or batch_size % world_size:
            raise UsageError(
                f"batch size {batch_size} does not divide among {world_size} processes; "
                "it counts the samples of all processes together."
            )
        if workers < 1:
            raise UsageError(f"there are {workers} workers; give 1 or more.")
        self._dataset = StoreDataset(stores, modalities=modalities, split=split)
        if len(self._dataset) < batch_size:
            raise UsageError(
                f"the split {split!r} has {len(self._dataset)} samples, fewer than one batch of "
                f"{batch_size}; lower the batch size or take a larger store."
            )
        if crop is not None:
            crop.check(self._dataset.modalities)
        self.batch_size = batch_size
        self.steps_per_epoch = len(self._dataset) // batch_size
        self._quotas = quotas(self._dataset.counts, weights) if weights else ()
        self._seed, self._shuffle, self._augment, self._crop = seed, shuffle, augment, crop
        self._rank, self._local_size = rank, batch_size // world_size
        self._cache_bytes, self._cached, self._workers = cache_bytes, False, workers
        self._pin = pin
        self._has_scales = crop is not None or any(scale != 1 for scale in self._dataset.gsd_scales)
        self._epoch, self._batch = 0, 0
        self._identity = {
            "split": split,
            "samples": list(self._dataset.counts),
            "weights": [float(weight) for weight in weights],
            "batch_size": batch_size,
            "seed": seed,
            "shuffle": shuffle,
            "augment": augment,
            "crop": list(astuple(crop)) if crop else [],
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the position: epoch and number of the next batch, and what decides the batches."""
        return {"epoch": self._epoch, "batch": self._batch, "made_of": dict(self._identity)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a position from :meth:`state_dict`; it takes effect with the next ``iter()``.

        Raises:
            CheckpointError: the position is one among other batches than these.
        """
        saved = state.get("made_of", {})
        changes = [
            f"{name} {saved[name]} -> {value}"
            for name, value in self._identity.items()
            if name in saved and saved[name] != value
        ]
        if changes:
            raise CheckpointError(
                "the position in the data is one among other batches: "
                f"{'; '.join(changes)}. Go on with the same, or start again with another --out."
            )
        self._epoch, self._batch = int(state["epoch"]), int(state["batch"])

    def __iter__(self) -> Generator[Batch]:
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="salibi-batches")
        try:
            if not self._cached and self._dataset.num_bytes <= self._cache_bytes:
                self._dataset.cache_images(pool)
                self._cached = True
            yield from self._batches(pool)
        finally:
            # A caller that leaves must not wait for a server that does not answer.
            pool.shutdown(wait=False, cancel_futures=True)

    def _batches(self, pool: Executor) -> Generator[Batch]:
        """Yield finished batches in order, and keep the next ones in preparation."""
        # Two samples per thread, so that none is idle while a batch is finished.
        num_ahead = max(MIN_AHEAD, -(-2 * self._workers // self._local_size))
        pending = deque[tuple[Batch, list[Future[None]]]]()
        positions = self._positions()
        while True:
            while len(pending) <= num_ahead:
                pending.append(self._start_batch(pool, *next(positions)))
            started = time.perf_counter()
            batch, samples = pending.popleft()
            for sample in samples:
                sample.result()
            self.waited_s = time.perf_counter() - started
            is_last = self._batch + 1 == self.steps_per_epoch
            # Moved on before the yield: the state then names the batch after the one in use.
            self._epoch, self._batch = (
                (self._epoch + 1, 0) if is_last else (self._epoch, self._batch + 1)
            )
            yield batch

    def _positions(self) -> Generator[tuple[np.ndarray, int, int]]:
        """Yield (order of the epoch, epoch, batch) from the present position on, without end."""
        epoch, first = self._epoch, self._batch
        while True:
            order = epoch_order(
                self._dataset.counts,
                seed=self._seed,
                epoch=epoch,
                shuffle=self._shuffle,
                quotas=self._quotas,
            )
            for batch in range(first, self.steps_per_epoch):
                yield order, epoch, batch
            epoch, first = epoch + 1, 0

    def _start_batch(
        self, pool: Executor, order: np.ndarray, epoch: int, number: int
    ) -> tuple[Batch, list[Future[None]]]:
        """Make an empty batch, and start to fill in its samples."""
        first = number * self.batch_size + self._rank * self._local_size
        positions = range(first, first + self._local_size)
        batch = Batch(
            images={
                modality.name: torch.empty(
                    (self._local_size, len(modality.bands), *[self._edge_px(modality)] * 2),
                    dtype=torch.uint8,
                    pin_memory=self._pin,
                )
                for modality in self._dataset.modalities
            },
            seeds=tuple(
                _derived_seed(self._seed, epoch, position, _SAMPLE_STREAM) for position in positions
            ),
            seed=_derived_seed(self._seed, epoch, number, _BATCH_STREAM),
            gsd_scale=torch.ones(self._local_size) if self._has_scales else None,
        )
        rows = order[first : first + self._local_size].tolist()
        return batch, [pool.submit(self._fill, batch, i, row) for i, row in enumerate(rows)]

    def _edge_px(self, modality: Modality) -> int:
        if self._crop is None:
            return modality.size_px
        return round(self._crop.size_px / modality.gsd_ratio)

    def _fill(self, batch: Batch, position: int, row: int) -> None:
        """Write sample ``row`` to ``position`` of a batch."""
        seed, modalities = batch.seeds[position], self._dataset.modalities
        window = self._crop.window(seed, modalities) if self._crop else None
        for modality in modalities:
            # Shares the tensor's memory: the sample is copied once, to its position.
            out = batch.images[modality.name].numpy()[position]
            image = self._dataset.image(row, modality.name)
            if image is None:
                out[...] = modality.nodata
                continue
            if window:
                image = window.cut(image, modality)
            if self._augment:
                image = rotate_and_flip(image, seed)
            out[...] = image
        if batch.gsd_scale is not None:
            scale = self._dataset.gsd_scales[self._dataset.store_of(row)]
            batch.gsd_scale[position] = scale * (window.gsd_scale if window else 1.0)


def _derived_seed(*numbers: int) -> int:
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    # 63 bits: torch and the masks take signed 64-bit seeds.
    return int(state[0] >> np.uint64(1))


def rotate_and_flip(
    image: UInt8[np.ndarray, "bands edge edge"], seed: int
) -> UInt8[np.ndarray, "bands edge edge"]:
    """Put an image in one of the square's eight orientations, drawn from its sample's seed.

    The same seed gives the same orientation, so that modalities stay aligned.
    """
    quarter_turns, flipped = seed % 4, seed // 4 % 2
    view = np.rot90(image, quarter_turns, axes=(1, 2))
    return view[:, :, ::-1] if flipped else view
