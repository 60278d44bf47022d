"""Send a run's metrics to experiment trackers: Weights & Biases, MLflow.

``metrics.csv`` is the record, and a tracker holds a copy for people to look at: once training has
begun, no failure of a tracker stops the run or changes its result. The packages are imported only
for runs that use them.

When a run resumes, its copy continues; the identifiers are in ``trackers/`` in the run's folder.
Training repeats steps exactly, so repeated steps are not sent again.
"""

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

from salibi_data.store.errors import UsageError
from salibi_model.training.config import TRACKERS
from salibi_model.training.tracking.run import TrackedRun, Tracker


def check_trackers(names: Sequence[str]) -> None:
    """Check, before anything is written, that these trackers can be used.

    Raises:
        UsageError: there is no such tracker, its package is not installed, or MLflow has not been
            told where its server is.
    """
    for name in names:
        if name not in TRACKERS:
            raise UsageError(f"no tracker {name!r}; take {' or '.join(TRACKERS)}.")
        if not _is_installed(name):
            raise UsageError(f"{name} is not installed: pip install 'salibi[{name}]'")
    if "mlflow" in names and not import_module("mlflow.tracking").is_tracking_uri_set():
        raise UsageError(
            "MLflow has not been told where to: set MLFLOW_TRACKING_URI to a server, such as "
            "http://127.0.0.1:5000."
        )


def open_trackers(names: Sequence[str], run: TrackedRun) -> list[Tracker]:
    """Begin a run at each of these trackers, or go on with the one that is there.

    Raises:
        UsageError: as :func:`check_trackers`; or nobody is logged in to W&B, or MLflow lacks what
            its address asks for.
    """
    check_trackers(names)
    opened: list[Tracker] = []
    if "wandb" in names:
        from salibi_model.training.tracking.wandb import WandbTracker

        opened.append(WandbTracker(run))
    if "mlflow" in names:
        from salibi_model.training.tracking.mlflow import MlflowTracker

        opened.append(MlflowTracker(run))
    return opened


def _is_installed(name: str) -> bool:
    """Tell a package from a mere folder of its name, such as the ``wandb/`` that W&B leaves."""
    spec = find_spec(name)
    return spec is not None and spec.origin is not None
