"""The TOML files of providers and variants: found by name or path, resolved along ``extends``.

``extends = "other"`` starts from another file of the same folder and overrides what it names;
tables are merged key by key, everything else is replaced.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salibi_data.store.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def builtin_folder() -> Path:
    """Folder of the TOML files: in the wheel, or beside the package in a checkout."""
    package = Path(__file__).parents[1]
    shipped = package / "catalogs"
    return shipped if shipped.is_dir() else package.parent / "catalogs"


def names(folder: str, *, with_key: str = "name") -> list[str]:
    """Names of the built-in files of ``folder`` that have the key themselves."""
    files = (builtin_folder() / folder).glob("*.toml")
    return sorted(path.stem for path in files if with_key in read(path))


def find(folder: str, name_or_path: str, *, what: str, known: Sequence[str]) -> Path:
    """The file of that name, or at that path.

    Raises:
        UsageError: there is none.
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


def resolved(path: Path, folder: str) -> dict[str, Any]:
    """Content of a file with that of those it extends.

    Raises:
        UsageError: it is not TOML, extends what is not there, or itself in the end.
    """
    contents = []
    chain = [path]
    while True:
        content = read(chain[-1])
        base = content.pop("extends", None)
        contents.append(content)
        if base is None:
            break
        chain.append(_extended(chain[-1], base, folder))
        if chain[-1].resolve() in {one.resolve() for one in chain[:-1]}:
            raise UsageError(
                f"{path} extends itself: {' -> '.join(one.name for one in chain)}; one of these "
                "has to stand alone or extend another."
            )
    merged: dict[str, Any] = {}
    for content in reversed(contents):
        merged = _merged(merged, content)
    return merged


def _extended(path: Path, base: Any, folder: str) -> Path:
    beside = path.parent / f"{base}.toml"
    parent = beside if beside.is_file() else builtin_folder() / folder / f"{base}.toml"
    if not isinstance(base, str) or not parent.is_file():
        raise UsageError(f"{path} extends {base!r}, which is neither beside it nor built in.")
    return parent


def _merged(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both_tables = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both_tables else value
    return merged


def read(path: Path) -> dict[str, Any]:
    """Content of one file, without that of those it extends.

    Raises:
        UsageError: it is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise UsageError(f"{path} is not valid TOML: {reason}.") from error
