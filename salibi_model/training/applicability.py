"""Refuses options of training that the chosen model and objectives do not use."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from salibi_data.store.errors import UsageError
from salibi_data.store.validation import check_applicable, given_options
from salibi_model.data.input_names import identity_of
from salibi_model.training.config import (
    CONTRAST,
    CROPS,
    GROUND_DISTANCES,
    PREDICTIONS,
    PROBED_FOLDERS,
    PROBES,
    SEVERAL_STORES,
    TrainingConfig,
)


def check_used(config: TrainingConfig, given: Mapping[str, Any] | None = None) -> None:
    """Refuse options that change nothing in the run of a configuration.

    The resolved configuration of a run is not checked: everything is filled in there.

    Args:
        config: the configuration.
        given: options that were given explicitly, by name, defaults included; ``None``: those that
            differ from their defaults.

    Raises:
        UsageError: there are such options; the message names them.
    """
    if not config.store_digests and len({*map(identity_of, config.stores)}) < len(config.stores):
        raise UsageError(
            f"a store is named twice among {', '.join(config.stores)}; name each once, and give "
            "--weights instead."
        )
    options = {} if config.store_digests else given_options(config)
    check_applicable(TrainingConfig, {**options, **(given or {})}, _absent(config))


def check_resumed(file: Path | None) -> None:
    """Refuse a file of options where a run goes on with its own.

    Raises:
        UsageError: there is a file.
    """
    if file is not None:
        raise UsageError(
            f"--config {file} is not read with --resume, which goes on with the run's own options. "
            "Leave one of them out."
        )


def _absent(config: TrainingConfig) -> dict[str, str]:
    """Reasons why what options are for is not there."""
    absent = {}
    objectives = config.objectives or (() if config.model != "scale-mae" else ("reconstruction",))
    only = ", ".join(objectives)
    if not config.crop_px:
        absent[CROPS] = "without --crop-px whole tiles are taken"
    if not config.probe:
        absent[PROBES] = absent[PROBED_FOLDERS] = "--probe is not given"
    elif _is_task(config.probe):
        absent[PROBED_FOLDERS] = f"{config.probe} is a GEO-Bench task, whose GSD is known"
    if len(config.stores) == 1:
        absent[SEVERAL_STORES] = "there is one"
    if config.model == "croma":
        absent[GROUND_DISTANCES] = "croma measures distances in each image's own patches"
    if objectives and "contrastive" not in objectives:
        absent[CONTRAST] = f"the only objective is {only}"
    if config.model == "scale-mae":
        absent[PREDICTIONS] = "the model is scale-mae"
    elif objectives and "reconstruction" not in objectives:
        absent[PREDICTIONS] = f"the only objective is {only}"
    elif config.compat:
        absent[PREDICTIONS] = "the model is the original, which has its own"
    return absent


def _is_task(probe: str) -> bool:
    # Here, so that a run without a probe needs no h5py.
    from salibi_model.evals.datasets.geobench import is_task

    return is_task(Path(probe))
