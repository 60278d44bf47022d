"""Load the TOML files of providers and variants, by name or path, with the files they extend.

``extends = "other"`` takes another file of the same folder as the base. Tables are merged key by key;
all other values replace those of the base.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salibi_data.store.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def builtin_folder() -> Path:
    """Return the folder of the TOML files: in the wheel, or beside the package in a checkout."""
    package = Path(__file__).parents[1]
    in_wheel = package / "catalogs"
    return in_wheel if in_wheel.is_dir() else package.parent / "catalogs"


def file_names(folder: str, *, with_key: str = "name") -> list[str]:
    """Return the names of built-in files, in order.

    Args:
        folder: ``providers`` or ``variants``.
        with_key: key that a file must have itself, not through ``extends``.
    """
    files = (builtin_folder() / folder).glob("*.toml")
    return sorted(path.stem for path in files if with_key in load(path))


def find_file(folder: str, name_or_path: str, *, what: str, known: Sequence[str]) -> Path:
    """Return the path of a file.

    Args:
        folder: folder of the built-in files.
        name_or_path: name of a built-in file, or path of a ``.toml`` file.
        what: kind of file, for messages.
        known: names of the built-in files.

    Raises:
        UsageError: there is no such file.
    """
    path = Path(name_or_path)
    if path.suffix == ".toml":
        if not path.is_file():
            raise UsageError(f"no {what} file at {name_or_path}; give the path of a TOML file.")
        return path
    if name_or_path not in known:
        raise UsageError(
            f"unknown {what} {name_or_path!r}; known are {', '.join(known)}, "
            "or give the path of a TOML file."
        )
    return builtin_folder() / folder / f"{name_or_path}.toml"


def load_extended(path: Path, folder: str) -> dict[str, Any]:
    """Load a file, merged with the files that it extends.

    Raises:
        UsageError: a file is not TOML, or extends a file that does not exist, or itself.
    """
    contents = []
    chain = [path]
    while True:
        content = load(chain[-1])
        base = content.pop("extends", None)
        contents.append(content)
        if base is None:
            break
        chain.append(_find_base(chain[-1], base, folder))
        if chain[-1].resolve() in {earlier.resolve() for earlier in chain[:-1]}:
            raise UsageError(
                f"{path} extends itself: {' -> '.join(file.name for file in chain)}; one of these "
                "has to stand alone or extend another."
            )
    merged: dict[str, Any] = {}
    for content in reversed(contents):
        merged = _merge(merged, content)
    return merged


def _find_base(path: Path, base: Any, folder: str) -> Path:
    sibling = path.parent / f"{base}.toml"
    parent = sibling if sibling.is_file() else builtin_folder() / folder / f"{base}.toml"
    if not isinstance(base, str) or not parent.is_file():
        raise UsageError(f"{path} extends {base!r}, which is neither beside it nor built in.")
    return parent


def _merge(base: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in overrides.items():
        both_tables = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both_tables else value
    return merged


def load(path: Path) -> dict[str, Any]:
    """Load one file, without the files that it extends.

    Raises:
        UsageError: it is not TOML.
    """
    try:
        # "-sig" skips the byte order mark that editors on Windows write.
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise UsageError(f"{path} is not valid TOML: {reason}.") from error
