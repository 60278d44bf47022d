"""Send a run's metrics to Weights & Biases."""

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
"""Longest time for W&B to answer at the start, and to send the remaining values at the end."""
_PRIVATE_SETTINGS: Final[Mapping[str, Any]] = {
    "console": "off",
    "disable_git": True,
    "save_code": False,
    "x_disable_meta": True,
    "x_save_requirements": False,
}
"""Settings against sending command line, console and checkout, which may hold secrets."""


class WandbTracker(Tracker):
    """Passes values to W&B's own process, which sends them when it can.

    Values are logged under the run's own step. W&B ignores steps below the last one that it has:
    those that are repeated after a restart.
    https://docs.wandb.ai/guides/track/log/
    """

    def __init__(self, run: TrackedRun) -> None:
        """Begin or resume the run; where W&B cannot be reached, write it to disk.

        Raises:
            UsageError: nobody is logged in.
        """
        self._wandb = wandb = import_module("wandb")
        self._failed = False
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
                init_timeout=_TIMEOUT_S, finish_timeout=_TIMEOUT_S, **_PRIVATE_SETTINGS
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
        """Pass on the values of a step."""
        self._pass_on(dict(row), int(row["step"]))

    def log_image(self, name: str, step: int, path: Path) -> None:
        """Pass on an image, of which W&B makes a copy."""
        self._pass_on({name: self._wandb.Image(str(path))}, step)

    def _pass_on(self, values: dict[str, Any], step: int) -> None:
        if self._failed:
            return
        try:
            self._run.log(values, step=step)
        except Exception as error:  # noqa: BLE001 - a copy of the record is no reason to stop
            self._give_up(error)

    def close(self) -> None:
        """Wait until everything is sent, for a minute at most; `wandb sync` sends the rest later."""
        if self._failed:
            return
        try:
            self._run.finish()
        except Exception as error:  # noqa: BLE001 - as above
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._failed = True
        _LOG.warning("W&B has failed (%s); training goes on without it.", redacted_line(error))
