"""Retrieval against plain loops, and reconstruction panels."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
import zarr

from salibi_data.store.errors import StoreError, UsageError
from salibi_model.data.store import SampleStore
from salibi_model.errors import CheckpointError
from salibi_model.evals.attention_distance import attention_distance
from salibi_model.evals.metrics import ranks, recalls
from salibi_model.evals.reconstruction import HIDDEN, reconstruct
from salibi_model.evals.results import Results
from salibi_model.evals.retrieval import record, retrieval, same_tiles
from salibi_model.models.config import ModelConfig
from salibi_model.models.scale_mae import ScaleMae
from salibi_model.nn.patches import patchify
from tests.support.model.nano import SIZE, nano_model
from tests.support.model.stores import describe, write_store


def test_ranks_are_those_of_a_plain_sort():
    queries, gallery = torch.randn(20, 8), torch.randn(20, 8)
    for i, rank in enumerate(ranks(queries, gallery)):
        scores = [float(queries[i] @ gallery[j]) for j in range(20)]
        assert sorted(scores, reverse=True).index(scores[i]) == rank


def test_equal_embeddings_score_zero():
    same = torch.ones(10, 4)
    assert ranks(same, same).tolist() == [9] * 10


def test_recalls_and_intervals():
    at1, at5 = recalls(np.array([0] * 30 + [3] * 30 + [9] * 40), np.random.default_rng(0))
    assert (at1.k, at1.hits, at1.value, at1.chance) == (1, 30, 0.3, 0.01)
    assert (at5.k, at5.hits, at5.value, at5.chance) == (5, 60, 0.6, 0.05)
    # normal approximation: 0.3 +- 1.96 * sqrt(0.3 * 0.7 / 100)
    assert at1.low == pytest.approx(0.21, abs=0.02)
    assert at1.high == pytest.approx(0.39, abs=0.02)


def test_retrieval_goes_in_every_direction(small_store):
    seen = []
    report = retrieval(nano_model(), small_store, on_sample=lambda *counts: seen.append(counts))
    assert report.num_samples == 6
    assert {(d.query, d.gallery) for d in report.directions} == {
        (a, b) for a in ("sar", "lores", "hires_4x") for b in ("sar", "lores", "hires_4x") if a != b
    }
    assert seen[-1] == (18, 18)
    assert report.to_dict()["directions"][0]["recalls"][0]["chance"] == pytest.approx(1 / 6)


def test_an_empty_split_is_explained(small_store):
    with pytest.raises(StoreError, match="no samples in the split 'test'"):
        retrieval(nano_model(), small_store, split="test")
    with pytest.raises(StoreError, match="no samples in the split 'test'"):
        reconstruct(nano_model(), small_store, split="test")


def test_panels_show_what_was_seen(small_store):
    rows = reconstruct(nano_model(), small_store, num_samples=2).shown
    assert [(row.sample, row.modality.name) for row in rows] == [
        (sample, name) for sample in (10, 15) for name in ("sar", "lores", "hires_4x")
    ]
    for row in rows:
        layers = {
            key: patchify(torch.from_numpy(getattr(row, key))[None], 16)[0]
            for key in ("original", "masked", "predicted", "composite")
        }
        removed = (layers["masked"] == HIDDEN).all(dim=1)
        assert removed.float().mean() == pytest.approx(0.75, abs=0.01)
        assert torch.equal(layers["composite"][removed], layers["predicted"][removed])
        assert torch.equal(layers["composite"][~removed], layers["original"][~removed])
        assert torch.equal(layers["masked"][~removed], layers["original"][~removed])
        assert row.predicted.dtype == np.uint8


def test_a_perfect_prediction_is_the_original(small_store, monkeypatch):
    """Per-patch normalised targets, brought back, are the stored values."""
    from salibi_model.models.scale_alibi import ScaleAlibi
    from salibi_model.nn.losses import normalised_target

    def oracle(self, images, _masks, _names=None):
        return {
            name: normalised_target(*self.encoder(name).normalise(patchify(image, 16)))
            for name, image in images.items()
        }

    monkeypatch.setattr(ScaleAlibi, "predict_patches", oracle)
    report = reconstruct(nano_model(), small_store, num_samples=1)
    for error in report.errors:
        assert error.rmse < 1e-4 < error.flat_rmse
    for row in report.shown:
        assert np.array_equal(row.predicted, row.original), row.modality.name


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_embeddings_that_are_not_finite_are_no_hits(bad):
    good, spoilt = torch.randn(5, 4), torch.randn(5, 4)
    spoilt[2, 1] = bad
    with pytest.raises(CheckpointError, match="queries are not finite, 1 of 5"):
        ranks(spoilt, good)
    with pytest.raises(CheckpointError, match="gallery are not finite, 1 of 5"):
        ranks(good, spoilt)


def test_a_model_without_finite_weights_is_not_measured(small_store):
    model = nano_model()
    with torch.no_grad():
        model.projections["lores"].weight.fill_(torch.nan)
    with pytest.raises(CheckpointError, match="embeddings of 'lores' are not finite, 6 of 6"):
        retrieval(model, small_store)


def changed_store(source, path, name, **changes):
    """A copy of a store that says something else of the array ``name``."""
    shutil.copytree(source, path)
    group = zarr.open_group(path, mode="r+")
    attributes = group.attrs["salibi"]
    attributes["modalities"][name] |= changes
    group.attrs["salibi"] = attributes
    return path


USES = {
    "retrieval": retrieval,
    "reconstruct": reconstruct,
    "attention": lambda model, store: attention_distance(model, store, num_samples=1),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("lores", {"bands": ["blue", "green", "red"]}, "bands blue, green, red against red, green"),
        ("lores", {"units": "reflectance"}, "units reflectance against display"),
        ("sar", {"scale": [0.2, 0.15]}, "scale 0.2, 0.15 against 0.15, 0.15"),
        ("sar", {"offset": [-30.0, -20.0]}, "offset"),
        ("hires_4x", {"nodata": 255}, "nodata 255 against 0"),
    ],
    ids=["bands", "units", "scale", "offset", "nodata"],
)
def test_a_store_of_other_values_is_refused(small_store, tmp_path, use, name, changes, said):
    store = changed_store(small_store, tmp_path / "other.zarr", name, **changes)
    with pytest.raises(UsageError, match=f"disagree on '{name}': .*{said}") as caught:
        use(nano_model().eval(), store)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize(
    ("source", "said"),
    [("hires_4x", "gsd_ratio 0.5 against 1.0"), ("sar", "bands vv, vh against red, green, blue")],
)
def test_an_array_of_another_sensor_is_refused(small_store, tmp_path, use, source, said):
    """Of another resolution, or of another number of bands."""
    path = shutil.copytree(small_store, tmp_path / "other.zarr")
    shutil.rmtree(path / "lores")
    shutil.copytree(path / source, path / "lores")
    described = zarr.open_group(path).attrs["salibi"]["modalities"][source]
    store = changed_store(path, tmp_path / "changed.zarr", "lores", **described)
    with pytest.raises(UsageError, match=f"disagree on 'lores': .*{said}"):
        use(nano_model(["sar", "lores"], normalise_patches=False).eval(), store)


def test_what_the_model_does_not_use_may_differ(small_store, tmp_path):
    store = changed_store(small_store, tmp_path / "other.zarr", "hires", units="reflectance")
    assert retrieval(nano_model(["sar", "lores"]), store).num_samples == 6


def test_one_modality_has_nothing_to_be_looked_up_in(small_store, tmp_path):
    config = ModelConfig(
        architecture="scale-mae",
        size=SIZE,
        modalities=(describe("hires_4x"),),
        objectives=("reconstruction",),
    )
    model = ScaleMae(config).eval()
    with pytest.raises(UsageError, match=r"'hires_4x' alone: there is nothing .*--scales"):
        retrieval(model, small_store)
    directions = retrieval(model, small_store, scales=True).directions
    assert {(d.query, d.gallery) for d in directions} == {
        ("hires", "hires_4x"),
        ("hires_4x", "hires"),
    }
    alone = write_store(tmp_path / "one.zarr", num_samples=3, validation=2, modalities=["hires_4x"])
    with pytest.raises(UsageError, match=r"nothing .* has no other array"):
        retrieval(model, alone, scales=True)


def moved_store(path, order, *, seed=0, validation=6):
    """The store of a year: the landscapes of ``seed``, its tiles renumbered by ``order``."""
    write_store(path, num_samples=len(order), validation=validation, seed=seed)
    group = zarr.open_group(path, mode="r+")
    tiles = group["tile"][:]
    group["tile"][:] = tiles[np.array(order)]
    return path


def test_another_year_is_looked_up_by_tile(small_store, tmp_path):
    """The same images under the same tiles, in another order, and some tiles that are not there."""
    order = [15, 3, 12, 0, 10, 7, 11, 5]
    other = tmp_path / "other.zarr"
    shutil.copytree(small_store, other)
    group = zarr.open_group(other, mode="r+")
    for name in ("sar", "lores", "hires_4x", "tile"):
        group[name][: len(order)] = group[name][:][order]
    tiles = group["tile"][:]
    tiles[len(order) :, 1] += 1000
    group["tile"][:] = tiles
    one = SampleStore(small_store)
    ours, theirs = same_tiles(one, one.split_indices("validation"), SampleStore(other))
    assert ours.tolist() == [10, 11, 12, 15]
    assert theirs.tolist() == [order.index(number) for number in ours]
    seen = []
    report = retrieval(
        nano_model(), small_store, against=other, on_sample=lambda *counts: seen.append(counts)
    )
    assert (report.num_samples, report.against, seen[-1]) == (4, str(other), (24, 24))
    assert len(report.directions) == 9
    for direction in report.directions:
        if direction.query == direction.gallery:
            assert direction.ranks.tolist() == [0, 0, 0, 0]
    within = {
        (d.query, d.gallery): d.ranks for d in retrieval(nano_model(), small_store).directions
    }
    across = {(d.query, d.gallery): d.ranks for d in report.directions}
    assert all((across[pair] <= within[pair][[0, 1, 2, 5]]).all() for pair in within)


def test_another_year_is_enough_for_one_modality(small_store, tmp_path):
    config = ModelConfig(
        architecture="scale-mae",
        size=SIZE,
        modalities=(describe("hires_4x"),),
        objectives=("reconstruction",),
    )
    other = moved_store(tmp_path / "other.zarr", range(16), seed=1)
    report = retrieval(ScaleMae(config).eval(), small_store, against=other)
    assert [(d.query, d.gallery) for d in report.directions] == [("hires_4x", "hires_4x")]


def test_a_store_is_not_looked_up_in_itself(small_store):
    again = f"{small_store.parent}/./{small_store.name}"
    with pytest.raises(UsageError, match=r"--against .*the store of the queries itself"):
        retrieval(nano_model(), small_store, against=again)


def test_years_of_one_name_are_told_apart_in_the_rows(small_store, tmp_path):
    other = moved_store(tmp_path / small_store.name, range(16), seed=1)
    report = retrieval(nano_model(), small_store, against=other)
    results = Results(tmp_path / "results")
    record(report, results, name="nano")
    rows = {(row.dataset, row.settings["against"]) for row in results.scores}
    assert rows == {
        (f"{small_store.parent.name}/{small_store.name}", f"{tmp_path.name}/{small_store.name}")
    }


def test_stores_of_other_places_are_refused(small_store, tmp_path):
    other = moved_store(tmp_path / "other.zarr", range(16))
    group = zarr.open_group(other, mode="r+")
    group["tile"][:] = group["tile"][:] + 1
    with pytest.raises(UsageError, match=r"small.zarr and .*other.zarr share no tile"):
        retrieval(nano_model(), small_store, against=other)


def test_recalls_are_rows_of_results(small_store, tmp_path):
    report = retrieval(nano_model(), small_store)
    for _ in range(2):
        record(report, Results(tmp_path), name="nano")
    rows = Results(tmp_path).scores
    assert len(rows) == 12
    (row,) = [r for r in rows if (r.encoder, r.metric) == ("sar > hires_4x", "recall@5")]
    (direction,) = [d for d in report.directions if (d.query, d.gallery) == ("sar", "hires_4x")]
    assert (row.value, row.low) == (direction.recalls[1].value, direction.recalls[1].low)
    assert (row.dataset, row.num_test, row.gsd_m) == ("small.zarr", 6, pytest.approx(3.7))
    assert Results(tmp_path).outcomes(row).tolist() == (direction.ranks < 5).tolist()
