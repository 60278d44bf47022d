"""Scale-MAE against its paper's equations, plain loops, and what its loss must not see."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from salibi_data.store.errors import UsageError
from salibi_model.models.scale_mae import ScaleMae
from salibi_model.nn.laplacian import Frequencies, frequency_targets, masked_l1
from tests.support.model.nano import SIZE, nano_images
from tests.support.model.nano_scale_mae import (
    OPTICAL,
    config,
    nano,
    nano_batch,
    nano_masks,
    random_pixels,
)
from tests.support.model.stores import describe


def test_an_image_without_data_has_no_loss():
    model = nano(["lores"])
    images = {"lores": torch.zeros(2, 3, 64, 64, dtype=torch.uint8)}
    losses = model(images, nano_masks(model, images))
    assert losses["loss"] == 0
    losses["loss"].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


# Loss


def test_loss_is_the_sum_of_its_parts():
    model = nano()
    losses = model(*nano_batch(model))
    parts = [
        losses[f"reconstruction_{band}_{name}"] for band in ("low", "high") for name in OPTICAL
    ]
    assert len(losses) == 6
    torch.testing.assert_close(losses["reconstruction"], torch.stack(parts).sum())
    assert losses["loss"] == losses["reconstruction"]
    assert all(loss.shape == () for loss in losses.values())


def test_low_is_squared_and_high_absolute_over_removed_pixels_by_loop():
    model = nano(["lores"]).eval()
    images, _ = nano_batch(model, ["lores"], batch=1)
    images["lores"][0, 1, 40:, :30] = 0
    masks = nano_masks(model, images)
    with torch.no_grad():
        predicted, losses = model.predict_images(images, masks)["lores"], model(images, masks)
    values = (images["lores"].float() - 120) / 50
    valid = images["lores"] != 0
    target = frequency_targets(values, valid, 16)
    removed = set(masks["lores"].removed[0].tolist())
    low, high = [], []
    for band in range(3):
        for y in range(64):
            for x in range(64):
                if (y // 32) * 2 + x // 32 not in removed:
                    continue
                if valid[0, band, y, x]:
                    at = (0, band, y, x)
                    high.append(abs(float(predicted.high[at] - target.high[at])))
                square = valid[0, band, y : y + 2, x : x + 2]
                if y % 2 == 0 and x % 2 == 0 and square.any():
                    at = (0, band, y // 2, x // 2)
                    low.append(float(predicted.low[at] - target.low[at]) ** 2)
    assert float(losses["reconstruction_low_lores"]) == pytest.approx(sum(low) / len(low), rel=1e-4)
    assert float(losses["reconstruction_high_lores"]) == pytest.approx(
        sum(high) / len(high), rel=1e-4
    )


@pytest.mark.parametrize("name", OPTICAL)
def test_loss_covers_removed_patches_alone_and_all_of_them(name):
    """Its gradient at each predicted pixel is there where the mask says, and nowhere else."""
    model = nano()
    images, masks = nano_batch(model, batch=2)
    images[name][:, :, :9, :13] = 0
    predicted = []
    model.decoder.register_forward_hook(lambda *step: predicted.append(step[2]))
    losses = model(images, masks)
    low, high = predicted[OPTICAL.index(name)]
    felt_low, felt_high = torch.autograd.grad(losses["loss"], (low, high))
    removed = torch.zeros(2, model.num_tokens(images)[name], dtype=torch.bool)
    removed.scatter_(1, masks[name].removed, value=True)
    edge = math.isqrt(removed.shape[1])
    hidden = removed.reshape(2, 1, edge, edge).float()
    observed = images[name] != 0
    seen = F.max_pool2d(observed.float(), 2).bool()
    assert torch.equal(felt_high != 0, (F.interpolate(hidden, scale_factor=32) > 0) & observed)
    assert torch.equal(felt_low != 0, (F.interpolate(hidden, scale_factor=16) > 0) & seen)


def test_encoder_sees_kept_patches_alone():
    model = nano(["lores"]).eval()
    images, masks = nano_batch(model, ["lores"], batch=1)
    before = model.predict_images(images, masks)["lores"]
    row, col = divmod(int(masks["lores"].removed[0, 0]), 2)
    changed = images["lores"].clone()
    changed[0, :, 32 * row : 32 * row + 32, 32 * col : 32 * col + 32] = 1
    after = model.predict_images({"lores": changed}, masks)["lores"]
    assert torch.equal(before.low, after.low)
    assert torch.equal(before.high, after.high)
    row, col = divmod(int(masks["lores"].kept[0, 0]), 2)
    changed = images["lores"].clone()
    changed[0, :, 32 * row + 31, 32 * col + 31] = 1
    assert not torch.equal(before.low, model.predict_images({"lores": changed}, masks)["lores"].low)


def test_mean_over_halves_is_the_loss_of_the_batch():
    """Also where samples have unequal shares of nodata: as over the ranks of a group."""
    model = nano().eval()
    images = nano_images(4, OPTICAL)
    images["lores"][0, :, :50] = 0
    masks = nano_masks(model, images)
    whole = model(images, masks)
    halves = [
        model(
            {name: values[part] for name, values in images.items()},
            {name: type(mask)(*(index[part] for index in mask)) for name, mask in masks.items()},
        )
        for part in (slice(2), slice(2, 4))
    ]
    for name, loss in whole.items():
        torch.testing.assert_close(loss, (halves[0][name] + halves[1][name]) / 2)


def test_absolute_error_by_loop():
    predicted, target = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    valid = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0)) > 0.4
    per_sample = [
        sum(float((p - t).abs()) for p, t, v in zip(*rows, strict=True) if v) / int(rows[2].sum())
        for rows in zip(predicted.flatten(1), target.flatten(1), valid.flatten(1), strict=True)
    ]
    assert float(masked_l1(predicted, target, valid)) == pytest.approx(sum(per_sample) / 2)


@pytest.mark.parametrize("names", [OPTICAL, ("lores",), ("hires_4x",)])
def test_loss_reaches_every_parameter(names):
    """Whatever modalities a batch has, as the encoder is shared: no rank lacks a gradient."""
    model = nano()
    # Of 128 px, so that more than one patch is kept: alone, it has nothing to attend to.
    images = {name: random_pixels(2, 3, 128, 128) for name in names}
    model(images, nano_masks(model, images))["loss"].backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_a_batch_of_one_modality_has_the_losses_it_has_beside_another():
    model = nano().eval()
    images, masks = nano_batch(model)
    both = model(images, masks)
    for name in OPTICAL:
        alone = model({name: images[name]}, {name: masks[name]})
        assert set(alone) == {
            "loss",
            "reconstruction",
            f"reconstruction_low_{name}",
            f"reconstruction_high_{name}",
        }
        for band in ("low", "high"):
            part = f"reconstruction_{band}_{name}"
            torch.testing.assert_close(alone[part], both[part])


def test_same_seed_same_losses():
    first, second = (model(*nano_batch(model)) for model in (nano(), nano()))
    assert all(torch.equal(loss, second[name]) for name, loss in first.items())
    other = nano(seed=1)
    assert other(*nano_batch(other))["loss"] != first["loss"]


def test_thirty_steps_learn_four_samples():
    """The loss falls to less than six tenths, and both of its parts fall."""
    model = nano(["lores"])
    wave = torch.linspace(0, 9, 64)
    phases = torch.tensor([0.0, 1.0, 2.0, 3.0])
    field = torch.sin(phases[:, None, None] + wave[:, None]) * torch.cos(2 * wave + phases[0])
    checks = ((torch.arange(64)[:, None] + torch.arange(64)) % 2 - 0.5) * 40
    images = (125 + 60 * field + checks)[:, None].expand(4, 3, 64, 64).to(torch.uint8)
    batch = {"lores": images.contiguous()}
    masks = nano_masks(model, batch)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    history = []
    for _ in range(30):
        losses = model(batch, masks)
        optimiser.zero_grad()
        losses["loss"].backward()
        optimiser.step()
        history.append({name: float(loss.detach()) for name, loss in losses.items()})
    assert history[-1]["loss"] < 0.6 * history[0]["loss"]
    for band in ("low", "high"):
        part = f"reconstruction_{band}_lores"
        assert history[-1][part] < 0.8 * history[0][part], part


# Use


def test_predicted_images_have_the_resolutions_of_their_targets():
    model = nano()
    images, masks = nano_batch(model)
    predicted = model.predict_images(images, masks)
    shapes = {name: tuple(map(tuple, (x.low.shape, x.high.shape))) for name, x in predicted.items()}
    assert shapes == {
        "lores": ((2, 3, 32, 32), (2, 3, 64, 64)),
        "hires_4x": ((2, 3, 64, 64), (2, 3, 128, 128)),
    }
    assert isinstance(predicted["lores"], Frequencies)


def test_masks_are_on_the_grid_of_the_input():
    model = nano()
    assert model.num_tokens(nano_images(1, OPTICAL)) == {"lores": 4, "hires_4x": 16}
    assert list(model.num_tokens(nano_images(1, ["hires_4x"]))) == ["hires_4x"]


@pytest.mark.parametrize("patch_px", [4, 8])
def test_other_patches(patch_px):
    model = nano(["lores"], patch_px=patch_px)
    images, masks = nano_batch(model, ["lores"], batch=1)
    predicted = model.predict_images(images, masks)["lores"]
    assert predicted.low.shape == (1, 3, 32, 32)
    assert predicted.high.shape == (1, 3, 64, 64)
    assert model(images, masks)["loss"].isfinite()


@pytest.mark.parametrize(("rows", "cols"), [(128, 128), (256, 192), (512, 512)])
def test_encode_takes_other_sizes(rows, cols):
    model = nano().eval()
    tokens, embedding = model.encode(random_pixels(1, 3, rows, cols), "lores")
    assert tokens.shape == (1, rows * cols // 256, SIZE.dim)
    torch.testing.assert_close(embedding, tokens.mean(dim=1))


def test_encode_takes_a_ratio_per_image():
    model = nano().eval()
    images = random_pixels(2, 3, 64, 64)
    together, _ = model.encode(images, "lores", torch.tensor([1.0, 0.25]))
    for i, ratio in enumerate((1.0, 0.25)):
        alone = model.encode(images[i : i + 1], "lores", ratio)[0][0]
        torch.testing.assert_close(together[i], alone)
    assert not torch.allclose(together[1], model.encode(images, "lores")[0][1], atol=1e-4)


def test_without_gsd_scaling_the_ratio_does_not_matter():
    model = nano(gsd_scaling=False).eval()
    images = random_pixels(2, 3, 64, 64)
    usual = model.encode(images, "lores")[0]
    for ratio in (0.25, torch.tensor([4.0, 0.5])):
        assert torch.equal(model.encode(images, "lores", ratio)[0], usual)


def test_modalities_share_weights_and_keep_their_own_statistics():
    bright = replace(describe("hires_4x"), mean=(140.0,) * 3, std=(25.0,) * 3)
    torch.manual_seed(0)
    model = ScaleMae(replace(config(), modalities=(describe("lores"), bright))).eval()
    stored = torch.randint(80, 161, (1, 3, 64, 64), dtype=torch.uint8) // 2 * 2
    same = ((stored.float() - 120) / 50 * 25 + 140).to(torch.uint8)  # the same when normalised
    torch.testing.assert_close(
        model.encode(stored, "lores", 1.0)[0], model.encode(same, "hires_4x", 1.0)[0]
    )


def test_different_bands_are_refused():
    with pytest.raises(UsageError, match="sar has 2, lores has 3"):
        nano(["sar", "lores"])
    assert nano(["sar"]).encode(random_pixels(1, 2, 32, 32), "sar")[0].shape == (1, 4, SIZE.dim)


def test_a_patch_that_cannot_be_enlarged_to_is_refused():
    with pytest.raises(UsageError, match="multiples of 4 px; got 6"):
        nano(patch_px=6)


def test_a_batch_of_other_modalities_is_refused():
    model = nano()
    images = nano_images(1, ["sar"])
    with pytest.raises(UsageError, match=r"the batch has sar, .* lores, hires_4x"):
        model(images, {})
    with pytest.raises(UsageError, match=r"lores, hires_4x"):
        model.predict_images(images, {})


def test_images_that_do_not_divide_are_refused():
    model = nano(["lores"])
    images = {"lores": random_pixels(1, 3, 48, 64)}
    with pytest.raises(UsageError, match="multiple of 32"):
        model.num_tokens(images)
    with pytest.raises(UsageError, match="multiple of 32"):
        model(images, {})
