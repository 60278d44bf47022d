"""What is watched while training: held-out losses, collapse, probes, pictures."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from salibi_data.store.errors import StoreError, UsageError
from salibi_model import load
from salibi_model.data.store import SampleStore
from salibi_model.errors import TrainingError
from salibi_model.evals.retrieval import retrieval
from salibi_model.models import config as model_config
from salibi_model.models.registry import build_model
from salibi_model.training.config import TrainingConfig
from salibi_model.training.monitoring.collapse import effective_rank, feature_std
from salibi_model.training.monitoring.schedule import CollapseUnseenWarning
from salibi_model.training.monitoring.validation import Validator, draw_samples
from salibi_model.training.optim import moving_average
from salibi_model.training.resolution import describe_model, resolve
from salibi_model.training.tracking.metrics_log import read_metrics
from salibi_model.training.trainer import train
from tests.support.model.nano import SIZE
from tests.support.model.stores import write_store

pytestmark = pytest.mark.usefixtures("nano_size")


def config(store, **changes):
    return TrainingConfig(**{"stores": (str(store),), "steps": 4, "batch_size": 4, **changes})


def rows(run):
    return read_metrics(run / "metrics.csv")


def test_validation_has_losses_recall_and_meters_on_its_cadence(small_store, tmp_path):
    train(config(small_store, steps=5, validate_every=2), out=tmp_path)
    validated = [row["step"] for row in rows(tmp_path) if "val_loss" in row]
    assert validated == [2, 4, 5]
    last = rows(tmp_path)[-1]
    for pair in ("sar_lores", "lores_sar", "sar_hires_4x", "hires_4x_lores"):
        assert 0 <= last[f"val_recall1_{pair}"] <= 1
    losses = [last[f"val_{k}"] for k in last if f"val_{k}" in last and "_" in k]
    assert last["val_loss"] == pytest.approx(sum(losses), rel=1e-4)
    for name in ("sar", "lores", "hires_4x"):
        assert last[f"feature_std_{name}"] > 0
        assert 1 <= last[f"effective_rank_{name}"] <= 3  # of four samples


def test_meters_and_recall_are_those_of_the_evaluation(tmp_path):
    """All six held-out samples in one batch: the same embeddings as by ``eval retrieval``."""
    store = write_store(tmp_path / "s.zarr", num_samples=14, validation=6, nodata_samples=0)
    settings = config(store, batch_size=6, steps=2)
    train(settings, out=tmp_path / "run")
    model = load(tmp_path / "run")
    opened = SampleStore(store)
    metrics = Validator([opened], resolve(settings, [opened]), torch.device("cpu"))(model)
    report = retrieval(model, opened)
    for direction in report.directions:
        at_once = direction.recalls[0].value
        assert metrics[f"val_recall1_{direction.query}_{direction.gallery}"] == at_once
    images = torch.from_numpy(opened.read("sar", opened.split_indices("validation")))
    with torch.no_grad():
        _, embedding = model.encode(images, "sar")
    assert metrics["feature_std_sar"] == pytest.approx(feature_std(embedding), rel=1e-4)
    assert metrics["effective_rank_sar"] == pytest.approx(effective_rank(embedding), rel=1e-4)


def test_validation_changes_nothing_that_is_learned(small_store, tmp_path, pictures):
    train(config(small_store, steps=3, validate_every=2), out=tmp_path / "often")
    train(config(small_store, steps=3, validation_samples=0), out=tmp_path / "never")
    often, never = (load(tmp_path / name).state_dict() for name in ("often", "never"))
    assert all(torch.equal(often[name], never[name]) for name in often)
    assert not any("val_loss" in row for row in rows(tmp_path / "never"))


def test_a_sample_without_an_observation_is_left_out(tmp_path):
    import zarr

    store = write_store(tmp_path / "s.zarr", num_samples=14, validation=8, nodata_samples=0)
    zarr.open_group(store, mode="r+")["lores"][9:14] = 0  # three of eight are left
    train(config(store, steps=1, batch_size=4, validation_samples=8), out=tmp_path / "run")
    (row,) = rows(tmp_path / "run")
    assert "feature_std_lores" not in row
    assert "feature_std_sar" in row
    assert row["val_recall1_sar_lores"] in (0, pytest.approx(1 / 3), pytest.approx(2 / 3), 1)


def test_collapse_stops_the_run_and_keeps_it(small_store, tmp_path, monkeypatch):
    step = torch.optim.AdamW.step

    def spoiled(self, *args, **kwargs):
        """All embeddings become the bias of the heads' last layer."""
        step(self, *args, **kwargs)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim > 1:
                    parameter.data.zero_()

    monkeypatch.setattr(torch.optim.AdamW, "step", spoiled)
    settings = config(small_store, steps=20, validate_every=2, checkpoint_every=10)
    with pytest.raises(TrainingError, match=r"alike for all samples at step 4.*collapsed"):
        train(settings, out=tmp_path)
    assert (tmp_path / "last").read_text() == "step-00000004.pt\n"
    assert rows(tmp_path)[-1]["feature_std_sar"] < 1e-3
    again = config(
        small_store, steps=6, validate_every=2, stop_on_collapse=False, checkpoint_every=6
    )
    assert train(again, out=tmp_path / "on").steps == 6


@pytest.mark.parametrize(("validation", "batch_size", "seen"), [(3, 4, 3), (6, 3, None), (0, 4, 0)])
def test_a_run_says_once_that_it_cannot_see_a_collapse(tmp_path, validation, batch_size, seen):
    """Validation takes whole batches: of six samples, threes are six."""
    count = 4 + validation
    store = write_store(tmp_path / "s.zarr", num_samples=count, validation=validation)
    settings = config(store, steps=2, validate_every=1, batch_size=batch_size)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CollapseUnseenWarning)
        train(settings, out=tmp_path / "run")
    # Other warnings may come from threads that an earlier test left to end.
    messages = [
        str(warning.message)
        for warning in caught
        if issubclass(warning.category, CollapseUnseenWarning)
    ]
    assert len(messages) == (seen is not None)
    assert all(f"takes {seen} of {validation} samples" in words for words in messages)
    watched = ["feature_std_sar" in row for row in rows(tmp_path / "run")]
    assert watched == [seen is None] * 2
    for changes in ({"stop_on_collapse": False}, {"validation_samples": 0}):
        train(dataclasses.replace(settings, **changes), out=tmp_path / str(changes))


def test_a_loss_that_becomes_nan_keeps_the_weights_before_it(small_store, tmp_path):
    """Weights so large that the fourth step's loss overflows; the third step is on disk."""

    def poison(done, _total, _metrics):
        if done == 3:
            torch.manual_seed(0)
            real = torch.nn.Linear.forward

            def forward(self, x):
                return real(self, x) * torch.nan

            patch.setattr(torch.nn.Linear, "forward", forward)

    with pytest.MonkeyPatch.context() as patch:
        settings = config(small_store, steps=9, checkpoint_every=9, validation_samples=0)
        with pytest.raises(TrainingError, match=r"nan at step 4.*--lr"):
            train(settings, out=tmp_path / "cut", on_step=poison)
    assert (tmp_path / "cut/last").read_text() == "step-00000003.pt\n"
    result = train(settings, out=tmp_path / "cut")
    assert result.first_step == 3
    train(settings, out=tmp_path / "whole")
    cut, whole = (load(tmp_path / name).state_dict() for name in ("cut", "whole"))
    assert all(torch.equal(cut[name], whole[name]) for name in whole)


def test_sample_reconstructions_are_pictures(small_store, tmp_path, pictures):
    train(config(small_store, steps=2), out=tmp_path)
    (picture,) = (tmp_path / "samples").glob("reconstruction-00000002.png")
    with Image.open(picture) as opened:
        shown = np.asarray(opened)
    assert shown.shape == (2 * 3 * 512, 4 * 512, 3)  # 2 samples of 3 modalities; 4 images each
    first = SampleStore(small_store).read("lores", [10])[0]
    enlarged = first.transpose(1, 2, 0).repeat(2, axis=0).repeat(2, axis=1)
    assert np.array_equal(shown[512:1024, :512], enlarged)


def test_models_that_predict_no_images_have_no_pictures(small_store, tmp_path, pictures):
    train(config(small_store, steps=1, objectives=("contrastive",)), out=tmp_path)
    assert not (tmp_path / "samples").exists()
    model = load(tmp_path)
    assert draw_samples(model, SampleStore(small_store), mask_ratio=0.75) is None


def test_the_average_is_that_of_a_plain_loop():
    model = torch.nn.Linear(3, 2)
    average = moving_average(model, 0.9)
    expected = None
    for step in range(5):
        torch.nn.init.normal_(model.weight, generator=torch.Generator().manual_seed(step))
        average.update_parameters(model)
        weight = model.weight.detach().clone()
        expected = weight if expected is None else 0.9 * expected + 0.1 * weight
    torch.testing.assert_close(average.module.weight.detach(), expected)


def test_the_average_is_what_is_kept_as_the_model(small_store, tmp_path):
    train(config(small_store, ema=0.5, validation_samples=0), out=tmp_path / "average")
    train(config(small_store, validation_samples=0), out=tmp_path / "plain")
    state = torch.load(tmp_path / "average/checkpoints/step-00000004.pt", weights_only=True)
    kept, plain = load(tmp_path / "average").state_dict(), load(tmp_path / "plain").state_dict()
    for name, value in kept.items():
        assert torch.equal(value, state["average"][f"module.{name}"])
        assert torch.equal(plain[name], state["model"][name])
    assert any(not torch.equal(kept[name], plain[name]) for name in kept)


def test_factors_on_learning_rates(small_store, tmp_path):
    """The first step of Adam is the rate itself: half the rate moves half as far."""
    scales = ("encoders.sar:0", "decoder:0.5")
    plain = config(small_store, steps=1, weight_decay=0.0, validation_samples=0)
    train(plain, out=tmp_path / "plain")
    train(
        config(small_store, steps=1, weight_decay=0.0, validation_samples=0, lr_scales=scales),
        out=tmp_path / "scaled",
    )
    torch.manual_seed(0)
    stores = [SampleStore(small_store)]
    start = build_model(describe_model(resolve(plain, stores), stores)).state_dict()
    whole, scaled = (load(tmp_path / name).state_dict() for name in ("plain", "scaled"))
    factors = {"encoders.sar.": 0.0, "decoder.": 0.5}
    for name, value in start.items():
        factor = next((f for part, f in factors.items() if name.startswith(part)), 1.0)
        moved, expected = scaled[name] - value, factor * (whole[name] - value)
        torch.testing.assert_close(moved, expected, rtol=1e-3, atol=1e-6)
    assert any(bool((whole[n] != start[n]).any()) for n in start if n.startswith("decoder."))


def test_a_part_that_is_not_there_is_refused(small_store, tmp_path):
    with pytest.raises(UsageError, match=r"no part of the model is called decode; it has decoder"):
        train(config(small_store, lr_scales=("decode:2",)), out=tmp_path)


def test_images_a_second_and_waiting_are_logged(small_store, tmp_path):
    train(config(small_store, steps=2, validation_samples=0), out=tmp_path)
    for row in rows(tmp_path):
        assert row["images_per_second"] == pytest.approx(12 / row["seconds"], rel=1e-6)
        assert 0 <= row["data_wait_share"] <= 1


def test_what_was_learned_is_kept_where_validation_fails(small_store, tmp_path, monkeypatch):
    """A bucket that is away, say, at the first checkpoint of all."""

    def away(*_):
        raise StoreError("the bucket is away")

    monkeypatch.setattr(Validator, "_measure", away)
    with pytest.raises(StoreError, match="the bucket is away"):
        train(config(small_store, validate_every=3), out=tmp_path)
    assert (tmp_path / "last").read_text() == "step-00000003.pt\n"
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3]
    monkeypatch.undo()
    monkeypatch.setitem(model_config.SIZES, "tiny", SIZE)
    assert train(config(small_store, validation_samples=0), out=tmp_path).first_step == 3


def test_a_model_older_than_its_checkpoint_is_written_again(small_store, tmp_path):
    """As where a run was killed between the two."""
    train(
        config(small_store, validation_samples=0, steps=2, checkpoint_every=1), out=tmp_path / "run"
    )
    model = tmp_path / "run/model"
    newest = {file.name: file.read_bytes() for file in model.iterdir()}
    train(config(small_store, validation_samples=0, steps=1), out=tmp_path / "short")
    for file in (tmp_path / "short/model").iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    again = train(
        config(small_store, validation_samples=0, steps=2, checkpoint_every=1), out=tmp_path / "run"
    )
    assert again.metrics == {}
    assert {file.name: file.read_bytes() for file in model.iterdir()} == newest


def test_the_validation_batch_is_that_of_training_whole(small_store, tmp_path):
    """In parts, losses and meters are the same."""
    train(config(small_store, steps=1), out=tmp_path / "whole")
    train(config(small_store, steps=1, accumulate=2), out=tmp_path / "parts")
    whole, parts = (rows(tmp_path / name)[0] for name in ("whole", "parts"))
    seen = [n for n in whole if n.startswith(("val_", "feature_", "effective_"))]
    assert {name: parts[name] for name in seen} == pytest.approx(
        {name: whole[name] for name in seen}, rel=1e-2
    )
