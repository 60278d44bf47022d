"""Resume a run with its own configuration; refuse any other."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from salibi_data.store.errors import UsageError
from salibi_model.checkpoints.files import RunFolder
from salibi_model.training.config import TrainingConfig


def resumed_config(out: str | Path, **changes: Any) -> TrainingConfig:
    """Read the configuration of the run in ``out``, and apply ``changes`` to it.

    Raises:
        CheckpointError: there is no run.
    """
    config = TrainingConfig.from_mapping(RunFolder(out).read_config(), where=str(out))
    if "epochs" in changes:
        config = replace(config, steps=0)
    return replace(config, **changes)


def check_same_run(config: TrainingConfig, folder: RunFolder, *, resume: bool) -> None:
    """Refuse to resume a run whose configuration differs in what is learned.

    Raises:
        CheckpointError: there is no run to ``resume``.
        UsageError: the run in ``folder`` has another configuration.
    """
    if not (resume or folder.exists()):
        return
    before = TrainingConfig.from_mapping(folder.read_config(), where=str(folder.path))
    changed = [
        f"{name} {getattr(before, name)!r} -> {getattr(config, name)!r}"
        for name in (field.name for field in fields(config) if not field.metadata.get("resume"))
        if getattr(before, name) != getattr(config, name)
    ]
    if changed:
        raise UsageError(
            f"{folder.path} holds a run of another configuration ({'; '.join(changed)}). Give "
            "another --out, or --resume alone to go on with its own configuration."
        )
