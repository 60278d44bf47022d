"""Descriptions of models that are damaged, from other versions, or of other weights."""

from __future__ import annotations

import json
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

import salibi_model
from salibi_model.checkpoints.files import describe
from salibi_model.errors import CheckpointError
from tests.support.model.weights.damaged import one_line


def edited(run, change):
    """Change the content of ``config.json``; a text replaces it."""
    file = run / "model/config.json"
    content = json.loads(file.read_text())
    changed = change(content)
    file.write_text(changed if isinstance(changed, str) else json.dumps(content))
    return run


def both_refuse(run, message):
    messages = []
    for read in (salibi_model.load, describe):
        with pytest.raises(CheckpointError, match=message) as caught:
            read(run)
        messages.append(one_line(caught, run))
    assert messages[0] == messages[1]


def put(*path, value):
    def change(content):
        for part in path[:-1]:
            content = content[part]
        content[path[-1]] = value

    return change


def drop(*path):
    def change(content):
        for part in path[:-1]:
            content = content[part]
        del content[path[-1]]

    return change


GARBAGE = [None, "", "x" * 5000, [], {}, -1, [[[]]], {"a": {"b": [None]}}, float("nan"), True]
"""What may stand in a field by mistake; each field takes few of them."""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("size", "dim", value=0), r"size\.dim is 0; expected a whole number above 0"),
        (put("size", "num_heads", value=0), r"size\.num_heads is 0; expected"),
        (put("size", "depth", value="2"), r"size\.depth is '2'; expected a whole number"),
        (put("size", "depth", value=2.0), r"size\.depth is 2\.0; expected a whole number"),
        (put("size", "colour", value=2), r"size\.colour is unknown; expected one of dim"),
        (put("size", value=None), r"size is null; expected a table"),
        (put("patch_px", value=-16), r"patch_px is -16; expected a whole number above 0"),
        (put("base_gsd_m", value=0), r"base_gsd_m is 0\.0; expected a finite number above 0"),
        (put("modalities", value={}), r"modalities is \{\}; expected a list"),
        (put("modalities", value=[]), r"two modalities or more"),
        (put("modalities", 1, value=3), r"modalities\[1\] is 3; expected a table"),
        (put("modalities", 1, "gsd_ratio", value=0), r"modalities\[1\]\.gsd_ratio is 0\.0"),
        (put("modalities", 1, "gsd_ratio", value=5e-324), "is damaged"),
        (put("modalities", 0, "std", 1, value=0), r"modalities\[0\]\.std\[1\] is 0\.0; expected"),
        (put("modalities", 0, "std", 1, value=float("nan")), r"std\[1\] is nan; expected a finite"),
        (put("modalities", 0, "std", 1, value=10**400), r"std\[1\] is 1000.*; expected a finite"),
        (put("modalities", 0, "mean", value=[]), "no statistics"),
        (put("modalities", 0, "bands", value="vv"), r"bands is 'vv'; expected a list"),
        (put("modalities", 0, "bands", value=["vv", 1]), r"bands\[1\] is 1; expected text"),
        (put("modalities", 0, "bands", value=["vv"]), "1 bands but 2 values of 'scale'"),
        (put("modalities", 0, "nodata", value=None), r"nodata is null; expected a whole number"),
        (put("modalities", 0, "name", value="\ud800"), "is no text"),
        (put("pairs", value=[["sar"]]), r"pairs\[0\] is \['sar'\]; expected \[text, text\]"),
        (put("architecture", value="gpt"), "no architecture 'gpt'"),
        (put("gsd_scaling", value=1), "gsd_scaling is 1; expected true or false"),
        (put("training", value=None), "training is null; expected a table"),
        (drop("training"), "training is missing"),
        (drop("size"), "size is missing"),
        (drop("modalities"), "modalities is missing"),
        (drop("size", "decoder_dim"), r"size\.decoder_dim is missing"),
        (drop("modalities", 2, "scale"), r"modalities\[2\]\.scale is missing"),
        (put("more", value=[[[[[[[[[[1]]]]]]]]]]), "nested more than 8 levels"),
        (lambda _: "[" * 100_000, "cannot be read"),
        (lambda _: '{"format_version": 2, "size": ' + "9" * 5000 + "}", "cannot be read"),
        (lambda _: "{", "cannot be read"),
        (lambda _: "", "cannot be read"),
        (lambda _: "null", "format version null"),
        (lambda _: '{"format_version": 2}', "size is missing"),
    ],
)
def test_a_damaged_description_is_explained(run, change, message):
    both_refuse(edited(run, change), message)


def test_no_garbage_in_any_field_is_a_traceback(run):
    """Both say the same of it: an error in one line, or nothing where it happens to fit."""
    file = run / "model/config.json"
    whole = json.loads(file.read_text())
    places = [(name,) for name in whole]
    places += [("size", name) for name in whole["size"]]
    places += [("modalities", 0, name) for name in whole["modalities"][0]]
    weights = run / "model/model.safetensors"
    weights.unlink()  # whatever gets past the description fails there, fast
    for place in places:
        for value in GARBAGE:
            edited(run, lambda _: json.dumps(whole))
            edited(run, put(*place, value=value))
            with pytest.raises(CheckpointError) as caught:
                salibi_model.load(run)
            message = one_line(caught, run / "model")
            try:
                describe(run)
            except CheckpointError as error:
                assert str(error) == message  # noqa: PT017
            else:
                assert "model.safetensors" in message


def test_binary_garbage_is_explained(run):
    (run / "model/config.json").write_bytes(bytes(range(256)))
    both_refuse(run, "cannot be read")


def test_fields_that_were_added_later_may_be_absent(run, finished):
    added = ("mistakes", "base_gsd_m", "absent", "depths", "pairs", "software_version")
    for name in added:
        edited(run, drop(name))
    edited(run, put("unheard_of", value=3))
    assert torch.equal(
        salibi_model.load(run).encoder("sar").embed.weight,
        salibi_model.load(finished).encoder("sar").embed.weight,
    )
    described = describe(run)
    assert (described["mistakes"], described["base_gsd_m"]) == ([], None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("size", "depth", value=10**9), r"1000000000 blocks .* there are \d+ tensors"),
        (put("size", "decoder_depth", value=10**9), "1000000000 blocks"),
        (put("depths", value=[["sar", 10**9]]), "1000000000 blocks"),
        (put("size", "dim", value=2**20), r"embed\.weight is \(32, 512\)"),
        (put("size", "dim", value=10**30), "do not make a model"),
        (put("size", "num_heads", value=10**9), "does not divide"),
        (put("patch_px", value=10**9), "do not make a model"),
        (
            put("patch_px", value=8),
            r"encoders\.sar\.embed\.weight is \(32, 512\); the model described has \(32, 128\)",
        ),
        (
            put("size", "depth", value=4),
            r"the model has encoders\.sar\.blocks\.1\.\S+, the model\.saf",
        ),
        (
            put("objectives", value=["contrastive"]),
            r"the model\.safetensors has \S+, the model does",
        ),
        (put("modalities", 0, "name", value="a.b"), "do not make a model"),
    ],
)
def test_weights_of_another_model_are_refused_before_it_is_built(run, change, message):
    edited(run, change)
    started = time.process_time()
    with pytest.raises(CheckpointError, match=message) as caught:
        salibi_model.load(run)
    assert time.process_time() - started < 5
    one_line(caught, run)


def test_missing_and_other_weights_are_explained(run):
    weights = run / "model/model.safetensors"
    tensors = load_file(weights)
    save_file({**tensors, "log_scale": torch.ones(3)}, weights)
    with pytest.raises(CheckpointError, match=r"log_scale is \(3,\); .* has \(\)") as caught:
        salibi_model.load(run)
    one_line(caught, run)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"No such file"):
        salibi_model.load(run)
