"""Published weights as our checkpoints: the authors' ``.pth`` and CROMA's released ``.pt``.

Only tensors are read from a file (``weights_only=True``), never objects. A converted model gives
the outputs of the published code for the same pixel values.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from salibi_data.store.errors import UsageError
from salibi_data.store.filesystem import file_sha256
from salibi_model.checkpoints.files import (
    CONFIG_NAME,
    RunFolder,
    describe,
    read_tensors,
    save_model,
)
from salibi_model.checkpoints.published_layouts import (
    NUM_HEADS,
    Conversion,
    Source,
    plan_conversion,
    some_of,
)
from salibi_model.errors import CheckpointError
from salibi_model.models.registry import build_model

_WRAPPERS = ("state_dict", "model", "model_state_dict")
_Seen = dict[int, Mapping[Any, Any]]
"""Dictionaries by their identity; they are kept, so that it is not given to another."""
_DEEPEST = 8
"""Levels of nested names at most; the published files have two."""
_PREFIXES = {"module", "_orig_mod"}
"""Components of names that DistributedDataParallel and ``torch.compile`` add."""


def convert(file: str | Path, out: str | Path, *, num_heads: int | None = None) -> Path:
    """Make a checkpoint of published weights.

    The authors' file becomes a model of the architecture ``original``; CROMA's becomes ``croma``
    without projections and decoder, which its file does not have. Both take pixel values as the
    published code does (mean 0, deviation 1): the authors' 0..255, CROMA's 0..1, which its README
    gets from 8-bit values divided by 255.

    Args:
        file: a ``.pth`` of the authors' training, or ``CROMA_base.pt`` / ``CROMA_large.pt``.
        out: folder for ``model/``, as :func:`salibi_model.load` reads it.
        num_heads: attention heads of the encoders; by default 16, as published.

    Returns:
        The ``model/`` folder.

    Raises:
        CheckpointError: the file is missing, damaged, holds objects, or does not hold the
            parameters of either model; or ``out`` holds a training run, or a model of another
            file.
        UsageError: ``num_heads`` does not fit the file's width.
    """
    file, out = Path(file), Path(out)
    if RunFolder(out).exists():
        raise CheckpointError(f"{out} holds a training run; convert into another folder.")
    _check_file(file)
    digest = file_sha256(file)
    _check_free(out, digest)
    tensors = read_weights(file)
    if num_heads is not None and num_heads < 1:
        raise UsageError(f"num_heads is {num_heads}; expected one attention head or more.")
    conversion = plan_conversion(tensors, file, NUM_HEADS if num_heads is None else num_heads)
    with torch.device("meta"):
        model = build_model(conversion.config)
    weights = _arranged(tensors, conversion, model.state_dict(), file)
    model.load_state_dict(weights, assign=True)
    folder = out / "model"
    training = {
        "converted_from": file.name,
        "sha256": digest,
        "layout": conversion.layout,
        "num_heads_given": num_heads is not None,
    }
    save_model(model, folder, training=training)
    return folder


def read_weights(file: Path) -> dict[str, Tensor]:
    """Read the tensors of a file that ``torch.save`` wrote, nested names joined by points.

    Prefixes of wrappers (``module.``) are dropped, and of a training state only the model is read.

    Raises:
        CheckpointError: there is no such file, it is damaged, or it holds other than tensors.
    """
    _check_file(file)
    try:
        content = read_tensors(file, torch.device("cpu"))
    except Exception as error:
        # torch.load raises a dozen types for a damaged file, none of them its own.
        raise CheckpointError(
            f"{file} is damaged, or holds objects besides tensors ({type(error).__name__}); "
            "objects are never loaded, as they can run code. Download it again, or save its "
            "state_dict alone."
        ) from error
    seen: _Seen = {}
    while isinstance(content, Mapping) and (inner := set(_WRAPPERS) & set(content)):
        _check_new(content, seen, file)
        content = content[min(inner)]
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{file} holds a {type(content).__name__}, not named tensors.")
    return dict(_flattened(content, (), seen, file))


def _check_file(file: Path) -> None:
    if not file.is_file():
        raise CheckpointError(f"there is no file {file}; give a .pth or .pt of published weights.")


def _check_free(out: Path, digest: str) -> None:
    """Refuse a folder with a model that was not converted from the file of this SHA-256."""
    if not any((folder / CONFIG_NAME).is_file() for folder in (out, out / "model")):
        return
    origin = describe(out)["training"]
    if origin.get("sha256") != digest:
        came = origin.get("converted_from", "training")
        raise CheckpointError(
            f"{out} holds a model already, of {came}, not of this file; convert into another folder."
        )


def _check_new(content: Mapping[Any, Any], seen: _Seen, file: Path) -> None:
    """Refuse a dictionary met before: it holds itself, or is held twice."""
    if id(content) in seen:
        raise CheckpointError(
            f"{file} holds a dictionary within itself, or twice; expected named tensors."
        )
    seen[id(content)] = content


def _flattened(
    content: Mapping[Any, Any], above: tuple[str, ...], seen: _Seen, file: Path
) -> Iterator[tuple[str, Tensor]]:
    _check_new(content, seen, file)
    if len(above) == _DEEPEST:
        raise CheckpointError(f"{file} is nested more than {_DEEPEST} levels deep; expected 2.")
    for name, value in content.items():
        path = (*above, str(name))
        parts = ".".join(path).split(".")
        joined = ".".join(part for part in parts if part not in _PREFIXES)
        if isinstance(value, Mapping):
            yield from _flattened(value, path, seen, file)
        elif isinstance(value, Tensor):
            yield joined, value
        else:
            raise CheckpointError(
                f"{file} holds a {type(value).__name__} as {joined}; expected a tensor."
            )


def _arranged(
    tensors: Mapping[str, Tensor], conversion: Conversion, wanted: Mapping[str, Tensor], file: Path
) -> dict[str, Tensor]:
    """Give the file's tensors as our model's, all of them and no others."""
    needed = {name for source in conversion.recipe.values() for name in source.names}
    _check_names(tensors, needed, conversion, file)
    weights, misfits = {}, []
    for name, like in wanted.items():
        source = conversion.recipe[name]
        value = _taken(tensors, source)
        if name == "decoder.mask_token" and value.numel() == like.numel():
            value = value.reshape(like.shape)
        if value.shape != like.shape:
            shapes = " + ".join(str(tuple(tensors[part].shape)) for part in source.names)
            misfits.append(f"{' + '.join(source.names)} is {shapes}")
        elif not bool(value.isfinite().all()):
            raise CheckpointError(f"{source.names[0]} in {file} holds values that are not finite.")
        weights[name] = value.float().clone()
    if misfits:
        raise CheckpointError(
            f"{file} holds shapes that do not fit a model of width {conversion.config.size.dim} and "
            f"patches of {conversion.config.patch_px} px: {some_of(misfits)}."
        )
    return weights


def _taken(tensors: Mapping[str, Tensor], source: Source) -> Tensor:
    parts = [tensors[name] for name in source.names]
    if len(parts) > 1 and len({part.shape for part in parts}) == 1:
        return torch.cat(parts)
    return parts[0] if source.rows is None or not parts[0].ndim else parts[0][source.rows]


def _check_names(
    tensors: Mapping[str, Tensor], needed: set[str], conversion: Conversion, file: Path
) -> None:
    missing, besides = needed - set(tensors), set(tensors) - needed - conversion.unused
    if missing or besides:
        lacks = f"lacks {some_of(missing)}" if missing else ""
        holds = f"holds, besides, {some_of(besides)}" if besides else ""
        raise CheckpointError(
            f"{file} is not the published {conversion.layout} model: it "
            f"{' and '.join(filter(None, (lacks, holds)))}."
        )
