"""Exports a model for others: weights, description and model card, without private paths."""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from salibi_data.store import __version__
from salibi_data.store.errors import UsageError
from salibi_data.store.filesystem import file_sha256, remove_partials, write_atomically
from salibi_data.store.redaction import name_only
from salibi_model.checkpoints.files import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    describe,
    model_folder,
)
from salibi_model.checkpoints.load import load
from salibi_model.evals.features import weights_digest
from salibi_model.evals.metrics import Score
from salibi_model.evals.results import Results
from salibi_model.exports.model_card import LIBRARY, model_card

CARD_NAME: Final = "README.md"


def export(
    checkpoint: str | Path,
    out: str | Path,
    *,
    licence: str | None = None,
    results: str | Path | None = None,
) -> Path:
    """Write ``model.safetensors``, ``config.json`` and ``README.md``, which is the model card.

    Paths and addresses of the training are cut to their last part. :func:`salibi_model.load`
    loads the folder.

    Args:
        checkpoint: a run's or model's folder.
        out: a new or empty folder, or that of an earlier export.
        licence: licence of the weights, such as ``cc-by-4.0``; ``None``: not stated.
        results: folder of results, as ``salibi-model eval`` writes it; the card lists the rows of
            this model.

    Returns:
        Path of the folder ``out``.

    Raises:
        CheckpointError: there is no model, or it is damaged.
        UsageError: ``out`` holds something else; the licence is no name; or there are no results of
            this model.

    Example:
        >>> exported = export(run_path, folder / "model", licence="cc-by-4.0")
        >>> sorted(path.name for path in exported.iterdir())
        ['README.md', 'config.json', 'model.safetensors']
    """
    folder, target = model_folder(checkpoint), Path(out)
    _check_target(target, folder)
    if licence is not None and not re.fullmatch(r"[\w.+-]+", licence):
        raise UsageError(f"licence {licence!r} is no name of one; give it as cc-by-4.0 or other.")
    # Loaded before anything is written, so that a damaged model is not exported.
    model = load(checkpoint)
    scores = _scores_of(weights_digest(model), results) if results is not None else ()
    content = describe(checkpoint)
    training = without_paths(content["training"])
    card = model_card(
        model.config,
        training,
        name=target.resolve().name,
        sha256=file_sha256(folder / WEIGHTS_NAME),
        software_version=__version__,
        licence=licence,
        scores=scores,
    )
    target.mkdir(parents=True, exist_ok=True)
    remove_partials(target)
    # The card first: it marks the folder as an export if this one is interrupted.
    _write(target / CARD_NAME, card)
    _write(target / CONFIG_NAME, json.dumps({**content, "training": training}, indent=2) + "\n")
    with write_atomically(target / WEIGHTS_NAME) as partial:
        shutil.copyfile(folder / WEIGHTS_NAME, partial)
    return target


def without_paths(value: Any) -> Any:
    """Cut paths and addresses anywhere in JSON values to their last part."""
    if isinstance(value, Mapping):
        return {key: without_paths(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(part) for part in value]
    if isinstance(value, str) and re.search(r"[/\\?@]", value):
        return name_only(value)
    return value


def _check_target(target: Path, folder: Path) -> None:
    """Refuse a folder that holds anything but an earlier export."""
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target} is a file; name a folder.")
    if target.exists() and target.resolve() == folder.resolve():
        raise UsageError(f"{target} is the model itself; name another folder.")
    exported = {CARD_NAME, CONFIG_NAME, WEIGHTS_NAME}
    # Hidden files may stay: a clone of a repository of the Hub has .git and .gitattributes.
    existing = {path.name for path in target.glob("*") if not path.name.startswith(".")}
    if existing and (existing - exported or not _is_card(target / CARD_NAME)):
        raise UsageError(
            f"{target} holds something else than an export ({', '.join(sorted(existing)[:3])}); name "
            "another folder."
        )


def _is_card(file: Path) -> bool:
    try:
        return f"\nlibrary_name: {LIBRARY}\n" in file.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False


def _scores_of(digest: str, results: str | Path) -> tuple[Score, ...]:
    """Read the rows of results of the model with these weights."""
    if not (Path(results) / "results.json").is_file():
        raise UsageError(f"{results} has no results.json; give a folder of `salibi-model eval`.")
    rows = Results(results).scores
    model_rows = tuple(row for row in rows if row.weights_digest == digest)
    if not model_rows:
        raise UsageError(
            f"{results} has {len(rows)} rows, none of this model; evaluate it with --out {results}."
        )
    return model_rows


def _write(file: Path, text: str) -> None:
    with write_atomically(file) as partial:
        partial.write_text(text, encoding="utf-8")
