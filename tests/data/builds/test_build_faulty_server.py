"""Whole builds against a server on which a tenth of all requests fail, in every way at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from salibi_data.builds.build import build
from salibi_data.builds.run_log import RunLog
from salibi_data.builds.status import status
from salibi_data.inspection.verify import verify
from salibi_data.plans.planner import plan
from salibi_data.store.open import open_store
from tests.support.data import samples
from tests.support.data.samples import tree
from tests.support.services.servers import FAULTS, RangeServer, serve


@pytest.fixture(scope="module")
def server(sample_catalog: Path) -> Iterator[RangeServer]:
    with serve(RangeServer(sample_catalog, seed=20261123)) as running:
        yield running


@pytest.fixture(scope="module")
def toml(
    server: RangeServer, sample_catalog: Path, tmp_path_factory: pytest.TempPathFactory
) -> str:
    return samples.served(server.url, sample_catalog, tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def calm(server: RangeServer, toml: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a build without faults."""
    store = tmp_path_factory.mktemp("calm") / "calm.zarr"
    assert not build(store, variant="micro", catalog=toml, limit=40).failures
    return store


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALIBI_HTTP_TIMEOUT_S", "0.5")
    monkeypatch.setenv("SALIBI_HTTP_BACKOFF_S", "0.05")


def log_of(store: Path) -> list[dict]:
    return [json.loads(line) for line in RunLog.path_of(store).read_text().splitlines()]


def test_a_build_through_faults_gives_the_same_bytes(
    server: RangeServer, toml: str, calm: Path, tmp_path: Path, quick: None
) -> None:
    start, server.fault_rate = len(server.log), 0.1
    try:
        report = build(tmp_path / "x.zarr", variant="micro", catalog=toml, limit=40)
    finally:
        server.fault_rate = 0.0
    assert not report.failures
    assert tree(tmp_path / "x.zarr") == tree(calm)
    suffered = [request.fault for request in server.log[start:] if request.fault]
    assert set(suffered) >= set(FAULTS) - {"403"}
    blocks = [line for line in log_of(tmp_path / "x.zarr") if line["event"] == "block"]
    assert sum(sum(line["retries"].values()) for line in blocks) == len(suffered)
    assert sum(line["samples"] for line in blocks) == 40


def test_a_file_that_is_gone_fails_its_blocks_and_no_others(
    server: RangeServer, toml: str, calm: Path, tmp_path: Path
) -> None:
    store = tmp_path / "x.zarr"
    made = plan("micro", catalog=toml, limit=40)
    quads = sorted({scene.id for choice in made.choices() for scene in choice.scenes["naip"]})
    href = made.scenes["naip"][quads[0]].hrefs["image"]
    server.gone.add(href.removeprefix(f"{server.url}/"))
    try:
        report = build(store, variant="micro", catalog=toml, limit=40)
    finally:
        server.gone.clear()
    assert {failure.kind for failure in report.failures} == {"missing"}
    assert all(href in failure.reason for failure in report.failures)
    progress = status(store)
    assert progress["failures_by_kind"] == {"missing": len(report.failures)}
    assert progress["blocks_done"] == progress["blocks"] - len(report.failures)
    verify(store)
    some, every = (open_store(path)[0] for path in (store, calm))
    rows = [every["tile"][:].tolist().index(tile) for tile in some["tile"][:].tolist()]
    assert 0 < len(rows) < every["tile"].shape[0]
    for name in ("sar", "lores", "hires", "hires_4x"):
        assert np.array_equal(some[name][:], every[name][:][rows])
    failed = [line for line in log_of(store) if line.get("kind")]
    assert {line["tile"] for line in failed} == {failure.tile for failure in report.failures}

    # The file is there again: only what failed is read, and the store is whole.
    start = len(server.log)
    assert not build(store, variant="micro", catalog=toml, limit=40).failures
    assert tree(store) == tree(calm)
    done = [line for line in log_of(store)[len(failed) :] if line["event"] == "block"]
    assert sum(line["num_requests"] for line in done[-len(failed) :]) == len(server.log) - start


def test_a_host_that_does_not_answer_ends_in_failed_blocks_not_in_waiting(
    server: RangeServer, toml: str, calm: Path, tmp_path: Path, quick: None
) -> None:
    """The host falls silent when half of the requests are answered."""
    num_requests = sum(line.get("num_requests", 0) for line in log_of(calm))
    server.plan = [""] * (num_requests // 2) + ["stall"] * 10_000
    try:
        report = build(
            tmp_path / "x.zarr", variant="micro", catalog=toml, limit=40, block_deadline_s=1.5
        )
    finally:
        server.plan = []
    assert {failure.kind for failure in report.failures} == {"timeout"}
    assert 0 < report.num_samples < open_store(calm)[0]["tile"].shape[0]
