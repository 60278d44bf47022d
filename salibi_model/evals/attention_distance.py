"""Measures how far attention reaches on the ground: by the slopes alone, and in a model.

Source: the bias is that of Scale-ALiBi (Kage & Andreadis 2024, arXiv 2604.10347); the mean
distance of attention is that of Dosovitskiy et al. 2021 (ViT, arXiv 2010.11929, figure 7), here in
metres and for each block.
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
from salibi_model.data.modalities import check_agreement
from salibi_model.data.store import SampleStore
from salibi_model.evals.options import AttentionOptions
from salibi_model.models.scale_alibi import ScaleAlibi
from salibi_model.nn.alibi import patch_centres, scale_alibi_bias, slopes
from salibi_model.nn.layers import Attention, JointBlock
from salibi_model.nn.patches import patch_grid

BIASED_ARCHITECTURES: Final = ("scale-alibi", "croma")
"""Architectures whose attention has a bias from distance."""

CaseKey = tuple[str, str, str]
"""(kind, modality of the queries, modality of the keys); see :class:`AttentionCase`."""


@dataclass(frozen=True, kw_only=True)
class TokenGrid:
    """The patches of one modality's images."""

    modality: str
    grid: tuple[int, int]
    """(rows, columns) of patches."""
    gsd_ratio: float
    """Ground size of a pixel over that of a base-zoom pixel."""
    bias_ratio: float
    """The ratio that the bias uses: 1 in a model that ignores ground sample distances."""

    @property
    def centres(self) -> Float[Tensor, "tokens 2"]:
        """Centres on the ground, (x, y) in base-zoom patches."""
        return patch_centres(self.grid, self.gsd_ratio)

    @property
    def bias_centres(self) -> Float[Tensor, "tokens 2"]:
        """Centres that the bias uses, (x, y) in base-zoom patches."""
        return patch_centres(self.grid, self.bias_ratio)


@dataclass(frozen=True, kw_only=True)
class AttentionCase:
    """Attention from the tokens of one modality to those of one, and its distance per head."""

    queries: TokenGrid
    keys: TokenGrid
    kind: str
    """Kind: ``self``, in a modality's encoder, or ``cross``, in the joint encoder."""
    slopes: tuple[float, ...]
    """Slope m(h), per head."""
    reach_m: tuple[float, ...]
    """Metres over which the bias lowers a logit by 1, per head."""
    bias_only_m: tuple[float, ...]
    """Mean distance in metres by the bias alone (all logits equal), per head."""
    uniform_m: float
    """Mean distance in metres of uniform attention to all keys."""
    mean_distance_m: tuple[tuple[float, ...], ...]
    """Mean distance in metres measured in the model, per block, per head."""

    @property
    def same_gsd(self) -> bool:
        """Whether queries and keys have the same ground sample distance."""
        return self.queries.gsd_ratio == self.keys.gsd_ratio

    @property
    def bias(self) -> Float[Tensor, "heads queries keys"]:
        """The bias that is added to the logits of whole images."""
        return _bias(self.queries, self.keys, len(self.slopes))


@dataclass(frozen=True, kw_only=True)
class AttentionReport:
    """Reach of every head of a model, over some samples of a store."""

    split: str
    samples: tuple[int, ...]
    """Indices of the samples in the store."""
    patch_m: float
    """Edge of a base-zoom patch in metres, the mean over the samples."""
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
    """Return, per head, the metres over which the bias lowers a logit by 1.

    The bias is ``-m(h) * distance`` with the distance in base-zoom patches (Kage & Andreadis
    2024), so the reach is 1 / m(h) patches. Over it, the bias lowers a weight by the factor 1 / e.

    Args:
        num_heads: number of attention heads.
        patch_m: edge of a base-zoom patch in metres.
    """
    return patch_m / slopes(num_heads)


def mean_distance(
    weights: Float[Tensor, "batch heads queries keys"],
    query_xy: Float[Tensor, "queries 2"],
    key_xy: Float[Tensor, "keys 2"],
) -> Float[Tensor, "batch heads"]:
    """Return the mean distance between queries and the keys that they attend to.

    It is ``sum_j w_hij * ||query_i - key_j||``, averaged over the queries i, in the units of
    the coordinates (Dosovitskiy et al. 2021, figure 7).

    Args:
        weights: attention weights; the sum over the keys is 1.
        query_xy: positions of the queries.
        key_xy: positions of the keys, in the same coordinates.
    """
    distance = torch.cdist(
        query_xy[None], key_xy[None], compute_mode="donot_use_mm_for_euclid_dist"
    )[0]
    # Query by query: one sum over a million pairs would lose a tenth of a percent in float32.
    return torch.einsum("bhqk,qk->bhq", weights, distance.to(weights)).mean(dim=-1)


@contextmanager
def hook_attention(
    layers: Iterable[Attention], on_weights: Callable[[Tensor], None]
) -> Iterator[None]:
    """Call ``on_weights`` with the weights (B, H, Q, K) of each call of ``layers``, in order."""

    def hook(layer: nn.Module, arguments: tuple[Any, ...], _output: Any) -> None:
        # Computed a second time: fused attention does not return its weights.
        on_weights(cast("Attention", layer).weights(*arguments))

    handles = [layer.register_forward_hook(hook) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def measure_distances(
    model: ScaleAlibi, images: Mapping[str, Tensor]
) -> dict[CaseKey, Float[Tensor, "batch blocks heads"]]:
    """Measure the mean distance of attention on whole images, nothing masked.

    Args:
        model: a model in evaluation mode.
        images: per modality (B, C, H, W) in stored values.

    Returns:
        Distances in base-zoom patches, by kind, queries and keys: ``self`` of each encoder, and
        ``cross`` of the joint encoder, where the model has one.
    """
    grids = token_grids(model, images)
    ground_centres = {name: grid.centres for name, grid in grids.items()}
    distances: dict[CaseKey, list[Tensor]] = {}
    tokens: dict[str, Tensor] = {}

    def recorder(key: CaseKey) -> Callable[[Tensor], None]:
        distances[key] = []
        xy = ground_centres[key[1]], ground_centres[key[2]]
        return lambda weights: distances[key].append(
            mean_distance(weights, *(centres.to(weights) for centres in xy))
        )

    with torch.inference_mode():
        for name in grids:
            layers = [m for m in model.encoder(name).modules() if isinstance(m, Attention)]
            with hook_attention(layers, recorder(("self", name, name))):
                tokens[name], _ = model.encode(images[name], name)
        joint = getattr(model, "joint", None)
        if joint is not None:
            anchor, *contexts = grids
            # Each context is one step of half_depth blocks. Steps may share blocks, so the order of
            # the calls, not the block, tells which context a call belongs to.
            recorders = iter(
                record
                for record in [recorder(("cross", anchor, name)) for name in contexts]
                for _ in range(model.config.half_depth)
            )

            def record_next(weights: Tensor) -> None:
                next(recorders)(weights)

            layers = [m.cross_attention for m in joint.modules() if isinstance(m, JointBlock)]
            centres = {
                name: model.centres(grid.grid, grid.gsd_ratio, tokens[name].device)
                for name, grid in grids.items()
            }
            with hook_attention(layers, record_next):
                joint(tokens, centres)
    return {key: torch.stack(values, dim=1) for key, values in distances.items()}


def token_grids(model: ScaleAlibi, images: Mapping[str, Tensor]) -> dict[str, TokenGrid]:
    """Return the patches of each modality's images, in the model's order."""
    return {
        spec.name: TokenGrid(
            modality=spec.name,
            grid=patch_grid(images[spec.name], model.config.patch_px),
            gsd_ratio=spec.gsd_ratio,
            bias_ratio=spec.gsd_ratio if model.config.gsd_scaling else 1.0,
        )
        for spec in model.config.modalities
    }


def attention_distance(
    checkpoint: str | Path | ScaleAlibi,
    store: str | Path | SampleStore,
    *,
    split: str = AttentionOptions.split,
    num_samples: int = AttentionOptions.num_samples,
    device: str | torch.device = "cpu",
    on_sample: Progress = lambda _done, _total: None,
) -> AttentionReport:
    """Measure how far each head of a model attends on the samples of a store, in metres.

    Args:
        checkpoint: a run's or model's folder, or a model.
        store: a store with the model's modalities.
        split: ``validation``, ``test`` or ``train``.
        num_samples: number of samples, spread evenly over the split.
        device: device to compute on, if a folder is given.
        on_sample: called with the numbers of samples (done, total).

    Raises:
        CheckpointError: there is no model.
        StoreError: there is no store, or its split has no samples.
        UsageError: the model has no bias from distance; or the store lacks a modality, or its
            values mean something else.

    Example:
        >>> report = attention_distance(run_path, store_path, num_samples=1)
        >>> case = report.cases[0]
        >>> case.kind, case.queries.modality, case.queries.grid
        ('self', 'sar', (16, 16))
        >>> len(case.reach_m) == len(case.mean_distance_m[0])
        True
        >>> case.bias_only_m[0] < case.uniform_m
        True
    """
    model = _load_biased(checkpoint, device)
    samples = store if isinstance(store, SampleStore) else SampleStore(store)
    check_agreement(samples, model.config.modalities)
    indices = samples.split_indices(split)
    if not len(indices):
        raise StoreError(f"{samples.location} has no samples in the split {split!r}.")
    count = min(num_samples, len(indices))
    chosen = indices[np.linspace(0, len(indices) - 1, count).round().astype(int)]
    patch_m = model.config.patch_px * samples.read("gsd_m", chosen).astype(np.float64)
    # One at a time: the weights of all heads of one fine image take much memory already.
    distances: list[dict[CaseKey, Tensor]] = []
    images: dict[str, Tensor] = {}
    device = next(model.parameters()).device
    for number, (index, metres) in enumerate(zip(chosen, patch_m, strict=True), start=1):
        images = {
            name: torch.from_numpy(samples.read(name, [int(index)])).to(device)
            for name in model.config.names
        }
        distances.append(
            {key: value * metres for key, value in measure_distances(model, images).items()}
        )
        on_sample(number, count)
    mean_patch_m = float(patch_m.mean())
    measured = {
        key: torch.cat([sample[key] for sample in distances]).mean(dim=0) for key in distances[0]
    }
    return AttentionReport(
        split=split,
        samples=tuple(map(int, chosen)),
        patch_m=mean_patch_m,
        cases=tuple(
            _case(model, images, key, value, mean_patch_m) for key, value in measured.items()
        ),
    )


def _load_biased(checkpoint: str | Path | ScaleAlibi, device: str | torch.device) -> ScaleAlibi:
    """Load a model, and refuse one without a bias from distance."""
    model: Any = checkpoint
    if isinstance(checkpoint, str | Path):
        model = load(checkpoint, device=device)
    if model.config.architecture not in BIASED_ARCHITECTURES:
        raise UsageError(
            f"reach is measured for {' and '.join(BIASED_ARCHITECTURES)}, whose attention fades with "
            f"distance; this model is {model.config.architecture}."
        )
    return cast("ScaleAlibi", model)


def _bias(queries: TokenGrid, keys: TokenGrid, num_heads: int) -> Tensor:
    return scale_alibi_bias(queries.bias_centres[None], keys.bias_centres[None], num_heads)[0]


def _case(
    model: ScaleAlibi,
    images: Mapping[str, Tensor],
    key: CaseKey,
    measured: Float[Tensor, "blocks heads"],
    patch_m: float,
) -> AttentionCase:
    kind, queries, keys = key[0], *(token_grids(model, images)[name] for name in key[1:])
    num_heads = model.config.size.num_heads
    bias = _bias(queries, keys, num_heads)[None]
    centres = queries.centres, keys.centres
    # A model that ignores GSDs counts distances in patches of the keys, whatever their size.
    unit_m = patch_m * keys.gsd_ratio / keys.bias_ratio
    return AttentionCase(
        queries=queries,
        keys=keys,
        kind=kind,
        slopes=_floats(slopes(num_heads)),
        reach_m=_floats(reach(num_heads, unit_m)),
        bias_only_m=_floats(mean_distance(bias.softmax(dim=-1), *centres)[0] * patch_m),
        uniform_m=patch_m
        * float(mean_distance(torch.zeros_like(bias[:, :1]).softmax(dim=-1), *centres)),
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
