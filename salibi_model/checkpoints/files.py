"""Write and read the files of a training run and of a model.

A run's folder: ``config.toml`` (resolved), ``metrics.csv``, ``events/`` (TensorBoard),
``checkpoints/step-*.pt`` (all state), ``last`` (name of the newest of them) and ``model/``
(safetensors and ``config.json``). Every file is written atomically. Only tensors and plain values
are unpickled (``weights_only=True``), as objects in a pickle can run code.
"""

import json
import re
import tomllib
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from salibi_data.store import __version__
from salibi_data.store.errors import UsageError
from salibi_data.store.filesystem import write_atomically
from salibi_data.store.redaction import first_line
from salibi_model.checkpoints.description import (
    COPY_AGAIN,
    FORMAT_VERSION,
    check_version,
    read_description,
)
from salibi_model.distributed import choose_device
from salibi_model.errors import CheckpointError
from salibi_model.models.base import PretrainModel
from salibi_model.models.config import ModelConfig
from salibi_model.models.registry import build_model

WEIGHTS_NAME = "model.safetensors"
CONFIG_NAME = "config.json"


_DAMAGE_ERRORS = (
    *(KeyError, TypeError, ValueError, RuntimeError, OSError, ArithmeticError),
    *(SafetensorError, UsageError),
)
"""Errors of reading a model whose two files are damaged or do not belong together."""


class DamagedCheckpointWarning(UserWarning):
    """The newest checkpoint of a run is damaged; an older one was loaded."""


class RunFolder:
    """The folder of one training run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.metrics = self.path / "metrics.csv"
        self.events = self.path / "events"
        self.model = self.path / "model"
        self._config = self.path / "config.toml"
        self._checkpoints = self.path / "checkpoints"
        self._last = self.path / "last"

    def exists(self) -> bool:
        """Tell whether a run was started in this folder."""
        return self._config.is_file()

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write the resolved configuration."""
        lines = [f"{name} = {_toml(value)}\n" for name, value in config.items()]
        self._checkpoints.mkdir(parents=True, exist_ok=True)
        with write_atomically(self._config) as partial:
            partial.write_text("".join(lines), encoding="utf-8")

    def read_config(self) -> dict[str, Any]:
        """Read the configuration back.

        Raises:
            CheckpointError: there is no run here, or its configuration is damaged.
        """
        try:
            return tomllib.loads(self._config.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise CheckpointError(
                f"{self.path} holds no run (there is no {self._config.name}); start one without "
                "--resume, or give the folder of one with --out."
            ) from error
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(
                f"{self._config} is damaged: {first_line(error)}. Restore it from a copy, or start "
                "again with another --out."
            ) from error

    def save(self, step: int, state: Mapping[str, Any], *, keep: int = 3) -> Path:
        """Write a checkpoint, name it in ``last``, and remove the oldest ones.

        Args:
            step: number of steps done.
            state: all state of the run after that step: tensors and plain values.
            keep: number of newest checkpoints that stay.

        Returns:
            The checkpoint's file.
        """
        path = self._checkpoints / f"step-{step:08d}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(path) as partial:
            torch.save({"format_version": FORMAT_VERSION, "step": step, **state}, partial)
        with write_atomically(self._last) as partial:
            partial.write_text(f"{path.name}\n", encoding="utf-8")
        for outdated in sorted(self._checkpoints.glob("step-*.pt"))[:-keep]:
            outdated.unlink()
        return path

    def load_last(self, device: torch.device) -> dict[str, Any] | None:
        """Read the newest undamaged checkpoint.

        The newest is the one that ``last`` names, or the latest file where ``last`` is missing.
        Where it is missing or damaged, the one before it is read, with a
        :class:`DamagedCheckpointWarning`.

        Args:
            device: device of the tensors.

        Returns:
            The state that :meth:`save` wrote; ``None`` where a run has no checkpoint yet.

        Raises:
            CheckpointError: all are damaged, or the newest is of another version.
        """
        names = sorted((path.name for path in self._checkpoints.glob("step-*.pt")), reverse=True)
        if not self._last.exists() and not names:
            return None
        newest = self._newest() if self._last.exists() else names[0]
        older = [name for name in names if name < newest]
        problems: list[str] = []
        for path in map(self._checkpoints.joinpath, (newest, *older)):
            state, problem = _read_state(path, device)
            if not problem:
                for skipped in problems:
                    warning = f"{skipped}. It was skipped; going on from {path.name}."
                    warnings.warn(warning, DamagedCheckpointWarning, stacklevel=2)
                return state
            problems.append(f"{path} {problem}")
        raise self._unusable(problems[0])

    def _newest(self) -> str:
        """Read the name of the newest checkpoint from ``last``."""
        try:
            name = self._last.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise self._unusable(f"{self._last} cannot be read ({first_line(error)})") from error
        if not re.fullmatch(r"[\w.-]+\.pt", name):
            raise self._unusable(
                f"{self._last} should hold the name of a checkpoint, as step-00000500.pt"
            )
        return name

    def _unusable(self, problem: str) -> CheckpointError:
        return CheckpointError(
            f"{problem}. Write the name of an older checkpoint of {self._checkpoints} into "
            f"{self._last}, or start again with another --out."
        )


def _read_state(path: Path, device: torch.device) -> tuple[dict[str, Any], str]:
    """Read a checkpoint of a run.

    Returns:
        The state, and an empty text; or an empty state, and what is wrong with the file.

    Raises:
        CheckpointError: it is of another version.
    """
    try:
        state = read_tensors(path, device)
    except Exception as error:  # noqa: BLE001 - torch.load raises a dozen types, none its own
        return {}, f"cannot be read ({type(error).__name__})"
    check_version(state, path)
    defect = _find_defect(state)
    return dict(state), f"is no complete checkpoint: {defect}" if defect else ""


def read_tensors(file: Path, device: torch.device) -> Any:
    """Read tensors and plain values that ``torch.save`` wrote; refuse objects.

    Errors are those of ``torch.load``. Its warnings are left out, as an error follows each.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(file, map_location=device, weights_only=True)


def save_model(model: PretrainModel, folder: Path, *, training: Mapping[str, Any]) -> None:
    """Write weights (safetensors) and everything needed to use them (``config.json``).

    Args:
        model: model with its decoder.
        folder: folder of the two files.
        training: record of the training: step, seed, mask ratio, stores and their plan digests.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "format_version": FORMAT_VERSION,
        "software_version": __version__,
        **asdict(model.config),
        "training": dict(training),
    }
    with write_atomically(folder / WEIGHTS_NAME) as partial:
        save_file({name: t.contiguous() for name, t in model.state_dict().items()}, partial)
    with write_atomically(folder / CONFIG_NAME) as partial:
        partial.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_model(path: str | Path, *, device: str | torch.device = "cpu") -> PretrainModel:
    """Load the model of a run's folder, or of a ``model/`` folder, in evaluation mode.

    Args:
        path: folder of a run or of a model.
        device: device of the weights, as for :func:`salibi_model.distributed.choose_device`.

    Raises:
        CheckpointError: there is none, it is damaged, or of another version.
        UsageError: there is no such device.
    """
    chosen = choose_device(str(device))
    folder = model_folder(path)
    _, config = read_description(folder / CONFIG_NAME)
    try:
        _check_weights(folder / WEIGHTS_NAME, config)
        model = build_model(config)
        model.load_state_dict(load_file(folder / WEIGHTS_NAME))
    except _DAMAGE_ERRORS as error:
        raise CheckpointError(
            f"{folder} is damaged: {CONFIG_NAME} and {WEIGHTS_NAME} do not make a model "
            f"({first_line(error)}). {COPY_AGAIN}"
        ) from error
    return model.to(chosen).eval()


def describe(path: str | Path) -> dict[str, Any]:
    """Read ``config.json`` of a run's or model's folder: size, modalities, training.

    Raises:
        CheckpointError: there is none, it is damaged, or of another version.
    """
    content, _ = read_description(model_folder(path) / CONFIG_NAME)
    return content


def model_folder(path: str | Path) -> Path:
    """Find the folder with the two files of a model: ``model/`` in ``path``, or ``path`` itself.

    Raises:
        CheckpointError: there is none.
    """
    for folder in (Path(path) / "model", Path(path)):
        if (folder / CONFIG_NAME).is_file():
            return folder
    state = "no finished checkpoint yet" if RunFolder(path).exists() else "no model"
    raise CheckpointError(
        f"{path} holds {state}: expected model/{CONFIG_NAME}, as `salibi-model train` writes it."
    )


def _check_weights(file: Path, config: ModelConfig) -> None:
    """Compare names and shapes in the file's header with the model's, before memory is taken.

    Raises:
        ValueError: they differ; the message names the first difference.
    """
    with safe_open(file, framework="pt") as header:
        actual = {name: tuple(header.get_slice(name).get_shape()) for name in header.keys()}  # noqa: SIM118
    max_depth = max(config.size.depth, config.size.decoder_depth, *dict(config.depths).values(), 0)
    # A damaged depth of billions would take forever to build, even without memory for weights.
    if max_depth > len(actual):
        raise ValueError(f"{max_depth} blocks are described, but there are {len(actual)} tensors")
    with torch.device("meta"):
        expected = {
            name: tuple(value.shape) for name, value in build_model(config).state_dict().items()
        }
    for name in [*expected, *actual]:
        if name not in expected or name not in actual:
            present, absent = (WEIGHTS_NAME, "model") if name in actual else ("model", WEIGHTS_NAME)
            raise ValueError(f"the {present} has {name}, the {absent} does not")
        if expected[name] != actual[name]:
            raise ValueError(f"{name} is {actual[name]}; the model described has {expected[name]}")


def _find_defect(state: Mapping[str, Any]) -> str:
    """Describe the first entry of a run's state that is missing or of a wrong type; else ``""``."""
    types = {"model": Mapping, "optimizer": Mapping, "data": Mapping, "rng": Tensor, "step": int}
    for name, expected in types.items():
        if name not in state:
            return f"it lacks {name!r}"
        if not isinstance(state[name], expected):
            return f"{name!r} is a {type(state[name]).__name__}"
    data = state["data"]
    checks = {
        "'model' holds other than tensors": all(
            isinstance(value, Tensor) for value in state["model"].values()
        ),
        "'optimizer' is not the state of one": {"state", "param_groups"} <= set(state["optimizer"]),
        "'data' is no position in the data": all(
            isinstance(data.get(name), int) for name in ("epoch", "batch")
        ),
        f"'step' is {state['step']}": state["step"] >= 0,
        "'rng' is not the state of a random generator": _is_generator_state(state["rng"]),
    }
    return next((defect for defect, passed in checks.items() if not passed), "")


def _is_generator_state(state: Tensor) -> bool:
    try:
        torch.Generator().set_state(state.cpu())
    except (RuntimeError, TypeError):
        return False
    return True


def _toml(value: Any) -> str:
    """Write a string, number, boolean or sequence of them; JSON's form of these is TOML's."""
    return json.dumps(list(value) if isinstance(value, tuple) else value)
