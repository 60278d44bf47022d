"""Evaluation of frozen models: probes, scales, floors, comparisons."""

from __future__ import annotations

import json
import re
import warnings

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score
from sklearn.neighbors import KNeighborsClassifier

from salibi_cli.figures.scores import score_figure
from salibi_data.store.errors import StoreError, UsageError
from salibi_model.checkpoints.files import save_model
from salibi_model.evals.datasets.geobench import GeoBenchTask
from salibi_model.evals.datasets.inputs import UnfitError
from salibi_model.evals.evaluate import UnusualImagesWarning, evaluate
from salibi_model.evals.features import FrozenModel, extract_features
from salibi_model.evals.options import InputOptions, KnnOptions, LinearOptions, SegmentOptions
from salibi_model.evals.results import Results
from tests.support.model.labelled.geobench_files import write_task
from tests.support.model.labelled.labelled_arrays import LabelledArrays, coloured, painted
from tests.support.model.labelled.tasks import fails
from tests.support.model.nano import nano_model

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model():
    return nano_model().eval()


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "nano"
    save_model(model, folder / "model", training={"step": 1})
    return folder


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """Two GEO-Bench tasks, as a root of them."""
    root = tmp_path_factory.mktemp("geobench")
    sizes = {"num_train": 12, "num_valid": 4, "num_test": 6, "px": 32}
    write_task(root / "classification_v1.0/m-eurosat", "m-eurosat", **sizes)
    write_task(root / "classification_v1.0/m-bigearthnet", "m-bigearthnet", **sizes)
    write_task(root / "segmentation_v1.0/m-pv4ger-seg", "m-pv4ger-seg", **sizes)
    return root


def several_labels(num_classes=5):
    data = coloured(num_classes=num_classes)
    labels = np.eye(num_classes, dtype=np.int64)[data.values]
    labels |= np.roll(labels, 1, axis=1) * (data.values[:, None] % 2)
    return LabelledArrays(data.images, labels, counts=(40, 12, 20), task="multilabel")


def test_knn_is_that_of_scikit_learn_on_the_models_embeddings(model):
    data = coloured(num_train=37)
    (row,) = evaluate(
        model, [data], KnnOptions(k=5), name="nano", inputs=InputOptions(modality="lores")
    )
    train, test = (
        extract_features(FrozenModel(model, data, "lores"), s) for s in ("train", "test")
    )
    reference = KNeighborsClassifier(5, metric="cosine", algorithm="brute")
    reference.fit(train.vectors.astype(np.float64), train.labels)
    expected = accuracy_score(test.labels, reference.predict(test.vectors.astype(np.float64)))
    assert row.value == pytest.approx(expected)
    assert (row.num_train, row.num_test, row.encoder) == (37, 20, "lores")
    assert row.low <= row.value <= row.high
    assert row.settings["k"] == 5


def test_every_encoder_that_fits_sees_the_images(model):
    skipped = []
    rows = evaluate(model, [coloured()], KnnOptions(k=90), name="nano", on_skip=skipped.append)
    assert [row.encoder for row in rows] == ["lores", "hires_4x"]
    assert skipped == ["arrays lacks bands that modality 'sar' sees"]
    assert {row.settings["k"] for row in rows} == {40}


@pytest.mark.parametrize(
    ("px", "gsd_m", "scales", "said"),
    [
        (32, 10.0, (1.0,), []),
        (32, 80.0, (1.0,), []),
        (
            32,
            0.1,
            (1.0, 2.0),
            [
                r"arrays: images of 0\.1 m .* 100 times finer .*'lores' .*\(10 m\).* 1\.25 and 80 m",
                r"arrays: images of 0\.2 m .* 50 times finer",
            ],
        ),
        (32, 81.0, (1.0,), ["81 m per pixel are 8.1 times coarser"]),
        (9, 10.0, (1.0,), ["9 x 9 px are less than a patch of 16 px .* to 16 x 16 px"]),
    ],
)
def test_images_that_the_model_was_not_made_for_are_measured_and_named(px, gsd_m, scales, said):
    """Once each: the floor of random weights sees the same images."""
    model = nano_model(base_gsd_m=10.0).eval()
    data = coloured(px=px, gsd_m=gsd_m)
    inputs = InputOptions(modality="lores", scales=scales, floors=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = evaluate(model, [data], KnnOptions(), name="nano", inputs=inputs)
    assert len(rows) == 3 * len(scales)
    assert {one.category for one in caught} <= {UnusualImagesWarning}
    words = [str(one.message) for one in caught]
    assert len(words) == len(said)
    for sentence, pattern in zip(words, said, strict=True):
        assert re.search(pattern, sentence)


def test_several_labels_are_measured_by_f1(model, tmp_path):
    data, results = several_labels(), Results(tmp_path)
    for options in (KnnOptions(k=3), LinearOptions()):
        rows = evaluate(
            model,
            [data],
            options,
            name="n",
            inputs=InputOptions(modality="lores"),
            results=results,
        )
        assert [row.metric for row in rows] == ["f1-micro", "f1-macro"]
        counts = results.outcomes(rows[0])
        hits, false, missed = counts.sum(axis=0).T
        truth, num_predicted = hits + missed, hits + false
        labels = data.labels(data.split_indices("test"))
        assert np.array_equal(truth, labels.sum(axis=0))
        predicted = (counts[:, :, 0] + counts[:, :, 1]).astype(int)
        assert num_predicted.sum() == predicted.sum()
        for row, average in zip(rows, ("micro", "macro"), strict=True):
            expected = f1_score(labels, predicted, average=average, zero_division=np.nan)
            assert row.value == pytest.approx(expected)
    assert rows[0].chosen["c"] in LinearOptions().regularisations
    assert rows[0].value > 0.9


def test_floors_go_through_the_same_probe(model):
    rows = evaluate(
        model,
        [coloured()],
        LinearOptions(),
        name="nano",
        inputs=InputOptions(modality="lores", floors=True, seed=4),
    )
    assert [row.model for row in rows] == ["nano", "nano, untrained", "mean colour"]
    assert rows[2].value == 1.0
    assert len({row.weights_digest for row in rows}) == 3
    assert "weights_seed" not in rows[0].settings
    assert rows[1].settings["weights_seed"] == 4


def test_scales_draw_a_curve_over_ground_distance(model):
    skipped = []
    rows = evaluate(
        model,
        [coloured(px=64)],
        KnnOptions(k=1),
        name="nano",
        inputs=InputOptions(modality="lores", scales=(1.0, 2.0, 4.0, 8.0)),
        on_skip=skipped.append,
    )
    assert [row.gsd_m for row in rows] == [10, 20, 40]
    assert "8 px at scale 8" in skipped[0]
    (axes,) = score_figure(rows).axes
    (curve,) = axes.get_legend_handles_labels()[0]
    assert np.allclose(curve.lines[0].get_xdata(), [10, 20, 40])
    assert np.allclose(curve.lines[0].get_ydata(), [100 * row.value for row in rows])


def test_rows_that_are_there_are_not_computed_again(model, tmp_path):
    data, skipped = coloured(), []
    given = {"name": "nano", "inputs": InputOptions(modality="lores"), "on_skip": skipped.append}
    first = evaluate(model, [data], KnnOptions(k=3), results=Results(tmp_path), **given)
    data.reads = 0
    again = evaluate(model, [data], KnnOptions(k=3), results=Results(tmp_path), **given)
    assert again == first
    # The one that tells their size.
    assert data.reads == 1
    evaluate(model, [data], KnnOptions(k=4), results=Results(tmp_path), **given)
    assert data.reads > 60
    assert skipped == [f"arrays by nano (lores) is in {tmp_path}"]
    assert len(Results(tmp_path).scores) == 2
    other = nano_model(seed=1).eval()
    evaluate(other, [data], KnnOptions(k=3), results=Results(tmp_path), **given)
    assert len(Results(tmp_path).scores) == 3


def test_models_are_compared_pairwise(model, tmp_path):
    results = Results(tmp_path)
    rows = []
    for name, weights in (("a", model), ("b", nano_model(seed=1).eval())):
        rows += evaluate(
            weights,
            [coloured(num_classes=12)],
            KnnOptions(k=1),
            name=name,
            inputs=InputOptions(modality="lores"),
            results=results,
        )
    difference, low, high = results.paired_difference(*rows)
    assert difference == pytest.approx(rows[0].value - rows[1].value)
    assert low <= difference <= high


def test_segmentation_is_measured_by_miou(model):
    seen = []
    (row,) = evaluate(
        model,
        [painted()],
        SegmentOptions(epochs=5, rate=0.02),
        name="nano",
        inputs=InputOptions(modality="lores"),
        on_progress=lambda *told: seen.append(told),
    )
    assert (row.method, row.metric, row.num_test) == ("segment-linear", "miou", 8)
    assert 0 < row.low <= row.value <= row.high <= 1
    assert (10, 10, " arrays lores, steps") in seen
    assert seen[-1] == (8, 8, " arrays lores")


def test_what_does_not_fit_is_refused_or_skipped(model):
    with pytest.raises(UnfitError, match="segmentation task, which knn does not measure"):
        evaluate(model, [painted()], KnnOptions(), name="n")
    with pytest.raises(UnfitError, match="classification task, which segment-conv does not"):
        evaluate(model, [coloured()], SegmentOptions(head="conv"), name="n")
    radar = InputOptions(modality="sar")
    with pytest.raises(UnfitError, match="arrays lacks vv, vh"):
        evaluate(model, [coloured()], KnnOptions(), name="n", inputs=radar)
    skipped = []
    data = [painted(name="fields"), coloured(name="colours")]
    rows = evaluate(model, data, KnnOptions(), name="n", on_skip=skipped.append)
    assert {row.dataset for row in rows} == {"colours"}
    assert skipped[0].startswith("fields is a segmentation task")
    with pytest.raises(UsageError, match="none of fields, fields fits knn"):
        evaluate(model, [data[0], data[0]], KnnOptions(), name="n")
    with pytest.raises(StoreError, match="no images in the split 'test'"):
        evaluate(model, [coloured(num_test=0)], KnnOptions(), name="n")


@pytest.mark.parametrize("split", ["train", "test"])
def test_images_of_one_class_alone_are_refused(model, split):
    data = coloured(num_train=90, num_test=90)
    data.values[data.split_indices(split)] = 2
    for options in (KnnOptions(), LinearOptions()):
        with pytest.raises(
            UsageError, match=rf"all 90 {split} images .* \(class 2\).* two classes"
        ):
            evaluate(model, [data], options, name="n")
    assert data.reads == 0
    data.values[data.split_indices(split)[50]] = 0
    assert evaluate(model, [data], KnnOptions(), name="n")
    labelled_alike = several_labels()
    labelled_alike.values[labelled_alike.split_indices(split)] = [1, 0, 0, 1, 0]
    with pytest.raises(UsageError, match=rf"{split} .*\(class 0, class 3\)"):
        evaluate(model, [labelled_alike], KnnOptions(), name="n")


def test_a_partition_of_one_class_is_refused(
    checkpoint, tasks, small_store, tmp_path, monkeypatch, capsys
):
    """Before a model is trained for it, too."""
    eurosat = tasks / "classification_v1.0/m-eurosat"
    samples = json.loads((eurosat / "default_partition.json").read_text())
    task = GeoBenchTask(eurosat)
    labels = task.labels(train := task.split_indices("train"))
    samples["train"] = [samples["train"][k] for k in train if labels[k] == labels[0]]
    (eurosat / "0.01x_train_partition.json").write_text(json.dumps(samples))
    given = ("--data", eurosat, "--partition", "0.01x_train", "--out", tmp_path / "r")
    code, message = fails(monkeypatch, capsys, "eval", "linear", checkpoint, *given)
    assert (code, message.count("\n")) == (2, 1)
    assert "train images of m-eurosat have the same label" in message
    code, compared = fails(monkeypatch, capsys, "compare", small_store, *given)
    assert (code, compared) == (2, message)
    assert not (tmp_path / "r").exists()
