"""The published layouts: which of their parameters is which of ours.

Two files are known: the state dictionary of the authors' training (``.pth``), and CROMA's release
(``.pt``), a dictionary of five state dictionaries. What the shapes say of the model is taken from
them; the number of attention heads, which they do not say, is given.

Sources: parameter names and shapes of the public code of Kage & Andreadis 2024 (arXiv 2604.10347)
and of CROMA (Fuller et al., NeurIPS 2023; ``use_croma.py``).
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from salibi_data.store.schema import TILE_PX, Modality
from salibi_model.data.modalities import RAW_UNITS
from salibi_model.errors import CheckpointError
from salibi_model.models.config import MISTAKES, ModelConfig, Size
from salibi_model.nn.alibi import patch_centres
from salibi_model.nn.decoder import sincos_positions

NUM_HEADS = 16
"""Attention heads of every published encoder."""
DECODER_HEADS = 8
"""Attention heads of the authors' decoder."""

SENTINEL_2 = ("b1", "b2", "b3", "b4", "b5", "b6", "b7", "b8", "b8a", "b9", "b11", "b12")
"""Bands of CROMA's optical encoder: those of SSL4EO-S12 (Wang et al. 2023), without the cirrus
band B10."""

ZOOM = 15
"""Zoom of the published Scale-ALiBi runs; of a converted model it is for information only."""

_SHOWN = 3


class _Names(NamedTuple):
    """What a layout calls the parts of its blocks that the two layouts name differently."""

    qkv: str
    out: str
    query: str
    key: str
    value: str
    second: str
    """The second linear layer of a feed-forward part."""


_AUTHORS = _Names("create_qkv", "out", "create_q", "create_k", "create_v", "net.2")
_CROMA = _Names("to_qkv", "to_out", "to_q", "to_k", "to_v", "net.3")


class Source(NamedTuple):
    """Where one of our parameters comes from: theirs, one below the other, or some rows of one."""

    names: tuple[str, ...]
    rows: slice | None = None


Recipe = dict[str, Source]


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """How a file becomes a model."""

    layout: str
    config: ModelConfig
    recipe: Recipe
    unused: frozenset[str] = frozenset()
    """Names in the file that are checked, but are no parameters of ours."""


def plan_conversion(tensors: Mapping[str, Tensor], file: Path, num_heads: int) -> Conversion:
    """Recognise a file's layout, and read the model's size off its shapes.

    Args:
        tensors: the file's content, nested names joined by points.
        file: where it came from, for messages.
        num_heads: attention heads of the encoders.

    Raises:
        CheckpointError: it is of no known layout, or lacks what tells the size.
        UsageError: the sizes do not fit together.
    """
    parts = {name.split(".")[0] for name in tensors}
    if "radar_encoder" in parts:
        return _authors_plan(tensors, file, num_heads)
    if "s1_encoder" in parts:
        return _croma_plan(tensors, file, num_heads)
    raise CheckpointError(
        f"{file} is of neither layout: expected radar_encoder, optical_encoder, ... of the "
        f"authors' model, or s1_encoder, s2_encoder, ... of CROMA; found {some_of(parts)}."
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
    names = _named(_AUTHORS, tensors)
    recipe: Recipe = {"log_scale": Source(("global_contrast_loss.logit_scale",))}
    for name, sensor in sensors.items():
        depth = config.depth(config[name])
        recipe |= _encoder(f"encoders.{name}", encoders[name], size.dim, depth, names)
        recipe |= _head(f"heads.{name}", f"GAP_FFN_{sensor}")
        recipe |= _affine(f"projections.{name}", f"global_contrast_loss.{sensor}_proj")
    recipe |= _joint("cross_encoder.", size.dim, config.half_depth, names)
    recipe |= _affine("decoder.embed", "decoder.encoder_to_decoder")
    recipe |= _affine("decoder.output", "decoder.linear_output")
    recipe |= _affine("decoder.norm", "decoder.decoder.norm_out")
    recipe["decoder.mask_token"] = Source(("decoder.mask_token",))
    for i in range(size.decoder_depth):
        ours, theirs = f"decoder.blocks.{i}", f"decoder.decoder.layers.{i}"
        recipe |= _block(ours, theirs, size.decoder_dim, names)
    _check_positions(tensors, file, size.decoder_dim)
    unused = frozenset({"decoder.decoder_pos_embed"})
    return Conversion(layout="scale-alibi", config=config, recipe=recipe, unused=unused)


def _croma_plan(tensors: Mapping[str, Tensor], file: Path, num_heads: int) -> Conversion:
    sensors = {"sar": "s1", "lores": "s2"}
    encoders = {name: f"{sensor}_encoder." for name, sensor in sensors.items()}
    width_and_depth = _width_and_depth(tensors, file, encoders["lores"])
    # The width of its decoder, which is not in the file, is that of the paper.
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
    names = _named(_CROMA, tensors)
    recipe: Recipe = {}
    for name, sensor in sensors.items():
        depth = config.depth(config[name])
        recipe |= _encoder(f"encoders.{name}", encoders[name], size.dim, depth, names)
        recipe |= _head(f"heads.{name}", f"{sensor}_GAP_FFN")
    recipe |= _joint("joint_encoder.", size.dim, config.half_depth, names)
    return Conversion(layout="croma", config=config, recipe=recipe)


def _modality(
    name: str, sensor: str, bands: tuple[str, ...], *, gsd_ratio: float = 1.0
) -> Modality:
    """A modality whose values are taken as they are."""
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
    """The shape of a matrix that tells how large the model is."""
    if name not in tensors or tensors[name].ndim != 2:  # noqa: PLR2004
        found = "nothing" if name not in tensors else f"the shape {tuple(tensors[name].shape)}"
        raise CheckpointError(f"{file} should hold a matrix as {name}; found {found}.")
    rows, columns = tensors[name].shape
    if not (rows and columns):
        raise CheckpointError(f"{name} in {file} is {rows}x{columns}; expected a width above 0.")
    return rows, columns


def _depth(tensors: Mapping[str, Tensor], file: Path, prefix: str) -> int:
    pattern = re.compile(re.escape(prefix) + r"layers\.(\d{1,9})\.")
    found = [int(match[1]) for name in tensors if (match := pattern.match(name))]
    if not found:
        raise CheckpointError(f"{file} has no layers under {prefix}layers; it is not complete.")
    depth = max(found) + 1
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
    """Edge of a patch: a linear input has ``bands * edge ** 2`` columns."""
    name = f"{prefix}linear_input.weight"
    _, columns = _shape(tensors, file, name)
    edge = math.isqrt(columns // num_bands)
    if num_bands * edge**2 != columns or not edge:
        raise CheckpointError(
            f"{name} in {file} has {columns} columns; expected square patches of {num_bands} bands."
        )
    return edge


def _named(names: _Names, tensors: Mapping[str, Tensor]) -> _Names:
    """``names``, the second linear layer counted with or without a dropout before it."""
    second = "net.3" if any(".net.3." in name for name in tensors) else "net.2"
    return names._replace(second=second)


def _affine(ours: str, theirs: str) -> Recipe:
    return {f"{ours}.{part}": Source((f"{theirs}.{part}",)) for part in ("weight", "bias")}


def _head(ours: str, theirs: str) -> Recipe:
    return {
        **_affine(f"{ours}.norm", f"{theirs}.0"),
        **_affine(f"{ours}.feed_forward.0", f"{theirs}.1"),
        **_affine(f"{ours}.feed_forward.2", f"{theirs}.3"),
    }


def _encoder(ours: str, theirs: str, dim: int, depth: int, names: _Names) -> Recipe:
    recipe = _affine(f"{ours}.embed", f"{theirs}linear_input")
    recipe |= _affine(f"{ours}.norm", f"{theirs}transformer.norm_out")
    for i in range(depth):
        recipe |= _block(f"{ours}.blocks.{i}", f"{theirs}transformer.layers.{i}", dim, names)
    return recipe


def _joint(theirs: str, dim: int, depth: int, names: _Names) -> Recipe:
    recipe = _affine("joint.norm", f"{theirs}norm_out")
    for i in range(depth):
        ours, layer = f"joint.stacks.shared.{i}", f"{theirs}layers.{i}"
        cross = f"{layer}.1"
        recipe |= _self_attention(f"{ours}.self", f"{ours}.self_attention", layer, dim, names)
        recipe |= _affine(f"{ours}.cross_norm", f"{cross}.input_norm")
        recipe |= {
            f"{ours}.cross_attention.query.weight": Source((f"{cross}.{names.query}.weight",)),
            f"{ours}.cross_attention.key_value.weight": Source(
                (f"{cross}.{names.key}.weight", f"{cross}.{names.value}.weight")
            ),
        }
        recipe |= _affine(f"{ours}.cross_attention.output", f"{cross}.to_out")
        recipe |= _feed_forward(ours, f"{layer}.2", names)
    return recipe


def _block(ours: str, theirs: str, dim: int, names: _Names) -> Recipe:
    return {
        **_self_attention(f"{ours}.attention", f"{ours}.attention", theirs, dim, names),
        **_feed_forward(ours, f"{theirs}.1", names),
    }


def _self_attention(norm: str, ours: str, theirs: str, dim: int, names: _Names) -> Recipe:
    stacked = (f"{theirs}.0.{names.qkv}.weight",)
    return {
        **_affine(f"{norm}_norm", f"{theirs}.0.input_norm"),
        f"{ours}.query.weight": Source(stacked, slice(dim)),
        f"{ours}.key_value.weight": Source(stacked, slice(dim, None)),
        **_affine(f"{ours}.output", f"{theirs}.0.{names.out}"),
    }


def _feed_forward(ours: str, theirs: str, names: _Names) -> Recipe:
    return {
        **_affine(f"{ours}.feed_forward_norm", f"{theirs}.input_norm"),
        **_affine(f"{ours}.feed_forward.0", f"{theirs}.net.0"),
        **_affine(f"{ours}.feed_forward.2", f"{theirs}.{names.second}"),
    }


def _check_positions(tensors: Mapping[str, Tensor], file: Path, dim: int) -> None:
    """Refuse positions other than the sines and cosines that our decoder computes."""
    name = "decoder.decoder_pos_embed"
    kept = tensors.get(name)
    if kept is None:
        return
    edge = math.isqrt(kept.shape[1]) if kept.ndim == 3 else 0  # noqa: PLR2004
    expected = sincos_positions(patch_centres((edge, edge), 1.0) - 0.5, dim)
    # The tolerance is for files in half precision.
    agrees = kept.shape == (1, *expected.shape)
    if not agrees or not torch.allclose(kept[0].float(), expected, atol=1e-2):
        raise CheckpointError(
            f"{name} in {file} is not the sine-cosine table of a square grid; this decoder is "
            "not the published one."
        )


def some_of(names: Iterable[str]) -> str:
    """The first few names, and how many there are."""
    ordered = sorted(names)
    shown = ", ".join(islice(ordered, _SHOWN)) or "nothing"
    return shown if len(ordered) <= _SHOWN else f"{shown}, ... ({len(ordered)} in all)"
