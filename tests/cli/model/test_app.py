"""The command ``salibi-model`` from end to end, as a user runs it."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from salibi_cli.common import run
from salibi_cli.model import app as model
from salibi_cli.model import train as training
from salibi_model.models import config as model_config
from tests.support.model.nano import SIZE
from tests.support.model.weights.reference_weights import croma_weights


@pytest.fixture
def nano_size(monkeypatch):
    """The smallest model; no pictures, which take longer than its steps."""
    monkeypatch.setitem(model_config.SIZES, "tiny", SIZE)
    monkeypatch.setattr(
        "salibi_model.training.monitoring.schedule.draw_samples", lambda *_, **__: None
    )


def call(*arguments):
    result = CliRunner().invoke(model.application, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.output


def fails(monkeypatch, capsys, *arguments):
    """Run as from a shell; give the exit code and the one line on stderr."""
    monkeypatch.setattr("sys.argv", ["salibi-model", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        run(model.application)
    return stopped.value.code, capsys.readouterr().err


@pytest.mark.usefixtures("nano_size")
def test_train_then_look_at_it(small_store, tmp_path):
    out = tmp_path / "run"
    output = call("train", small_store, "--steps", 2, "--batch-size", 4, "--out", out)
    assert "trained for 2 steps" in output
    assert "is complete" in call("train", "--resume", "--out", out)
    assert "went on from step 2" in call("train", "--resume", "--steps", 3, "--out", out)
    report = json.loads(call("eval", "retrieval", out, "--data", small_store, "--json"))
    assert len(report["directions"]) == 6
    table = call("eval", "retrieval", out, "--data", small_store)
    assert "sar > lores" in table
    assert "6 validation samples" in table
    assert "hires_4x" in call("info", out)
    assert json.loads(call("info", out, "--json"))["training"]["step"] == 3
    call("reconstruct", out, small_store, "-o", tmp_path / "grid.png", "-n", 1)
    with Image.open(tmp_path / "grid.png") as figure:
        assert figure.size[0] > 4 * 512


@pytest.mark.usefixtures("nano_size")
def test_options_win_over_the_file(small_store, tmp_path):
    settings = tmp_path / "f.toml"
    settings.write_text(f'stores = ["{small_store}"]\nbatch_size = 4\nsteps = 9\n')
    out = tmp_path / "run"
    assert "1 steps" in call("train", "--config", settings, "--steps", 1, "--out", out)


@pytest.mark.parametrize(
    "command",
    [["train"], ["reconstruct"], ["attention"], ["convert"], ["eval", "retrieval"], ["info"], []],
)
def test_help_has_an_example(command):
    output = call(*command, "--help")
    assert "Example" in output or not command


def test_mistakes_are_one_line(monkeypatch, capsys, tmp_path):
    code, message = fails(monkeypatch, capsys, "info", tmp_path)
    assert (code, message.count("\n")) == (1, 1)
    assert "holds no model" in message
    code, message = fails(monkeypatch, capsys, "train", tmp_path, "--size", "huge")
    assert code == 2
    assert "tiny, small, base, large" in message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--steps", "0"], "'--steps'"),
        (["eval", "bogus"], "'bogus'"),
        (["info"], "info --help"),
        (["train", "--nonsense"], "--nonsense"),
    ],
)
def test_mistakes_in_the_options_are_one_line(monkeypatch, capsys, arguments, words):
    code, message = fails(monkeypatch, capsys, *arguments)
    assert (code, message.count("\n")) == (2, 1)
    assert message.startswith("error: ")
    assert words in message


def test_an_interrupt_says_how_to_go_on(monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "_settings", interrupted)
    code, message = fails(monkeypatch, capsys, "train")
    assert (code, message) == (130, "error: interrupted; run the same command again to go on\n")


def test_a_published_checkpoint_is_converted_and_described(tmp_path, monkeypatch, capsys):
    file = tmp_path / "CROMA_base.pt"
    torch.save(croma_weights(), file)
    output = call("convert", file, "-o", tmp_path / "croma", "--num-heads", 4)
    assert f"wrote {tmp_path / 'croma' / 'model'}" in output
    described = call("info", tmp_path / "croma")
    assert "croma" in described
    assert "converted from CROMA_base.pt" in described
    code, output = fails(
        monkeypatch, capsys, "convert", tmp_path / "absent.pt", "-o", tmp_path / "x"
    )
    assert (code, len(output.splitlines())) == (1, 1)


@pytest.mark.usefixtures("nano_size")
def test_ablations_and_inpainting_from_the_command_line(small_store, tmp_path):
    out = tmp_path / "run"
    call(
        *("train", small_store, "--steps", 1, "--batch-size", 4, "--out", out),
        *("--absolute-targets", "--hide-share", 0.3, "--no-gsd-scaling", "--fusion", "separate"),
        *("--pairs", "sar:lores,sar:hires_4x", "--depths", "sar:2", "--patch-px", 32),
        *("--fine-target", "base", "--attention", "dense"),
    )
    described = json.loads(call("info", out, "--json"))
    assert described["pairs"] == [["sar", "lores"], ["sar", "hires_4x"]]
    assert described["depths"] == [["sar", 2]]
    assert (described["gsd_scaling"], described["fusion"]) == (False, "separate")
    assert (described["fine_target"], described["normalise_patches"]) == ("base", False)
    figure = tmp_path / "hidden.png"
    hide = ("--hide", "lores,hires_4x", "-n", 1)
    report = json.loads(call("reconstruct", out, small_store, "-o", figure, *hide, "--json"))
    assert {error["modality"]: error["units"] for error in report["errors"]} == {
        "sar": "dB",
        "lores": "display",
        "hires_4x": "display",
    }
    assert figure.is_file()
    table = call("reconstruct", out, small_store, "-o", figure, "-n", 1)
    assert "without content: predicting the modality's mean" in table
    assert "6 samples" in table


@pytest.mark.usefixtures("nano_size")
def test_scales_are_looked_up_among_each_other(small_store, tmp_path):
    out = tmp_path / "run"
    call("train", small_store, "--steps", 1, "--batch-size", 4, "--out", out)
    report = json.loads(call("eval", "retrieval", out, "--data", small_store, "--scales", "--json"))
    assert ("hires", "hires_4x") in {(d["query"], d["gallery"]) for d in report["directions"]}
    assert len(report["directions"]) == 12


@pytest.mark.usefixtures("nano_size")
def test_what_does_not_work_is_one_line_before_the_work(small_store, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    optical = ("--model", "scale-mae", "--modalities", "lores")
    call("train", small_store, "--steps", 1, "--batch-size", 4, "--out", out, *optical)
    capsys.readouterr()
    for arguments, code, words in (
        (("eval", "retrieval", out, "--data", small_store), 2, "nothing to look it up in"),
        (("reconstruct", out, small_store, "-o", tmp_path / "g.psd"), 2, "names no picture"),
        (("info", out, "--json"), 1, "size.dim is 0"),
        (("info", out), 1, "size.dim is 0"),
    ):
        if arguments[0] == "info":
            file = out / "model/config.json"
            content = json.loads(file.read_text())
            content["size"]["dim"] = 0
            file.write_text(json.dumps(content))
        exit_code, message = fails(monkeypatch, capsys, *arguments)
        assert (exit_code, message.count("\n")) == (code, 1)
        assert words in message


@pytest.mark.parametrize(
    "training",
    [{}, {"step": None, "stores": 3}, {"stores": ["a", 1], "store_digests": [None]}, {"size": [1]}],
)
def test_info_prints_what_is_there(tmp_path, training):
    file = tmp_path / "CROMA_base.pt"
    torch.save(croma_weights(), file)
    call("convert", file, "-o", tmp_path / "croma", "--num-heads", 4)
    described = tmp_path / "croma/model/config.json"
    content = {**json.loads(described.read_text()), "training": training}
    for name in ("mistakes", "pairs", "base_gsd_m"):
        del content[name]
    described.write_text(json.dumps(content))
    assert "trained for" in call("info", tmp_path / "croma")
    assert json.loads(call("info", tmp_path / "croma", "--json"))["mistakes"] == []
