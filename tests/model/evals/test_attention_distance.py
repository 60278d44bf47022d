"""How far attention reaches, against plain loops over queries and keys."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from salibi_data.store.errors import StoreError, UsageError
from salibi_model.evals.attention_distance import (
    attention_distance,
    hook_attention,
    mean_distance,
    measure_distances,
    reach,
)
from salibi_model.nn.alibi import patch_centres, scale_alibi_bias, slopes
from salibi_model.nn.layers import Attention
from tests.support.model.nano import nano_images, nano_model
from tests.support.model.stores import write_store

CASES = [
    ("self", "sar", "sar"),
    ("self", "lores", "lores"),
    ("self", "hires_4x", "hires_4x"),
    ("cross", "sar", "lores"),
    ("cross", "sar", "hires_4x"),
]


def by_loop(weights, query_xy, key_xy):
    """Mean distance of one image's one head, pair by pair."""
    total = 0.0
    for i, query in enumerate(query_xy.tolist()):
        for j, key in enumerate(key_xy.tolist()):
            total += float(weights[i, j]) * math.dist(query, key)
    return total / len(query_xy)


def by_hand(layer, x, context, query_xy, key_xy):
    """A layer's attention weights (B, H, Q, K), head by head from its matrices."""
    width = x.shape[-1] // layer.num_heads
    key_matrix = layer.key_value.weight[: x.shape[-1]]
    heads = []
    for head, slope in enumerate(slopes(layer.num_heads)):
        rows = slice(head * width, (head + 1) * width)
        query = x @ layer.query.weight[rows].T
        key = context @ key_matrix[rows].T
        logits = query @ key.mT / math.sqrt(width) - slope * torch.cdist(query_xy, key_xy)
        heads.append(logits.softmax(dim=-1))
    return torch.stack(heads, dim=1)


def set_slopes(monkeypatch, values):
    """Have every model use other slopes."""

    def wanted(num_heads):
        assert num_heads == len(values)
        return torch.tensor(values)

    for module in ("nn.alibi", "nn.attention", "evals.attention_distance"):
        monkeypatch.setattr(f"salibi_model.{module}.slopes", wanted)


def test_reach_is_where_the_bias_is_minus_one():
    """At that distance, on the ground of a tile, and at no other."""
    patch_m = 16 * 3.7
    for head, metres in enumerate(reach(6, patch_m)):
        at = torch.tensor([[[float(metres) / patch_m, 0.0]]])
        bias = scale_alibi_bias(torch.zeros(1, 1, 2), at, 6)
        assert float(bias[0, head, 0, 0]) == pytest.approx(-1.0, rel=1e-6)
    torch.testing.assert_close(reach(8, 10.0)[[0, 7]], torch.tensor([20.0, 2560.0]))


@settings(deadline=None, max_examples=20)
@given(
    queries=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    keys=st.tuples(st.integers(1, 4), st.integers(1, 3)),
    ratio=st.sampled_from([1.0, 0.5, 0.25]),
    seed=st.integers(0, 2**16),
)
def test_mean_distance_equals_a_plain_loop(queries, keys, ratio, seed):
    query_xy, key_xy = patch_centres(queries, 1.0), patch_centres(keys, ratio)
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, 3, len(query_xy), len(key_xy), generator=generator)
    weights = logits.softmax(dim=-1)
    distances = mean_distance(weights, query_xy, key_xy)
    for image in range(2):
        for head in range(3):
            expected = by_loop(weights[image, head], query_xy, key_xy)
            assert float(distances[image, head]) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_attention_to_itself_is_at_distance_zero():
    xy = patch_centres((16, 16), 1.0)
    assert float(mean_distance(torch.eye(256)[None, None], xy, xy)) == 0.0


@pytest.mark.parametrize("fusion", ["shared", "separate"])
def test_a_model_is_measured_in_every_block_and_step(fusion):
    """Against weights made by hand from what each layer was given."""
    model = nano_model(fusion=fusion).eval()
    images = nano_images(batch=2)
    given: dict[str, list] = {}
    handles = [
        layer.register_forward_hook(
            lambda layer, arguments, _, name=name: given.setdefault(name, []).append(
                (layer, *arguments[:2])
            )
        )
        for name, layer in model.named_modules()
        if isinstance(layer, Attention) and not name.startswith("decoder")
    ]
    with torch.no_grad():
        measured = measure_distances(model, images)
    for handle in handles:
        handle.remove()
    assert list(measured) == CASES
    xy = {name: patch_centres((e, e), 4 / e) for name, e in (("sar", 4), ("hires_4x", 8))}
    xy["lores"] = xy["sar"]
    calls = {key: [] for key in CASES}
    for name, seen in given.items():
        part, _, rest = name.partition(".")
        if part == "encoders":
            modality = rest.split(".")[0]
            calls["self", modality, modality] += seen
        elif "cross_attention" in name:
            for call in seen:
                keys = "lores" if call[2].shape[1] == 16 else "hires_4x"
                calls["cross", "sar", keys].append(call)
    for (kind, queries, keys), values in measured.items():
        layers = calls[kind, queries, keys]
        assert values.shape == (2, len(layers), 4)
        for block, call in enumerate(layers):
            with torch.no_grad():
                weights = by_hand(*call, xy[queries], xy[keys])
            expected = [[by_loop(h, xy[queries], xy[keys]) for h in image] for image in weights]
            torch.testing.assert_close(values[:, block], torch.tensor(expected))


def test_cross_gsd_weights_are_rectangular():
    model = nano_model().eval()
    images = nano_images(batch=1)
    shapes = []
    layers = [block.cross_attention for block in model.joint.stacks["shared"]]
    with (
        torch.no_grad(),
        hook_attention(layers, lambda weights: shapes.append(tuple(weights.shape))),
    ):
        measure_distances(model, images)
    assert shapes == [(1, 4, 16, 16), (1, 4, 16, 64)]


def test_watching_ends_even_in_an_error():
    layer = Attention(8, 2)
    seen = []
    with pytest.raises(ZeroDivisionError), hook_attention([layer], seen.append):
        raise ZeroDivisionError
    layer(torch.zeros(1, 3, 8), torch.zeros(1, 3, 8), None)
    assert not seen


def test_indifferent_heads_reach_as_far_as_the_grid_does(small_store, monkeypatch):
    """Where neither content nor place decides, the mean is that over all pairs of patches."""
    set_slopes(monkeypatch, [0.0] * 4)
    model = nano_model().eval()
    for layer in model.modules():
        if isinstance(layer, Attention):
            torch.nn.init.zeros_(layer.query.weight)
    report = attention_distance(model, small_store, num_samples=1)
    coarse, fine = patch_centres((16, 16), 1.0).numpy(), patch_centres((32, 32), 0.5).numpy()
    for case in report.cases:
        query_xy = fine if case.queries.modality == "hires_4x" else coarse
        key_xy = fine if case.keys.modality == "hires_4x" else coarse
        expected = np.linalg.norm(query_xy[:, None] - key_xy[None], axis=-1).mean() * 16 * 3.7
        assert case.uniform_m == pytest.approx(expected, rel=1e-4)
        for heads in case.mean_distance_m:
            assert heads == pytest.approx([expected] * 4, rel=1e-4)


def test_where_content_is_mute_the_bias_decides_and_steep_heads_see_less(small_store):
    model = nano_model().eval()
    for layer in model.modules():
        if isinstance(layer, Attention):
            torch.nn.init.zeros_(layer.query.weight)
    for case in attention_distance(model, small_store, num_samples=1).cases:
        for heads in case.mean_distance_m:
            assert heads == pytest.approx(case.bias_only_m, rel=1e-4)
            assert list(heads) == sorted(heads)
        assert case.bias_only_m[0] < 0.7 * case.bias_only_m[-1] < 0.7 * case.uniform_m


def test_metres_are_those_of_each_sample(tmp_path, monkeypatch):
    """Twice the metres per pixel, twice the distance: the tile's latitude counts."""
    from salibi_model.data.store import SampleStore

    store = SampleStore(write_store(tmp_path / "s.zarr", num_samples=3, validation=2))
    true_read = store.read
    gsd = {1: 3.0, 2: 5.0}

    def read(name, indices):
        if name == "gsd_m":
            return np.array([gsd[int(i)] for i in indices], np.float32)
        return true_read(name, indices)

    monkeypatch.setattr(store, "read", read)
    model = nano_model(["sar", "lores"]).eval()
    report = attention_distance(model, store, num_samples=5)
    assert report.samples == (1, 2)
    assert report.patch_m == pytest.approx(16 * 4.0)
    images = {name: torch.from_numpy(true_read(name, [1, 2])) for name in ("sar", "lores")}
    measured = measure_distances(model, images)
    for case in report.cases:
        patches = measured[case.kind, case.queries.modality, case.keys.modality]
        expected = (patches[0] * 16 * 3.0 + patches[1] * 16 * 5.0) / 2
        torch.testing.assert_close(
            torch.tensor(case.mean_distance_m), expected, rtol=1e-4, atol=0.0
        )
        assert case.reach_m == pytest.approx((64 / slopes(4)).tolist())


def test_where_gsds_are_ignored_reach_is_in_patches_of_the_keys(small_store):
    report = attention_distance(nano_model(gsd_scaling=False).eval(), small_store, num_samples=1)
    reaches = {(c.queries.modality, c.keys.modality): c.reach_m[0] for c in report.cases}
    assert reaches["hires_4x", "hires_4x"] == reaches["sar", "sar"] / 2
    assert reaches["sar", "hires_4x"] == reaches["sar", "sar"] / 2
    assert reaches["sar", "lores"] == reaches["sar", "sar"]


def test_a_model_without_joint_encoder_has_its_encoders_measured(small_store):
    model = nano_model(objectives=("contrastive",)).eval()
    report = attention_distance(model, small_store, num_samples=1)
    assert {case.kind for case in report.cases} == {"self"}


def test_the_report_has_a_row_per_head_and_block(small_store):
    report = attention_distance(nano_model().eval(), small_store, num_samples=2)
    content = json.loads(json.dumps(report.to_dict()))
    assert len(content["heads"]) == 4 * (1 + 2 + 2 + 1 + 1)
    last = content["heads"][-1]
    assert (last["kind"], last["queries"], last["keys"]) == ("cross", "sar", "hires_4x")
    assert (last["block"], last["head"], last["same_gsd"]) == (1, 4, False)
    assert last["slope"] == pytest.approx(2**-8)
    assert last["reach_m"] == pytest.approx(16 * 3.7 * 2**8)
    assert last["mean_distance_m"] == report.cases[-1].mean_distance_m[0][3]


def test_what_cannot_be_measured_is_refused(small_store, tmp_path):
    with pytest.raises(StoreError, match="no samples in the split 'test'"):
        attention_distance(nano_model(), small_store, split="test")
    pair = write_store(tmp_path / "p.zarr", num_samples=2, modalities=["sar"], validation=1)
    with pytest.raises(UsageError, match="has no 'lores'"):
        attention_distance(nano_model(), pair)
    optical = nano_model(["lores", "hires_4x"])
    object.__setattr__(optical.config, "architecture", "scale-mae")
    with pytest.raises(UsageError, match="fades with distance; this model is scale-mae"):
        attention_distance(optical, small_store)
