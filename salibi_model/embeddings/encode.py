"""Images to embeddings: threads read ahead, in order, while the model encodes batches."""

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Final

import numpy as np
import torch

from salibi_model.embeddings.inputs import Source, View
from salibi_model.embeddings.writer import Tokens, Vectors
from salibi_model.errors import CheckpointError
from salibi_model.models.base import PretrainModel

_RUN: Final = 8
"""Images that a thread reads in one go."""


class Part:
    """Rows of a part in the making; a batch is encoded when it is full."""

    def __init__(
        self, model: PretrainModel, modality: str, batch_size: int, *, tokens: bool
    ) -> None:
        self._model, self._modality, self._batch_size = model, modality, batch_size
        self._keep_tokens = tokens
        self._clear()

    def __len__(self) -> int:
        return len(self._views)

    def add(self, view: View) -> None:
        """Take a row."""
        waiting = self._waiting
        if waiting and waiting[-1].image.shape != view.image.shape:
            self._encode()
        self._waiting.append(view)
        self._views.append(view)
        if len(self._waiting) == self._batch_size:
            self._encode()

    def take(self) -> tuple[list[View], Vectors, Tokens | None]:
        """Give the rows with their embeddings, and begin anew."""
        self._encode()
        tokens = np.concatenate(self._tokens) if self._keep_tokens else None
        taken = (self._views, np.concatenate(self._vectors), tokens)
        self._clear()
        return taken

    def _clear(self) -> None:
        self._views: list[View] = []
        self._waiting: list[View] = []
        self._vectors: list[np.ndarray] = []
        self._tokens: list[np.ndarray] = []

    def _encode(self) -> None:
        if not self._waiting:
            return
        tokens, vectors = encode_views(self._model, self._modality, self._waiting)
        self._vectors.append(vectors)
        if self._keep_tokens:
            self._tokens.append(tokens)
        # Only what is written is held on to: a part of images would be large.
        self._views[-len(self._waiting) :] = [
            replace(view, image=view.image[:, :0, :0]) for view in self._waiting
        ]
        self._waiting = []


@torch.inference_mode()
def encode_views(
    model: PretrainModel, modality: str, views: Sequence[View]
) -> tuple[Tokens, Vectors]:
    """Encode images of one shape, each at its own ground sample distance.

    Raises:
        CheckpointError: the embeddings are not finite.
    """
    device = next(model.parameters()).device
    images = torch.from_numpy(np.stack([view.image for view in views])).to(device)
    ratios = torch.tensor([view.gsd_ratio for view in views])
    # One number where there is one: the bias is then made once for the batch.
    alike = bool((ratios == ratios[0]).all())
    tokens, vectors = model.encode(images, modality, views[0].gsd_ratio if alike else ratios)
    if not bool(vectors.isfinite().all()):
        raise CheckpointError(
            f"embeddings of {modality!r} are not finite. The model's weights are damaged, or it "
            "diverged; take another checkpoint."
        )
    return tokens.float().cpu().numpy(), vectors.float().cpu().numpy()


def read_ahead(sources: Sequence[Source], first: int, workers: int) -> Generator[View | None]:
    """Read the images of all sources in order, from number ``first`` on, some ahead of the taker."""
    with ThreadPoolExecutor(workers) as pool:
        coming: deque[Future[list[View | None]]] = deque()
        try:
            for source, start, stop in _runs(sources, first):
                coming.append(pool.submit(source.read, start, stop))
                if len(coming) > 2 * workers:
                    yield from coming.popleft().result()
            while coming:
                yield from coming.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _runs(sources: Sequence[Source], first: int) -> Iterator[tuple[Source, int, int]]:
    """Cut the sources' images from ``first`` on into runs that are read in one go."""
    skipped = first
    for source in sources:
        for start in range(min(skipped, len(source)), len(source), _RUN):
            yield source, start, min(start + _RUN, len(source))
        skipped -= min(skipped, len(source))
