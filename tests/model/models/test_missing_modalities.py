"""Modalities that a batch lacks, that are hidden whole, or that are more than three."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from salibi_data import build
from salibi_data.store.errors import UsageError
from salibi_model.evals.reconstruction import reconstruct
from salibi_model.evals.retrieval import retrieval
from salibi_model.models import config as model_config
from salibi_model.models.config import TRI_ENCODER
from salibi_model.nn.decoder import anchor_cells
from salibi_model.nn.masking import hidden_modalities, random_masks
from salibi_model.training.config import TrainingConfig
from salibi_model.training.trainer import train
from tests.support.model.nano import SIZE, nano_images, nano_masks, nano_model
from tests.support.model.stores import describe


@pytest.mark.parametrize(
    "present",
    [["sar", "lores"], ["sar", "hires_4x"], ["lores", "hires_4x"], ["hires_4x"], ["sar"]],
    ids=" ".join,
)
def test_a_batch_may_lack_modalities(present):
    """Its loss is that of what is there, and every parameter has a gradient, if only of zero."""
    model, images = nano_model(), nano_images(names=present)
    losses = model(images, nano_masks(model, images))
    assert {name for name in losses if name.startswith("reconstruction_")} == {
        f"reconstruction_{name}" for name in present
    }
    pairs = {
        f"contrastive_{a}_{b}" for a, b in model.config.contrastive_pairs if {a, b} <= set(present)
    }
    assert {name for name in losses if name.startswith("contrastive_")} == pairs
    named = [
        losses[n]
        for n in losses
        if n.count("_") and n.split("_")[0] in ("contrastive", "reconstruction")
    ]
    torch.testing.assert_close(losses["loss"], torch.stack(named).sum())
    losses["loss"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        belongs = [m for m in TRI_ENCODER if f".{m}." in f".{name}."]
        if belongs and belongs[0] not in present:
            assert not parameter.grad.any(), name


def test_what_is_absent_changes_nothing_of_the_rest():
    model = nano_model()
    images = nano_images()
    masks = nano_masks(model, images)
    whole = model(images, masks)
    del images["hires_4x"]
    without = model(images, masks)
    assert without["contrastive_sar_lores"] == whole["contrastive_sar_lores"]


def test_nothing_at_all_is_refused():
    model = nano_model()
    with pytest.raises(UsageError, match="nothing to see"):
        model({}, {})
    contrastive = nano_model(objectives=("contrastive",))
    images = nano_images(names=["sar"])
    with pytest.raises(UsageError, match="no pair to contrast"):
        contrastive(images, nano_masks(contrastive, images))


def test_images_of_different_ground_are_refused():
    model = nano_model()
    images = nano_images()
    images["lores"] = images["lores"][:, :, :48]
    with pytest.raises(UsageError, match="same whole patches of ground"):
        model(images, nano_masks(model, images))


def test_a_hidden_modality_is_predicted_from_the_others_and_not_seen():
    model, images = nano_model(), nano_images()
    masks = random_masks(model.num_tokens(images), 0.75, range(3), hidden=["lores"])
    assert masks["lores"].kept.shape == (3, 0)
    assert masks["lores"].removed.shape == (3, 16)
    ran = []
    model.encoder("lores").register_forward_hook(lambda *_: ran.append(1))
    losses = model(images, masks)
    assert not ran
    assert "contrastive_sar_lores" not in losses
    before = model.predict_patches(images, masks)
    changed = {**images, "lores": 255 - images["lores"].clamp(max=250)}
    after = model.predict_patches(changed, masks)
    for name, patches in before.items():
        assert torch.equal(patches, after[name]), name
    assert model(changed, masks)["reconstruction_lores"] != losses["reconstruction_lores"]


def test_hiding_is_drawn_from_the_batchs_seed_and_leaves_one():
    names = ["sar", "lores", "hires_4x"]
    drawn = [hidden_modalities(names, 0.6, seed) for seed in range(300)]
    assert drawn == [hidden_modalities(names, 0.6, seed) for seed in range(300)]
    assert max(len(hidden) for hidden in drawn) == 2
    for name in names:
        share = np.mean([name in hidden for hidden in drawn])
        # one in three of the draws that would hide all of them is spared
        assert share == pytest.approx(0.6 - 0.6**3 / 3, abs=0.1)
    assert hidden_modalities(names, 0.0, 1) == frozenset()


def test_finer_tokens_lie_in_the_anchors_cells():
    cells = anchor_cells((3, 4), 2)
    for index, cell in enumerate(cells.tolist()):
        row, column = divmod(index, 8)
        assert cell == row // 2 * 4 + column // 2
    assert anchor_cells((3, 4), 1).tolist() == list(range(12))


def test_missing_modalities_are_predicted_from_one_alone():
    model = nano_model().eval()
    for name in TRI_ENCODER:
        images = nano_images(batch=2, names=[name])
        masks = nano_masks(model, images)
        predicted = model.predict_patches(images, masks)
        assert {n: tuple(p.shape) for n, p in predicted.items()} == {
            "sar": (2, 16, 512),
            "lores": (2, 16, 768),
            "hires_4x": (2, 64, 768),
        }


def test_errors_are_in_physical_units(small_store):
    """Recomputed in decibels from the stored values and the images of the report."""
    model = nano_model(normalise_patches=False).eval()
    report = reconstruct(model, small_store, num_samples=6, hide=["sar"])
    assert not report.given_statistics
    rows = [row for row in report.shown if row.modality.name == "sar"]
    truth = np.stack([row.original for row in rows]).astype(float)
    guess = np.stack([row.predicted for row in rows]).astype(float)
    decibel = 0.15 * (guess - truth)[truth != 0]
    (error,) = [error for error in report.errors if error.modality == "sar"]
    assert error.units == "dB"
    assert error.num_pixels == decibel.size
    assert error.rmse == pytest.approx(np.sqrt((decibel**2).mean()), abs=0.15)
    assert error.mae == pytest.approx(np.abs(decibel).mean(), abs=0.15)
    mean = describe("sar").mean[0]
    flat = 0.15 * (mean - truth)[truth != 0]
    assert error.flat_rmse == pytest.approx(np.sqrt((flat**2).mean()), rel=1e-3)
    assert set(error.rmse_by_band) == {"vv", "vh"}


def test_a_store_without_a_modality_needs_absolute_predictions(tmp_path):
    from tests.support.model.stores import write_store

    store = write_store(tmp_path / "sar.zarr", num_samples=4, validation=2, modalities=["sar"])
    with pytest.raises(UsageError, match=r"has no lores, hires_4x.*--absolute-targets"):
        reconstruct(nano_model(), store)
    report = reconstruct(nano_model(normalise_patches=False), store, num_samples=1)
    assert [row.modality.name for row in report.shown] == list(TRI_ENCODER)
    assert [error.modality for error in report.errors] == ["sar"]
    lores = report.shown[1]
    assert not lores.original.any()
    assert (lores.composite == lores.predicted).all()
    assert lores.predicted.std() > 0


def test_hiding_everything_is_refused(small_store):
    with pytest.raises(UsageError, match="leave one"):
        reconstruct(nano_model(), small_store, hide=list(TRI_ENCODER))
    with pytest.raises(UsageError, match="no modality 'thermal'"):
        reconstruct(nano_model(), small_store, hide=["thermal"])


def test_four_modalities_with_depths_pairs_and_hiding_of_their_own(
    sample_toml: str, tmp_path: Path, monkeypatch
):
    """Ten bands, near-infrared and a zoom difference of 2, from TOML to retrieval."""
    monkeypatch.setitem(model_config.SIZES, "tiny", SIZE)
    store = tmp_path / "spectral.zarr"
    build(store, variant="spectral", catalog=sample_toml, limit=10)
    settings = TrainingConfig(
        stores=(str(store),),
        modalities=("sar", "s2", "hires", "hires_16x"),
        pairs=("sar:s2", "s2:hires", "hires:hires_16x"),
        depths=("s2:3",),
        hide_share=0.3,
        steps=2,
        validate_every=2,
        batch_size=2,
        stop_on_collapse=False,
    )
    result = train(settings, out=tmp_path / "run")
    assert result.metrics["loss"] > 0
    from salibi_model import load

    model = load(tmp_path / "run")
    assert len(model.encoder("s2").blocks) == 3
    assert model.decoder.fineness == {"sar": 1, "s2": 1, "hires": 1, "hires_16x": 4}
    tokens, _ = model.encode(torch.ones(1, 10, 64, 64), "s2")
    assert tokens.shape == (1, 16, 32)
    report = retrieval(model, store, split="train")
    assert {(d.query, d.gallery) for d in report.directions} >= {("sar", "hires_16x")}
