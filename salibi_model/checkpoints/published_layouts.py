"""Recognise the two published files, and read the model's configuration from their shapes.

The files are the state dictionary of the authors' training (``.pth``), and CROMA's release
(``.pt``), a dictionary of five state dictionaries. Shapes give widths, depths and the patch; the
number of attention heads, which no shape tells, is an argument.

Sources: parameter names and shapes of the public code of Kage & Andreadis 2024 (arXiv 2604.10347)
and of CROMA (Fuller et al., NeurIPS 2023; ``use_croma.py``).
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from salibi_data.store.schema import TILE_PX, Modality
from salibi_model.checkpoints.published_parameters import (
    AUTHORS,
    CROMA,
    Parameters,
    PublishedParameter,
    affine_parameters,
    block_parameters,
    encoder_parameters,
    head_parameters,
    joint_parameters,
    with_second_layer,
)
from salibi_model.errors import CheckpointError
from salibi_model.models.config import MISTAKES, ModelConfig, Size
from salibi_model.models.units import RAW_UNITS
from salibi_model.nn.alibi import patch_centres
from salibi_model.nn.decoder import sincos_positions

NUM_HEADS = 16
"""Number of attention heads of every published encoder."""
DECODER_HEADS = 8
"""Number of attention heads of the authors' decoder."""

SENTINEL_2 = ("b1", "b2", "b3", "b4", "b5", "b6", "b7", "b8", "b8a", "b9", "b11", "b12")
"""Bands of CROMA's optical encoder: those of SSL4EO-S12 (Wang et al. 2023), without the cirrus
band B10."""

ZOOM = 15
"""Zoom of the published Scale-ALiBi runs; in a converted model it is for information only."""

_MAX_LISTED = 3


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """Plan for converting a file to a model."""

    layout: str
    """Name of the published model: ``scale-alibi`` or ``croma``."""
    config: ModelConfig
    """Configuration of the converted model."""
    parameters: Parameters
    """Tensors of the file for each parameter of the model."""
    unused: frozenset[str] = frozenset()
    """Names in the file that are checked, but hold no parameter of the converted model."""


def plan_conversion(tensors: Mapping[str, Tensor], file: Path, num_heads: int) -> Conversion:
    """Recognise a file's layout, and read the model's size from its shapes.

    Args:
        tensors: tensors of the file, nested names joined by dots.
        file: path of the file, for messages.
        num_heads: number of attention heads of the encoders.

    Raises:
        CheckpointError: it is of no known layout, or lacks tensors from which sizes are read.
        UsageError: the sizes do not fit together.
    """
    parts = {name.split(".")[0] for name in tensors}
    if "radar_encoder" in parts:
        return _authors_plan(tensors, file, num_heads)
    if "s1_encoder" in parts:
        return _croma_plan(tensors, file, num_heads)
    raise CheckpointError(
        f"{file} is of neither layout: expected radar_encoder, optical_encoder, ... of the "
        f"authors' model, or s1_encoder, s2_encoder, ... of CROMA; found {list_some(parts)}."
    )


def _authors_plan(tensors: Mapping[str, Tensor], file: Path, num_heads: int) -> Conversion:
    sensors = {"sar": "radar", "lores": "optical", "hires_4x": "hires"}
    encoders = {name: f"{sensor}_encoder." for name, sensor in sensors.items()}
    size = Size(
        **_width_and_depth(tensors, file, encoders["lores"]),
        num_heads=num_heads,
        decoder_dim=_shape(tensors, file, "decoder.encoder_to_decoder.weight")[0],
        decoder_depth=_depth(tensors, file, "decoder.decoder."),
        decoder_heads=DECODER_HEADS,
    )
    config = ModelConfig(
        architecture="original",
        size=size,
        modalities=(
            _modality("sar", "sentinel-1", ("vv", "vh")),
            _modality("lores", "sentinel-2", ("red", "green", "blue")),
            _modality("hires_4x", "naip", ("red", "green", "blue"), gsd_ratio=0.5),
        ),
        patch_px=_patch_px(tensors, file, encoders["lores"], 3),
        fine_target="base",
        mistakes=MISTAKES,
        depths=_depths(tensors, file, encoders),
    )
    layout = with_second_layer(AUTHORS, tensors)
    parameters: Parameters = {
        "log_scale": PublishedParameter(("global_contrast_loss.logit_scale",))
    }
    for name, sensor in sensors.items():
        depth = config.depth(config[name])
        parameters |= encoder_parameters(
            f"encoders.{name}", encoders[name], size.dim, depth, layout
        )
        parameters |= head_parameters(f"heads.{name}", f"GAP_FFN_{sensor}")
        parameters |= affine_parameters(
            f"projections.{name}", f"global_contrast_loss.{sensor}_proj"
        )
    parameters |= joint_parameters("cross_encoder.", size.dim, config.half_depth, layout)
    parameters |= affine_parameters("decoder.embed", "decoder.encoder_to_decoder")
    parameters |= affine_parameters("decoder.output", "decoder.linear_output")
    parameters |= affine_parameters("decoder.norm", "decoder.decoder.norm_out")
    parameters["decoder.mask_token"] = PublishedParameter(("decoder.mask_token",))
    for i in range(size.decoder_depth):
        ours, theirs = f"decoder.blocks.{i}", f"decoder.decoder.layers.{i}"
        parameters |= block_parameters(ours, theirs, size.decoder_dim, layout)
    _check_positions(tensors, file, size.decoder_dim)
    unused = frozenset({"decoder.decoder_pos_embed"})
    return Conversion(layout="scale-alibi", config=config, parameters=parameters, unused=unused)


def _croma_plan(tensors: Mapping[str, Tensor], file: Path, num_heads: int) -> Conversion:
    sensors = {"sar": "s1", "lores": "s2"}
    encoders = {name: f"{sensor}_encoder." for name, sensor in sensors.items()}
    width_and_depth = _width_and_depth(tensors, file, encoders["lores"])
    # The file does not hold the decoder; its width is the paper's.
    size = Size(**width_and_depth, num_heads=num_heads, decoder_dim=512)
    config = ModelConfig(
        architecture="croma",
        size=size,
        modalities=(
            _modality("sar", "sentinel-1", ("vv", "vh")),
            _modality("lores", "sentinel-2", SENTINEL_2),
        ),
        patch_px=_patch_px(tensors, file, encoders["lores"], len(SENTINEL_2)),
        gsd_scaling=False,
        depths=_depths(tensors, file, encoders),
        base_gsd_m=10.0,
        absent=("projections", "decoder"),
    )
    layout = with_second_layer(CROMA, tensors)
    parameters: Parameters = {}
    for name, sensor in sensors.items():
        depth = config.depth(config[name])
        parameters |= encoder_parameters(
            f"encoders.{name}", encoders[name], size.dim, depth, layout
        )
        parameters |= head_parameters(f"heads.{name}", f"{sensor}_GAP_FFN")
    parameters |= joint_parameters("joint_encoder.", size.dim, config.half_depth, layout)
    return Conversion(layout="croma", config=config, parameters=parameters)


def _modality(
    name: str, sensor: str, bands: tuple[str, ...], *, gsd_ratio: float = 1.0
) -> Modality:
    """Describe a modality whose values the model takes without normalisation."""
    ones, zeros = (1.0,) * len(bands), (0.0,) * len(bands)
    return Modality(
        name=name,
        sensor=sensor,
        zoom=ZOOM - round(math.log2(gsd_ratio)),
        gsd_ratio=gsd_ratio,
        size_px=round(TILE_PX / gsd_ratio),
        bands=bands,
        units=RAW_UNITS,
        scale=ones,
        offset=zeros,
        mean=zeros,
        std=ones,
    )


def _shape(tensors: Mapping[str, Tensor], file: Path, name: str) -> tuple[int, int]:
    """Give the (rows, columns) of a matrix from which a size of the model is read."""
    if name not in tensors or tensors[name].ndim != 2:  # noqa: PLR2004
        actual = "nothing" if name not in tensors else f"the shape {tuple(tensors[name].shape)}"
        raise CheckpointError(f"{file} should hold a matrix as {name}; found {actual}.")
    rows, columns = tensors[name].shape
    if not (rows and columns):
        raise CheckpointError(f"{name} in {file} is {rows}x{columns}; expected a width above 0.")
    return rows, columns


def _depth(tensors: Mapping[str, Tensor], file: Path, prefix: str) -> int:
    """Count the layers under a prefix by their numbers."""
    pattern = re.compile(re.escape(prefix) + r"layers\.(\d{1,9})\.")
    numbers = [int(match[1]) for name in tensors if (match := pattern.match(name))]
    if not numbers:
        raise CheckpointError(f"{file} has no layers under {prefix}layers; it is not complete.")
    depth = max(numbers) + 1
    if depth > len(tensors):
        raise CheckpointError(
            f"{file} counts {depth} layers under {prefix}layers, but holds {len(tensors)} tensors "
            "in all; it is not complete."
        )
    return depth


def _depths(
    tensors: Mapping[str, Tensor], file: Path, encoders: Mapping[str, str]
) -> tuple[tuple[str, int], ...]:
    return tuple(
        (name, _depth(tensors, file, f"{prefix}transformer.")) for name, prefix in encoders.items()
    )


def _width_and_depth(tensors: Mapping[str, Tensor], file: Path, prefix: str) -> dict[str, int]:
    dim, _ = _shape(tensors, file, f"{prefix}linear_input.weight")
    return {"dim": dim, "depth": _depth(tensors, file, f"{prefix}transformer.")}


def _patch_px(tensors: Mapping[str, Tensor], file: Path, prefix: str, num_bands: int) -> int:
    """Compute the edge of a patch: a linear input has ``bands * edge ** 2`` columns."""
    name = f"{prefix}linear_input.weight"
    _, columns = _shape(tensors, file, name)
    edge = math.isqrt(columns // num_bands)
    if num_bands * edge**2 != columns or not edge:
        raise CheckpointError(
            f"{name} in {file} has {columns} columns; expected square patches of {num_bands} bands."
        )
    return edge


def _check_positions(tensors: Mapping[str, Tensor], file: Path, dim: int) -> None:
    """Refuse position embeddings other than the sines and cosines that our decoder computes."""
    name = "decoder.decoder_pos_embed"
    positions = tensors.get(name)
    if positions is None:
        return
    edge = math.isqrt(positions.shape[1]) if positions.ndim == 3 else 0  # noqa: PLR2004
    expected = sincos_positions(patch_centres((edge, edge), 1.0) - 0.5, dim)
    same_shape = positions.shape == (1, *expected.shape)
    # The tolerance is for files in half precision.
    if not same_shape or not torch.allclose(positions[0].float(), expected, atol=1e-2):
        raise CheckpointError(
            f"{name} in {file} is not the sine-cosine table of a square grid; this decoder is "
            "not the published one."
        )


def list_some(names: Iterable[str]) -> str:
    """List the first few names in order, and how many there are."""
    ordered = sorted(names)
    listed = ", ".join(ordered[:_MAX_LISTED]) or "nothing"
    return listed if len(ordered) <= _MAX_LISTED else f"{listed}, ... ({len(ordered)} in all)"
