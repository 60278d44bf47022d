"""What a run leaves on disk, and what happens when it is damaged."""

from __future__ import annotations

import json
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file

import salibi_model
from salibi_data.store.errors import UsageError
from salibi_model.checkpoints.files import RunFolder, describe
from salibi_model.errors import CheckpointError
from salibi_model.models import config as model_config
from salibi_model.training.resume import resumed_config
from salibi_model.training.trainer import train
from tests.support.model.nano import SIZE, nano_images
from tests.support.model.weights.damaged import one_line


def test_a_run_has_the_files_of_the_contract(finished):
    names = {path.name for path in finished.iterdir()}
    files = {"config.toml", "metrics.csv", "last"}
    assert names == files | {"events", "checkpoints", "model", "samples"}
    assert {path.name for path in (finished / "model").iterdir()} == {
        "config.json",
        "model.safetensors",
    }
    kept = sorted(path.name for path in (finished / "checkpoints").iterdir())
    assert kept == ["step-00000001.pt", "step-00000002.pt", "step-00000003.pt"]
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
    position = {name: state["data"][name] for name in ("epoch", "batch")}
    assert position == {"epoch": 1, "batch": 1}  # two batches per epoch, three taken


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


def test_a_device_is_a_name_or_a_device(finished):
    for device in ("cpu", torch.device("cpu"), "auto"):
        assert salibi_model.load(finished, device=device).config.names[0] == "sar"


@pytest.mark.parametrize("device", ["banana", "cuda:99", torch.device("cuda:99"), ""])
def test_a_device_that_is_not_there_is_no_damage(finished, device):
    with pytest.raises(UsageError, match=r"^device .* cannot be used"):
        salibi_model.load(finished, device=device)


def changed_state(run, change):
    path = run / "checkpoints/step-00000003.pt"
    state = torch.load(path, weights_only=True)
    torch.save(change(state), path)


def without(*names):
    return lambda state: {name: value for name, value in state.items() if name not in names}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *[(without(n), f"lacks '{n}'") for n in ("model", "optimizer", "data", "rng", "step")],
        (lambda state: {**state, "model": [1]}, "'model' is a list"),
        (lambda state: {**state, "model": {"a": 1}}, "'model' holds other than tensors"),
        (lambda state: {**state, "optimizer": {}}, "'optimizer' is not the state of one"),
        (lambda state: {**state, "data": {"epoch": 1}}, "'data' is no position"),
        (lambda state: {**state, "rng": torch.ones(3)}, "'rng' is not the state"),
        (lambda state: {**state, "rng": state["rng"][:-8]}, "'rng' is not the state"),
        (lambda state: {**state, "step": "3"}, "'step' is a str"),
        (lambda state: {**state, "step": -3}, "'step' is -3"),
    ],
)
def test_an_incomplete_state_is_explained(run, small_store, change, message):
    changed_state(run, change)
    with pytest.raises(CheckpointError, match=rf"step-00000003\.pt .*{message}") as caught:
        train(resumed_config(run, steps=4), out=run, resume=True)
    error_line = one_line(caught, run / "last")
    assert "an older checkpoint" in error_line
    assert "start again" in error_line


@pytest.mark.parametrize("state", [[1, 2], torch.ones(2), 7, {}])
def test_a_state_of_something_else_is_explained(run, state):
    changed_state(run, lambda _: state)
    with pytest.raises(CheckpointError, match="format version null"):
        RunFolder(run).load_last(torch.device("cpu"))


@pytest.mark.parametrize("content", [b"", b"\n", bytes(range(256)), b"../../x.pt\n", b"x\ny.pt"])
def test_a_damaged_pointer_is_explained(run, content):
    (run / "last").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"last .*start again with another --out") as caught:
        train(resumed_config(run, steps=4), out=run, resume=True)
    one_line(caught, run / "last")


def test_a_pointer_to_nothing_is_explained(run):
    (run / "last").write_text("step-00000009.pt\n")
    (run / "checkpoints/step-00000003.pt").unlink()
    with pytest.raises(CheckpointError, match=r"step-00000009\.pt cannot be read .*older check"):
        RunFolder(run).load_last(torch.device("cpu"))


def test_pointing_to_an_older_checkpoint_goes_on_from_there(finished, tmp_path, monkeypatch):
    """What the errors advise."""
    monkeypatch.setitem(model_config.SIZES, "tiny", SIZE)
    run = shutil.copytree(finished, tmp_path / "run")
    (run / "checkpoints/step-00000003.pt").write_bytes(b"")
    (run / "last").write_text("step-00000002.pt\n")
    assert train(resumed_config(run), out=run, resume=True).first_step == 2


@pytest.mark.parametrize("content", [bytes(range(256)), b"steps = ", b"x = " + b"[" * 5000])
def test_a_damaged_configuration_is_explained(run, content):
    (run / "config.toml").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config\.toml is damaged.*start again") as caught:
        resumed_config(run)
    one_line(caught, run / "config.toml")
