"""How good an embedding is: retrieval between modalities, and scales, on held-out samples."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

import salibi_model
from salibi_data.schema import Modality
from salibi_model.errors import CheckpointError, StoreError, UsageError
from salibi_model.interface import PretrainModel
from salibi_model.store import SampleStore, check_agreement

RECALL_AT = (1, 5)
BOOTSTRAP_SAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Recall:
    """Share of queries whose own sample is among the ``k`` nearest of the gallery."""

    k: int
    hits: int
    value: float
    low: float
    high: float
    """``low`` and ``high``: bootstrap 95 % interval over queries."""
    chance: float
    """Recall of a random order: ``k`` over the size of the gallery."""


@dataclass(frozen=True, kw_only=True)
class Direction:
    """One modality's images looked up among another's."""

    query: str
    gallery: str
    recalls: tuple[Recall, ...]
    ranks: Int64[np.ndarray, " samples"]
    """Of each query's own sample, 0 is best: to compare two models query by query."""


@dataclass(frozen=True, kw_only=True)
class RetrievalReport:
    """Retrieval in every direction between the model's modalities."""

    split: str
    num_samples: int
    """Queries, and images of the gallery, of each direction."""
    directions: tuple[Direction, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON form, without the ranks."""
        content = asdict(self)
        for direction in content["directions"]:
            del direction["ranks"]
        return content


def retrieval(
    checkpoint: str | Path | PretrainModel,
    store: str | Path | SampleStore,
    *,
    split: str = "validation",
    scales: bool = False,
    device: str | torch.device = "cpu",
    batch_size: int = 16,
    seed: int = 0,
    on_sample: Callable[[int, int], None] | None = None,
) -> RetrievalReport:
    """Look up each image of a split among the images of every other modality.

    Images are encoded whole (unmasked), and compared by the cosine of their contrastive
    projections. A tie counts against the model: one that gives all images the same embedding
    scores zero.

    Args:
        checkpoint: a run's or model's folder, or a model.
        store: a store with the model's modalities.
        split: ``validation``, ``test`` or ``train``.
        scales: take part also arrays that show what a modality of the model shows at another
            ground sample distance, such as ``hires`` beside ``hires_4x``; that modality's encoder
            sees them, at the array's own GSD ratio, though it was not trained on it.
        device: where to encode.
        batch_size: images at a time.
        seed: of the bootstrap.
        on_sample: called with (done, total) images.

    Raises:
        CheckpointError: there is no model, or its embeddings are not finite.
        StoreError: there is no store, or its split has no samples.
        UsageError: the store lacks a modality of the model, or its values mean something else; or
            there are no two kinds of images to compare.
    """
    model = checkpoint
    if not isinstance(model, PretrainModel):
        model = salibi_model.load(model, device=device)
    samples = store if isinstance(store, SampleStore) else SampleStore(store)
    indices = samples.split_indices(split)
    if not len(indices):
        raise StoreError(f"{samples.location} has no samples in the split {split!r}.")
    check_agreement(samples, model.config.modalities)
    views = _views(model, samples, scales=scales)
    total = len(indices) * len(views)
    vectors: dict[str, Tensor] = {}
    for number, (name, modality) in enumerate(views.items()):
        ratio = samples.attributes.modalities[name].gsd_ratio if name != modality else None
        parts = []
        for first in range(0, len(indices), batch_size):
            chosen = indices[first : first + batch_size]
            parts.append(_project(model, modality, samples.read(name, chosen), ratio))
            _check_finite(f"embeddings of {name!r}", parts[-1])
            if on_sample is not None:
                on_sample(number * len(indices) + first + len(chosen), total)
        vectors[name] = torch.cat(parts)
    rng = np.random.default_rng(seed)
    return RetrievalReport(
        split=split,
        num_samples=len(indices),
        directions=tuple(
            _direction(query, gallery, ranks(vectors[query], vectors[gallery]), rng)
            for query, gallery in permutations(views, 2)
        ),
    )


def _views(model: PretrainModel, store: SampleStore, *, scales: bool) -> dict[str, str]:
    """Arrays to compare, each with the modality whose encoder sees it."""
    views = {name: name for name in model.config.names}
    if scales:
        views |= other_scales(model, store)
    if len(views) == 1:
        (only,) = views
        remedy = (
            f"{store.location} has no other array of its sensor, bands and units."
            if scales
            else "Add --scales where the store shows it at other scales, or take a model of more "
            "modalities."
        )
        raise UsageError(
            f"the model has {only!r} alone: there is nothing to look it up in. {remedy}"
        )
    return views


def _direction(query: str, gallery: str, found: np.ndarray, rng: np.random.Generator) -> Direction:
    return Direction(query=query, gallery=gallery, recalls=recalls(found, rng), ranks=found)


def other_scales(model: PretrainModel, store: SampleStore) -> dict[str, str]:
    """Give the store's arrays that show a modality of the model at another scale.

    Returns:
        Array to modality: the first of the model's with the same sensor, bands, units and scaling.
    """
    found: dict[str, str] = {}
    for name, array in store.attributes.modalities.items():
        if name not in model.config.names:
            for known in model.config.modalities:
                if _content(known) == _content(array):
                    found.setdefault(name, known.name)
    return found


def _content(modality: Modality) -> tuple[object, ...]:
    """What an image shows, apart from its size."""
    described = ("sensor", "bands", "units", "scale", "offset", "nodata")
    return tuple(getattr(modality, field) for field in described)


def ranks(
    queries: Float[Tensor, "samples dim"], gallery: Float[Tensor, "samples dim"]
) -> Int64[np.ndarray, " samples"]:
    """Give the rank (0 is best) of each query's own sample in the gallery; ties count as worse.

    Raises:
        CheckpointError: some are not finite; nothing is near or far then.
    """
    _check_finite("embeddings of the queries", queries)
    _check_finite("embeddings of the gallery", gallery)
    similarity = queries @ gallery.T
    own = similarity.diagonal()[:, None]
    return ((similarity >= own).sum(dim=1) - 1).numpy()


def _check_finite(what: str, vectors: Tensor) -> None:
    bad = int((~vectors.isfinite().all(dim=1)).sum())
    if bad:
        raise CheckpointError(
            f"{what} are not finite, {bad} of {len(vectors)}: expected numbers to compare. The "
            "model's weights are damaged, or it diverged; take another checkpoint."
        )


def recalls(found: Int64[np.ndarray, " samples"], rng: np.random.Generator) -> tuple[Recall, ...]:
    """Count ranks below each k of :data:`RECALL_AT`, with bootstrap intervals over queries."""
    count = len(found)
    drawn = rng.integers(0, count, (BOOTSTRAP_SAMPLES, count))
    result = []
    for k in RECALL_AT:
        hit = found < k
        low, high = np.percentile(hit[drawn].mean(axis=1), (2.5, 97.5))
        result.append(
            Recall(
                k=k,
                hits=int(hit.sum()),
                value=float(hit.mean()),
                low=float(low),
                high=float(high),
                chance=min(1.0, k / count),
            )
        )
    return tuple(result)


@torch.inference_mode()
def _project(
    model: PretrainModel, modality: str, images: np.ndarray, gsd_ratio: float | None = None
) -> Tensor:
    device = next(model.parameters()).device
    _, embedding = model.encode(torch.from_numpy(images).to(device), modality, gsd_ratio)
    return model.project(embedding, modality).cpu()
