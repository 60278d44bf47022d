"""A checkpoint as a model of torchgeo-bench; needs that package (Python 3.12+)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from salibi_data.store.errors import UsageError
from salibi_model.checkpoints.files import save_model
from salibi_model.evals.features import FrozenModel
from tests.support.model.labelled.labelled_arrays import coloured
from tests.support.model.nano import SIZE, nano_model

pytest.importorskip("torchgeo_bench", reason="the extra torchgeo-bench is not installed")

from torchgeo_bench.datasets.base import BandSpec
from torchgeo_bench.segmentation_probe import SegmentationProbe

from salibi_model.exports.torchgeo_bench import SalibiBench

RGB = ("red", "green", "blue")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    save_model(nano_model(base_gsd_m=10.0).eval(), folder / "model", training={"step": 1})
    return folder


def band_specs(data, names=RGB):
    mean, std = data.statistics(data.bands)
    return [
        BandSpec("s2", name, name, mean=float(m), std=float(s), min=-1.0, max=2.0)
        for name, m, s in zip(names, mean, std, strict=True)
    ]


@pytest.mark.parametrize("px", [32, 40])
def test_embeddings_are_those_of_the_projects_own_evaluation(checkpoint, px):
    """Whatever the order of the bands; images of 40 px are shown at 48, their GSD with them."""
    data = coloured(px=px)
    model = SalibiBench(band_specs(data)[::-1], checkpoint=checkpoint, gsd_m=10.0)
    images = data.read(np.arange(5), RGB)
    images[0, :, :4] = np.nan
    embeddings = model(torch.tensor(images[:, ::-1].copy()))
    frozen = FrozenModel(model.model, data, "lores")
    assert torch.allclose(embeddings, frozen.encode(images)[1], atol=1e-5)


def test_their_names_of_bands_are_known(checkpoint):
    data = coloured()
    for names in (("B04", "B03", "B02"), ("Red", "green", "b02")):
        model = SalibiBench(band_specs(data, names), checkpoint=checkpoint, gsd_m=10.0)
        assert model.modality == "lores"
    power = [BandSpec("sar", name, name, 0.1, 0.1, 0.0, 1.0) for name in ("vh", "vv")]
    with pytest.raises(UsageError, match="trained on dB"):
        SalibiBench(power, checkpoint=checkpoint, gsd_m=10.0)
    radar = [BandSpec("sar", name, name, -12.0, 4.0, -40.0, 5.0) for name in ("vh", "vv")]
    model = SalibiBench(radar, checkpoint=checkpoint, gsd_m=10.0)
    assert model.modality == "sar"
    assert model(torch.full((2, 2, 32, 32), -12.0)).shape == (2, SIZE.dim)


def test_segmentation_learns_from_the_patch_tokens(checkpoint):
    model = SalibiBench(band_specs(coloured()), checkpoint=checkpoint, gsd_m=10.0)
    probe = SegmentationProbe(model, ["tokens"], num_classes=3)
    assert probe.channels_list == [SIZE.dim]
    assert probe.feature_hw_list == [(14, 14)]
    logits = probe(torch.rand(2, 3, 32, 32))
    assert logits.shape == (2, 3, 32, 32)
    logits.mean().backward()
    assert all(part.grad is not None for part in probe.head.parameters())
    assert all(part.grad is None for part in model.parameters())


@pytest.mark.parametrize(
    ("names", "said", "message"),
    [
        (RGB, {}, "give gsd_m"),
        (RGB, {"gsd_m": 0.1}, "100 times finer"),
        (RGB, {"gsd_m": 10.0, "modality": "sar"}, "expected all those of sar"),
        (("red", "green", "nir"), {"gsd_m": 10.0}, "has the bands red, green, nir"),
        (RGB, {"gsd_m": 10.0, "normalization": "minmax"}, "expected 'bandspec_zscore'"),
    ],
)
def test_what_does_not_fit_is_refused(checkpoint, names, said, message):
    with pytest.raises(UsageError, match=message):
        SalibiBench(band_specs(coloured(), names), checkpoint=checkpoint, **said)
