"""Run as a process, or by ``torchrun``: train the smallest model; ``name=value`` are settings.

Arguments: the store, the run's folder, settings as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from salibi_cli import common
from salibi_model.models import config as model_config
from salibi_model.training.config import TrainingConfig
from salibi_model.training.trainer import train
from tests.support.model.nano import SIZE


def main() -> None:
    """Train as told."""
    store, out, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    model_config.SIZES["tiny"] = SIZE
    pause_s = settings.pop("pause_s", 0.0)
    values: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()
    }
    config = TrainingConfig(stores=(store,), **values)

    def tell(done: int, _total: int, _metrics: object) -> None:
        sys.stdout.write(f"{done}\n")
        sys.stdout.flush()
        time.sleep(pause_s)  # for whoever kills it to be in time

    train(config, out=out, device="cpu", on_step=tell)


if __name__ == "__main__":
    application = common.app(help="Train the smallest model.")
    application.command(
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True}
    )(main)
    common.run(application)
