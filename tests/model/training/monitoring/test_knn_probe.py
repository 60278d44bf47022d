"""The probe while training: the accuracy that evaluation finds, on the validation images."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier

from salibi_data.store.errors import StoreError, UsageError
from salibi_model import load
from salibi_model.evals.datasets.open import open_labelled
from salibi_model.evals.features import FrozenModel, extract_features
from salibi_model.training.config import TrainingConfig
from salibi_model.training.tracking.metrics_log import read_metrics
from salibi_model.training.trainer import train
from tests.support.model.labelled.geobench_files import write_task
from tests.support.model.stores import write_store

pytestmark = pytest.mark.usefixtures("nano_size")


def write_images(root, *, mode="RGB", per_class=30):
    """Noisy images of three colours that overlap."""
    rng = np.random.default_rng(0)
    for split in ("train", "validation", "test"):
        for number, name in enumerate("abc"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(per_class if split == "train" else 6):
                noise = rng.normal(100 + 12 * number, 40, 3) + rng.normal(0, 20, (32, 32, 3))
                image = Image.fromarray(noise.clip(0, 255).astype(np.uint8)).convert(mode)
                image.save(folder / f"{i}.png")
    return str(root)


def config(store, **changes):
    settings = {"stores": (str(store),), "steps": 4, "batch_size": 4, "validation_samples": 0}
    if "probe" in changes:
        settings |= {"probe_gsd_m": 3.7, "probe_every": 2}
    return TrainingConfig(**settings | changes)


def test_it_is_the_accuracy_of_the_features(small_store, tmp_path):
    probe = write_images(tmp_path / "images")
    train(config(small_store, probe=probe), out=tmp_path / "run")
    rows = read_metrics(tmp_path / "run/metrics.csv")
    assert [row["step"] for row in rows if "probe_lores" in row] == [2, 4]
    data = open_labelled(probe, gsd_m=3.7)
    for name in ("lores", "hires_4x"):
        frozen = FrozenModel(load(tmp_path / "run"), data, name)
        known, asked = extract_features(frozen, "train"), extract_features(frozen, "validation")
        neighbours = KNeighborsClassifier(20, metric="cosine").fit(known.vectors, known.labels)
        assert rows[-1][f"probe_{name}"] == pytest.approx(
            neighbours.score(asked.vectors, asked.labels), abs=1.01 / 18
        )


def test_probing_changes_nothing_that_is_learned(small_store, tmp_path):
    probe = write_images(tmp_path / "images", per_class=4)
    train(config(small_store, probe=probe), out=tmp_path / "with")
    train(config(small_store), out=tmp_path / "without")
    without = load(tmp_path / "without").state_dict()
    for name, value in load(tmp_path / "with").state_dict().items():
        assert bool((value == without[name]).all())


def test_images_that_do_not_fit_are_found_before_training(tmp_path, small_store):
    sar_alone = write_store(
        tmp_path / "s.zarr", num_samples=8, validation=2, modalities=["sar", "lores"]
    )
    grey = write_images(tmp_path / "grey", mode="L", per_class=2)
    with pytest.raises(UsageError, match="bands"):
        train(config(sar_alone, probe=grey), out=tmp_path / "run")
    task = write_task(tmp_path / "t", "m-eurosat", num_train=4, num_valid=0, num_test=2)
    with pytest.raises(StoreError, match="no images in the split 'validation'"):
        train(config(small_store, probe=str(task), probe_gsd_m=0.0), out=tmp_path / "run")
    task = write_task(tmp_path / "one", "m-eurosat", num_train=1, num_valid=3, num_test=2)
    with pytest.raises(UsageError, match="all 1 train images of m-eurosat have the same label"):
        train(config(small_store, probe=str(task), probe_gsd_m=0.0), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
