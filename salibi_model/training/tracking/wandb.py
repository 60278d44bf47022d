"""A run's copy at Weights & Biases."""

import logging
import os
import secrets
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from salibi_data.store.errors import UsageError
from salibi_data.store.redaction import redacted_line
from salibi_model.training.tracking.run import PROJECT, TrackedRun, Tracker

_LOG = logging.getLogger(__name__)
_TIMEOUT_S: Final = 60
"""How long W&B may take to answer at the start, and to send what is left at the end."""
_TELL_NO_MORE: Final[Mapping[str, Any]] = {
    "console": "off",
    "disable_git": True,
    "save_code": False,
    "x_disable_meta": True,
    "x_save_requirements": False,
}
"""The command line, the console and the checkout may hold more than a tracker is to be told."""


class WandbTracker(Tracker):
    """Hands values to W&B's own process, which sends them when it can.

    Values are logged under the run's own step. W&B takes no step below the last it has, which
    leaves out those that are done again after a restart.
    https://docs.wandb.ai/guides/track/log/
    """

    def __init__(self, run: TrackedRun) -> None:
        """Begin the run, or go on with it; where W&B cannot be reached, keep it on disk.

        Raises:
            UsageError: nobody is logged in.
        """
        self._wandb = wandb = import_module("wandb")
        self._lost = False
        identifier = run.identifier("wandb") or secrets.token_hex(8)
        options = {
            "id": identifier,
            "name": run.name,
            "project": os.environ.get("WANDB_PROJECT", PROJECT),
            "config": dict(run.config),
            "dir": str(run.folder.path),
            "resume": "allow",
            "allow_val_change": True,
            "settings": wandb.Settings(
                init_timeout=_TIMEOUT_S, finish_timeout=_TIMEOUT_S, **_TELL_NO_MORE
            ),
        }
        try:
            self._run = wandb.init(**options)
        except wandb.errors.UsageError as error:
            raise UsageError(
                f"W&B cannot begin ({redacted_line(error)}). Log in with `wandb login`, or set "
                "WANDB_MODE=offline and send the run later with `wandb sync`."
            ) from error
        except wandb.errors.CommError as error:
            _LOG.warning(
                "W&B cannot be reached (%s); the run is kept in %s: send it with `wandb sync`.",
                redacted_line(error),
                run.folder.path / "wandb",
            )
            wandb.teardown()  # the run that could not begin still holds the identifier
            self._run = wandb.init(**options, mode="offline")
        run.keep_identifier("wandb", identifier)

    def log(self, row: Mapping[str, float]) -> None:
        """Hand over the values of a step."""
        self._hand_over(dict(row), int(row["step"]))

    def log_image(self, name: str, step: int, path: Path) -> None:
        """Hand over an image, of which W&B keeps a copy."""
        self._hand_over({name: self._wandb.Image(str(path))}, step)

    def _hand_over(self, values: dict[str, Any], step: int) -> None:
        if self._lost:
            return
        try:
            self._run.log(values, step=step)
        except Exception as error:  # noqa: BLE001 - a copy of the record is no reason to stop
            self._lose(error)

    def close(self) -> None:
        """Wait until all is sent, for a minute at most; `wandb sync` sends what is left."""
        if self._lost:
            return
        try:
            self._run.finish()
        except Exception as error:  # noqa: BLE001 - as above
            self._lose(error)

    def _lose(self, error: Exception) -> None:
        self._lost = True
        _LOG.warning("W&B has failed (%s); training goes on without it.", redacted_line(error))
