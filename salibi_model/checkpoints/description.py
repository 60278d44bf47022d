"""Read a model's ``config.json`` as a :class:`ModelConfig`.

Fields that have defaults there may be absent, as in files written before they were added.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Final

from salibi_data.store.redaction import first_line
from salibi_data.store.validation import RecordError, read_record, shown
from salibi_model.errors import CheckpointError
from salibi_model.models.config import ModelConfig

FORMAT_VERSION: Final = 2
"""Version of ``checkpoints/*.pt`` and ``model/config.json``; any other is refused."""

COPY_AGAIN: Final = "Copy the model again from where it was made."
"""Advice in errors about a damaged model."""

_MAX_LEVELS: Final = 8
"""Greatest depth of lists and objects in the file; what we write has four levels."""


def read_description(file: Path) -> tuple[dict[str, Any], ModelConfig]:
    """Read a ``config.json``.

    Returns:
        The file's content, with the defaults of fields that it lacks; and the model it describes.

    Raises:
        CheckpointError: it is damaged, of another version, or describes no model.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{file} cannot be read: {first_line(error)}. {COPY_AGAIN}"
        ) from error
    check_version(content, file)
    try:
        _check_plain(content, _MAX_LEVELS)
        own = {field.name for field in fields(ModelConfig)}
        described = {name: value for name, value in content.items() if name in own}
        config = read_record(ModelConfig, described, as_floats=True)
        if not isinstance(content.get("training"), dict):
            training = shown(content["training"]) if "training" in content else "missing"
            raise RecordError(f"training is {training}; expected a table")  # noqa: TRY301
    except RecordError as error:
        raise CheckpointError(f"{file} is damaged: {first_line(error)}. {COPY_AGAIN}") from error
    return {**content, **json.loads(json.dumps(asdict(config)))}, config


def check_version(content: Any, path: Path) -> None:
    """Refuse a file of another format version.

    Raises:
        CheckpointError: it is older or newer, or says nothing.
    """
    version = content.get("format_version") if isinstance(content, Mapping) else None
    if version == FORMAT_VERSION:
        return
    newer = isinstance(version, int) and version > FORMAT_VERSION
    remedy = "Upgrade salibi to read it." if newer else "Train it again, or use the salibi of then."
    raise CheckpointError(
        f"{path} has format version {shown(version)}; this software reads version "
        f"{FORMAT_VERSION}. {remedy}"
    )


def _check_plain(value: Any, levels: int) -> None:
    """Refuse deep nesting and text that is not Unicode, neither of which can be printed.

    Raises:
        RecordError: says which it is.
    """
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise RecordError(f"it holds {value!r}, which is no text.") from error
    if isinstance(value, dict | list) and not levels:
        raise RecordError(f"it is nested more than {_MAX_LEVELS} levels deep.")
    if isinstance(value, dict | list):
        for part in [*value, *value.values()] if isinstance(value, dict) else value:
            _check_plain(part, levels - 1)
