"""How far attention reaches on the ground: what the slopes allow, and what a model does.

Source: Kage & Andreadis 2024 (arXiv 2604.10347), the Scale-ALiBi equation; the mean distance of
attention, as a measure of a head's reach, is that of Dosovitskiy et al. 2021 (ViT, arXiv
2010.11929, figure 7), here in metres and for each block.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from salibi_data.store.errors import StoreError, UsageError
from salibi_data.store.progress import Progress
from salibi_model.checkpoints.load import load
from salibi_model.data.store import SampleStore, check_agreement
from salibi_model.models.scale_alibi import ScaleAlibi
from salibi_model.nn.alibi import patch_centres, scale_alibi_bias, slopes
from salibi_model.nn.layers import Attention, JointBlock
from salibi_model.nn.patches import patch_grid

MEASURED: Final = ("scale-alibi", "croma")
"""Architectures whose attention has a bias from distance."""


@dataclass(frozen=True, kw_only=True)
class TokenGrid:
    """The patches of one modality's images."""

    modality: str
    grid: tuple[int, int]
    """(rows, columns)."""
    gsd_ratio: float
    bias_ratio: float
    """What the model takes for it: 1 where it ignores ground sample distances."""

    @property
    def centres(self) -> Float[Tensor, "tokens 2"]:
        """Where they lie on the ground, (x, y) in base-zoom patches."""
        return patch_centres(self.grid, self.gsd_ratio)

    @property
    def bias_centres(self) -> Float[Tensor, "tokens 2"]:
        """Where the bias takes them to lie."""
        return patch_centres(self.grid, self.bias_ratio)


@dataclass(frozen=True, kw_only=True)
class AttentionCase:
    """One kind of attention: which tokens ask which, and how far their heads look."""

    queries: TokenGrid
    keys: TokenGrid
    kind: str
    """``self``, in a modality's encoder, or ``cross``, in the joint encoder."""
    slopes: tuple[float, ...]
    """m(h), per head."""
    reach_m: tuple[float, ...]
    """Metres over which the bias lowers a logit by 1, per head."""
    bias_only_m: tuple[float, ...]
    """Mean distance in metres where the bias alone decides (all logits equal), per head."""
    uniform_m: float
    """Mean distance in metres of attention to all keys alike."""
    mean_distance_m: tuple[tuple[float, ...], ...]
    """What was measured: per block, per head."""

    @property
    def same_gsd(self) -> bool:
        """Whether queries and keys have one ground sample distance."""
        return self.queries.gsd_ratio == self.keys.gsd_ratio

    @property
    def bias(self) -> Float[Tensor, "heads queries keys"]:
        """What is added to the logits of whole images."""
        return _bias(self.queries, self.keys, len(self.slopes))


@dataclass(frozen=True, kw_only=True)
class AttentionReport:
    """Reach of every head of a model, over some samples of a store."""

    split: str
    samples: tuple[int, ...]
    """Their numbers in the store."""
    patch_m: float
    """Metres along the edge of a base-zoom patch, the mean over the samples."""
    cases: tuple[AttentionCase, ...]
    """Self attention of each modality's encoder, then cross attention of the joint encoder."""

    def to_dict(self) -> dict[str, Any]:
        """JSON form: a row for each head of each block."""
        return {
            "split": self.split,
            "samples": list(self.samples),
            "patch_m": self.patch_m,
            "heads": [row for case in self.cases for row in _rows(case)],
        }


def reach(num_heads: int, patch_m: float) -> Float[Tensor, " heads"]:
    """Give, per head, the metres over which the bias lowers a logit by 1.

    The bias is ``-m(h) * distance`` with the distance in base-zoom patches (Kage & Andreadis
    2024), so that it is 1 / m(h) patches. Over this distance the weight falls to 1 / e of what
    the contents alone would give it.

    Args:
        num_heads: number of attention heads.
        patch_m: metres along the edge of a base-zoom patch.
    """
    return patch_m / slopes(num_heads)


def mean_distance(
    weights: Float[Tensor, "batch heads queries keys"],
    query_xy: Float[Tensor, "queries 2"],
    key_xy: Float[Tensor, "keys 2"],
) -> Float[Tensor, "batch heads"]:
    """Give the mean distance between a query and what it attends to.

    That is ``sum_j w_hij * ||query_i - key_j||``, averaged over the queries i, in the units of
    the coordinates (Dosovitskiy et al. 2021, figure 7).

    Args:
        weights: attention weights; the sum over the keys is 1.
        query_xy: where the queries are.
        key_xy: where the keys are, in the same frame.
    """
    distance = torch.cdist(
        query_xy[None], key_xy[None], compute_mode="donot_use_mm_for_euclid_dist"
    )[0]
    # Queries apart: one sum over a million pairs would lose a tenth of a percent in float32.
    return torch.einsum("bhqk,qk->bhq", weights, distance.to(weights)).mean(dim=-1)


@contextmanager
def watched(layers: Iterable[Attention], look: Callable[[Tensor], None]) -> Iterator[None]:
    """Show ``look`` the weights (B, H, Q, K) of each call of ``layers``, in the calls' order."""

    def show(layer: nn.Module, arguments: tuple[Any, ...], _output: Any) -> None:
        look(cast("Attention", layer).weights(*arguments))

    handles = [layer.register_forward_hook(show) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def measure(
    model: ScaleAlibi, images: Mapping[str, Tensor]
) -> dict[tuple[str, str, str], Float[Tensor, "batch blocks heads"]]:
    """Measure the mean distance of attention on whole images, nothing masked.

    Args:
        model: in evaluation mode.
        images: per modality (B, C, H, W) in the store's units.

    Returns:
        Base-zoom patches, by (kind, modality that asks, modality that is asked): ``self`` of
        each encoder, and ``cross`` of the joint encoder, where the model has one.
    """
    grids = token_grids(model, images)
    places = {name: grid.centres for name, grid in grids.items()}
    found: dict[tuple[str, str, str], list[Tensor]] = {}
    tokens: dict[str, Tensor] = {}

    def look_at(key: tuple[str, str, str]) -> Callable[[Tensor], None]:
        found[key] = []
        xy = places[key[1]], places[key[2]]
        return lambda weights: found[key].append(
            mean_distance(weights, *(one.to(weights) for one in xy))
        )

    with torch.inference_mode():
        for name in places:
            layers = [m for m in model.encoder(name).modules() if isinstance(m, Attention)]
            with watched(layers, look_at(("self", name, name))):
                tokens[name], _ = model.encode(images[name], name)
        joint = getattr(model, "joint", None)
        if joint is not None:
            anchor, *contexts = places
            # Each step calls as many blocks; where steps share blocks, these are called again.
            looks = iter(
                look
                for look in [look_at(("cross", anchor, name)) for name in contexts]
                for _ in range(model.config.half_depth)
            )

            def look_in_turn(weights: Tensor) -> None:
                next(looks)(weights)

            layers = [m.cross_attention for m in joint.modules() if isinstance(m, JointBlock)]
            centres = {
                name: model.centres(grid.grid, grid.gsd_ratio, tokens[name].device)
                for name, grid in grids.items()
            }
            with watched(layers, look_in_turn):
                joint(tokens, centres)
    return {key: torch.stack(values, dim=1) for key, values in found.items()}


def token_grids(model: ScaleAlibi, images: Mapping[str, Tensor]) -> dict[str, TokenGrid]:
    """Give the patches of each modality's images, in the model's order."""
    return {
        spec.name: TokenGrid(
            modality=spec.name,
            grid=patch_grid(images[spec.name], model.config.patch_px),
            gsd_ratio=spec.gsd_ratio,
            bias_ratio=spec.gsd_ratio if model.config.gsd_scaling else 1.0,
        )
        for spec in model.config.modalities
    }


def attention_reach(
    checkpoint: str | Path | ScaleAlibi,
    store: str | Path | SampleStore,
    *,
    split: str = "validation",
    num_samples: int = 4,
    device: str | torch.device = "cpu",
    on_sample: Progress = lambda _done, _total: None,
) -> AttentionReport:
    """Measure how far each head of a model looks on the samples of a store.

    Args:
        checkpoint: a run's or model's folder, or a model.
        store: a store with the model's modalities.
        split: ``validation``, ``test`` or ``train``.
        num_samples: how many samples, spread evenly over the split.
        device: where to compute.
        on_sample: called with the numbers of samples done and to do.

    Raises:
        CheckpointError: there is no model.
        StoreError: there is no store, or its split has no samples.
        UsageError: the model has no bias from distance; or the store lacks a modality, or its
            values mean something else.
    """
    model = _measurable(checkpoint, device)
    samples = store if isinstance(store, SampleStore) else SampleStore(store)
    check_agreement(samples, model.config.modalities)
    indices = samples.split_indices(split)
    if not len(indices):
        raise StoreError(f"{samples.location} has no samples in the split {split!r}.")
    count = min(num_samples, len(indices))
    chosen = indices[np.linspace(0, len(indices) - 1, count).round().astype(int)]
    patch_m = model.config.patch_px * samples.read("gsd_m", chosen).astype(np.float64)
    # One by one: the weights of all heads of one fine image are large enough.
    found: list[dict[tuple[str, str, str], Tensor]] = []
    images: dict[str, Tensor] = {}
    device = next(model.parameters()).device
    for number, (index, metres) in enumerate(zip(chosen, patch_m, strict=True), start=1):
        images = {
            name: torch.from_numpy(samples.read(name, [int(index)])).to(device)
            for name in model.config.names
        }
        found.append({key: value * metres for key, value in measure(model, images).items()})
        on_sample(number, count)
    mean_patch_m = float(patch_m.mean())
    measured = {key: torch.cat([one[key] for one in found]).mean(dim=0) for key in found[0]}
    return AttentionReport(
        split=split,
        samples=tuple(map(int, chosen)),
        patch_m=mean_patch_m,
        cases=tuple(
            _case(model, images, key, value, mean_patch_m) for key, value in measured.items()
        ),
    )


def _measurable(checkpoint: str | Path | ScaleAlibi, device: str | torch.device) -> ScaleAlibi:
    found: Any = checkpoint
    if isinstance(checkpoint, str | Path):
        found = load(checkpoint, device=device)
    if found.config.architecture not in MEASURED:
        raise UsageError(
            f"reach is measured for {' and '.join(MEASURED)}, whose attention fades with "
            f"distance; this model is {found.config.architecture}."
        )
    return cast("ScaleAlibi", found)


def _bias(queries: TokenGrid, keys: TokenGrid, num_heads: int) -> Tensor:
    return scale_alibi_bias(queries.bias_centres[None], keys.bias_centres[None], num_heads)[0]


def _case(
    model: ScaleAlibi,
    images: Mapping[str, Tensor],
    key: tuple[str, str, str],
    measured: Float[Tensor, "blocks heads"],
    patch_m: float,
) -> AttentionCase:
    kind, queries, keys = key[0], *(token_grids(model, images)[name] for name in key[1:])
    num_heads = model.config.size.num_heads
    bias = _bias(queries, keys, num_heads)[None]
    places = queries.centres, keys.centres
    # Where GSDs are ignored, the bias counts patches of the keys, whatever their size.
    unit_m = patch_m * keys.gsd_ratio / keys.bias_ratio
    return AttentionCase(
        queries=queries,
        keys=keys,
        kind=kind,
        slopes=_floats(slopes(num_heads)),
        reach_m=_floats(reach(num_heads, unit_m)),
        bias_only_m=_floats(mean_distance(bias.softmax(dim=-1), *places)[0] * patch_m),
        uniform_m=patch_m
        * float(mean_distance(torch.zeros_like(bias[:, :1]).softmax(dim=-1), *places)),
        mean_distance_m=tuple(map(_floats, measured)),
    )


def _floats(values: Tensor) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _rows(case: AttentionCase) -> list[dict[str, Any]]:
    return [
        {
            "kind": case.kind,
            "queries": case.queries.modality,
            "keys": case.keys.modality,
            "same_gsd": case.same_gsd,
            "block": block,
            "head": head,
            "slope": case.slopes[head - 1],
            "reach_m": case.reach_m[head - 1],
            "bias_only_m": case.bias_only_m[head - 1],
            "uniform_m": case.uniform_m,
            "mean_distance_m": measured,
        }
        for block, heads in enumerate(case.mean_distance_m, start=1)
        for head, measured in enumerate(heads, start=1)
    ]
