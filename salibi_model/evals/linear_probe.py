"""Linear probe: logistic regression on frozen features.

One weight vector per class and a softmax for three classes or more; a sigmoid for two, and one
per class for several labels at once (one against the rest). The loss is that of scikit-learn's
``LogisticRegression``: ``c`` times the summed log loss, plus half the squared norm of the weights;
the intercept is free. Source: Bishop 2006, sections 4.3.2 and 4.3.4; minimised by L-BFGS (Liu &
Nocedal 1989) over all samples at once, in double precision, from zero: nothing is drawn.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from salibi_data.store.errors import UsageError
from salibi_data.store.progress import Progress
from salibi_model.evals.metrics import label_counts, measure

REGULARISATIONS = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0)
"""Values of ``c`` tried on the validation split, from the strongest regularisation."""
_MAX_STEPS = 1000
_GRADIENT_TOLERANCE, _CHANGE_TOLERANCE = 1e-6, 1e-11
"""Largest gradient, and change, of the loss per sample at which the search ends."""


@dataclass(frozen=True, kw_only=True)
class LinearOptions:
    """Which regularisations are tried.

    Raises:
        UsageError: there is none, or one is not above 0.
    """

    regularisations: tuple[float, ...] = REGULARISATIONS

    def __post_init__(self) -> None:
        if not self.regularisations or not all(0 < c < float("inf") for c in self.regularisations):
            raise UsageError(
                f"regularisations are {self.regularisations}; give one number above 0 or more."
            )


@dataclass(frozen=True, kw_only=True)
class LinearProbe:
    """A fitted probe."""

    mean: Float[Tensor, " dim"]
    std: Float[Tensor, " dim"]
    """``mean`` and ``std``: of the training features; 1 for one that never changes."""
    weights: Float[Tensor, "dim outputs"]
    """Of standardised features."""
    intercept: Float[Tensor, " outputs"]
    multilabel: bool
    c: float

    def predict(
        self, vectors: Float[np.ndarray, "samples dim"]
    ) -> Int64[np.ndarray, "samples ..."]:
        """Predict classes (samples,), or 0/1 per class (samples, classes)."""
        logits = _standardised(self, vectors) @ self.weights + self.intercept
        if self.multilabel:
            found = (logits > 0).long()
        else:
            found = logits.argmax(dim=1) if logits.shape[1] > 1 else (logits[:, 0] > 0).long()
        return found.cpu().numpy()


def fit_linear(
    vectors: Float[np.ndarray, "samples dim"],
    labels: Int64[np.ndarray, " samples *classes"],
    *,
    c: float,
    num_classes: int,
    device: str | torch.device = "cpu",
    start: LinearProbe | None = None,
) -> LinearProbe:
    """Fit a probe by the loss above.

    Args:
        vectors: features; they are standardised here.
        labels: classes (samples,), or 0/1 per class (samples, classes).
        c: inverse strength of the regularisation.
        num_classes: classes of the task.
        device: where to compute.
        start: a probe of the same task to start from; the result is the same, sooner.
    """
    values = torch.from_numpy(vectors).to(device, torch.float64)
    std = values.std(dim=0, correction=0)
    mean, std = values.mean(dim=0), torch.where(std > 0, std, torch.ones_like(std))
    values = (values - mean) / std
    multilabel = labels.ndim > 1
    num_outputs = num_classes if multilabel or num_classes > 2 else 1  # noqa: PLR2004
    loss = _loss(torch.from_numpy(labels).to(device), num_outputs, multilabel=multilabel)
    weights, intercept = (
        values.new_zeros(values.shape[1], num_outputs),
        values.new_zeros(num_outputs),
    )
    if start is not None:
        weights, intercept = start.weights.clone(), start.intercept.clone()
    _minimise(values, loss, weights, intercept, c)
    return LinearProbe(
        mean=mean, std=std, weights=weights, intercept=intercept, multilabel=multilabel, c=c
    )


def choose_linear(
    train: tuple[Float[np.ndarray, "train dim"], Int64[np.ndarray, " train *classes"]],
    validation: tuple[Float[np.ndarray, "valid dim"], Int64[np.ndarray, " valid *classes"]],
    options: LinearOptions,
    *,
    num_classes: int,
    device: str | torch.device = "cpu",
    on_fit: Progress | None = None,
) -> LinearProbe:
    """Fit a probe per regularisation and give the best one on the validation split.

    The best by accuracy, or by micro F1 for several labels at once; of equal ones the most strongly
    regularised. It is fitted on the training split alone. Without validation samples, the one in
    the middle is taken.

    Args:
        train: features and labels.
        validation: features and labels.
        options: which regularisations.
        num_classes: classes of the task.
        device: where to compute.
        on_fit: called with (done, total) fits.
    """
    tried = sorted(options.regularisations)
    if not len(validation[0]):
        tried = [tried[len(tried) // 2]]
    probes: list[LinearProbe] = []
    for c in tried:
        start = probes[-1] if probes else None
        probes.append(fit_linear(*train, c=c, num_classes=num_classes, device=device, start=start))
        if on_fit is not None:
            on_fit(len(probes), len(tried))
    values = [_validated(probe, *validation) for probe in probes]
    return probes[int(np.argmax(values))]


def _validated(probe: LinearProbe, vectors: np.ndarray, labels: np.ndarray) -> float:
    if not len(vectors):
        return 0.0
    predicted = probe.predict(vectors)
    if probe.multilabel:
        return measure("f1-micro", label_counts(labels, predicted))
    return float((predicted == labels).mean())


def _standardised(probe: LinearProbe, vectors: np.ndarray) -> Tensor:
    values = torch.from_numpy(vectors).to(probe.mean.device, torch.float64)
    return (values - probe.mean) / probe.std


def _loss(labels: Tensor, num_outputs: int, *, multilabel: bool) -> Callable[[Tensor], Tensor]:
    """The summed log loss as a function of logits."""
    if num_outputs > 1 and not multilabel:
        return lambda logits: F.cross_entropy(logits, labels, reduction="sum")
    targets = labels.double().reshape(len(labels), num_outputs)
    return lambda logits: F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")


def _minimise(
    values: Tensor, loss: Callable[[Tensor], Tensor], weights: Tensor, intercept: Tensor, c: float
) -> None:
    """Change ``weights`` and ``intercept`` to where the objective is least."""
    parameters = [weights.requires_grad_(), intercept.requires_grad_()]
    optimiser = torch.optim.LBFGS(
        parameters,
        max_iter=_MAX_STEPS,
        tolerance_grad=_GRADIENT_TOLERANCE,
        tolerance_change=_CHANGE_TOLERANCE,
        line_search_fn="strong_wolfe",
    )
    # Per sample, so that the tolerance means the same for data of any size.
    penalty = 0.5 / (c * len(values))

    def closure() -> float:
        optimiser.zero_grad()
        objective = loss(torch.addmm(intercept, values, weights)) / len(values)
        objective = objective + penalty * weights.square().sum()
        objective.backward()  # type: ignore[no-untyped-call]
        return float(objective.detach())

    with torch.enable_grad():
        optimiser.step(closure)  # type: ignore[no-untyped-call]
    for parameter in parameters:
        parameter.requires_grad_(False)
