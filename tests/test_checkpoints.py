"""What a run leaves on disk, and what happens when it is damaged."""

from __future__ import annotations

import json
import pickle
import shutil

import pytest
import torch
from nano import SIZE, nano_images
from safetensors.torch import load_file

import salibi_model
from salibi_model import config as model_config
from salibi_model.checkpoints import RunFolder, describe
from salibi_model.errors import CheckpointError
from salibi_model.settings import TrainingConfig, resumed_config
from salibi_model.trainer import train


@pytest.fixture(scope="module")
def finished(small_store, tmp_path_factory):
    """A run of three steps."""
    out = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(model_config.SIZES, "tiny", SIZE)
        config = TrainingConfig(
            stores=(str(small_store),), steps=3, batch_size=4, checkpoint_every=1
        )
        train(config, out=out)
    return out


@pytest.fixture
def run(finished, tmp_path):
    """A copy of it, to be damaged."""
    return shutil.copytree(finished, tmp_path / "run")


def test_a_run_has_the_files_of_the_contract(finished):
    names = {path.name for path in finished.iterdir()}
    assert names == {"config.toml", "metrics.csv", "events", "checkpoints", "last", "model"}
    assert {path.name for path in (finished / "model").iterdir()} == {
        "config.json",
        "model.safetensors",
    }
    kept = sorted(path.name for path in (finished / "checkpoints").iterdir())
    assert kept == ["step-00000002.pt", "step-00000003.pt"]
    assert (finished / "last").read_text() == "step-00000003.pt\n"


def test_the_model_says_what_it_was_trained_on(finished, small_store):
    config = describe(finished)
    assert [modality["name"] for modality in config["modalities"]] == ["sar", "lores", "hires_4x"]
    sar = config["modalities"][0]
    assert (sar["bands"], sar["units"], sar["gsd_ratio"]) == (["vv", "vh"], "dB", 1.0)
    assert len(sar["mean"]) == len(sar["std"]) == 2
    assert config["training"]["store_digests"] == ["0" * 64]
    assert config["training"]["step"] == 3


def test_loaded_weights_are_those_of_the_last_step(finished):
    state = torch.load(finished / "checkpoints/step-00000003.pt", weights_only=True)
    saved = load_file(finished / "model/model.safetensors")
    for path in (finished, finished / "model", str(finished)):
        model = salibi_model.load(path)
        assert not model.training
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, state["model"][name])
            assert torch.equal(tensor, saved[name])


def test_a_loaded_model_encodes(finished):
    tokens, embedding = salibi_model.load(finished).encode(nano_images()["hires_4x"], "hires_4x")
    assert tokens.shape == (3, 64, 32)
    assert embedding.shape == (3, 32)


def test_all_state_is_kept(finished):
    state = RunFolder(finished).load_last(torch.device("cpu"))
    assert {"model", "optimizer", "schedule", "rng", "data", "step"} <= set(state)
    assert state["data"] == {"epoch": 1, "batch": 1}  # two batches per epoch, three taken


def test_the_resolved_configuration_is_read_back(finished):
    config = resumed_config(finished)
    assert (config.steps, config.batch_size, config.modalities) == (
        3,
        4,
        ("sar", "lores", "hires_4x"),
    )


def test_objects_are_never_unpickled(run):
    class Payload:
        def __reduce__(self):
            return (print, ("executed",))

    with (run / "checkpoints/step-00000003.pt").open("wb") as file:
        pickle.dump(Payload(), file)
    with pytest.raises(CheckpointError, match="cannot be read"):
        RunFolder(run).load_last(torch.device("cpu"))


def test_a_cut_checkpoint_is_explained(run):
    path = run / "checkpoints/step-00000003.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="older checkpoint"):
        RunFolder(run).load_last(torch.device("cpu"))


def test_a_failed_write_leaves_what_was_there(run, monkeypatch):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    folder = RunFolder(run)
    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space"):
        folder.save(4, {})
    assert (run / "last").read_text() == "step-00000003.pt\n"
    assert not [path for path in (run / "checkpoints").iterdir() if "partial" in path.name]


def test_damage_to_the_model_is_explained(run):
    weights = run / "model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="is damaged"):
        salibi_model.load(run)


def test_a_newer_format_is_refused(run):
    file = run / "model/config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format_version": 99}))
    with pytest.raises(CheckpointError, match=r"format version 99.*Upgrade"):
        salibi_model.load(run)


def test_no_model_is_explained(tmp_path):
    with pytest.raises(CheckpointError, match="holds no model"):
        salibi_model.load(tmp_path)
    RunFolder(tmp_path).write_config({"steps": 3})
    with pytest.raises(CheckpointError, match="no finished checkpoint yet"):
        salibi_model.load(tmp_path)
