"""Scale-MAE against its paper's equations, plain loops, and what its loss must not see."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from salibi_data.store.errors import UsageError
from salibi_model.models.config import ModelConfig
from salibi_model.models.scale_mae import ScaleMae
from salibi_model.nn.laplacian import Frequencies, enlarge, frequency_targets, masked_l1
from salibi_model.nn.masking import random_masks
from salibi_model.nn.targets import shrink
from tests.support.model.nano import SIZE, nano_images
from tests.support.model.stores import describe

OPTICAL = ("lores", "hires_4x")


def config(names=OPTICAL, **changes):
    modalities = tuple(map(describe, names))
    return ModelConfig(
        size=SIZE,
        modalities=modalities,
        architecture="scale-mae",
        objectives=("reconstruction",),
        **changes,
    )


def nano(names=OPTICAL, *, seed=0, **changes):
    torch.manual_seed(seed)
    return ScaleMae(config(names, **changes))


def nano_masks(model, images):
    batch = len(next(iter(images.values())))
    return random_masks(model.num_tokens(images), 0.75, range(batch))


def nano_batch(model, names=OPTICAL, *, batch=2):
    images = nano_images(batch, names)
    return images, nano_masks(model, images)


def random_pixels(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 256, shape, generator=generator, dtype=torch.uint8)


# Positions


def positions_by_equation(rows, cols, ratio, dim):
    """Equations 3 and 4 by loops: g / G is ``ratio``, half of the channels for each axis."""
    axis_dim = dim // 2
    found = torch.zeros(rows * cols, dim, dtype=torch.float64)
    for row in range(rows):
        for col in range(cols):
            for axis, index in enumerate((col, row)):
                for i in range(axis_dim // 2):
                    angle = ratio * (index + 0.5) / 10_000 ** (2 * i / axis_dim)
                    token, first = row * cols + col, axis * axis_dim
                    found[token, first + i] = math.sin(angle)
                    found[token, first + axis_dim // 2 + i] = math.cos(angle)
    return found


@pytest.mark.parametrize("ratio", [1.0, 0.5, 3.0])
def test_positions_are_those_of_the_paper(ratio):
    """What is added to embedded patches: seen where nothing else is, before the first block."""
    model = nano().eval()
    torch.nn.init.zeros_(model.embed.weight)
    seen = []
    model.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.encode(random_pixels(1, 3, 32, 48), "lores", ratio)
    expected = positions_by_equation(2, 3, ratio, SIZE.dim)
    torch.testing.assert_close(seen[0][0].double(), expected, atol=1e-5, rtol=0)


def test_twice_the_gsd_and_half_the_pixels_is_the_same_ground():
    model = nano()
    fine = model.centres((4, 4), 1.0, torch.device("cpu")).reshape(4, 4, 2)
    coarse = model.centres((2, 2), 2.0, torch.device("cpu")).reshape(2, 2, 2)
    for row in range(2):
        for col in range(2):
            covered = fine[2 * row : 2 * row + 2, 2 * col : 2 * col + 2].mean(dim=(0, 1))
            torch.testing.assert_close(coarse[row, col], covered)


def test_training_sees_half_the_pixels_at_twice_the_gsd():
    """The decoder is told the places of the input's patches: lores 2 x 2, hires_4x 4 x 4."""
    model = nano()
    images, masks = nano_batch(model)
    places = []
    model.decoder.register_forward_pre_hook(lambda _, inputs: places.append(inputs[3]))
    model(images, masks)
    assert [tuple(xy.shape) for xy in places] == [(1, 4, 2), (1, 16, 2)]
    assert places[0][0].tolist() == [[1, 1], [3, 1], [1, 3], [3, 3]]
    assert places[1][0, :5].tolist() == [[0.5, 0.5], [1.5, 0.5], [2.5, 0.5], [3.5, 0.5], [0.5, 1.5]]


def test_tokens_stand_at_their_own_places():
    """Kept patches in the encoder; in the decoder these again, and mask tokens at all others."""
    model = nano().eval()
    torch.nn.init.zeros_(model.embed.weight)
    torch.nn.init.zeros_(model.decoder.embed.weight)
    torch.nn.init.constant_(model.decoder.embed.bias, 5.0)
    torch.nn.init.constant_(model.decoder.mask_token, -7.0)
    seen = []
    for blocks in (model.blocks, model.decoder.blocks):
        blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].double()))
    images, masks = nano_batch(model, ["hires_4x"])
    model(images, masks)
    kept = masks["hires_4x"].kept
    # The image's GSD ratio of 0.5, doubled: that of the base zoom.
    encoder_places = positions_by_equation(4, 4, 1.0, SIZE.dim)
    decoder_places = positions_by_equation(4, 4, 1.0, SIZE.decoder_dim)
    for sample in range(2):
        torch.testing.assert_close(seen[0][sample], encoder_places[kept[sample]], atol=1e-5, rtol=0)
        for token in range(16):
            content = 5.0 if token in kept[sample] else -7.0
            torch.testing.assert_close(
                seen[1][sample, token], decoder_places[token] + content, atol=1e-5, rtol=0
            )


# Targets


def blur_by_loop(image, cell, size):
    """Cell means, then bilinear interpolation between cell centres, pixel by pixel."""
    rows, cols = image.shape[0] // cell, image.shape[1] // cell
    means = [
        [
            float(image[r * cell : (r + 1) * cell, c * cell : (c + 1) * cell].mean())
            for c in range(cols)
        ]
        for r in range(rows)
    ]
    found = torch.zeros(size, size, dtype=torch.float64)
    for y in range(size):
        for x in range(size):
            row, col = ((edge + 0.5) * rows / size - 0.5 for edge in (y, x))
            for r in range(rows):
                for c in range(cols):
                    # Beyond the outer centres, the outer cells hold.
                    near_row = max(0.0, 1 - abs(min(max(row, 0), rows - 1) - r))
                    near_col = max(0.0, 1 - abs(min(max(col, 0), cols - 1) - c))
                    found[y, x] += near_row * near_col * means[r][c]
    return found


def test_targets_are_a_pyramid_by_loop():
    """Low: one value per patch of the input. High: what a mean of 8 px leaves over."""
    image = torch.randn(1, 1, 64, 64)
    targets = frequency_targets(image, torch.ones_like(image, dtype=torch.bool), 16)
    assert targets.low.shape == (1, 1, 32, 32)
    assert targets.high.shape == (1, 1, 64, 64)
    low, blurred = blur_by_loop(image[0, 0], 32, 32), blur_by_loop(image[0, 0], 8, 64)
    torch.testing.assert_close(targets.low[0, 0].double(), low, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        targets.high[0, 0].double(), image[0, 0].double() - blurred, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("patch_px", [8, 16])
def test_high_frequencies_and_the_level_below_are_the_image(patch_px):
    image = torch.randn(2, 3, 64, 96)
    valid = torch.ones_like(image, dtype=torch.bool)
    level = enlarge(*shrink(image, valid, patch_px // 2), (64, 96))
    targets = frequency_targets(image, valid, patch_px)
    torch.testing.assert_close(targets.high + level, image)
    assert targets.high.mean().abs() < 1e-2 * image.std()


def test_a_flat_image_is_all_low():
    image = torch.full((1, 1, 64, 64), 3.0)
    targets = frequency_targets(image, torch.ones_like(image, dtype=torch.bool), 16)
    torch.testing.assert_close(targets.low, torch.full((1, 1, 32, 32), 3.0))
    torch.testing.assert_close(targets.high, torch.zeros(1, 1, 64, 64), atol=1e-6, rtol=0)


# Nodata


def test_averages_are_over_valid_pixels():
    image, valid = torch.randn(1, 1, 4, 4), torch.ones(1, 1, 4, 4, dtype=torch.bool)
    valid[0, 0, :2, 2:] = False
    valid[0, 0, 2, 0] = False
    means, some = shrink(image, valid, 2)
    pixels = image[0, 0]
    expected = [
        [float(pixels[:2, :2].mean()), 0.0],
        [float((pixels[2, 1] + pixels[3, 0] + pixels[3, 1]) / 3), float(pixels[2:, 2:].mean())],
    ]
    torch.testing.assert_close(means[0, 0], torch.tensor(expected))
    assert some[0, 0].tolist() == [[True, False], [True, True]]


def test_what_lies_behind_nodata_changes_no_target():
    image = torch.randn(1, 1, 64, 64)
    valid = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(1)) > 0.5
    valid[0, 0, :40, :40] = False
    other = torch.where(valid, image, 1e3 * torch.randn(1, 1, 64, 64))
    for first, second in zip(
        frequency_targets(image, valid, 16), frequency_targets(other, valid, 16), strict=True
    ):
        assert torch.equal(first, second)


def test_nodata_does_not_dim_what_is_near_it():
    """A flat image with holes is flat where it is valid: no shadow of zeros."""
    image, valid = torch.full((1, 1, 64, 64), 3.0), torch.ones(1, 1, 64, 64, dtype=torch.bool)
    valid[0, 0, :40, 8:50] = False
    targets = frequency_targets(image, valid, 16)
    torch.testing.assert_close(targets.high, torch.zeros(1, 1, 64, 64), atol=1e-5, rtol=0)
    torch.testing.assert_close(targets.low, torch.full((1, 1, 32, 32), 3.0))


def test_the_value_of_nodata_does_not_matter():
    """Two stores that mark the same pixels with other values have the same loss."""
    images = nano_images(2, ["lores"])["lores"].clamp(10, 240)
    hidden = torch.zeros_like(images, dtype=torch.bool)
    hidden[:, :, 3:20, 5:41] = True
    losses = []
    for nodata in (0, 7, 255):
        model = nano(["lores"])
        modality = replace(describe("lores"), nodata=nodata)
        torch.manual_seed(0)
        model = ScaleMae(replace(model.config, modalities=(modality,)))
        marked = {"lores": images.masked_fill(hidden, nodata)}
        losses.append(model(marked, nano_masks(model, marked)))
    for name, loss in losses[0].items():
        assert loss == losses[1][name] == losses[2][name], name


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
