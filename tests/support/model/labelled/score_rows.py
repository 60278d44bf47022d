"""A row of results with plausible fields; tests change what they are about."""

from __future__ import annotations

from typing import Any

from salibi_model.evals.metrics import Score


def score_row(**changes: Any) -> Score:
    """The row of a model called ``ours`` at m-eurosat, with ``changes``."""
    fields: dict[str, Any] = {
        "model": "ours",
        "encoder": "lores",
        "dataset": "m-eurosat",
        "method": "knn",
        "metric": "accuracy",
        "value": 0.6,
        "low": 0.5,
        "high": 0.7,
        "num_train": 100,
        "num_test": 10,
        "gsd_m": 10.0,
        "settings": {"k": 20, "distance": "cosine"},
        "weights_digest": "w",
        "data_digest": "d",
    }
    return Score(**fields | changes)
