"""Training: resumed equals never stopped, two processes equal one, errors in one line."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
import zarr

from salibi_data.store.errors import UsageError
from salibi_model import load
from salibi_model.data.store import SampleStore
from salibi_model.errors import CheckpointError, TrainingError
from salibi_model.training import trainer
from salibi_model.training.config import TrainingConfig
from salibi_model.training.resolution import resolve
from salibi_model.training.resume import resumed_config
from salibi_model.training.tracking.metrics_log import read_metrics
from salibi_model.training.trainer import train
from tests.support.model import two_processes
from tests.support.model.nano_runs import config, weights
from tests.support.model.stores import write_store
from tests.support.paths import ROOT

TIMES = ("seconds", "images_per_second", "data_wait_share")


def rows_without_time(run):
    return [
        {name: value for name, value in row.items() if name not in TIMES}
        for row in read_metrics(run / "metrics.csv")
    ]


class Stopped(Exception):  # noqa: N818
    """Raised in place of a kill."""


def stop_at(step):
    def on_step(done, _total, _metrics):
        if done == step:
            raise Stopped

    return on_step


@pytest.mark.usefixtures("nano_size")
def test_resumed_equals_never_stopped_bit_for_bit(small_store, tmp_path):
    settings = config(small_store, checkpoint_every=2, validation_samples=4)
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
        tmp_path / "two.zarr", num_samples=8, validation=4, modalities=["sar", "lores"]
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

    wrap = trainer._data_parallel

    def wrap_poisoned(model, *arguments, **options):
        model.projections["sar"].register_forward_pre_hook(poisoned)
        return wrap(model, *arguments, **options)

    monkeypatch.setattr(trainer, "_data_parallel", wrap_poisoned)
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


def test_one_sample_is_no_contrast(small_store, tmp_path):
    """A batch counts the samples of all processes and parts."""
    with pytest.raises(UsageError, match=r"one sample of 10 .* nothing to compare.*--batch-size 2"):
        train(config(small_store, batch_size=1), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    stores = [SampleStore(small_store)]
    for changes in (
        {"batch_size": 1, "objectives": ("reconstruction",)},
        {"batch_size": 1, "model": "scale-mae"},
        {"batch_size": 2, "accumulate": 2},
    ):
        assert resolve(config(small_store, **changes), stores).batch_size == changes["batch_size"]
    assert resolve(config(small_store, batch_size=2), stores, world_size=2).batch_size == 2
    lone = [SampleStore(write_store(tmp_path / "lone.zarr", num_samples=2, validation=1))]
    with pytest.raises(UsageError, match="one sample of 1 "):
        resolve(TrainingConfig(), lone)


@pytest.mark.usefixtures("nano_size")
def test_rows_have_their_own_columns_when_modalities_are_hidden(small_store, tmp_path):
    settings = config(small_store, steps=8, hide_share=0.5, checkpoint_every=3)
    with pytest.raises(Stopped):
        train(settings, out=tmp_path, on_step=stop_at(5))
    train(settings, out=tmp_path)
    rows = read_metrics(tmp_path / "metrics.csv")
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert len({len(row) for row in rows}) > 1
    for row in rows:
        losses = [v for k, v in row.items() if k.startswith(("contrastive_", "reconstruction_"))]
        assert row["loss"] == pytest.approx(sum(losses), rel=1e-4)
        assert row["seconds"] < 60


@pytest.mark.usefixtures("nano_size")
def test_a_sample_without_an_observation_in_one_modality_does_no_harm(tmp_path):
    store = write_store(tmp_path / "x.zarr", num_samples=9, validation=4, samples_per_shard=9)
    array = zarr.open_group(store, mode="r+")["lores"]
    array[2] = 0
    result = train(config(store, batch_size=5, steps=2), out=tmp_path / "run")
    assert result.metrics["gradient_norm"] < 500


def test_weights_that_are_not_finite_are_not_kept(small_store, tmp_path, monkeypatch, nano_size):
    step = torch.optim.AdamW.step

    def spoiled(self, *args, **kwargs):
        step(self, *args, **kwargs)
        self.param_groups[0]["params"][0].data.fill_(torch.inf)

    monkeypatch.setattr(torch.optim.AdamW, "step", spoiled)
    with pytest.raises(TrainingError, match="weights are not finite after step 1"):
        train(config(small_store, steps=1), out=tmp_path)
    assert not (tmp_path / "last").exists()
    assert not (tmp_path / "model").exists()


@pytest.mark.usefixtures("nano_size")
def test_what_cannot_be_masked_is_found_before_the_folder_is_made(small_store, tmp_path):
    for wrong in ({"patch_px": 7}, {"mask_ratio": 1.0}, {"patch_px": 512}):
        with pytest.raises(UsageError):
            train(config(small_store, **wrong), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    train(config(small_store, steps=2), out=tmp_path / "run")
    with pytest.raises(UsageError, match="trained for 2 steps already"):
        train(resumed_config(tmp_path / "run", steps=1), out=tmp_path / "run", resume=True)
    assert resumed_config(tmp_path / "run").steps == 2


@pytest.mark.slow
@pytest.mark.usefixtures("nano_size")
def test_trained_at_256_px_it_encodes_128_to_1024(small_store, tmp_path):
    """The bias is what makes larger images work: the farther away, the less they change a patch.

    Patches of an image are encoded alone and as a corner of images up to 1024 px. Without a bias
    (all at one place) the surroundings change them most; the steeper it is, the less.
    """
    train(config(small_store, steps=3), out=tmp_path)
    model = load(tmp_path).requires_grad_(requires_grad=False)
    whole = torch.from_numpy(SampleStore(small_store).read("hires_4x", [11, 12, 13, 14]))
    mosaic = torch.cat([torch.cat([*whole[:2]], 2), torch.cat([*whole[2:]], 2)], 1)[None]
    assert mosaic.shape[-2:] == (1024, 1024)
    changes = []
    for ratio in (1e-6, 1.0, 4.0):
        alone, embedding = model.encode(mosaic[:, :, :128, :128], "lores", ratio)
        assert alone.shape == (1, 64, 32)
        assert embedding.isfinite().all()
        change = []
        for edge in (256, 512, 1024):
            tokens, _ = model.encode(mosaic[:, :, :edge, :edge], "lores", ratio)
            corner = tokens.reshape(edge // 16, edge // 16, 32)[:4, :4]
            change.append(float((corner - alone.reshape(8, 8, 32)[:4, :4]).norm()))
        changes.append(change)
    unbiased, usual, steep = changes
    for i in range(3):
        assert steep[i] < usual[i] < unbiased[i]


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
    with pytest.raises(UsageError, match=r"gsd_m is .* above 0"):
        model.encode(image, "lores", gsd_m=-1.0)
    with pytest.raises(UsageError, match="finite number above 0"):
        model.encode(image, "lores", 0.0)


@pytest.mark.usefixtures("nano_size")
def test_two_processes_learn_what_one_does(small_store, tmp_path):
    """Gradients (contrast across ranks included), losses and weights; a real gloo group."""
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2"),
            *("-m", "tests.support.model.two_processes", small_store, tmp_path / "2"),
        ],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
        },
    ) as both:
        two_processes.work(str(small_store), tmp_path / "1")
        assert both.wait(timeout=240) == 0
    one, two = (
        torch.load(tmp_path / count / "gradients.pt", weights_only=True) for count in ("1", "2")
    )
    assert one.keys() == two.keys()
    for case, expected in one.items():
        for name, gradient in expected.items():
            torch.testing.assert_close(
                gradient, two[case][name], atol=5e-6, rtol=2e-4, msg=f"{case}: {name}"
            )
    rows = [rows_without_time(tmp_path / count / "run") for count in ("1", "2")]
    for a, b in zip(*rows, strict=True):
        assert a == pytest.approx(b, rel=2e-3)
