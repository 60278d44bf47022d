"""What a run leaves on disk, and reading it back.

A run's folder: ``config.toml`` (resolved), ``metrics.csv``, ``events/`` (TensorBoard),
``checkpoints/step-*.pt`` (all state), ``last`` (name of the newest of them) and ``model/``
(safetensors and ``config.json``). Every file appears whole or not at all. Nothing is unpickled
but tensors and plain values (``weights_only=True``).
"""

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from salibi_data import __version__
from salibi_data.schema import Modality, SchemaError
from salibi_model.architectures import build_model
from salibi_model.config import ModelConfig, Size
from salibi_model.errors import CheckpointError, UsageError
from salibi_model.interface import PretrainModel

FORMAT_VERSION = 2
"""Version of ``checkpoints/*.pt`` and ``model/config.json``; any other is refused."""

WEIGHTS_NAME = "model.safetensors"
CONFIG_NAME = "config.json"


_DAMAGE = (
    *(KeyError, TypeError, ValueError, RuntimeError, OSError),
    *(SchemaError, SafetensorError, UsageError),
)
"""What reading a model raises where its two files are not what was written."""


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
        """Tell whether a run was started here."""
        return self._config.is_file()

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write the resolved configuration."""
        lines = [f"{name} = {_toml(value)}\n" for name, value in config.items()]
        self._checkpoints.mkdir(parents=True, exist_ok=True)
        with whole_file(self._config) as partial:
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
        except tomllib.TOMLDecodeError as error:
            raise CheckpointError(f"{self._config} is damaged: {error}.") from error

    def save(self, step: int, state: Mapping[str, Any], *, keep: int = 2) -> None:
        """Write all state after ``step`` steps, then point ``last`` at it; keep the newest few."""
        path = self._checkpoints / f"step-{step:08d}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            torch.save({"format_version": FORMAT_VERSION, "step": step, **state}, partial)
        with whole_file(self._last) as partial:
            partial.write_text(f"{path.name}\n", encoding="utf-8")
        for old in sorted(self._checkpoints.glob("step-*.pt"))[:-keep]:
            old.unlink()

    def load_last(self, device: torch.device) -> dict[str, Any] | None:
        """Read the newest state, or ``None`` where the run was stopped before its first.

        Raises:
            CheckpointError: it is missing, damaged, or of a newer version.
        """
        if not self._last.is_file():
            return None
        path = self._checkpoints / self._last.read_text(encoding="utf-8").strip()
        try:
            state = torch.load(path, map_location=device, weights_only=True)
        except Exception as error:
            # torch.load raises a dozen types for a damaged file, none of them its own.
            raise CheckpointError(
                f"{path} cannot be read ({type(error).__name__}); write the name of an older "
                f"checkpoint of that folder into {self._last}, or start again."
            ) from error
        _check_version(state, path)
        return dict(state)


def save_model(model: PretrainModel, folder: Path, *, training: Mapping[str, Any]) -> None:
    """Write weights (safetensors) and everything needed to use them (``config.json``).

    Args:
        model: the model, decoder included.
        folder: where the two files go.
        training: how it came to be: step, seed, mask ratio, stores and their plan digests.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "format_version": FORMAT_VERSION,
        "software_version": __version__,
        **asdict(model.config),
        "training": dict(training),
    }
    with whole_file(folder / WEIGHTS_NAME) as partial:
        save_file({name: t.contiguous() for name, t in model.state_dict().items()}, partial)
    with whole_file(folder / CONFIG_NAME) as partial:
        partial.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_model(path: str | Path, *, device: str = "cpu") -> PretrainModel:
    """Load the model of a run's folder, or of a ``model/`` folder, in evaluation mode.

    Raises:
        CheckpointError: there is none, it is damaged, or of a newer version.
    """
    config = describe(path)
    folder = _model_folder(path)
    try:
        model = build_model(_model_config(config))
        model.load_state_dict(load_file(folder / WEIGHTS_NAME, device=device))
    except _DAMAGE as error:
        raise CheckpointError(
            f"{folder} is damaged: {CONFIG_NAME} and {WEIGHTS_NAME} do not make a model "
            f"({str(error).splitlines()[0]}). Copy it again from where it was trained."
        ) from error
    return model.to(device).eval()


def describe(path: str | Path) -> dict[str, Any]:
    """Read ``config.json`` of a run's or model's folder: size, modalities, training.

    Raises:
        CheckpointError: there is none, it is damaged, or of a newer version.
    """
    file = _model_folder(path) / CONFIG_NAME
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}.") from error
    _check_version(config, file)
    return dict(config)


def _model_folder(path: str | Path) -> Path:
    for folder in (Path(path) / "model", Path(path)):
        if (folder / CONFIG_NAME).is_file():
            return folder
    state = "no finished checkpoint yet" if RunFolder(path).exists() else "no model"
    raise CheckpointError(
        f"{path} holds {state}: expected model/{CONFIG_NAME}, as `salibi-model train` writes it."
    )


def _check_version(content: Any, path: Path) -> None:
    version = content.get("format_version") if isinstance(content, Mapping) else None
    if version == FORMAT_VERSION:
        return
    newer = isinstance(version, int) and version > FORMAT_VERSION
    remedy = "Upgrade salibi to read it." if newer else "Train it again, or use the salibi of then."
    raise CheckpointError(
        f"{path} has format version {version}; this software reads version {FORMAT_VERSION}. "
        f"{remedy}"
    )


def _model_config(content: Mapping[str, Any]) -> ModelConfig:
    own = {f.name: content[f.name] for f in fields(ModelConfig) if f.name in content}
    return ModelConfig(
        **{name: _tuples(value) for name, value in own.items()}
        | {
            "size": Size(**own["size"]),
            "modalities": tuple(_modality(described) for described in own["modalities"]),
        }
    )


def _tuples(value: Any) -> Any:
    """JSON's lists as tuples, nested ones as well."""
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value


def _modality(described: Mapping[str, Any]) -> Modality:
    return Modality(**{name: _tuples(value) for name, value in described.items()})


def _toml(value: Any) -> str:
    """Write a string, number, boolean or sequence of them; JSON's form of these is TOML's."""
    return json.dumps(list(value) if isinstance(value, tuple) else value)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a path to write to; move it to ``path`` once it is on the disk, or remove it."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
