"""What is watched while a model trains: held-out losses, retrieval, and signs of collapse."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import islice, permutations

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from salibi_data.store.render_rgb import as_rgb
from salibi_model import distributed
from salibi_model.data.loader import Batch, DataLoader
from salibi_model.data.store import SampleStore
from salibi_model.evals.metrics import ranks
from salibi_model.evals.reconstruction import Reconstruction, reconstruct
from salibi_model.models.base import PretrainModel
from salibi_model.models.scale_alibi import ScaleAlibi
from salibi_model.training.config import TrainingConfig
from salibi_model.training.grad_cache import autocast, batch_losses, mask_batch
from salibi_model.training.monitoring.collapse import SMALLEST_STD, effective_rank, feature_std

FEWEST = 4
"""Samples without which spread says nothing."""


class Validator:
    """Measures a model on samples of the validation split, the same ones with the same masks.

    Processes share the samples, and each gets the same figures.
    """

    def __init__(
        self, stores: Sequence[SampleStore], config: TrainingConfig, device: torch.device
    ) -> None:
        """Choose the samples: a random ``config.validation_samples`` of the split, or all.

        They come in whole batches, of the training batch's size where there are as many; the
        loss of a smaller batch has fewer negatives, and is lower.
        """
        world_size = distributed.world_size()
        there = sum(len(store.split_indices("validation")) for store in stores)
        wanted = min(there, config.validation_samples)
        batch_size = min(config.batch_size, wanted) // world_size * world_size
        self.num_batches = wanted // batch_size if batch_size else 0
        self._config, self._device = config, device
        self._stores = tuple(stores)
        self.num_samples = self.num_batches * batch_size
        """Samples that are looked at, of all processes together."""
        if self.num_batches:
            self._batches = self._same_batches(batch_size)

    def __call__(self, model: PretrainModel) -> dict[str, float]:
        """Give losses, recall, and collapse meters; nothing where there is nothing to see.

        Returns:
            ``val_loss`` and its parts; ``val_recall1_sar_lores``, the share of SAR images whose
            nearest optical image is that of the same sample, and so on; ``feature_std_sar`` and
            ``effective_rank_sar`` of embeddings, see :mod:`salibi_model.training.monitoring.collapse`.
        """
        if not self.num_batches:
            return {}
        was_training = model.training
        model.eval()
        try:
            with torch.inference_mode():
                return self._measure(model)
        finally:
            model.train(was_training)

    def _measure(self, model: PretrainModel) -> dict[str, float]:
        losses: list[dict[str, Tensor]] = []
        embeddings: dict[str, list[Tensor]] = {name: [] for name in model.config.names}
        self._batches.load_state_dict({"epoch": 0, "batch": 0})
        with closing(iter(self._batches)) as batches:
            for batch in islice(batches, self.num_batches):
                masked = mask_batch(
                    model,
                    batch,
                    mask_ratio=self._config.mask_ratio,
                    hide_share=0.0,
                    device=self._device,
                )
                losses.append(batch_losses(model, masked, bf16=self._config.precision == "bf16"))
                for name, vectors in self._embed(model, batch).items():
                    embeddings[name].append(distributed.gather_rows(vectors))
        together = {name: torch.cat(parts) for name, parts in embeddings.items()}
        seen = {name: vectors[_known(vectors)] for name, vectors in together.items()}
        seen = {name: vectors for name, vectors in seen.items() if len(vectors) >= FEWEST}
        return {
            **_mean_losses(losses),
            **_recalls(model, together),
            **{f"feature_std_{name}": feature_std(v) for name, v in seen.items()},
            **{f"effective_rank_{name}": effective_rank(v) for name, v in seen.items()},
        }

    def _same_batches(self, batch_size: int) -> DataLoader:
        """Batches of which those of the first epoch are taken each time."""
        return DataLoader(
            self._stores,
            modalities=self._config.modalities,
            batch_size=batch_size,
            workers=self._config.workers,
            cache_bytes=0,
            split="validation",
            seed=self._config.seed,
            augment=False,
            rank=distributed.rank(),
            world_size=distributed.world_size(),
        )

    def _embed(self, model: PretrainModel, batch: Batch) -> dict[str, Tensor]:
        """Encode whole images, in as many parts as a step has; unobserved ones are NaN."""
        scale: float | Tensor = 1.0 if batch.gsd_scale is None else batch.gsd_scale
        if isinstance(scale, Tensor) and bool((scale == scale[0]).all()):
            scale = float(scale[0])  # one place of each patch, and one bias, for all
        found = {}
        for name in model.config.names:
            ratio = model.config[name].gsd_ratio * scale
            parts = []
            for chosen in torch.arange(len(batch.seeds)).chunk(self._config.accumulate):
                images = batch.images[name][chosen].to(self._device)
                each = ratio[chosen] if isinstance(ratio, Tensor) else ratio
                with autocast(self._device, bf16=self._config.precision == "bf16"):
                    _, embedding = model.encode(images, name, each)
                observed = (images != model.config[name].nodata).flatten(1).any(dim=1)
                parts.append(embedding.float().masked_fill(~observed[:, None], torch.nan))
            found[name] = torch.cat(parts)
        return found


def collapsed(metrics: Mapping[str, float]) -> list[str]:
    """Give the modalities whose embeddings are all alike, from a :class:`Validator`'s figures."""
    prefix = "feature_std_"
    return [
        name.removeprefix(prefix)
        for name, value in metrics.items()
        if name.startswith(prefix) and value < SMALLEST_STD
    ]


def sample_images(
    model: PretrainModel, store: SampleStore, *, mask_ratio: float, num_samples: int = 2
) -> UInt8[np.ndarray, "rows columns 3"] | None:
    """Draw held-out samples: as they are, as the encoder sees them, predicted, and put together.

    Returns:
        Rows of four images, a row for each modality of each sample; ``None`` where the model
        predicts no images, or the store has no samples to show.
    """
    predicts = isinstance(model, ScaleAlibi) and model.has_decoder
    if model.config.mistakes or not predicts or not len(store.split_indices("validation")):
        return None
    report = reconstruct(
        model,
        store,
        num_samples=num_samples,
        max_samples=num_samples,
        mask_ratio=mask_ratio,
        device=next(model.parameters()).device,
    )
    edge = max(row.original.shape[-1] for row in report.shown)
    return np.concatenate([_row(shown, edge) for shown in report.shown])


def _row(shown: Reconstruction, edge: int) -> np.ndarray:
    layers = (shown.original, shown.masked, shown.predicted, shown.composite)
    factor = edge // shown.original.shape[-1]
    images = [as_rgb(layer, shown.modality) for layer in layers]
    return np.concatenate([i.repeat(factor, axis=0).repeat(factor, axis=1) for i in images], axis=1)


def _mean_losses(losses: Sequence[Mapping[str, Tensor]]) -> dict[str, float]:
    names = list(losses[0])
    per_batch = torch.stack([torch.stack([each[name] for name in names]) for each in losses])
    means = distributed.mean_over_ranks(per_batch.float().mean(dim=0)).tolist()
    return {f"val_{name}": value for name, value in zip(names, means, strict=True)}


def _recalls(model: PretrainModel, embeddings: Mapping[str, Tensor]) -> dict[str, float]:
    """Share of samples found at once, from each modality in each other."""
    vectors = {name: model.project(v, name).cpu() for name, v in embeddings.items()}
    found = {}
    for query, gallery in permutations(vectors, 2):
        both = _known(vectors[query]) & _known(vectors[gallery])
        if both.any():
            first = ranks(vectors[query][both], vectors[gallery][both]) == 0
            found[f"val_recall1_{query}_{gallery}"] = float(first.mean())
    return found


def _known(vectors: Tensor) -> Tensor:
    """Which samples have an embedding."""
    return vectors.isfinite().all(dim=1)
