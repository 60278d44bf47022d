"""Training: resumed equals never stopped, two processes equal one, errors in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from nano import SIZE
from stores import write_store

from salibi_model import config as model_config
from salibi_model import load, optim, trainer
from salibi_model.errors import CheckpointError, StoreError, TrainingError, UsageError
from salibi_model.metrics import read_metrics
from salibi_model.settings import DEFAULTS, TrainingConfig, resumed_config
from salibi_model.store import SampleStore
from salibi_model.trainer import train

TESTS = Path(__file__).parent


@pytest.fixture
def nano_size(monkeypatch):
    """Make ``tiny`` a model of 32 channels, so that a step takes a tenth of a second."""
    monkeypatch.setitem(model_config.SIZES, "tiny", SIZE)


def config(store, **changes):
    return TrainingConfig(**{"stores": (str(store),), "steps": 4, "batch_size": 4, **changes})


def weights(run):
    state = torch.load(max((run / "checkpoints").glob("*.pt")), weights_only=True)
    return state["model"]


def rows_without_time(run):
    return [
        {name: value for name, value in row.items() if name != "seconds"}
        for row in read_metrics(run / "metrics.csv")
    ]


class Stopped(Exception):  # noqa: N818
    """Raised in place of a kill."""


def stop_at(step):
    def on_step(done, _total):
        if done == step:
            raise Stopped

    return on_step


@pytest.mark.usefixtures("nano_size")
def test_resumed_equals_never_stopped_bit_for_bit(small_store, tmp_path):
    settings = config(small_store, checkpoint_every=2)
    train(settings, out=tmp_path / "whole")
    with pytest.raises(Stopped):
        train(settings, out=tmp_path / "cut", on_step=stop_at(3))  # last checkpoint: step 2
    assert len(read_metrics(tmp_path / "cut/metrics.csv")) == 3
    result = train(resumed_config(tmp_path / "cut"), out=tmp_path / "cut", resume=True)
    assert result.first_step == 2
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    assert rows_without_time(tmp_path / "cut") == rows_without_time(tmp_path / "whole")


@pytest.mark.usefixtures("nano_size")
def test_the_same_command_again_goes_on_and_then_is_done(small_store, tmp_path):
    with pytest.raises(Stopped):
        train(config(small_store, checkpoint_every=1), out=tmp_path, on_step=stop_at(2))
    assert train(config(small_store, checkpoint_every=1), out=tmp_path).first_step == 2
    again = train(config(small_store, checkpoint_every=1), out=tmp_path)
    assert (again.first_step, again.metrics) == (4, {})


@pytest.mark.usefixtures("nano_size")
def test_metrics_have_every_loss(small_store, tmp_path):
    result = train(config(small_store, steps=1), out=tmp_path)
    (row,) = read_metrics(tmp_path / "metrics.csv")
    assert {
        "loss",
        "lr",
        "scale",
        "gradient_norm",
        "contrastive_sar_lores",
        "contrastive_lores_hires_4x",
        "contrastive_sar_hires_4x",
        "reconstruction_sar",
        "reconstruction_lores",
        "reconstruction_hires_4x",
    } <= set(row)
    assert row["loss"] == pytest.approx(result.metrics["loss"])
    assert row["loss"] == pytest.approx(row["contrastive"] + row["reconstruction"])
    assert list((tmp_path / "events").glob("events.*"))


@pytest.mark.usefixtures("nano_size")
def test_bf16_trains(small_store, tmp_path):
    result = train(config(small_store, steps=1, precision="bf16"), out=tmp_path)
    exact = train(config(small_store, steps=1), out=tmp_path / "exact")
    assert result.metrics["loss"] == pytest.approx(exact.metrics["loss"], rel=0.05)


@pytest.mark.usefixtures("nano_size")
def test_sar_and_low_resolution_alone_train(tmp_path):
    store = write_store(
        tmp_path / "two.zarr", num_samples=5, validation=1, modalities=["sar", "lores"]
    )
    result = train(config(store, steps=1), out=tmp_path / "run")
    assert "contrastive_sar_lores" in result.metrics
    assert "reconstruction_hires_4x" not in result.metrics


def test_high_resolution_alone_is_refused(tmp_path):
    store = write_store(tmp_path / "one.zarr", num_samples=4, validation=0, modalities=["hires_4x"])
    with pytest.raises(UsageError, match="two modalities or more"):
        train(config(store), out=tmp_path / "run")


@pytest.mark.usefixtures("nano_size")
def test_a_loss_that_is_not_finite_stops_the_run(small_store, tmp_path, monkeypatch):
    def poisoned(self, *_):
        self.weight.data.fill_(torch.nan)

    monkeypatch.setattr(
        trainer,
        "_data_parallel",
        lambda model, _: model.projections["sar"].register_forward_pre_hook(poisoned) and model,
    )
    with pytest.raises(TrainingError, match=r"loss is nan at step 1.*--lr"):
        train(config(small_store), out=tmp_path)
    assert not (tmp_path / "last").exists()


@pytest.mark.usefixtures("nano_size")
def test_another_configuration_in_the_same_folder_is_refused(small_store, tmp_path):
    train(config(small_store, steps=1), out=tmp_path)
    with pytest.raises(UsageError, match=r"seed 0 -> 7.*another --out"):
        train(config(small_store, steps=1, seed=7), out=tmp_path)
    longer = train(resumed_config(tmp_path, steps=2), out=tmp_path, resume=True)
    assert (longer.first_step, longer.metrics["step"]) == (1, 2)


def test_resuming_nothing_is_refused(small_store, tmp_path):
    with pytest.raises(CheckpointError, match="holds no run"):
        train(config(small_store), out=tmp_path, resume=True)


def test_no_store_is_refused(tmp_path):
    with pytest.raises(StoreError, match="not a Zarr group"):
        train(config(tmp_path), out=tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": "huge"}, "tiny, small, base, large"),
        ({"epochs": 3}, "not both"),
        ({"precision": "fp8"}, "float32, bf16"),
        ({"lr": -1.0}, "positive"),
        ({"stores": ()}, "at least one store"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        config("store", **changes)


def test_settings_come_from_toml(tmp_path):
    path = tmp_path / "f.toml"
    path.write_text('stores = ["a.zarr"]\nsize = "base"\nlr = 0.5\n')
    assert TrainingConfig.from_toml(path) == TrainingConfig(stores=("a.zarr",), size="base", lr=0.5)
    path.write_text("learning_rate = 1\n")
    with pytest.raises(UsageError, match="unknown fields: learning_rate"):
        TrainingConfig.from_toml(path)
    with pytest.raises(UsageError, match="cannot be read"):
        TrainingConfig.from_toml(tmp_path / "absent.toml")


def test_defaults_are_resolved_from_the_store(small_store):
    stores = [SampleStore(small_store)]
    resolved = TrainingConfig(stores=(str(small_store),)).resolve(stores)
    assert resolved.batch_size == 10  # all there is
    assert resolved.modalities == ("sar", "lores", "hires_4x")
    assert resolved.steps >= 40
    assert TrainingConfig(epochs=3, batch_size=4).resolve(stores).steps == 6


def test_rate_rises_then_falls_to_zero():
    rates = [optim.learning_rate(s, steps=100, warmup_steps=10, peak=2.0) for s in range(101)]
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == rates[10] == pytest.approx(2.0)
    assert rates[100] == pytest.approx(0.0)
    assert all(a >= b for a, b in pairwise(rates[10:]))


def test_only_matrices_decay():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
    matrices, others = optim.adamw(model, weight_decay=0.1).param_groups
    assert [tuple(p.shape) for p in matrices["params"]] == [(4, 3)]
    assert (matrices["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert len(others["params"]) == 3


def test_default_rates_are_those_of_a_transformer():
    for defaults in DEFAULTS.values():
        assert 1e-5 < defaults.lr <= 1e-3


@pytest.mark.usefixtures("nano_size")
def test_gradients_are_clipped(small_store, tmp_path, monkeypatch):
    """What the optimiser sees is no longer than the bound; the log has the norm before."""
    norms = []
    step = torch.optim.AdamW.step

    def watched(self, *args, **kwargs):
        gradients = [p.grad.norm() for group in self.param_groups for p in group["params"]]
        norms.append(float(torch.stack(gradients).norm()))
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    train(config(small_store, steps=2, clip_norm=0.05), out=tmp_path)
    assert norms == pytest.approx([0.05, 0.05], rel=1e-3)
    assert all(row["gradient_norm"] > 0.05 for row in read_metrics(tmp_path / "metrics.csv"))


@pytest.mark.usefixtures("nano_size")
def test_trained_at_256_px_it_encodes_128_to_1024(small_store, tmp_path):
    """Tokens of sizes that were never trained on stay in the range of those that were."""
    train(config(small_store, steps=3), out=tmp_path)
    model = load(tmp_path)
    whole = torch.from_numpy(SampleStore(small_store).read("hires_4x", [11, 12]))
    usual, _ = model.encode(whole[:, :, :256, :256], "lores")
    for edge in (128, 256, 512, 1024):
        images = whole if edge <= 512 else whole.repeat(1, 1, 2, 2)
        for ratio in (1.0, 0.5, 0.25):
            tokens, embedding = model.encode(images[:, :, :edge, :edge], "lores", ratio)
            assert tokens.shape == (2, (edge // 16) ** 2, 32)
            assert embedding.isfinite().all()
            assert 0.5 < tokens.std() / usual.std() < 2


@pytest.mark.usefixtures("nano_size")
def test_metres_per_pixel_stand_for_the_ratio(small_store, tmp_path):
    train(config(small_store, steps=1), out=tmp_path)
    model = load(tmp_path)
    image = torch.from_numpy(SampleStore(small_store).read("lores", [11]))
    by_metres, _ = model.encode(image, "lores", gsd_m=3.7 / 2)
    by_ratio, _ = model.encode(image, "lores", 0.5)
    torch.testing.assert_close(by_metres, by_ratio)
    with pytest.raises(UsageError, match="not both"):
        model.encode(image, "lores", 0.5, gsd_m=1.0)
    with pytest.raises(UsageError, match="above 0"):
        model.encode(image, "lores", gsd_m=-1.0)
    with pytest.raises(UsageError, match="expected a number above 0"):
        model.encode(image, "lores", 0.0)


def test_two_processes_learn_what_one_does(small_store, tmp_path):
    """Gradients (contrast across ranks included), losses and weights; a real gloo group."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent), *sys.path]),
    }
    for count in (1, 2):
        subprocess.run(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
                *("--nproc-per-node", str(count)),
                *(TESTS / "two_processes.py", small_store, tmp_path / str(count)),
            ],
            check=True,
            timeout=120,
            env=environment,
        )
    one, two = (
        torch.load(tmp_path / count / "gradients.pt", weights_only=True) for count in ("1", "2")
    )
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=2e-6, rtol=1e-4, msg=name)
    rows = [rows_without_time(tmp_path / count / "run") for count in ("1", "2")]
    for a, b in zip(*rows, strict=True):
        assert a == pytest.approx(b, rel=2e-3)
