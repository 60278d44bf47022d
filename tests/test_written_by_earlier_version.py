"""Data written by an earlier version open, resume and finish with this one.

The README of the folder ``written_by_0.1.0`` says what the folder holds and how it was made. Users have
such data on their disks: where a test fails, users would lose them.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import zarr

import salibi_model
from salibi_data import __version__
from salibi_model.models.config import SIZES, Size

WRITTEN_BY = "0.1.0"
DATA = Path(__file__).parent / f"written_by_{WRITTEN_BY}"
PROJECT = next(p for p in Path(__file__).parents if (p / "pyproject.toml").is_file())
COMMANDS = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["scripts"]

MODEL_SIZE = Size(dim=8, depth=1, num_heads=2, decoder_dim=8, decoder_heads=2)
"""Size of the model in ``run``, smaller than any size of the command line."""
TRAINING = (
    *("--steps", 6, "--batch-size", 4, "--crop-px", 64, "--patch-px", 8, "--checkpoint-every", 3),
    *("--keep-checkpoints", 1, "--validation-samples", 4, "--no-stop-on-collapse"),
)
"""Options that ``run`` was started with."""
ROUNDING = {"rtol": 1e-3, "atol": 1e-4}
"""Tolerances of 32-bit sums, whose order depends on the processor."""


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Copy of the folder that tests work in; its paths are relative."""
    shutil.copytree(DATA, tmp_path / "written")
    monkeypatch.chdir(tmp_path / "written")
    monkeypatch.setitem(SIZES, "tiny", MODEL_SIZE)
    return tmp_path / "written"


@pytest.fixture
def run(monkeypatch, capsys):
    """Run one of the two commands, as `pyproject.toml` names them; gives what it prints."""

    def command(*words):
        monkeypatch.setattr(sys, "argv", [str(word) for word in words])
        module, _, function = COMMANDS[words[0]].partition(":")
        with pytest.raises(SystemExit) as ended:
            getattr(import_module(module), function)()
        printed = capsys.readouterr()
        assert ended.value.code == 0, printed.err
        return json.loads(printed.out) if "--json" in words else printed.out

    return command


def files_of(folder):
    """The content of every file below a folder, by its path in it."""
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def assert_same_store(one, other):
    """Two stores hold the same, whatever versions wrote and compressed them."""
    a, b = (zarr.open_group(path, mode="r") for path in (one, other))
    assert sorted(a.array_keys()) == sorted(b.array_keys())
    for name in a.array_keys():
        assert np.array_equal(a[name][:], b[name][:], equal_nan=name == "cloud_fraction"), name
    said, meant = (dict(group.attrs["salibi"]) for group in (a, b))
    del said["software_version"], meant["software_version"]
    assert_alike(said, meant)
    tables = [pq.read_table(path / "samples.parquet").to_pylist() for path in (one, other)]
    assert_alike(*tables)


def assert_alike(a, b):
    """Two nested values are equal; numbers up to their rounding, of tensors as of others."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for name in a:
            assert_alike(a[name], b[name])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            assert_alike(one, other)
    elif isinstance(a, torch.Tensor) and a.is_floating_point():
        torch.testing.assert_close(a, b, **ROUNDING)
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    else:
        assert a == (pytest.approx(b, nan_ok=True) if isinstance(b, float) else b)


def test_a_store_is_read_verified_and_trained_on(written, run):
    told = run("salibi-data", "info", "finished.zarr", "--json")
    assert (told["samples"], told["splits"]) == (8, {"train": 4, "validation": 4, "test": 0})
    checked = run(
        *("salibi-data", "verify", "finished.zarr", "--json"),
        *("--against-source", 2, "--catalog", "provider.toml"),
    )
    assert (checked["samples"], checked["against_source"]["samples"]) == (8, 2)
    assert checked["against_source"]["max_difference"] <= 1
    run(
        *("salibi-model", "train", "finished.zarr", *TRAINING, "--steps", 1),
        *("--out", "new", "--device", "cpu"),
    )
    assert (written / "new" / "model" / "model.safetensors").is_file()


def test_a_part_of_a_store_says_where_it_is_from_and_is_merged(written, run):
    told = run("salibi-data", "info", "part.zarr", "--json")
    assert told["made_from"]["how"] == "subset"
    assert run("salibi-data", "verify", "part.zarr", "--json")["samples"] == 4
    rest = ("--modalities", "sar,lores", "-o", "rest.zarr", "--json")
    run("salibi-data", "subset", "finished.zarr", *rest)
    merged = run("salibi-data", "merge", "part.zarr", "rest.zarr", "-o", "both.zarr", "--json")
    assert (merged["samples"], merged["duplicates"]) == (8, 4)
    assert merged["duplicates_of_same_dates_that_differ"] == 0


def test_a_release_is_verified_pulled_and_not_sent_again(written, run):
    before = files_of(written / "release")
    assert run("salibi-data", "verify", "release", "--json")["samples"] == 8
    run("salibi-data", "pull", "release", "pulled.zarr", "--json")
    assert files_of(written / "pulled.zarr") == files_of(written / "finished.zarr")
    again = run("salibi-data", "publish", "finished.zarr", "release", "--json")
    assert again["before"] == again["release"]
    after = files_of(written / "release")
    assert {name: after[name] for name in before} == before


def test_a_plan_gives_the_store_that_it_gave(written, run):
    run("salibi-data", "build", "--plan", "plan/plan.parquet", "-o", "built.zarr", "--json")
    assert_same_store(written / "built.zarr", written / "finished.zarr")


def test_a_finished_store_is_known_as_that_of_its_plan(written, run):
    before = files_of(written / "finished.zarr")
    told = run(
        "salibi-data", "build", "--plan", "plan/plan.parquet", "-o", "finished.zarr", "--json"
    )
    assert told["was_complete"]
    assert files_of(written / "finished.zarr") == before


def test_an_unfinished_build_is_finished_with_the_same_bytes(written, run):
    told = run("salibi-data", "status", "unfinished.zarr", "--json")
    # Blocks of another version are made again.
    there = 1 if __version__ == WRITTEN_BY else 0
    assert (told["blocks"], told["blocks_done"], told["finished"]) == (2, there, False)
    for name in ("unfinished", "built"):
        run(
            *("salibi-data", "build", "--plan", "plan/plan.parquet"),
            *("-o", f"{name}.zarr", "--json"),
        )
    assert files_of(written / "unfinished.zarr") == files_of(written / "built.zarr")
    assert_same_store(written / "unfinished.zarr", written / "finished.zarr")
    log = (written / "unfinished.zarr.log.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in log].count("block") == 3 - there


def test_a_run_goes_on_as_if_it_had_never_been_stopped(written, run):
    begun = state_of(written / "run")
    train = ("salibi-model", "train", "finished.zarr", "--size", "tiny", "--device", "cpu")
    run(*train, *TRAINING, "--out", "whole")
    assert "went on from step 3" in run(*train[:2], "--resume", "--out", "run", "--device", "cpu")
    resumed = state_of(written / "run")
    assert (begun["step"], resumed["step"]) == (3, 6)
    assert_alike(resumed, state_of(written / "whole"))
    logs = [rows_of(written / name / "metrics.csv") for name in ("run", "whole")]
    assert [row["step"] for row in logs[0]] == [str(step) for step in range(1, 7)]
    losses = [[float(row["loss"]) for row in rows] for rows in logs]
    assert losses[0] == pytest.approx(losses[1], rel=ROUNDING["rtol"])
    again = "salibi-model", "train", "finished.zarr", *TRAINING, "--out", "run", "--device", "cpu"
    assert "is complete" in run(*again)


@pytest.mark.parametrize("name", ["run", "exported"])
def test_a_model_gives_the_embeddings_that_it_gave(written, run, name):
    assert run("salibi-model", "info", name, "--json")["training"]["step"] == 3
    model = salibi_model.load(name)
    store, embedded = (zarr.open_group(n, mode="r") for n in ("finished.zarr", "embeddings"))
    for modality in ("sar", "lores", "hires_4x"):
        images = torch.from_numpy(store[modality][:])
        with torch.inference_mode():
            tokens, vectors = model.encode(images, modality)
        assert tokens.shape == (8, images.shape[-1] ** 2 // 64, 8)
        expected = torch.from_numpy(embedded[modality]["embedding"][:])
        torch.testing.assert_close(vectors, expected, **ROUNDING)


def test_embeddings_are_read_and_known_as_complete(written, run):
    before = files_of(written / "embeddings")
    table = pq.read_table("embeddings/embeddings.parquet").to_pylist()
    group = zarr.open_group("embeddings", mode="r")
    assert [row["modality"] for row in table] == 8 * ["sar"] + 8 * ["lores"] + 8 * ["hires_4x"]
    for row in table:
        vector = group[row["modality"]]["embedding"][row["row"]]
        assert np.array_equal(row["embedding"], vector)
    if __version__ == WRITTEN_BY:  # those of another version are left alone
        again = ("salibi-model", "embed", "run", "finished.zarr", "-o", "embeddings", "--json")
        told = run(*again, "--device", "cpu")
        assert told["already_complete"]
        assert told["num_rows"] == {"sar": 8, "lores": 8, "hires_4x": 8}
    assert files_of(written / "embeddings") == before


@pytest.mark.skipif(__version__ != WRITTEN_BY, reason="those of another version are left alone")
def test_unfinished_embeddings_are_finished(written, run):
    kept = files_of(written / "unfinished_embeddings.building" / "result" / "sar")
    embed = ("salibi-model", "embed", "run", "finished.zarr", "-o", "unfinished_embeddings")
    assert not run(*embed, "--json", "--device", "cpu")["already_complete"]
    one, other = (zarr.open_group(n, mode="r") for n in ("unfinished_embeddings", "embeddings"))
    assert dict(one.attrs) == dict(other.attrs)
    for modality in ("sar", "lores", "hires_4x"):
        for name in other[modality].array_keys():
            assert_alike(*(torch.from_numpy(g[modality][name][:]) for g in (one, other)))
    chunk = Path("embedding/c/0/0")
    assert files_of(written / "unfinished_embeddings" / "sar")[chunk] == kept[chunk]


def test_rows_of_results_are_kept(written, run):
    before = json.loads((written / "results" / "results.json").read_text())
    retrieval = ("salibi-model", "eval", "retrieval", "run", "--data", "finished.zarr")
    run(*retrieval, "--split", "train", "-o", "results", "--json", "--device", "cpu")
    after = json.loads((written / "results" / "results.json").read_text())
    assert len(after) == 2 * len(before)
    assert all(row in after for row in before)


def state_of(folder):
    """The newest checkpoint of a run."""
    name = (folder / "last").read_text().strip()
    return torch.load(folder / "checkpoints" / name, weights_only=True)


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
