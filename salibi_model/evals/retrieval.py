"""Retrieves held-out samples by their embeddings: between modalities, scales and years."""

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
from salibi_data.store.redaction import shown_location
from salibi_data.store.schema import Modality
from salibi_model.checkpoints.load import load
from salibi_model.data.input_names import distinct_names, identity_of
from salibi_model.data.modalities import check_agreement
from salibi_model.data.store import SampleStore
from salibi_model.evals.features import weights_digest
from salibi_model.evals.metrics import Recall, Score, check_finite, ranks, recalls
from salibi_model.evals.options import RetrievalOptions
from salibi_model.evals.results import Results
from salibi_model.models.base import PretrainModel


@dataclass(frozen=True, kw_only=True)
class Direction:
    """Retrieval from one modality's images to another's."""

    query: str
    """Modality, or array, of the queries."""
    gallery: str
    """Modality, or array, of the gallery."""
    gsd_m: float
    """Metres per pixel of the query images, the mean over samples."""
    recalls: tuple[Recall, ...]
    ranks: Int64[np.ndarray, " samples"]
    """Rank of each query's own sample (0 is best), to compare two models query by query."""


@dataclass(frozen=True, kw_only=True)
class RetrievalReport:
    """Retrieval in every direction between the model's modalities."""

    split: str
    num_samples: int
    """Number of queries, and of images of the gallery, in each direction."""
    directions: tuple[Direction, ...]
    store: str
    """Location of the queries' store."""
    against: str | None
    """Location of the gallery's store, if it is another one."""
    weights_digest: str
    """SHA-256 of the model's configuration and weights."""
    data_digest: str
    """Plan digests of the stores, joined by a slash."""

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
    against: str | Path | SampleStore | None = RetrievalOptions.against,
    split: str = RetrievalOptions.split,
    scales: bool = RetrievalOptions.scales,
    device: str | torch.device = "cpu",
    batch_size: int = RetrievalOptions.batch_size,
    seed: int = RetrievalOptions.seed,
    on_sample: Progress | None = None,
) -> RetrievalReport:
    """Find each image's own sample among the images of every other modality.

    Images are encoded whole (unmasked), and compared by the cosine of their contrastive
    projections. A tie counts against the model: one that gives all images the same embedding
    scores zero.

    Args:
        checkpoint: a run's or model's folder, or a model.
        store: a store with the model's modalities.
        against: another store of the same tiles, as of another year, whose images are the
            gallery; tiles that both stores have are used, whatever their split in this one. Each
            modality is then also a gallery for its own queries.
        split: ``validation``, ``test`` or ``train``.
        scales: whether to use arrays too that show a modality of the model at another ground
            sample distance, such as ``hires`` beside ``hires_4x``; that modality's encoder takes
            them, at the array's own GSD ratio, though it was not trained on it.
        device: device to encode on, if a folder is given.
        batch_size: images at a time.
        seed: random seed of the bootstrap.
        on_sample: called with the numbers of images (done, total).

    Raises:
        CheckpointError: there is no model, or its embeddings are not finite.
        StoreError: there is no store, or its split has no samples.
        UsageError: the store lacks a modality of the model, or its values mean something else; or
            there are no two kinds of images to compare; or the two stores share no tile.

    Example:
        >>> report = retrieval(run_path, store_path, split="validation")
        >>> report.num_samples, [(d.query, d.gallery) for d in report.directions][:2]
        (6, [('sar', 'lores'), ('sar', 'hires_4x')])
        >>> [(recall.k, round(recall.chance, 3)) for recall in report.directions[0].recalls]
        [(1, 0.167), (5, 0.833)]
    """
    model = checkpoint
    if not isinstance(model, PretrainModel):
        model = load(model, device=device)
    queries = _EncodedStore(model, store, scales=scales, is_gallery=against is None)
    indices = queries.store.split_indices(split)
    if not len(indices):
        raise StoreError(f"{queries.store.location} has no samples in the split {split!r}.")
    gallery = None
    if against is not None:
        _refuse_same(queries.store, against)
        gallery = _EncodedStore(model, against, scales=scales, is_gallery=False)
        # Only shared tiles count: a query without its own tile in the gallery could not be found.
        indices, others = same_tiles(queries.store, indices, gallery.store)
    total = len(indices) * (len(queries.encoders) + (len(gallery.encoders) if gallery else 0))
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if on_sample is not None:
            on_sample(done, total)

    vectors = queries.embed(indices, batch_size, advance)
    gallery_vectors = gallery.embed(others, batch_size, advance) if gallery else vectors
    rng = np.random.default_rng(seed)
    gsds_m = queries.gsds_m(indices)
    # Between two stores a modality may be its own gallery; within one, an image would find itself.
    pairs = product(vectors, gallery_vectors) if gallery else permutations(vectors, 2)
    directions = []
    for query, other in pairs:
        query_ranks = ranks(vectors[query], gallery_vectors[other])
        directions.append(
            Direction(
                query=query,
                gallery=other,
                gsd_m=gsds_m[query],
                recalls=recalls(query_ranks, rng),
                ranks=query_ranks,
            )
        )
    digests = [each.store.attributes.plan_digest for each in (queries, gallery) if each]
    return RetrievalReport(
        split=split,
        num_samples=len(indices),
        directions=tuple(directions),
        store=queries.store.location,
        against=gallery.store.location if gallery else None,
        weights_digest=weights_digest(model),
        data_digest="/".join(digests),
    )


def _refuse_same(store: SampleStore, against: str | Path | SampleStore) -> None:
    """Refuse to look samples up among themselves, where each finds itself."""
    location = against.location if isinstance(against, SampleStore) else str(against)
    if identity_of(location) == identity_of(store.location):
        raise UsageError(
            f"--against (against) is {shown_location(location)}, the store of the queries itself: "
            "each would find itself. Name another store of the same places, or leave it out."
        )


def record(report: RetrievalReport, results: Results, *, name: str) -> None:
    """Add a report's recalls to a results folder, unless they are there already.

    Args:
        report: result of :func:`retrieval`.
        results: the results folder.
        name: name of the model.
    """
    dataset, against = Path(report.store).name, None
    if report.against is not None:
        dataset, against = distinct_names([report.store, report.against])
    for direction in report.directions:
        for recall in direction.recalls:
            score = Score(
                model=name,
                encoder=f"{direction.query} > {direction.gallery}",
                dataset=dataset,
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


class _EncodedStore:
    """A store's image arrays, each with the encoder of the model that takes it."""

    def __init__(
        self,
        model: PretrainModel,
        store: str | Path | SampleStore,
        *,
        scales: bool,
        is_gallery: bool,
    ) -> None:
        """Open the store; ``is_gallery``: its own arrays are the gallery of its queries."""
        self._model = model
        self.store = store if isinstance(store, SampleStore) else SampleStore(store)
        check_agreement(self.store, model.config.modalities)
        self.encoders = _encoders(model, self.store, scales=scales, is_gallery=is_gallery)

    def embed(
        self, indices: np.ndarray, batch_size: int, advance: Callable[[int], None]
    ) -> dict[str, Tensor]:
        """Return the contrastive projections (samples, dim) of samples, per array."""
        vectors: dict[str, Tensor] = {}
        for name, modality in self.encoders.items():
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
        """Return metres per pixel, the mean over samples, per array."""
        base_m = float(self.store.read("gsd_m", indices).mean(dtype=np.float64))
        return {name: base_m * self._ratio(name) for name in self.encoders}

    def _ratio(self, name: str) -> float:
        return self.store.attributes.modalities[name].gsd_ratio


def same_tiles(
    store: SampleStore, indices: Int64[np.ndarray, " samples"], other: SampleStore
) -> tuple[Int64[np.ndarray, " shared"], Int64[np.ndarray, " shared"]]:
    """Find samples of two stores on the same tile (z, x, y).

    Args:
        store: the first store.
        indices: samples of the first store.
        other: the second store, of which all splits are searched.

    Returns:
        Indices of the shared samples in the first and in the second store, in the order of
        ``indices``.

    Raises:
        UsageError: the stores share no tile.
    """
    other_indices = {
        tuple(tile): number
        for number, tile in enumerate(other.read("tile", np.arange(len(other))).tolist())
    }
    tiles = [tuple(tile) for tile in store.read("tile", indices).tolist()]
    shared = [
        (index, other_indices[tile])
        for index, tile in zip(indices, tiles, strict=True)
        if tile in other_indices
    ]
    if not shared:
        raise UsageError(
            f"{store.location} and {other.location} share no tile: expected stores of the same "
            "places and zoom. Build the second one from the first one's area."
        )
    first, second = np.array(shared, np.int64).T
    return first, second


def _encoders(
    model: PretrainModel, store: SampleStore, *, scales: bool, is_gallery: bool
) -> dict[str, str]:
    """Return the arrays to compare, each with the modality whose encoder takes it."""
    encoders = {name: name for name in model.config.names}
    if scales:
        encoders |= other_scales(model, store)
    if len(encoders) == 1 and is_gallery:
        (only,) = encoders
        advice = (
            f"{store.location} has no other array of its sensor, bands and units."
            if scales
            else "Add --scales where the store shows it at other scales, or take a model of more "
            "modalities."
        )
        raise UsageError(
            f"the model has {only!r} alone: there is nothing to look it up in. {advice}"
        )
    return encoders


def other_scales(model: PretrainModel, store: SampleStore) -> dict[str, str]:
    """Return the store's arrays that show a modality of the model at another scale.

    Returns:
        Modality by array: the model's first with the same sensor, bands, units and scaling.
    """
    modalities: dict[str, str] = {}
    for name, array in store.attributes.modalities.items():
        if name not in model.config.names:
            for known in model.config.modalities:
                if _content(known) == _content(array):
                    modalities.setdefault(name, known.name)
    return modalities


def _content(modality: Modality) -> tuple[object, ...]:
    """Fields that say what an image shows, apart from its size."""
    fields = ("sensor", "bands", "units", "scale", "offset", "nodata")
    return tuple(getattr(modality, field) for field in fields)


@torch.inference_mode()
def _project(
    model: PretrainModel, modality: str, images: np.ndarray, gsd_ratio: float | None = None
) -> Tensor:
    """Encode images (B, C, H, W) of stored values, and return their contrastive projections."""
    device = next(model.parameters()).device
    _, embedding = model.encode(torch.from_numpy(images).to(device), modality, gsd_ratio)
    return model.project(embedding, modality).cpu()
