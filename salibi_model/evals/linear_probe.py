"""Fits a linear probe: logistic regression on frozen features.

Three classes or more have a weight vector each and a softmax; two classes have one sigmoid, and
several labels per sample one sigmoid each (one against the rest). The loss is that of
scikit-learn's ``LogisticRegression``: ``c`` times the summed log loss, plus half the squared norm
of the weights; the intercept is not regularised. L-BFGS (Liu & Nocedal 1989) minimises it over all
samples at once, in double precision, from zero: nothing is random.

Source: Bishop 2006, sections 4.3.2 and 4.3.4.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from salibi_data.store.progress import Progress
from salibi_model.evals.metrics import label_counts, metric_value
from salibi_model.evals.options import LinearOptions

_MAX_STEPS = 1000
_GRADIENT_TOLERANCE, _CHANGE_TOLERANCE = 1e-6, 1e-11
"""Gradient and change of the loss per sample below which the minimisation stops."""


@dataclass(frozen=True, kw_only=True)
class LinearProbe:
    """A fitted probe."""

    mean: Float[Tensor, " dim"]
    """Mean of the training features."""
    std: Float[Tensor, " dim"]
    """Standard deviation of the training features; 1 for a constant one."""
    weights: Float[Tensor, "dim outputs"]
    """Weights of the standardised features."""
    intercept: Float[Tensor, " outputs"]
    multilabel: bool
    """Whether a sample has several labels."""
    c: float
    """Inverse strength of the regularisation."""

    def predict(
        self, vectors: Float[np.ndarray, "samples dim"]
    ) -> Int64[np.ndarray, "samples ..."]:
        """Predict classes (samples,), or 0/1 per class (samples, classes)."""
        logits = _standardised(self, vectors) @ self.weights + self.intercept
        if self.multilabel:
            classes = (logits > 0).long()
        else:
            classes = logits.argmax(dim=1) if logits.shape[1] > 1 else (logits[:, 0] > 0).long()
        return classes.cpu().numpy()


def fit_linear(
    vectors: Float[np.ndarray, "samples dim"],
    labels: Int64[np.ndarray, " samples *classes"],
    *,
    c: float,
    num_classes: int,
    device: str | torch.device = "cpu",
    start: LinearProbe | None = None,
) -> LinearProbe:
    """Fit a probe with one regularisation.

    Args:
        vectors: features, not yet standardised.
        labels: classes (samples,), or 0/1 per class (samples, classes).
        c: inverse strength of the regularisation.
        num_classes: number of classes of the task.
        device: device to compute on.
        start: a probe of the same task to start from, which takes fewer steps to the same minimum.
    """
    # float64: rounding in float32 would end the line search before the tolerances are met.
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
    """Fit a probe per regularisation, and return the best one on the validation split.

    The best has the highest accuracy, or micro F1 for several labels per sample; ties go to the
    strongest regularisation. Probes are fitted on the training split alone. Without validation
    samples, the regularisation in the middle is used.

    Args:
        train: features and labels of the training split.
        validation: features and labels of the validation split.
        options: regularisations to try.
        num_classes: number of classes of the task.
        device: device to compute on.
        on_fit: called with the numbers of fits (done, total).
    """
    regularisations = sorted(options.regularisations)
    if not len(validation[0]):
        regularisations = [regularisations[len(regularisations) // 2]]
    probes: list[LinearProbe] = []
    for c in regularisations:
        start = probes[-1] if probes else None
        probes.append(fit_linear(*train, c=c, num_classes=num_classes, device=device, start=start))
        if on_fit is not None:
            on_fit(len(probes), len(regularisations))
    scores = [_validation_score(probe, *validation) for probe in probes]
    # argmax gives the first of equals, which is the strongest regularisation.
    return probes[int(np.argmax(scores))]


def _validation_score(probe: LinearProbe, vectors: np.ndarray, labels: np.ndarray) -> float:
    if not len(vectors):
        return 0.0
    predicted = probe.predict(vectors)
    if probe.multilabel:
        return metric_value("f1-micro", label_counts(labels, predicted))
    return float((predicted == labels).mean())


def _standardised(probe: LinearProbe, vectors: np.ndarray) -> Tensor:
    values = torch.from_numpy(vectors).to(probe.mean.device, torch.float64)
    return (values - probe.mean) / probe.std


def _loss(labels: Tensor, num_outputs: int, *, multilabel: bool) -> Callable[[Tensor], Tensor]:
    """Return the summed log loss as a function of logits."""
    if num_outputs > 1 and not multilabel:
        return lambda logits: F.cross_entropy(logits, labels, reduction="sum")
    targets = labels.double().reshape(len(labels), num_outputs)
    return lambda logits: F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")


def _minimise(
    values: Tensor, loss: Callable[[Tensor], Tensor], weights: Tensor, intercept: Tensor, c: float
) -> None:
    """Minimise the objective over ``weights`` and ``intercept``, in place."""
    parameters = [weights.requires_grad_(), intercept.requires_grad_()]
    optimiser = torch.optim.LBFGS(
        parameters,
        max_iter=_MAX_STEPS,
        tolerance_grad=_GRADIENT_TOLERANCE,
        tolerance_change=_CHANGE_TOLERANCE,
        line_search_fn="strong_wolfe",
    )
    # Per sample, so that the tolerances mean the same for data sets of any size.
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
