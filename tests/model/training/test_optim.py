"""The learning rate, decay, clipping and the bound of the temperature."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from salibi_model.training import optim
from salibi_model.training.tracking.metrics_log import read_metrics
from salibi_model.training.trainer import train
from tests.support.model.nano_runs import config


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


def test_the_temperature_comes_back_from_its_bound():
    from tests.support.model.nano import nano_images, nano_masks, nano_model

    model, images = nano_model(), nano_images()
    model.log_scale.data.fill_(9.0)
    model(images, nano_masks(model, images))["loss"].backward()
    assert float(model.scale.detach()) == pytest.approx(100)
    assert model.log_scale.grad.abs() > 0


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
