"""Published files that are refused: objects, damage, other layouts, absurd sizes."""

from __future__ import annotations

import os
import pickle
import time
import warnings

import pytest
import torch

from salibi_data.store.errors import UsageError
from salibi_model.checkpoints.convert import convert
from salibi_model.checkpoints.files import RunFolder
from salibi_model.errors import CheckpointError
from tests.support.model.weights.converted import HEADS, converted, written
from tests.support.model.weights.reference_weights import authors_weights, croma_weights


@pytest.fixture
def authors():
    return authors_weights()


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.system, (f"touch {self.path}",))


@pytest.mark.parametrize("save", [torch.save, "pickle"])
def test_objects_are_refused_and_not_executed(authors, tmp_path, save):
    witness, file = tmp_path / "executed", tmp_path / "file.pth"
    content = {**authors, "optimizer": Payload(witness)}
    if save == "pickle":
        file.write_bytes(pickle.dumps(content))
    else:
        save(content, file)
    with pytest.raises(CheckpointError, match="objects are never loaded"):
        convert(file, tmp_path / "out")
    assert not witness.exists()
    assert not (tmp_path / "out").exists()
    if save is torch.save:
        torch.load(file, weights_only=False)
        assert witness.exists()  # the payload does work where objects are loaded


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_truncated_file_is_explained(authors, tmp_path, share):
    file = written(authors, tmp_path / "file.pth")
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(CheckpointError, match=r"file\.pth is damaged"):
        convert(file, tmp_path / "out")


def test_a_missing_file_is_explained(tmp_path):
    with pytest.raises(CheckpointError, match="there is no file"):
        convert(tmp_path / "none.pth", tmp_path / "out")


def without(weights, *fragments):
    return {name: v for name, v in weights.items() if not any(f in name for f in fragments)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: without(w, "radar_proj.bias"), r"lacks global_contrast_loss\.radar_proj\.bias"),
        (lambda w: without(w, "GAP_FFN"), r"lacks GAP_FFN_hires\.0\.bias, .*\(18 in all\)"),
        (lambda w: without(w, "hires_encoder"), r"has no layers under hires_encoder"),
        (lambda w: without(w, "optical_encoder.linear_input"), r"as optical_encoder\.linear_input"),
        (lambda w: {**w, "extra.weight": torch.ones(2)}, r"holds, besides, extra\.weight"),
        (
            lambda w: {**w, "decoder.mask_token": torch.ones(1, 1, 15)},
            r"do not fit.*decoder\.mask_token is \(1, 1, 15\)",
        ),
        (
            lambda w: {**w, "cross_encoder.layers.0.1.create_k.weight": torch.ones(16, 32)},
            r"create_v\.weight is \(16, 32\) \+ \(32, 32\)",
        ),
        (
            lambda w: {
                **w,
                "radar_encoder.transformer.layers.0.0.create_qkv.weight": torch.ones(9),
            },
            r"create_qkv\.weight is \(9,\)",
        ),
        (
            lambda w: {**w, "optical_encoder.linear_input.weight": torch.ones(32, 50)},
            r"50 columns; expected square patches of 3 bands",
        ),
        (
            lambda w: {**w, "decoder.decoder_pos_embed": torch.zeros(1, 16, 16)},
            r"not the sine-cosine table",
        ),
        (
            lambda w: {**w, "GAP_FFN_radar.1.bias": torch.full((128,), torch.nan)},
            r"GAP_FFN_radar\.1\.bias .* not finite",
        ),
        (lambda w: {**w, "epoch": 3}, r"holds a int as epoch; expected a tensor"),
        (lambda _: {"weight": torch.ones(2)}, r"neither layout.*found weight"),
        (lambda _: [torch.ones(2)], r"holds a list, not named tensors"),
    ],
)
def test_what_does_not_fit_is_named(authors, tmp_path, change, message):
    file = written(change(authors), tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match=message) as caught:
        convert(file, tmp_path / "out", num_heads=HEADS)
    assert "file.pth" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_part_that_croma_lacks_is_named(tmp_path):
    weights = croma_weights()
    del weights["joint_encoder"]
    with pytest.raises(CheckpointError, match=r"not the published croma.*joint_encoder\.layers"):
        converted(weights, tmp_path)


def test_heads_that_do_not_divide_the_width_are_refused(authors, tmp_path):
    file = written(authors, tmp_path / "file.pth")
    with pytest.raises(UsageError, match="does not divide into 5"):
        convert(file, tmp_path / "out", num_heads=5)


def test_a_training_run_is_not_overwritten(authors, tmp_path):
    RunFolder(tmp_path / "run").write_config({"steps": 3})
    file = written(authors, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match="holds a training run"):
        convert(file, tmp_path / "run", num_heads=HEADS)


def of_itself(key):
    content = {"weight": torch.ones(2)}
    content[key] = content
    return content


def many_of_one(levels=6, width=40):
    content = {"weight": torch.ones(2)}
    for _ in range(levels):
        content = {str(number): content for number in range(width)}
    return content


def nested(levels):
    content = {"weight": torch.ones(2)}
    for _ in range(levels):
        content = {"part": content}
    return content


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: of_itself("state_dict"), "within itself"),
        (lambda: of_itself("model"), "within itself"),
        (lambda: of_itself("part"), "within itself"),
        (many_of_one, "within itself, or twice"),
        (lambda: nested(400), "nested more than 8 levels"),
    ],
    ids=["state_dict", "model", "part", "many", "deep"],
)
def test_dictionaries_without_end_are_refused(tmp_path, make, message):
    file = written(make(), tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match=message):
        convert(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("encoder", ["optical", "radar", "hires"])
@pytest.mark.parametrize("number", ["99999999", "9" * 5000])
def test_a_layer_of_an_absurd_number_is_refused_at_once(authors, tmp_path, encoder, number):
    name = f"{encoder}_encoder.transformer.layers.{number}.0.input_norm.weight"
    file = written({**authors, name: torch.ones(32)}, tmp_path / "file.pth")
    started = time.process_time()
    with pytest.raises(CheckpointError, match=r"100000000 layers under|holds, besides"):
        convert(file, tmp_path / "out", num_heads=HEADS)
    assert time.process_time() - started < 5


@pytest.mark.parametrize("shape", [(0, 48), (32, 0)])
def test_no_width_is_refused(authors, tmp_path, shape):
    authors["optical_encoder.linear_input.weight"] = torch.ones(shape)
    file = written(authors, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match=f"is {shape[0]}x{shape[1]}; expected a width"):
        convert(file, tmp_path / "out", num_heads=HEADS)


@pytest.mark.parametrize("num_heads", [0, -4])
def test_no_heads_are_refused(authors, tmp_path, num_heads):
    file = written(authors, tmp_path / "file.pth")
    with pytest.raises(UsageError, match="one attention head or more"):
        convert(file, tmp_path / "out", num_heads=num_heads)


def test_torch_does_not_speak_before_the_error(tmp_path):
    file = tmp_path / "file.pth"
    file.write_bytes(pickle.dumps(Payload(tmp_path / "executed"), protocol=4))
    with warnings.catch_warnings(record=True) as shown_warnings:
        warnings.simplefilter("always")
        with pytest.raises(CheckpointError, match="objects are never loaded"):
            convert(file, tmp_path / "out")
    assert not shown_warnings


def test_a_model_of_another_file_is_not_overwritten(authors, tmp_path):
    first = convert(written(authors, tmp_path / "first.pth"), tmp_path / "out", num_heads=HEADS)
    before = {path.name: path.read_bytes() for path in first.iterdir()}
    other = written(authors_weights(seed=5), tmp_path / "other.pth")
    for out in (tmp_path / "out", first):
        with pytest.raises(CheckpointError, match=r"holds a model already, of first\.pth"):
            convert(other, out, num_heads=HEADS)
    assert {path.name: path.read_bytes() for path in first.iterdir()} == before
    assert convert(tmp_path / "first.pth", tmp_path / "out", num_heads=HEADS) == first
