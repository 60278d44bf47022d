"""Send a run's metrics to an MLflow server."""

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any, Final

from salibi_data.store.errors import UsageError
from salibi_data.store.redaction import redacted_line
from salibi_model.training.tracking.run import PROJECT, TrackedRun, Tracker

_LOG = logging.getLogger(__name__)
_CLOSE_S: Final = 30
"""Longest wait at the end of a run for values that the server has not taken."""
_FIRST_PAUSE_S: Final = 1.0
_MAX_PAUSE_S: Final = 60.0
"""First and longest pause between attempts."""
_MAX_WAITING: Final = 20_000
"""Steps and images held for a server that takes none; later ones are in ``metrics.csv`` only."""
_MAX_METRICS: Final = 1000
_MAX_PARAMS: Final = 100
"""Limits of one request to MLflow.

https://mlflow.org/docs/latest/api_reference/rest-api.html#request-limits
"""
_MAX_PARAM_LENGTH: Final = 500
"""Characters of a parameter that every version of MLflow takes."""


@dataclass(frozen=True, kw_only=True)
class _Row:
    values: Mapping[str, float]
    logged_ms: int
    """Since 1970, UTC."""


class MlflowTracker(Tracker):
    """Sends values from a thread of its own: a server that does not answer delays no step.

    Values that the server did not take are sent again, with growing pauses, until the run ends.
    """

    def __init__(self, run: TrackedRun) -> None:
        """Start the thread; the run begins, or resumes, as soon as the server answers.

        Raises:
            UsageError: the tracking URI cannot be used.
        """
        self._mlflow = import_module("mlflow")
        try:
            self._client = self._mlflow.MlflowClient()
        except Exception as error:
            # Each kind of address has a store of its own, which raises what its packages raise.
            raise UsageError(
                f"MLflow cannot use its tracking URI ({redacted_line(error)}). Give a server's, or "
                "install the whole of it: pip install mlflow"
            ) from error
        self._tracked = run
        self._run_id = ""
        self._last_step = 0.0
        """Last step that the server has; known once there is a run."""
        self._queue: SimpleQueue[_Row | Path | None] = SimpleQueue()
        self._rows: list[_Row] = []
        self._images: list[Path] = []
        self._closing, self._given_up = Event(), Event()
        self._thread = Thread(target=self._deliver, name="mlflow", daemon=True)
        self._thread.start()

    def log(self, row: Mapping[str, float]) -> None:
        """Queue the values of a step."""
        self._put(_Row(values=dict(row), logged_ms=time.time_ns() // 1_000_000))

    def log_image(self, name: str, step: int, path: Path) -> None:  # noqa: ARG002 - a tracker's
        """Queue an image file; its name holds ``name`` and the step."""
        self._put(path)

    def _put(self, item: _Row | Path) -> None:
        if self._num_waiting() < _MAX_WAITING:
            self._queue.put(item)

    def _num_waiting(self) -> int:
        return self._queue.qsize() + len(self._rows) + len(self._images)

    def close(self) -> None:
        """Wait until everything is sent, for half a minute at most."""
        num_waiting = self._num_waiting()
        self._closing.set()
        self._queue.put(None)  # for the thread to look up
        self._thread.join(_CLOSE_S)
        if self._thread.is_alive():
            self._given_up.set()
            _LOG.warning(
                "MLflow lacks up to %d steps and images of this run; metrics.csv has all steps.",
                num_waiting,
            )

    def _deliver(self) -> None:
        """Send queued values until the run has ended and everything is sent."""
        pause_s = _FIRST_PAUSE_S
        while not self._given_up.is_set():
            self._collect()
            try:
                self._send()
                pause_s = _FIRST_PAUSE_S
                if self._closing.is_set() and self._queue.empty():
                    self._client.set_terminated(self._run_id)
                    return
            except Exception as error:  # noqa: BLE001 - a copy of the record is no reason to stop
                if pause_s == _FIRST_PAUSE_S:
                    _LOG.warning(
                        "MLflow does not take this run's values (%s); they are sent again later.",
                        redacted_line(error),
                    )
                self._pause(pause_s)
                pause_s = min(2 * pause_s, _MAX_PAUSE_S)

    def _pause(self, pause_s: float) -> None:
        """Wait before the next attempt; the end of the run shortens the pause."""
        if not self._closing.wait(pause_s):
            return
        self._given_up.wait(_FIRST_PAUSE_S)

    def _collect(self) -> None:
        """Take everything from the queue; wait for an item where nothing is left to send."""
        waits = not (self._rows or self._images or self._closing.is_set())
        while waits or not self._queue.empty():
            item = self._queue.get()
            waits = False
            if isinstance(item, _Row):
                self._rows.append(item)
            elif item is not None:
                self._images.append(item)

    def _send(self) -> None:
        """Send collected values, and drop those that the server took."""
        if not self._run_id:
            self._begin()
        while self._rows:
            longest = max(len(row.values) for row in self._rows)
            rows = self._rows[: max(1, _MAX_METRICS // longest)]
            metrics = [metric for row in rows for metric in self._metrics(row)]
            self._client.log_batch(self._run_id, metrics=metrics)
            self._last_step = max(self._last_step, rows[-1].values["step"])
            del self._rows[: len(rows)]
        while self._images:
            self._client.log_artifact(self._run_id, str(self._images[0]), "samples")
            del self._images[0]

    def _metrics(self, row: _Row) -> list[Any]:
        """Convert a step's values to MLflow's; none where the server has the step already."""
        step = int(row.values["step"])
        if step <= self._last_step:
            return []
        return [
            self._mlflow.entities.Metric(name, value, row.logged_ms, step)
            for name, value in row.values.items()
        ]

    def _begin(self) -> None:
        """Find the run at the server, or create it."""
        run_id = self._tracked.identifier("mlflow")
        if run_id:
            self._client.update_run(run_id, status="RUNNING")
        else:
            run = self._client.create_run(self._experiment(), run_name=self._tracked.name)
            run_id = run.info.run_id
            self._tracked.keep_identifier("mlflow", run_id)
        data = self._client.get_run(run_id).data
        if not data.params:
            self._log_config(run_id)
        self._last_step = data.metrics.get("step", 0.0)
        self._run_id = run_id

    def _experiment(self) -> str:
        """Find the identifier of the experiment for runs, or create one."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        return str(experiment.experiment_id if experiment else self._client.create_experiment(name))

    def _log_config(self, run_id: str) -> None:
        params = [
            self._mlflow.entities.Param(name, str(value)[:_MAX_PARAM_LENGTH])
            for name, value in self._tracked.config.items()
        ]
        for first in range(0, len(params), _MAX_PARAMS):
            self._client.log_batch(run_id, params=params[first : first + _MAX_PARAMS])
