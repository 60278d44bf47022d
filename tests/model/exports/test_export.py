"""Exported models: what is in them, what is not, and that they load and encode as before."""

from __future__ import annotations

import hashlib
import json
import re

import pytest
import torch
import yaml

import salibi_model
from salibi_data.store.errors import UsageError
from salibi_model.checkpoints.files import describe, save_model
from salibi_model.errors import CheckpointError
from salibi_model.evals.features import weights_digest
from salibi_model.evals.results import Results
from salibi_model.exports.export import export
from salibi_model.models.compatibility import check_expected, check_input, gsd_mismatch
from tests.support.model.labelled.score_rows import score_row
from tests.support.model.nano import nano_images, nano_model

TRAINING = {
    "model": "scale-alibi",
    "step": 3,
    "stores": ["/home/alice/data/micro.zarr", "s3://key:word@bucket/full.zarr?X-Sig=secret"],
    "store_digests": ["a" * 64, "b" * 64],
    "probe": "/home/alice/labelled/eurosat",
}
RGB = ("red", "green", "blue")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "model"
    save_model(nano_model(base_gsd_m=3.7).eval(), folder, training=TRAINING)
    return folder


def score(checkpoint, **fields):
    measured = {"model": "tiny|1", "value": 0.587, "low": 0.556, "high": 0.618, "num_test": 1000}
    digest = weights_digest(salibi_model.load(checkpoint))
    return score_row(**measured | {"weights_digest": digest} | fields)


def test_an_export_encodes_as_the_original(checkpoint, tmp_path):
    folder = export(checkpoint, tmp_path / "tiny")
    assert {path.name for path in folder.iterdir()} == {
        "model.safetensors",
        "config.json",
        "README.md",
    }
    models = [salibi_model.load(path) for path in (checkpoint, folder)]
    for name, images in nano_images().items():
        with torch.inference_mode():
            (tokens, vector), (again, other) = (model.encode(images, name) for model in models)
        assert torch.equal(vector, other)
        assert torch.equal(tokens, again)


def test_nothing_private_is_passed_on(checkpoint, tmp_path):
    folder = export(checkpoint, tmp_path / "tiny")
    training = describe(folder)["training"]
    assert training["stores"] == ["micro.zarr", "full.zarr"]
    assert training["store_digests"] == TRAINING["store_digests"]
    for file in (folder / "README.md", folder / "config.json"):
        text = file.read_text()
        assert not re.search(r"alice|secret|bucket|word@|/home", text), file.name


def test_the_card_says_what_the_model_takes_and_is(checkpoint, tmp_path):
    card = (export(checkpoint, tmp_path / "tiny", licence="cc-by-4.0") / "README.md").read_text()
    _, front, body = card.split("---\n", 2)
    card_facts = yaml.safe_load(front)
    assert (card_facts["library_name"], card_facts["license"]) == ("salibi", "cc-by-4.0")
    assert {"scale-alibi", "sentinel-1", "naip"} <= set(card_facts["tags"])
    assert "| `sar` | vh | dB | 0.15 | -30 | 120 | 50 | 1 | 3.7 |" in body
    assert "| `hires_4x` | red | display | 1 | 0 | 120 | 50 | 0.5 | 1.85 |" in body
    assert f"| micro.zarr | {'a' * 64} |" in body
    weights = (checkpoint / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() in body
    assert "No results were given" in body
    unstated = (export(checkpoint, tmp_path / "other") / "README.md").read_text()
    assert "license" not in unstated.split("---\n")[1]
    assert "licence of the weights is not stated" in unstated


def test_the_cards_example_runs(checkpoint, tmp_path, monkeypatch):
    card = (export(checkpoint, tmp_path / "tiny") / "README.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(block, names)  # noqa: S102 - it is our own card
    assert names["embedding"].shape == (1, 32)
    assert names["tokens"].shape == (1, 32 * 32, 32)


def test_results_of_this_model_are_in_the_card(checkpoint, tmp_path):
    results = Results(tmp_path / "results")
    outcomes = torch.ones(3).numpy()
    results.add(score(checkpoint), outcomes)
    results.add(score(checkpoint, model="stranger", weights_digest="0" * 64), outcomes)
    card = export(checkpoint, tmp_path / "tiny", results=tmp_path / "results") / "README.md"
    text = card.read_text()
    assert "58.7 (55.6-61.8)" in text
    assert "m-eurosat" in text
    assert "stranger" not in text


def test_results_of_other_models_are_refused(checkpoint, tmp_path):
    with pytest.raises(UsageError, match=r"has no results\.json"):
        export(checkpoint, tmp_path / "tiny", results=tmp_path)
    results = Results(tmp_path / "results")
    results.add(score(checkpoint, weights_digest="0" * 64), torch.ones(3).numpy())
    with pytest.raises(UsageError, match="1 rows, none of this model"):
        export(checkpoint, tmp_path / "tiny", results=tmp_path / "results")
    assert not (tmp_path / "tiny").exists()


def test_only_an_export_is_written_over(checkpoint, tmp_path):
    folder = export(checkpoint, tmp_path / "tiny")
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    export(checkpoint, folder, licence="mit")
    assert 'license: "mit"' in (folder / "README.md").read_text()
    (folder / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match=r"something else than an export \(README.md, config"):
        export(checkpoint, folder)
    other = tmp_path / "run/model"
    save_model(nano_model(seed=1), other, training={})
    before = (other / "config.json").read_bytes()
    with pytest.raises(UsageError, match="something else than an export"):
        export(checkpoint, other)
    with pytest.raises(UsageError, match="is the model itself"):
        export(checkpoint, checkpoint)
    assert (other / "config.json").read_bytes() == before
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        export(checkpoint, tmp_path / "file")


def test_an_export_that_was_stopped_is_finished(checkpoint, tmp_path):
    whole = export(checkpoint, tmp_path / "a/tiny")
    unfinished = tmp_path / "b/tiny"
    unfinished.mkdir(parents=True)
    (unfinished / "README.md").write_bytes((whole / "README.md").read_bytes())
    (unfinished / ".model.safetensors.partial").write_bytes(b"half")
    export(checkpoint, unfinished)
    for name in ("README.md", "config.json", "model.safetensors"):
        assert (unfinished / name).read_bytes() == (whole / name).read_bytes()


def test_a_damaged_model_is_not_passed_on(tmp_path):
    save_model(nano_model(), tmp_path / "model", training={})
    file = tmp_path / "model/model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="damaged"):
        export(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="no name of one"):
        export(tmp_path, tmp_path / "out", licence="CC BY: yes")


def test_a_model_of_unknown_origin_is_exported(tmp_path):
    """A converted one knows neither metres nor stores."""
    save_model(nano_model(gsd_scaling=False), tmp_path / "model", training={})
    card = (export(tmp_path / "model", tmp_path / "out") / "README.md").read_text()
    assert "not known" in card
    assert "Nothing is stated" in card
    assert "counted in patches" in card
    assert json.loads((tmp_path / "out/config.json").read_text())["training"] == {}


# -- what a model takes


CONFIG = nano_model(base_gsd_m=3.7).config


@pytest.mark.parametrize(
    ("modality", "given", "changed"),
    [
        ("lores", {"bands": RGB, "units": "display", "gsd_m": 10.0}, {"gsd_m": 30.0}),
        ("lores", {"bands": RGB, "units": "display", "gsd_m": 10.0}, {"bands": RGB[::-1]}),
        ("sar", {"bands": ("VV", "VH"), "units": "stored"}, {"units": "dB"}),
        ("hires_4x", {"bands": RGB, "gsd_m": 1.85}, {"gsd_m": 0.23}),
        ("sar", {}, {"bands": ("vv",)}),
    ],
)
def test_images_as_in_training_are_taken_and_one_difference_is_not(modality, given, changed):
    check_input(CONFIG, modality, **given)
    check_expected(CONFIG, {modality: given})
    for check in (
        lambda fields: check_input(CONFIG, modality, **fields),
        lambda fields: check_expected(CONFIG, {"lores": {}, modality: fields}),
    ):
        with pytest.raises(UsageError, match=modality):
            check(given | changed)


@pytest.mark.parametrize(
    ("modality", "given", "words"),
    [
        ("lores", {"bands": ("blue", "green", "red")}, "red, green, blue in this order; got blue"),
        ("lores", {"bands": ("red", "green", "nir")}, r"got red, green, nir \(without blue\)"),
        ("lores", {"bands": (*RGB, "nir")}, "got red, green, blue, nir. Give exactly those"),
        ("sar", {"units": "dB"}, r"not dB: convert them first \(vv: \(dB - -30\) / 0.15, vh: "),
        ("sar", {"units": "display"}, "trained on dB, stored as 0..255; got 'display'"),
        ("lores", {"units": "reflectance"}, "trained on display.*got 'reflectance'"),
        ("lores", {"gsd_m": 100.0}, r"27 times coarser.*\(3.7 m\).*between 0.463 and 29.6 m"),
        ("hires_4x", {"gsd_m": 0.1}, "18.5 times finer"),
        ("lores", {"gsd_m": 0.0}, "expected a number above 0"),
        ("lores", {"gsd_m": float("nan")}, "expected a number above 0"),
        ("hires", {}, "no modality 'hires'"),
    ],
)
def test_other_images_are_refused_in_words(modality, given, words):
    with pytest.raises(UsageError, match=words):
        check_input(CONFIG, modality, **given)


def test_any_gsd_is_taken_where_it_is_wanted_or_nothing_is_known():
    assert gsd_mismatch(CONFIG, "lores", 100.0).startswith("images of 100 m per pixel are 27 times")
    check_input(CONFIG, "lores", gsd_m=100.0, any_gsd=True)
    with pytest.raises(UsageError, match="27 times coarser"):
        check_input(CONFIG, "lores", gsd_m=100.0)
    unknown = nano_model().config
    assert gsd_mismatch(unknown, "lores", 100.0) is None
    check_input(unknown, "lores", gsd_m=100.0)
    with pytest.raises(UsageError, match="expected a number above 0"):
        check_input(unknown, "lores", gsd_m=-1.0, any_gsd=True)


def test_a_misspelt_expectation_is_refused():
    with pytest.raises(UsageError, match="got 'band'"):
        check_expected(CONFIG, {"lores": {"band": RGB}})


def test_a_model_is_loaded_for_what_it_was_trained_on(checkpoint):
    right = {"lores": {"bands": RGB, "units": "display", "gsd_m": 3.7}}
    assert salibi_model.load(checkpoint, expect=right).config == CONFIG
    with pytest.raises(UsageError, match="lores"):
        salibi_model.load(checkpoint, expect={"lores": {"bands": ("red", "green", "nir")}})
    with pytest.raises(UsageError, match="dB"):
        salibi_model.load(checkpoint, expect={"sar": {"units": "linear power"}})
