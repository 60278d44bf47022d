"""Encodes images in batches, while threads read the next ones in order."""

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Final

import numpy as np
import torch

from salibi_model.embeddings.inputs import EmbeddingInput, InputImage
from salibi_model.embeddings.writer import Tokens, Vectors
from salibi_model.errors import CheckpointError
from salibi_model.models.base import PretrainModel
from salibi_model.models.units import RAW_UNITS

_RUN: Final = 8
"""Number of images that a thread reads at a time."""


class EncodedWindows:
    """Collects the rows of one part; a batch of images is encoded when it is full."""

    def __init__(
        self, model: PretrainModel, modality: str, batch_size: int, *, tokens: bool
    ) -> None:
        self._model, self._modality, self._batch_size = model, modality, batch_size
        self._keep_tokens = tokens
        self._clear()

    def __len__(self) -> int:
        return len(self._images)

    def add(self, image: InputImage) -> None:
        """Add an image as the next row."""
        # A batch has images of one shape.
        if self._pending and self._pending[-1].image.shape != image.image.shape:
            self._encode()
        self._pending.append(image)
        self._images.append(image)
        if len(self._pending) == self._batch_size:
            self._encode()

    def take(self) -> tuple[list[InputImage], Vectors, Tokens | None]:
        """Return the rows with their vectors and tokens, and start the next part."""
        self._encode()
        tokens = np.concatenate(self._tokens) if self._keep_tokens else None
        rows = (self._images, np.concatenate(self._vectors), tokens)
        self._clear()
        return rows

    def _clear(self) -> None:
        self._images: list[InputImage] = []
        self._pending: list[InputImage] = []
        self._vectors: list[np.ndarray] = []
        self._tokens: list[np.ndarray] = []

    def _encode(self) -> None:
        if not self._pending:
            return
        tokens, vectors = encode_images(self._model, self._modality, self._pending)
        self._vectors.append(vectors)
        if self._keep_tokens:
            self._tokens.append(tokens)
        # Without their pixels, which are not written: a part of images would be large.
        self._images[-len(self._pending) :] = [
            replace(image, image=image.image[:, :0, :0]) for image in self._pending
        ]
        self._pending = []


@torch.inference_mode()
def encode_images(
    model: PretrainModel, modality: str, images: Sequence[InputImage]
) -> tuple[Tokens, Vectors]:
    """Encode images of one shape, each at its own ground sample distance.

    Returns:
        Tokens (images, tokens, dim) and pooled vectors (images, dim).

    Raises:
        CheckpointError: the embeddings are not finite.
    """
    device = next(model.parameters()).device
    pixels = torch.from_numpy(np.stack([image.image for image in images])).to(device)
    ratios = torch.tensor([image.gsd_ratio for image in images])
    # A single number if all are equal: the bias is then computed once for the batch.
    all_equal = bool((ratios == ratios[0]).all())
    ratio = images[0].gsd_ratio if all_equal else ratios
    # 8-bit pixels, which CROMA's weights take as 0..1.
    is_raw = model.config[modality].units == RAW_UNITS
    tokens, vectors = model.encode(pixels, modality, ratio, units="uint8" if is_raw else None)
    if not bool(vectors.isfinite().all()):
        raise CheckpointError(
            f"embeddings of {modality!r} are not finite. The model's weights are damaged, or it "
            "diverged; take another checkpoint."
        )
    return tokens.float().cpu().numpy(), vectors.float().cpu().numpy()


def read_ahead(
    sources: Sequence[EmbeddingInput], first: int, workers: int
) -> Generator[InputImage | None]:
    """Yield the images of all inputs in order, from number ``first`` on; threads read ahead."""
    with ThreadPoolExecutor(workers) as pool:
        pending: deque[Future[list[InputImage | None]]] = deque()
        try:
            for source, start, stop in _runs(sources, first):
                pending.append(pool.submit(source.read, start, stop))
                # Two runs per thread bound the memory, and keep all threads at work.
                if len(pending) > 2 * workers:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _runs(
    sources: Sequence[EmbeddingInput], first: int
) -> Iterator[tuple[EmbeddingInput, int, int]]:
    """Yield (input, start, stop) of runs of images that a thread reads at a time."""
    skipped = first
    for source in sources:
        for start in range(min(skipped, len(source)), len(source), _RUN):
            yield source, start, min(start + _RUN, len(source))
        skipped -= min(skipped, len(source))
