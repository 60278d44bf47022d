"""Names of a model's parameters in published files: how each is found there.

Each function gives the parameters of one part of our model, by our names, with the tensors of the
published file that hold them.

Sources: parameter names and shapes of the public code of Kage & Andreadis 2024 (arXiv 2604.10347)
and of CROMA (Fuller et al., NeurIPS 2023; ``use_croma.py``).
"""

from collections.abc import Iterable
from typing import Final, NamedTuple


class PublishedLayout(NamedTuple):
    """Names of a block's layers where the two published files differ."""

    qkv: str
    output: str
    query: str
    key: str
    value: str
    second: str
    """Second linear layer of a feed-forward part."""


AUTHORS: Final = PublishedLayout("create_qkv", "out", "create_q", "create_k", "create_v", "net.2")
CROMA: Final = PublishedLayout("to_qkv", "to_out", "to_q", "to_k", "to_v", "net.3")


class PublishedParameter(NamedTuple):
    """Tensors of a published file that make one of our parameters."""

    names: tuple[str, ...]
    """Names in the file; several tensors are joined along the first axis."""
    rows: slice | None = None
    """Rows of the tensor that belong to the parameter; ``None``: all."""


Parameters = dict[str, PublishedParameter]
"""Published tensors by the name of our parameter."""


def with_second_layer(layout: PublishedLayout, names: Iterable[str]) -> PublishedLayout:
    """Name the second linear layer as ``names`` do: numbered after a dropout layer or not."""
    second = "net.3" if any(".net.3." in name for name in names) else "net.2"
    return layout._replace(second=second)


def affine_parameters(ours: str, theirs: str) -> Parameters:
    """Map weight and bias of a linear layer or norm."""
    return {
        f"{ours}.{part}": PublishedParameter((f"{theirs}.{part}",)) for part in ("weight", "bias")
    }


def head_parameters(ours: str, theirs: str) -> Parameters:
    """Map a head: norm and feed-forward, numbered layers of a sequence in the file."""
    return {
        **affine_parameters(f"{ours}.norm", f"{theirs}.0"),
        **affine_parameters(f"{ours}.feed_forward.0", f"{theirs}.1"),
        **affine_parameters(f"{ours}.feed_forward.2", f"{theirs}.3"),
    }


def encoder_parameters(
    ours: str, theirs: str, dim: int, depth: int, layout: PublishedLayout
) -> Parameters:
    """Map an encoder.

    Args:
        ours: our name of the encoder.
        theirs: prefix of its names in the file, with the dot.
        dim: width of its tokens.
        depth: number of its blocks.
        layout: names of its layers in the file.
    """
    parameters = affine_parameters(f"{ours}.embed", f"{theirs}linear_input")
    parameters |= affine_parameters(f"{ours}.norm", f"{theirs}transformer.norm_out")
    for i in range(depth):
        parameters |= block_parameters(
            f"{ours}.blocks.{i}", f"{theirs}transformer.layers.{i}", dim, layout
        )
    return parameters


def joint_parameters(theirs: str, dim: int, depth: int, layout: PublishedLayout) -> Parameters:
    """Map the joint encoder; arguments are those of :func:`encoder_parameters`."""
    parameters = affine_parameters("joint.norm", f"{theirs}norm_out")
    for i in range(depth):
        ours, layer = f"joint.stacks.shared.{i}", f"{theirs}layers.{i}"
        cross = f"{layer}.1"
        parameters |= _self_attention_parameters(
            f"{ours}.self", f"{ours}.self_attention", layer, dim, layout
        )
        parameters |= affine_parameters(f"{ours}.cross_norm", f"{cross}.input_norm")
        parameters |= {
            f"{ours}.cross_attention.query.weight": PublishedParameter(
                (f"{cross}.{layout.query}.weight",)
            ),
            f"{ours}.cross_attention.key_value.weight": PublishedParameter(
                (f"{cross}.{layout.key}.weight", f"{cross}.{layout.value}.weight")
            ),
        }
        parameters |= affine_parameters(f"{ours}.cross_attention.output", f"{cross}.to_out")
        parameters |= _feed_forward_parameters(ours, f"{layer}.2", layout)
    return parameters


def block_parameters(ours: str, theirs: str, dim: int, layout: PublishedLayout) -> Parameters:
    """Map a block of self attention and feed-forward."""
    return {
        **_self_attention_parameters(f"{ours}.attention", f"{ours}.attention", theirs, dim, layout),
        **_feed_forward_parameters(ours, f"{theirs}.1", layout),
    }


def _self_attention_parameters(
    norm: str, ours: str, theirs: str, dim: int, layout: PublishedLayout
) -> Parameters:
    """Map self attention, whose file stacks query, key and value in one matrix of 3 ``dim`` rows."""
    qkv = (f"{theirs}.0.{layout.qkv}.weight",)
    return {
        **affine_parameters(f"{norm}_norm", f"{theirs}.0.input_norm"),
        f"{ours}.query.weight": PublishedParameter(qkv, slice(dim)),
        f"{ours}.key_value.weight": PublishedParameter(qkv, slice(dim, None)),
        **affine_parameters(f"{ours}.output", f"{theirs}.0.{layout.output}"),
    }


def _feed_forward_parameters(ours: str, theirs: str, layout: PublishedLayout) -> Parameters:
    return {
        **affine_parameters(f"{ours}.feed_forward_norm", f"{theirs}.input_norm"),
        **affine_parameters(f"{ours}.feed_forward.0", f"{theirs}.net.0"),
        **affine_parameters(f"{ours}.feed_forward.2", f"{theirs}.{layout.second}"),
    }
