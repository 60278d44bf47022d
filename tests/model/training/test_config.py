"""Training options: types and ranges, TOML files, defaults resolved from a store."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from salibi_data.store.errors import StoreError, UsageError
from salibi_model.data.store import SampleStore
from salibi_model.training.config import TrainingConfig
from salibi_model.training.resolution import DEFAULTS, resolve
from salibi_model.training.trainer import train
from tests.support.model.nano_runs import config
from tests.support.paths import ROOT


def test_no_store_is_refused(tmp_path):
    with pytest.raises(StoreError, match="no Zarr group is there"):
        train(config(tmp_path), out=tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": "huge"}, "size is 'huge'; expected one of tiny, small, base, large"),
        ({"epochs": 3}, "not both"),
        ({"precision": "fp8"}, "precision is 'fp8'; expected one of float32, bf16"),
        ({"lr": -1.0}, "lr is -1.0; expected a finite number above 0"),
        ({"lr": float("inf")}, "a finite number"),
        ({"weight_decay": float("nan")}, "a finite number"),
        ({"weight_decay": -1.0}, "expected a finite number of 0 or more"),
        ({"clip_norm": 0.0}, "clip_norm is 0.0"),
        ({"warmup_share": 5.0}, "from 0 to 1"),
        ({"seed": -1}, "seed is -1"),
        ({"steps": True}, "steps is True; expected a whole number"),
        ({"patch_px": 1}, "expected a whole number of 2 or more"),
        ({"hide_share": 1.0}, "from 0 to 0.9"),
        ({"hide_share": 0.3, "model": "scale-mae"}, "predict one modality from the others"),
        ({"hide_share": 0.3, "objectives": ("contrastive",)}, "predict one modality"),
        ({"hide_share": 0.3, "compat": "original"}, "not with compat"),
        ({"stores": ()}, "at least one store"),
        ({"stores": ("a.zarr", "a.zarr")}, "named twice"),
        ({"weights": (1.0, 2.0)}, "2 weights for 1 stores"),
        ({"weights": (0.0,)}, r"weights\[0\] is 0.0; expected a finite number above 0"),
        ({"crop_share": (0.5,)}, "smallest and the largest"),
        ({"crop_share": (0.0, 1.0), "crop_px": 128}, "shares above 0"),
        ({"lr_scales": ("decoder",)}, "write one as decoder:2"),
        ({"ema": 1.0}, "ema is 1.0; expected a finite number of 0 or more, below 1"),
        ({"trackers": ("csv",)}, r"trackers\[0\] is 'csv'; expected one of wandb, mlflow"),
        ({"compat": "original", "accumulate": 2}, "undivided batches"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        config("store", **changes)


def test_values_of_other_types_are_one_clear_line(tmp_path):
    """In a process of its own: here, the shape checks of the tests would come first."""
    path = tmp_path / "f.toml"
    cases = {
        "steps = 2.5": "steps is 2.5; expected a whole number",
        'gsd_scaling = "no"': "gsd_scaling is 'no'; expected true or false",
        'modalities = "sar,lores"': "modalities is 'sar,lores'; expected a list of texts",
        'pairs = [["sar", "lores"]]': "pairs[0] is ['sar', 'lores']; expected text",
        "objectives = 1": "objectives is 1; expected a list of texts",
        "depths = [6]": "depths[0] is 6; expected text",
        'patch_px = "16"': "patch_px is '16'; expected a whole number",
        'mask_ratio = "0.5"': "mask_ratio is '0.5'; expected a finite number",
        "size = 1": "size is 1; expected text",
    }
    script = (
        "import json, sys\n"
        "from salibi_data.store.errors import UsageError\n"
        "from salibi_model.training.config import TrainingConfig\n"
        "for text in json.load(sys.stdin):\n"
        f"    open({str(path)!r}, 'w').write(text)\n"
        "    try:\n"
        f"        TrainingConfig.from_toml({str(path)!r})\n"
        "    except UsageError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(list(cases)),
        text=True,
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    output = done.stdout.splitlines()
    for line, expected in zip(output, cases.values(), strict=True):
        assert line.startswith(f"{path}: ")
        assert expected in line


def test_settings_come_from_toml(tmp_path):
    path = tmp_path / "f.toml"
    path.write_text('stores = ["a.zarr"]\nsize = "base"\nlr = 0.5\n')
    assert TrainingConfig.from_toml(path) == TrainingConfig(stores=("a.zarr",), size="base", lr=0.5)
    path.write_text("learning_rate = 1\n")
    with pytest.raises(UsageError, match="learning_rate is unknown; expected one of stores, model"):
        TrainingConfig.from_toml(path)
    with pytest.raises(UsageError, match="cannot be read"):
        TrainingConfig.from_toml(tmp_path / "absent.toml")


def test_defaults_are_resolved_from_the_store(small_store):
    stores = [SampleStore(small_store)]
    resolved = resolve(TrainingConfig(stores=(str(small_store),)), stores)
    assert resolved.batch_size == 10  # all there is
    assert resolved.modalities == ("sar", "lores", "hires_4x")
    assert resolved.steps >= 40
    assert resolve(TrainingConfig(epochs=3, batch_size=4), stores).steps == 6


def test_default_rates_are_those_of_a_transformer():
    for defaults in DEFAULTS.values():
        assert 1e-5 < defaults.lr <= 1e-3


def test_only_what_differs_from_the_defaults_is_shown():
    assert repr(TrainingConfig()) == "TrainingConfig()"
    assert repr(TrainingConfig(size="base", lr=0.5)) == "TrainingConfig(size='base', lr=0.5)"
