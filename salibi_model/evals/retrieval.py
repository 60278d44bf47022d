"""Retrieval on held-out samples: between modalities, scales and years."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from salibi_data.store.errors import StoreError, UsageError
from salibi_data.store.progress import Progress
from salibi_data.store.schema import Modality
from salibi_model.checkpoints.load import load
from salibi_model.data.store import SampleStore, check_agreement
from salibi_model.evals.features import weights_digest
from salibi_model.evals.metrics import Score
from salibi_model.evals.recall import Recall, check_finite, ranks, recalls
from salibi_model.evals.results import Results
from salibi_model.models.base import PretrainModel


@dataclass(frozen=True, kw_only=True)
class Direction:
    """One modality's images looked up among another's."""

    query: str
    gallery: str
    gsd_m: float
    """Metres per pixel of the query images, the mean over samples."""
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
    store: str
    against: str | None
    """Where the gallery's images are, if not in the queries' store."""
    weights_digest: str
    data_digest: str
    """Plan digests of the stores."""

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
    against: str | Path | SampleStore | None = None,
    split: str = "validation",
    scales: bool = False,
    device: str | torch.device = "cpu",
    batch_size: int = 16,
    seed: int = 0,
    on_sample: Progress | None = None,
) -> RetrievalReport:
    """Look up each image of a split among the images of every other modality.

    Images are encoded whole (unmasked), and compared by the cosine of their contrastive
    projections. A tie counts against the model: one that gives all images the same embedding
    scores zero.

    Args:
        checkpoint: a run's or model's folder, or a model.
        store: a store with the model's modalities.
        against: another store of the same places, as of another year, whose images are the
            gallery; tiles that both have take part, whatever their split in that one. Each
            modality is then looked up in its own, too.
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
            there are no two kinds of images to compare; or the two stores share no tile.
    """
    model = checkpoint
    if not isinstance(model, PretrainModel):
        model = load(model, device=device)
    queries = _Side(model, store, scales=scales, alone=against is None)
    indices = queries.store.split_indices(split)
    if not len(indices):
        raise StoreError(f"{queries.store.location} has no samples in the split {split!r}.")
    gallery = None
    if against is not None:
        gallery = _Side(model, against, scales=scales, alone=False)
        indices, others = same_tiles(queries.store, indices, gallery.store)
    total = len(indices) * (len(queries.views) + (len(gallery.views) if gallery else 0))
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if on_sample is not None:
            on_sample(done, total)

    vectors = queries.embed(indices, batch_size, advance)
    looked_up = gallery.embed(others, batch_size, advance) if gallery else vectors
    rng = np.random.default_rng(seed)
    gsds_m = queries.gsds_m(indices)
    pairs = product(vectors, looked_up) if gallery else permutations(vectors, 2)
    directions = []
    for query, other in pairs:
        found = ranks(vectors[query], looked_up[other])
        directions.append(
            Direction(
                query=query,
                gallery=other,
                gsd_m=gsds_m[query],
                recalls=recalls(found, rng),
                ranks=found,
            )
        )
    digests = [side.store.attributes.plan_digest for side in (queries, gallery) if side]
    return RetrievalReport(
        split=split,
        num_samples=len(indices),
        directions=tuple(directions),
        store=queries.store.location,
        against=gallery.store.location if gallery else None,
        weights_digest=weights_digest(model),
        data_digest="/".join(digests),
    )


def record(report: RetrievalReport, results: Results, *, name: str) -> None:
    """Add a report's recalls to a results folder; those that are there already stay.

    Args:
        report: from :func:`retrieval`.
        results: the folder.
        name: of the model.
    """
    for direction in report.directions:
        for recall in direction.recalls:
            against = report.against and Path(report.against).name
            score = Score(
                model=name,
                encoder=f"{direction.query} > {direction.gallery}",
                dataset=Path(report.store).name,
                method="retrieval",
                metric=f"recall@{recall.k}",
                value=recall.value,
                low=recall.low,
                high=recall.high,
                num_train=0,
                num_test=report.num_samples,
                gsd_m=direction.gsd_m,
                settings={"split": report.split, "against": against},
                weights_digest=report.weights_digest,
                data_digest=report.data_digest,
            )
            if results.find(score.key) is None:
                results.add(score, (direction.ranks < recall.k).astype(np.int64))


class _Side:
    """A store's images, each to be seen by one of the model's encoders."""

    def __init__(
        self, model: PretrainModel, store: str | Path | SampleStore, *, scales: bool, alone: bool
    ) -> None:
        """Open it; ``alone`` where its images are looked up among each other."""
        self._model = model
        self.store = store if isinstance(store, SampleStore) else SampleStore(store)
        check_agreement(self.store, model.config.modalities)
        self.views = _views(model, self.store, scales=scales, alone=alone)

    def embed(
        self, indices: np.ndarray, batch_size: int, advance: Callable[[int], None]
    ) -> dict[str, Tensor]:
        """Give the contrastive projections of samples, per array."""
        vectors: dict[str, Tensor] = {}
        for name, modality in self.views.items():
            ratio = self._ratio(name) if name != modality else None
            parts = []
            for first in range(0, len(indices), batch_size):
                chosen = indices[first : first + batch_size]
                parts.append(_project(self._model, modality, self.store.read(name, chosen), ratio))
                check_finite(f"embeddings of {name!r}", parts[-1])
                advance(len(chosen))
            vectors[name] = torch.cat(parts)
        return vectors

    def gsds_m(self, indices: np.ndarray) -> dict[str, float]:
        """Metres per pixel, the mean over samples, per array."""
        base_m = float(self.store.read("gsd_m", indices).mean(dtype=np.float64))
        return {name: base_m * self._ratio(name) for name in self.views}

    def _ratio(self, name: str) -> float:
        return self.store.attributes.modalities[name].gsd_ratio


def same_tiles(
    store: SampleStore, indices: Int64[np.ndarray, " samples"], other: SampleStore
) -> tuple[Int64[np.ndarray, " shared"], Int64[np.ndarray, " shared"]]:
    """Find samples of two stores on the same tile (z, x, y).

    Args:
        store: that of ``indices``.
        indices: its samples to be found.
        other: where to find them, in any split.

    Returns:
        Indices of the samples in the one and in the other, in the order of ``indices``.

    Raises:
        UsageError: there are none.
    """
    there = {
        tuple(tile): number
        for number, tile in enumerate(other.read("tile", np.arange(len(other))).tolist())
    }
    tiles = [tuple(tile) for tile in store.read("tile", indices).tolist()]
    shared = [
        (index, there[tile]) for index, tile in zip(indices, tiles, strict=True) if tile in there
    ]
    if not shared:
        raise UsageError(
            f"{store.location} and {other.location} share no tile: expected stores of the same "
            "places and zoom. Build the second one from the first one's area."
        )
    ours, theirs = np.array(shared, np.int64).T
    return ours, theirs


def _views(
    model: PretrainModel, store: SampleStore, *, scales: bool, alone: bool
) -> dict[str, str]:
    """Arrays to compare, each with the modality whose encoder sees it."""
    views = {name: name for name in model.config.names}
    if scales:
        views |= other_scales(model, store)
    if len(views) == 1 and alone:
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


@torch.inference_mode()
def _project(
    model: PretrainModel, modality: str, images: np.ndarray, gsd_ratio: float | None = None
) -> Tensor:
    device = next(model.parameters()).device
    _, embedding = model.encode(torch.from_numpy(images).to(device), modality, gsd_ratio)
    return model.project(embedding, modality).cpu()
