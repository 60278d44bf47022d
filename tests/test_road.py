"""The road walked end to end: real rasters to a store to a trained model; and the documents."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.data import real_catalogs, samples
from tests.support.data.real_catalogs import needs_real
from tests.support.paths import ROOT

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def tool(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a documented command line in ``folder``."""
    name, *arguments = shlex.split(line)
    module = {"salibi-data": "data", "salibi-model": "model"}[name]
    return subprocess.run(
        [sys.executable, "-c", f"from salibi_cli.{module} import main; main()", *arguments],
        cwd=folder,
        env=samples.environment() | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def commands_in(document: Path) -> list[str]:
    """Lines of the fenced blocks that call one of our commands."""
    blocks = re.findall(r"```\w*\n(.*?)```", document.read_text(), flags=re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith(("salibi-data ", "salibi-model "))]


@needs_real
def test_real_sar_and_low_resolution_train_for_20_steps(tmp_path: Path) -> None:
    local = real_catalogs.punjab(tmp_path)
    store = tmp_path / "punjab.zarr"
    built = tool(
        f"salibi-data build --variant {local.variant} --catalog {local.catalog} -o {store}",
        tmp_path,
    )
    assert built.returncode == 0, built.stderr
    run = tmp_path / "run"
    trained = tool(
        f"salibi-model train {store} --size tiny --steps 20 --batch-size 8 --out {run}", tmp_path
    )
    assert trained.returncode == 0, trained.stderr
    lines = (run / "metrics.csv").read_text().splitlines()
    losses = [float(line.split(",")[lines[0].split(",").index("loss")]) for line in lines[1:]]
    assert len(losses) == 20
    assert sum(losses[-5:]) < sum(losses[:5])
    assert tool(f"salibi-data figure {store} -o {tmp_path / 'grid.png'}", tmp_path).returncode == 0


@needs_real
def test_real_naip_makes_a_store_that_the_tri_encoder_refuses_clearly(tmp_path: Path) -> None:
    local = real_catalogs.virginia(tmp_path)
    store = tmp_path / "virginia.zarr"
    build = f"salibi-data build --variant {local.variant} --catalog {local.catalog} -o {store}"
    assert tool(build, tmp_path).returncode == 0
    assert "as promised" in tool(f"salibi-data verify {store}", tmp_path).stdout
    refused = tool(f"salibi-model train {store} --out {tmp_path / 'run'}", tmp_path)
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


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documented_options_exist(document: Path, tmp_path: Path) -> None:
    """Each option of a documented command is one that its --help lists."""
    for line in commands_in(document):
        words = shlex.split(line)
        path = [word for word in words[1:3] if re.fullmatch(r"[a-z-]+", word)]
        known = tool(
            f"{words[0]} {' '.join(path[:2] if path[0] == 'eval' else path[:1])} --help", tmp_path
        )
        assert known.returncode == 0, line
        for word in words:
            if word.startswith("-"):
                assert re.search(rf"(^|\s|,){re.escape(word)}\b", known.stdout), (line, word)


@pytest.mark.slow
def test_the_readme_by_hand_from_first_to_last_line(tmp_path: Path) -> None:
    """The documented commands in order, as a newcomer types them; retrieval beats chance 5 times."""
    os.environ["SALIBI_CACHE"] = str(tmp_path / "cache")
    lines = commands_in(ROOT / "README.md")
    assert len(lines) >= 7
    for line in lines:
        done = tool(line, tmp_path)
        assert done.returncode == 0, (line, done.stderr)
    import json

    report = json.loads(tool(f"{lines[-1]} --json", tmp_path).stdout)
    for direction in report["directions"]:
        at_one = direction["recalls"][0]
        assert at_one["value"] >= 5 * at_one["chance"], direction
