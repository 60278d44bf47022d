"""Spread of embeddings; a model has collapsed where all samples embed alike. Pure functions."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

MIN_FEATURE_STD = 1e-3
"""Feature deviation below which embeddings count as one and the same."""


def feature_std(embeddings: Float[Tensor, "samples dim"]) -> float:
    """Compute how far embeddings spread: 1 for uniform directions, 0 where all are alike.

    The deviation over samples of each channel of the unit vectors, averaged over channels, times
    the square root of their number. Source: SimSiam (Chen & He 2021), section 4.1.
    """
    unit = F.normalize(embeddings.double(), dim=1)
    return float(unit.std(dim=0, unbiased=False).mean() * unit.shape[1] ** 0.5)


def effective_rank(embeddings: Float[Tensor, "samples dim"]) -> float:
    """Compute the effective rank: the number of directions that embeddings use.

    It is from 1 to the smaller of samples - 1 and channels.

    The exponential of the entropy of the singular values' shares, of the centred unit vectors; 0
    where all are alike. Source: Roy & Vetterli 2007 (EUSIPCO), definition of effective rank; as a
    measure of representations: RankMe (Garrido et al. 2023).
    """
    unit = F.normalize(embeddings.double(), dim=1)
    values = torch.linalg.svdvals(unit - unit.mean(dim=0))
    total = values.sum()
    if total <= torch.finfo(values.dtype).eps * len(unit):
        return 0.0
    share = values / total
    return float(torch.exp(torch.special.entr(share).sum()))
