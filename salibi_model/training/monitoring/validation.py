"""Measurements on held-out samples during training: losses, retrieval, and signs of collapse."""

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
from salibi_model.training.monitoring.collapse import MIN_FEATURE_STD, effective_rank, feature_std

MIN_SAMPLES = 4
"""Fewest samples whose spread is measured."""


class Validator:
    """Measures a model on samples of the validation split, always the same with the same masks.

    Processes divide the samples among them, and all get the same figures.
    """

    def __init__(
        self, stores: Sequence[SampleStore], config: TrainingConfig, device: torch.device
    ) -> None:
        """Choose ``config.validation_samples`` random samples of the split, or all.

        They form whole batches, of the training batch's size where there are enough: the
        contrastive loss of a smaller batch has fewer negatives, and is lower.
        """
        world_size = distributed.world_size()
        available = sum(len(store.split_indices("validation")) for store in stores)
        count = min(available, config.validation_samples)
        batch_size = min(config.batch_size, count) // world_size * world_size
        self.num_batches = count // batch_size if batch_size else 0
        self._config, self._device = config, device
        self._stores = tuple(stores)
        self.num_samples = self.num_batches * batch_size
        """Number of samples of all processes together."""
        if self.num_batches:
            self._batches = self._same_batches(batch_size)

    def __call__(self, model: PretrainModel) -> dict[str, float]:
        """Measure losses, recall, and the spread of embeddings; give nothing without samples.

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
        all_vectors = {name: torch.cat(parts) for name, parts in embeddings.items()}
        observed = {name: vectors[_is_known(vectors)] for name, vectors in all_vectors.items()}
        observed = {
            name: vectors for name, vectors in observed.items() if len(vectors) >= MIN_SAMPLES
        }
        return {
            **_mean_losses(losses),
            **_recalls(model, all_vectors),
            **{f"feature_std_{name}": feature_std(v) for name, v in observed.items()},
            **{f"effective_rank_{name}": effective_rank(v) for name, v in observed.items()},
        }

    def _same_batches(self, batch_size: int) -> DataLoader:
        """Set up batches of the split; each validation starts again with their first epoch."""
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
        """Embed whole images (B, D) per modality, in as many parts as a step has.

        Samples without an observation are NaN.
        """
        scale: float | Tensor = 1.0 if batch.gsd_scale is None else batch.gsd_scale
        if isinstance(scale, Tensor) and bool((scale == scale[0]).all()):
            scale = float(scale[0])  # all images share the patches' positions, and one bias
        embeddings = {}
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
            embeddings[name] = torch.cat(parts)
        return embeddings


def collapsed_modalities(metrics: Mapping[str, float]) -> list[str]:
    """List the modalities whose embeddings are all alike, by a :class:`Validator`'s figures."""
    prefix = "feature_std_"
    return [
        name.removeprefix(prefix)
        for name, value in metrics.items()
        if name.startswith(prefix) and value < MIN_FEATURE_STD
    ]


def draw_samples(
    model: PretrainModel, store: SampleStore, *, mask_ratio: float, num_samples: int = 2
) -> UInt8[np.ndarray, "rows columns 3"] | None:
    """Draw held-out samples: original, masked, predicted, and composite images.

    Returns:
        An RGB image with a row of four images for each modality of each sample; ``None`` where
        the model predicts no images, or the store has no validation samples.
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
    """Compute recall at 1 from each modality to each other."""
    vectors = {name: model.project(v, name).cpu() for name, v in embeddings.items()}
    recalls = {}
    for query, gallery in permutations(vectors, 2):
        both = _is_known(vectors[query]) & _is_known(vectors[gallery])
        if both.any():
            first = ranks(vectors[query][both], vectors[gallery][both]) == 0
            recalls[f"val_recall1_{query}_{gallery}"] = float(first.mean())
    return recalls


def _is_known(vectors: Tensor) -> Tensor:
    """Find the samples that have an embedding (not NaN)."""
    return vectors.isfinite().all(dim=1)
