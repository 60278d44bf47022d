"""What makes a step faster changes nothing: the same numbers, and states of before go on."""

import copy

import pytest
import torch
import torch.nn.functional as F

from salibi_model.nn.alibi import patch_centres
from salibi_model.nn.attention import GroundBias, attend
from salibi_model.nn.attention_bf16_cpu import attend_per_sample
from salibi_model.nn.layers import Attention, FeedForward
from salibi_model.training import optim
from tests.support.model.nano import nano_images, nano_masks, nano_model


def test_self_attention_equals_products_of_their_own_for_q_k_and_v():
    torch.manual_seed(0)
    attention, x = Attention(24, 4), torch.randn(2, 9, 24)
    results = [attention(x, context, None) for context in (x, x.clone())]
    torch.testing.assert_close(*results, atol=1e-6, rtol=1e-5)
    gradients = [
        torch.autograd.grad(r.square().sum(), list(attention.parameters())) for r in results
    ]
    for fused, separate in zip(*gradients, strict=True):
        torch.testing.assert_close(fused, separate, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("bf16", [False, True])
def test_feed_forward_equals_its_layers_one_by_one(bf16):
    torch.manual_seed(0)
    feed_forward, x = FeedForward(16), torch.randn(2, 5, 16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        results = [feed_forward(x), feed_forward[2](F.gelu(feed_forward[0](x)))]
    assert torch.equal(*results)
    inputs = [x, *feed_forward.parameters()]
    gradients = [torch.autograd.grad(r.float().square().sum(), inputs) for r in results]
    for ours, layers in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, layers)


def test_dense_attention_has_the_gradients_of_its_formula():
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(2, 3, n, 4, generator=generator, dtype=torch.float64, requires_grad=True)
        for n in (3, 4, 4)
    )
    bias = -torch.rand(1, 3, 3, 4, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *t: attend_per_sample(*t, bias), (query, key, value))


def test_in_bf16_gradients_are_as_near_to_the_truth_as_pytorchs():
    torch.manual_seed(0)
    xy = patch_centres((12, 12), 1.0)[None]
    bias = GroundBias(query_xy=xy, key_xy=xy, num_heads=4)
    true = [torch.randn(2, 4, 144, 16).bfloat16().float().requires_grad_() for _ in range(3)]
    direction = torch.randn(2, 4, 144, 16).bfloat16()
    low = [t.detach().bfloat16().requires_grad_() for t in true]
    gradients = [
        torch.autograd.grad((result * direction).sum(), tensors)
        for result, tensors in (
            (attend(*true, bias), true),
            (attend(*low, bias), low),
            (F.scaled_dot_product_attention(*low, attn_mask=bias.dense_bf16), low),
        )
    ]
    for truth, ours, theirs in zip(*gradients, strict=True):
        errors = [(t.float() - truth).norm() / truth.norm() for t in (ours, theirs)]
        assert errors[0] < max(2 * errors[1], 0.005)


def test_a_state_from_before_the_fused_optimiser_goes_on_fused():
    """And comes to what it would have come to, within float32."""
    model = nano_model()
    images = nano_images(batch=2)
    masks = nano_masks(model, images)
    before = copy.deepcopy(model)
    plain = torch.optim.AdamW(
        [{**g, "params": list(g["params"])} for g in _groups(before)], lr=1e-3, betas=(0.9, 0.95)
    )
    _step(before, plain, images, masks)
    ours = copy.deepcopy(before)
    optimizer = optim.adamw(ours, weight_decay=0.05)
    optim.restore(optimizer, copy.deepcopy(plain.state_dict()))
    assert all(group["fused"] for group in optimizer.param_groups)
    for each, its in ((before, plain), (ours, optimizer)):
        _step(each, its, images, masks)
    for old, new in zip(before.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(old, new, atol=1e-6, rtol=1e-5)


def _groups(model):
    """Groups as `adamw` makes them, without its way of computing."""
    return [
        {name: group[name] for name in ("params", "weight_decay", "scale")}
        for group in optim.adamw(model, weight_decay=0.05).param_groups
    ]


def _step(model, optimizer, images, masks):
    optimizer.zero_grad()
    model(images, masks)["loss"].backward()
    optimizer.step()
