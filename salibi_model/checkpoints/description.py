"""A model's ``config.json``, checked field by field: the one reader of that file.

What each field must be is taken from the types of :class:`ModelConfig`, ``Size`` and ``Modality``;
fields that have defaults there may be absent, as in files of before they were added.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from reprlib import Repr
from typing import Any, Final, NoReturn, get_args, get_origin, get_type_hints

from salibi_data.store.errors import UsageError
from salibi_data.store.schema import SchemaError
from salibi_model.errors import CheckpointError
from salibi_model.models.config import ModelConfig, Size

FORMAT_VERSION: Final = 2
"""Version of ``checkpoints/*.pt`` and ``model/config.json``; any other is refused."""

COPY_AGAIN: Final = "Copy the model again from where it was made."
"""What to do about a damaged model."""

_ABOVE_ZERO: Final = {
    *(field.name for field in fields(Size)),
    *("patch_px", "gsd_ratio", "size_px", "std", "base_gsd_m"),
}
"""Fields whose numbers are above zero."""

_EXPECTED: Final[Mapping[type, str]] = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "a text",
}

_DEEPEST: Final = 8
"""Levels of lists and objects in the file at most; ours has four."""

_LONGEST: Final = 300
"""Characters of an error that are worth reading."""


class _FieldError(Exception):
    """A field is missing, or holds something else than it must."""


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
        _check_plain(content, _DEEPEST)
        own = {field.name for field in fields(ModelConfig)}
        described = {name: value for name, value in content.items() if name in own}
        config = _object(ModelConfig, described, "")
        if not isinstance(content.get("training"), dict):
            _refuse("training", content.get("training", MISSING), "an object")
    except (_FieldError, UsageError, SchemaError, ArithmeticError) as error:
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
        f"{path} has format version {_shown(version)}; this software reads version "
        f"{FORMAT_VERSION}. {remedy}"
    )


def _check_plain(value: Any, levels: int) -> None:
    """Refuse what could not be printed: garbage nested deeply, text that is not Unicode."""
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise _FieldError(f"it holds {value!r}, which is no text.") from error
    if isinstance(value, dict | list) and not levels:
        raise _FieldError(f"it is nested more than {_DEEPEST} levels deep.")
    if isinstance(value, dict | list):
        for part in [*value, *value.values()] if isinstance(value, dict) else value:
            _check_plain(part, levels - 1)


def _object(kind: Any, value: Any, where: str) -> Any:
    """Read a dataclass from an object with its fields; ``where`` is empty or ends in a point."""
    if not isinstance(value, dict):
        _refuse(where.removesuffix("."), value, "an object")
    types = get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}
    for name in value:
        if name not in known:
            raise _FieldError(f"{where}{_shown(name)} is no field of a model.")
    for name, field in known.items():
        if name not in value and field.default is MISSING:
            raise _FieldError(f"{where}{name} is missing.")
    return kind(
        **{
            name: _value(types[name], part, f"{where}{name}", above_zero=name in _ABOVE_ZERO)
            for name, part in value.items()
        }
    )


def _value(kind: Any, value: Any, where: str, *, above_zero: bool) -> Any:
    """Read a value of the type ``kind``: a dataclass, a tuple, a scalar, or one of these or none."""
    if is_dataclass(kind):
        return _object(kind, value, f"{where}.")
    parts = get_args(kind)
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            _refuse(where, value, "a list")
        kinds = (parts[0],) * len(value) if parts[-1] is Ellipsis else parts
        if len(kinds) != len(value):
            _refuse(where, value, f"a list of {len(kinds)}")
        return tuple(
            _value(part_kind, part, f"{where}[{number}]", above_zero=above_zero)
            for number, (part_kind, part) in enumerate(zip(kinds, value, strict=True))
        )
    if type(None) in parts:
        if value is None:
            return None
        kind = next(part for part in parts if part is not type(None))
    return _scalar(kind, value, where, above_zero=above_zero)


def _scalar(kind: Any, value: Any, where: str, *, above_zero: bool) -> Any:
    if kind is float and type(value) is int and abs(value) < 2**1023:
        value = float(value)
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        _refuse(where, value, _EXPECTED[kind])
    if above_zero and not value > 0:
        _refuse(where, value, f"{_EXPECTED[kind]} above 0")
    return value


def _refuse(where: str, value: Any, expected: str) -> NoReturn:
    if value is MISSING:
        raise _FieldError(f"{where} is missing.")
    raise _FieldError(f"{where} is {_shown(value)}; expected {expected}.")


def _shown(value: Any) -> str:
    """A value in some forty characters of one line."""
    return "null" if value is None else Repr().repr(value)


def first_line(error: BaseException) -> str:
    """What an error says in its first line, or the type of one that says nothing; not too long."""
    said = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST]} ..."
