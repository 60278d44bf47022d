"""Ranks in a gallery, and the share of queries whose own sample is among the nearest. Pure."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64
from torch import Tensor

from salibi_model.errors import CheckpointError
from salibi_model.evals.metrics import BOOTSTRAP_SAMPLES, CONFIDENCE_PERCENT

RECALL_AT = (1, 5)


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


def ranks(
    queries: Float[Tensor, "samples dim"], gallery: Float[Tensor, "samples dim"]
) -> Int64[np.ndarray, " samples"]:
    """Give the rank (0 is best) of each query's own sample in the gallery; ties count as worse.

    Raises:
        CheckpointError: some are not finite; nothing is near or far then.
    """
    check_finite("embeddings of the queries", queries)
    check_finite("embeddings of the gallery", gallery)
    similarity = queries @ gallery.T
    own = similarity.diagonal()[:, None]
    return ((similarity >= own).sum(dim=1) - 1).numpy()


def check_finite(what: str, vectors: Float[Tensor, "samples dim"]) -> None:
    """Refuse vectors that cannot be compared.

    Raises:
        CheckpointError: some are not finite.
    """
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
        low, high = np.percentile(hit[drawn].mean(axis=1), CONFIDENCE_PERCENT)
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
