"""Convert published weights to checkpoints: the authors' ``.pth`` and CROMA's released ``.pt``.

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
    list_some,
    plan_conversion,
)
from salibi_model.checkpoints.published_parameters import PublishedParameter
from salibi_model.errors import CheckpointError
from salibi_model.models.registry import build_model

_WRAPPERS = ("state_dict", "model", "model_state_dict")
"""Names under which a training state holds its model."""
_Visited = dict[int, Mapping[Any, Any]]
"""Dictionaries by identity (``id``); they are held so that no new one gets the same identity."""
_MAX_LEVELS = 8
"""Deepest nesting of names; the published files have two levels."""
_PREFIXES = {"module", "_orig_mod"}
"""Components of names that DistributedDataParallel and ``torch.compile`` add."""


def convert(file: str | Path, out: str | Path, *, num_heads: int | None = None) -> Path:
    """Convert published weights to a checkpoint.

    The authors' file becomes a model of the architecture ``original``; CROMA's becomes ``croma``
    without projections and decoder, which its file does not have. Both take pixel values as the
    published code does, without normalisation (mean 0, deviation 1): the authors' 0..255, CROMA's
    0..1, which are 8-bit values divided by 255 in its README.

    Args:
        file: ``.pth`` of the authors' training, or ``CROMA_base.pt`` / ``CROMA_large.pt``
            (https://github.com/antofuller/CROMA).
        out: folder for ``model/``, as :func:`salibi_model.load` reads it.
        num_heads: number of attention heads of the encoders; by default 16, as published.

    Returns:
        The ``model/`` folder.

    Raises:
        CheckpointError: the file is missing, damaged, holds objects, or does not hold the
            parameters of either model; or ``out`` holds a training run, or a model of another
            file.
        UsageError: ``num_heads`` does not fit the file's width.

    Example:
        >>> converted = salibi_model.convert(weights_path, folder / "croma", num_heads=4)
        >>> salibi_model.load(converted)
        ScaleAlibi(sar 2 x ... px, lores 12 x ... px; patch 8 px, ...)
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
    # Parameters without memory: load_state_dict(assign=True) replaces them.
    with torch.device("meta"):
        model = build_model(conversion.config)
    weights = _convert_tensors(tensors, conversion, model.state_dict(), file)
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
    """Read the tensors of a file that ``torch.save`` wrote, nested names joined by dots.

    Prefixes of wrappers (``module.``) are dropped; of a training state only the model is read.

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
    visited: _Visited = {}
    while isinstance(content, Mapping) and (wrappers := set(_WRAPPERS) & set(content)):
        _visit(content, visited, file)
        content = content[min(wrappers)]
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{file} holds a {type(content).__name__}, not named tensors.")
    return dict(_flatten(content, (), visited, file))


def _check_file(file: Path) -> None:
    if not file.is_file():
        raise CheckpointError(f"there is no file {file}; give a .pth or .pt of published weights.")


def _check_free(out: Path, digest: str) -> None:
    """Refuse a folder with a model that was not converted from the file of this SHA-256."""
    if not any((folder / CONFIG_NAME).is_file() for folder in (out, out / "model")):
        return
    training = describe(out)["training"]
    if training.get("sha256") != digest:
        origin = training.get("converted_from", "training")
        raise CheckpointError(
            f"{out} holds a model already, of {origin}, not of this file; convert into another "
            "folder."
        )


def _visit(content: Mapping[Any, Any], visited: _Visited, file: Path) -> None:
    """Refuse a dictionary that was visited before: it holds itself, or is held twice."""
    if id(content) in visited:
        raise CheckpointError(
            f"{file} holds a dictionary within itself, or twice; expected named tensors."
        )
    visited[id(content)] = content


def _flatten(
    content: Mapping[Any, Any], parents: tuple[str, ...], visited: _Visited, file: Path
) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of nested dictionaries with their full names."""
    _visit(content, visited, file)
    if len(parents) == _MAX_LEVELS:
        raise CheckpointError(f"{file} is nested more than {_MAX_LEVELS} levels deep; expected 2.")
    for name, value in content.items():
        path = (*parents, str(name))
        components = ".".join(path).split(".")
        joined = ".".join(part for part in components if part not in _PREFIXES)
        if isinstance(value, Mapping):
            yield from _flatten(value, path, visited, file)
        elif isinstance(value, Tensor):
            yield joined, value
        else:
            raise CheckpointError(
                f"{file} holds a {type(value).__name__} as {joined}; expected a tensor."
            )


def _convert_tensors(
    tensors: Mapping[str, Tensor],
    conversion: Conversion,
    parameters: Mapping[str, Tensor],
    file: Path,
) -> dict[str, Tensor]:
    """Give each of the model's ``parameters`` the values of the published file.

    Raises:
        CheckpointError: the file lacks tensors, has others, or shapes or values do not fit.
    """
    needed = {name for published in conversion.parameters.values() for name in published.names}
    _check_names(tensors, needed, conversion, file)
    weights, misfits = {}, []
    for name, parameter in parameters.items():
        published = conversion.parameters[name]
        value = _published_value(tensors, published)
        # Published mask tokens are (1, 1, dim), for broadcasting; here it is a vector.
        if name == "decoder.mask_token" and value.numel() == parameter.numel():
            value = value.reshape(parameter.shape)
        if value.shape != parameter.shape:
            shapes = " + ".join(str(tuple(tensors[part].shape)) for part in published.names)
            misfits.append(f"{' + '.join(published.names)} is {shapes}")
        elif not bool(value.isfinite().all()):
            raise CheckpointError(
                f"{published.names[0]} in {file} holds values that are not finite."
            )
        # A copy: tensors of a file may share memory, which safetensors refuses to write.
        weights[name] = value.float().clone()
    if misfits:
        raise CheckpointError(
            f"{file} holds shapes that do not fit a model of width {conversion.config.size.dim} and "
            f"patches of {conversion.config.patch_px} px: {list_some(misfits)}."
        )
    return weights


def _published_value(tensors: Mapping[str, Tensor], published: PublishedParameter) -> Tensor:
    """Join the tensors of a parameter, or take its rows of one; misfits are reported by shape."""
    parts = [tensors[name] for name in published.names]
    if len(parts) > 1 and len({part.shape for part in parts}) == 1:
        return torch.cat(parts)
    return parts[0] if published.rows is None or not parts[0].ndim else parts[0][published.rows]


def _check_names(
    tensors: Mapping[str, Tensor], needed: set[str], conversion: Conversion, file: Path
) -> None:
    missing, unknown = needed - set(tensors), set(tensors) - needed - conversion.unused
    if missing or unknown:
        lacks = f"lacks {list_some(missing)}" if missing else ""
        holds = f"holds, besides, {list_some(unknown)}" if unknown else ""
        raise CheckpointError(
            f"{file} is not the published {conversion.layout} model: it "
            f"{' and '.join(filter(None, (lacks, holds)))}."
        )
