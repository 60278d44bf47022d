"""The road walked end to end: real rasters to a store to a trained model; and the documents."""

from __future__ import annotations

import json
import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from tests.support.command_line import run_here, run_line, run_process
from tests.support.data import real_catalogs
from tests.support.data.real_catalogs import needs_real
from tests.support.paths import ROOT

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands_in(document: Path) -> list[str]:
    """Lines of the fenced blocks that call one of our commands."""
    blocks = re.findall(r"```\w*\n(.*?)```", document.read_text(), flags=re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith(("salibi-data ", "salibi-model "))]


@needs_real
def test_real_sar_and_low_resolution_train_for_20_steps(tmp_path: Path) -> None:
    local = real_catalogs.punjab(tmp_path)
    store = tmp_path / "punjab.zarr"
    built = run_line(
        f"salibi-data build --variant {local.variant} --catalog {local.catalog} -o {store}",
        tmp_path,
    )
    assert built.returncode == 0, built.stderr
    run = tmp_path / "run"
    trained = run_line(
        f"salibi-model train {store} --size tiny --steps 20 --batch-size 8 --out {run}", tmp_path
    )
    assert trained.returncode == 0, trained.stderr
    lines = (run / "metrics.csv").read_text().splitlines()
    losses = [float(line.split(",")[lines[0].split(",").index("loss")]) for line in lines[1:]]
    assert len(losses) == 20
    assert sum(losses[-5:]) < sum(losses[:5])
    assert (
        run_line(f"salibi-data figure {store} -o {tmp_path / 'grid.png'}", tmp_path).returncode == 0
    )


@needs_real
def test_real_naip_makes_a_store_that_the_tri_encoder_refuses_clearly(tmp_path: Path) -> None:
    local = real_catalogs.virginia(tmp_path)
    store = tmp_path / "virginia.zarr"
    build = f"salibi-data build --variant {local.variant} --catalog {local.catalog} -o {store}"
    assert run_line(build, tmp_path).returncode == 0
    assert "as promised" in run_line(f"salibi-data verify {store}", tmp_path).stdout
    refused = run_line(f"salibi-model train {store} --out {tmp_path / 'run'}", tmp_path)
    assert refused.returncode == 2
    assert "needs two modalities" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_documented_python_runs(
    micro_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "micro.zarr").symlink_to(micro_store)
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "format.md").read_text(), flags=re.DOTALL
    )
    names: dict[str, object] = {}
    exec(block, names)  # noqa: S102 - it is our own documentation
    assert names["image"].shape == (3, 256, 256)
    assert -26 < float(names["decibel"].mean()) < 0


@cache
def help_of(*words: str) -> str:
    """Output of a command's --help."""
    done = run_here(*words, "--help")
    assert done.returncode == 0, words
    return done.stdout


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documented_options_exist(document: Path) -> None:
    """Each option of a documented command is one that its --help lists."""
    for line in commands_in(document):
        words = shlex.split(line)
        path = [word for word in words[1:3] if re.fullmatch(r"[a-z-]+", word)]
        known = help_of(words[0], *(path[:2] if path[0] == "eval" else path[:1]))
        for word in words:
            # "-0.1" is the value of an option.
            if re.match(r"-[^\d.]", word):
                assert re.search(rf"(^|\s|,){re.escape(word)}\b", known), (line, word)


@pytest.mark.slow
def test_the_readme_by_hand_from_first_to_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The documented commands in order, as a newcomer types them; retrieval beats chance 5 times."""
    monkeypatch.setenv("SALIBI_CACHE", str(tmp_path / "cache"))
    lines = commands_in(ROOT / "README.md")
    assert len(lines) >= 7
    for line in lines:
        done = run_process(*shlex.split(line), folder=tmp_path)
        assert done.returncode == 0, (line, done.stderr)
    report = json.loads(run_process(*shlex.split(lines[-1]), "--json", folder=tmp_path).stdout)
    for direction in report["directions"]:
        at_one = direction["recalls"][0]
        assert at_one["value"] >= 5 * at_one["chance"], direction
