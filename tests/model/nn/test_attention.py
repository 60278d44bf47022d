"""The two backends against a plain loop: forward, gradients, masks, shapes, GSDs, bf16."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.attention import flex_attention as flex

from salibi_data.store.errors import UsageError
from salibi_model.nn import attention
from salibi_model.nn.alibi import patch_centres
from salibi_model.nn.attention import GroundBias, attend, attention_weights, choose_backend
from tests.support.model.alibi_loops import slopes_by_rule
from tests.support.model.nano import SIZE, nano_images, nano_masks, nano_model

HEADS = 4
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.fixture
def eager_flex(monkeypatch):
    """FlexAttention's own mathematics without its kernels: gradients on a CPU, and no compiler.

    PyTorch refuses gradients there because the kernel has no backward pass; the reference
    implementation has one.
    """
    monkeypatch.setattr(attention, "_compiled_flex_attention", lambda: flex.flex_attention)
    monkeypatch.setattr(flex, "_validate_device", lambda *_: None)
    monkeypatch.setattr(flex, "_warn_once", lambda **_: None)
    monkeypatch.setattr(attention, "choose_backend", lambda _, wanted: wanted)


def loop(query, key, value, bias):
    """Softmax attention number by number, in float64, with the bias by the paper's formula."""
    query, key, value = query.double(), key.double(), value.double()
    batch, heads, queries, width = query.shape
    rows = []
    for b in range(batch):
        for h, m in enumerate(slopes_by_rule(heads)):
            for q in range(queries):
                logits = []
                for k in range(key.shape[2]):
                    (qx, qy), (kx, ky) = (
                        xy[b % len(xy), i].tolist()
                        for xy, i in ((bias.query_xy, q), (bias.key_xy, k))
                    )
                    logit = query[b, h, q] @ key[b, h, k] / math.sqrt(width)
                    logit = logit - m * math.hypot(qx - kx, qy - ky)
                    valid = bias.key_valid is None or bias.key_valid[b % len(bias.key_valid), k]
                    logits.append(logit if valid else logit * 0 - math.inf)
                rows.append(torch.stack(logits).softmax(0) @ value[b, h])
    return torch.stack(rows).reshape(batch, heads, queries, width)


def random_case(
    *, queries=(3, 4), keys=(4, 6), ratios=(1.0, 0.5), batch=2, width=16, masked=False, seed=0
):
    """Tensors of a rectangular case: query and key grids of different GSDs."""
    generator = torch.Generator().manual_seed(seed)
    xy = []
    for grid, ratio in zip((queries, keys), ratios, strict=True):
        centres = patch_centres(grid, ratio)
        xy.append(centres if centres.ndim == 3 else centres[None])
    sizes = [len(centres[0]) for centres in xy]
    shapes = [(batch, HEADS, sizes[0], width), *[(batch, HEADS, sizes[1], width)] * 2]
    query, key, value = (torch.randn(shape, generator=generator) for shape in shapes)
    valid = None
    if masked:
        valid = torch.rand(batch, sizes[1], generator=generator) > 0.4
        valid[:, 0] = True
    bias = GroundBias(query_xy=xy[0], key_xy=xy[1], num_heads=HEADS, key_valid=valid)
    return query, key, value, bias


def on_gpu(bias):
    valid = None if bias.key_valid is None else bias.key_valid.cuda()
    return GroundBias(
        query_xy=bias.query_xy.cuda(), key_xy=bias.key_xy.cuda(), num_heads=HEADS, key_valid=valid
    )


CASES = {
    "square": {"keys": (3, 4), "ratios": (1.0, 1.0)},
    "rectangular": {},
    "masked": {"masked": True},
    "finer queries": {"queries": (5, 3), "ratios": (0.5, 1.0)},
    "own GSD each": {
        "ratios": (torch.tensor([1.0, 0.37]), torch.tensor([0.5, 0.25])),
        "masked": True,
    },
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("backend", ["dense", "flex"])
def test_backends_equal_a_plain_loop_forward_and_in_gradients(case, backend, eager_flex):
    query, key, value, bias = random_case(**CASES[case])
    tensors = [t.requires_grad_() for t in (query, key, value)]
    direction = torch.randn(query.shape, generator=torch.Generator().manual_seed(1))
    results, gradients = [], []
    for function in (lambda *t: attend(*t, bias, backend=backend), lambda *t: loop(*t, bias)):
        result = function(*tensors)
        results.append(result.detach().double())
        gradients.append(torch.autograd.grad((result * direction).sum(), tensors))
    torch.testing.assert_close(*results, atol=2e-6, rtol=1e-5)
    for ours, true in zip(*gradients, strict=True):
        assert ours.abs().max() > 0.01
        torch.testing.assert_close(ours, true, atol=5e-6, rtol=1e-5)


@pytest.mark.parametrize("backend", ["dense", "flex"])
def test_bf16_stays_within_its_own_precision(backend, eager_flex):
    query, key, value, bias = random_case(masked=True)
    low = [t.bfloat16() for t in (query, key, value)]
    result = attend(*low, bias, backend=backend)
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result.double(), loop(*low, bias), atol=0.03, rtol=0.03)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # Dynamo's
def test_a_whole_model_gives_the_same_losses_and_gradients_by_both(eager_flex):
    losses, gradients = [], []
    for backend in ("dense", "flex"):
        model, images = nano_model(), nano_images(batch=2)
        model.use_attention(backend)
        total = model(images, nano_masks(model, images))["loss"]
        total.backward()
        losses.append(total.detach())
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    torch.testing.assert_close(*losses)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-5, rtol=1e-4, msg=name)


def test_weights_are_what_attend_weighs_with():
    query, key, value, bias = random_case(masked=True)
    weights = attention_weights(query, key, bias)
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:3]))
    torch.testing.assert_close(weights @ value, attend(query, key, value, bias))
    assert not weights[~bias.key_valid[:, None, None].expand_as(weights)].any()


def test_cpus_train_densely():
    query = torch.zeros(1, 1, 4, 16, requires_grad=True)
    assert choose_backend(query) == "dense"
    with pytest.raises(UsageError, match="no backward pass on CPUs"):
        choose_backend(query, "flex")
    with pytest.raises(UsageError, match="auto, dense, flex"):
        choose_backend(query, "flash")
    with pytest.raises(UsageError, match="auto, dense, flex"):
        nano_model().use_attention("flash")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # the compiler's own
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_the_compiled_kernel_equals_the_loop_on_a_cpu():
    """As a user would call it: compiled, without gradient; the compiler takes its time."""
    query, key, value, bias = random_case(masked=True)
    with torch.no_grad():
        result = attend(query, key, value, bias, backend="flex")
    torch.testing.assert_close(result.double(), loop(query, key, value, bias), atol=1e-5, rtol=1e-5)


GPU_CASES = {
    **CASES,
    "no multiple of a block": {"queries": (10, 20), "keys": (15, 20)},
    "SAR among hires": {"queries": (8, 8), "keys": (16, 16)},
    "one GSD for all": {"queries": (12, 12), "keys": (12, 12), "ratios": (1.0, 1.0), "batch": 5},
}


@needs_gpu
@pytest.mark.parametrize("width", [16, 48, 64])
@pytest.mark.parametrize("case", GPU_CASES)
def test_gpu_kernels_equal_the_dense_way(case, width):
    """In float32, forward and in gradients; the dense way is proven by the loop."""
    *tensors, bias = random_case(**GPU_CASES[case], width=width)
    gpu_bias = on_gpu(bias)
    results, gradients = [], []
    for backend in ("flex", "dense"):
        leaves = [t.detach().cuda().requires_grad_() for t in tensors]
        result = attend(*leaves, gpu_bias, backend=backend)
        results.append(result.detach())
        gradients.append(torch.autograd.grad(result.square().sum(), leaves))
    torch.testing.assert_close(*results, atol=3e-3, rtol=3e-3)
    for ours, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-2, rtol=1e-2)


@needs_gpu
def test_gpu_kernels_stay_within_bf16():
    *tensors, bias = random_case(queries=(10, 20), keys=(15, 20), width=64)
    low = [t.cuda().bfloat16() for t in tensors]
    result = attend(*low, on_gpu(bias), backend="flex")
    truth = attend(*[t.float() for t in low], on_gpu(bias), backend="dense")
    torch.testing.assert_close(result.float(), truth, atol=0.03, rtol=0.03)


@needs_gpu
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_whole_model_trains_alike_on_a_gpu(precision):
    losses = []
    for backend in ("flex", "dense"):
        model = nano_model(size=replace(SIZE, dim=64)).cuda()
        model.use_attention(backend)
        images = {name: image.cuda() for name, image in nano_images(batch=4).items()}
        masks = {n: m.to(torch.device("cuda")) for n, m in nano_masks(model, images).items()}
        with torch.autocast("cuda", precision, enabled=precision != torch.float32):
            loss = model(images, masks)["loss"]
        loss.backward()
        assert all(p.grad.isfinite().all() for p in model.parameters())
        losses.append(loss.detach())
    rtol = 1e-3 if precision == torch.float32 else 3e-2
    torch.testing.assert_close(*losses, rtol=rtol, atol=0)


@needs_gpu
def test_many_shapes_never_fall_back_to_the_uncompiled_way():
    """Training, then encoding at all sizes; with `fullgraph`, falling back would raise."""
    for batch in (1, 3):
        for edge in (2, 5, 9, 17):
            for grad in (True, False):
                for dtype in (torch.float32, torch.bfloat16):
                    *tensors, bias = random_case(
                        queries=(edge, edge), keys=(edge, edge + 1), batch=batch
                    )
                    leaves = [t.cuda().to(dtype).requires_grad_(grad) for t in tensors]
                    assert attend(*leaves, on_gpu(bias), backend="flex").isfinite().all()


@needs_gpu
def test_no_tensor_of_queries_times_keys_is_in_a_gpus_memory():
    """Forward and backward of 4096 x 4096 patches in far less than one bias of that size."""
    xy = patch_centres((64, 64), 1.0)[None].cuda()
    query, key, value = (
        torch.randn(2, 16, 4096, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        for _ in range(3)
    )
    bias = GroundBias(query_xy=xy, key_xy=xy, num_heads=16)
    attend(query, key, value, bias).sum().backward()  # compiles
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    attend(query, key, value, bias).sum().backward()
    one_bias = 16 * 4096 * 4096 * 2
    assert torch.cuda.max_memory_allocated() - before < one_bias / 4
